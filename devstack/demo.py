"""Sample pictures through real Airflow, twice, held against what must come out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from devstack.errors import DevstackError
from devstack.layout import Layout, State
from devstack.runs import Run, keep, run_dag
from devstack.samples import EXPECTED, IMAGE_BUCKET, SAMPLES, client, seed, size

DAG_ID = "pyramid_tiff"
RUN_SECONDS = 120


@dataclass(frozen=True)
class Row:
    """One picture in one run: what became of it, and what had to."""

    key: str
    expected: str
    state: str
    reason: str = ""
    detail: Mapping[str, Any] | None = None

    @property
    def right(self) -> bool:
        """Whether it is as expected."""
        return self.state == self.expected


def demo(layout: Layout, state: State, *, fresh: bool) -> bool:
    """Run the demo on a running stack, print the results and save them to build/demo/.

    On a stack that is not `fresh` the first run is forced: the samples may be up to date.

    Returns:
        Whether every outcome is as expected.
    """
    start = monotonic()
    target = layout.build / "demo"
    shutil.rmtree(target, ignore_errors=True)
    endpoint = state.url("moto")
    seed(endpoint)
    print(f"\nFirst run: {len(SAMPLES)} new pictures, each with its note.", flush=True)
    first = _run(layout, state, {} if fresh else {"force": True}, target / "first", EXPECTED)
    print("\nSecond run: the same pictures by their prefix. Nothing has changed.", flush=True)
    again = {key: "skipped" if end == "done" else end for key, end in EXPECTED.items()}
    second = _run(layout, state, {"prefix": "digital/"}, target / "second", again)
    pyramids = _save_pyramids(endpoint, target / "pyramids")
    print(_table(first, second), flush=True)
    right = all(row.right for row in first + second) and pyramids >= sum(
        end == "done" for end in EXPECTED.values()
    )
    took = f"{monotonic() - start:.0f} s"
    print(f"\nAs expected, after {took}." if right else f"\nNOT as expected, after {took}.")
    print(f"The {pyramids} pyramids, reports, outcomes and task logs: {target}")
    return right


def _run(
    layout: Layout, state: State, conf: dict[str, Any], target: Path, expected: Mapping[str, str]
) -> list[Row]:
    run = run_dag(layout, state, DAG_ID, conf, RUN_SECONDS)
    folder = keep(layout, run, target)
    outcomes = _outcomes(run, folder)
    rows = []
    for key, end in expected.items():
        outcome = outcomes.get(key, {"state": "missing", "reason": "no outcome in the report"})
        rows.append(
            Row(key, end, outcome["state"], outcome.get("reason", ""), outcome.get("detail"))
        )
    return rows


def _outcomes(run: Run, folder: Path) -> dict[str, dict[str, Any]]:
    """The run's outcomes by key; the report's own counts have to agree with them."""
    try:
        lines = (folder / "outcomes.jsonl").read_text().splitlines()
        report = json.loads((folder / "report.json").read_text())
    except FileNotFoundError as error:
        raise DevstackError(
            f"The run {run.run_id} of {run.dag_id} ended {run.state} without a report "
            f"({error.filename}). Its task logs are in {folder / 'logs'}."
        ) from error
    outcomes = {outcome["key"]: outcome for outcome in map(json.loads, lines)}
    if not len(outcomes) == report["planned"] == sum(report["counts"].values()):
        raise DevstackError(
            f"The report does not add up: {report['planned']} planned, {report['counts']}, "
            f"{len(outcomes)} outcomes. See {folder}."
        )
    return outcomes


def _save_pyramids(endpoint: str, target: Path) -> int:
    s3 = client(endpoint)
    saved = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=IMAGE_BUCKET):
        for entry in page.get("Contents", ()):
            file = target / entry["Key"]
            file.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(IMAGE_BUCKET, entry["Key"], str(file))
            saved += 1
    return saved


def _table(first: list[Row], second: list[Row]) -> str:
    sizes = {sample.key: size(sample.data()) for sample in SAMPLES}
    lines = [("picture", "source", "pyramid", "first run", "second run", "reason")]
    for one, two in zip(first, second, strict=True):
        lines.append((one.key, sizes[one.key], _pyramid(one), _cell(one), _cell(two), one.reason))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    cells = [[*map(str.ljust, line, widths), line[5]] for line in lines]
    return "\n" + "\n".join("  ".join(line) for line in cells)


def _cell(row: Row) -> str:
    return row.state if row.right else f"{row.state} (expected {row.expected})"


def _pyramid(row: Row) -> str:
    """`4000 × 3488, 4 levels`, as far as the outcome tells."""
    detail = row.detail or {}
    width, height = detail.get("width"), detail.get("height")
    parts = [f"{width} × {height}"] if width and height else []
    if pages := detail.get("pages"):
        parts.append(f"{pages} level{'s' if pages > 1 else ''}")
    return ", ".join(parts)
