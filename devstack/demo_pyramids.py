"""Sample pictures made into pyramids, twice, held against what must come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.layout import Layout, State
from devstack.results import outcomes_of, save_bucket
from devstack.runs import keep, run_dag
from devstack.samples import EXPECTED, IMAGE_BUCKET, SAMPLES, seed, size

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


def pyramids(layout: Layout, state: State, target: Path, *, fresh: bool) -> bool:
    """Run `pyramid_tiff` on the samples and save the results below `target`.

    On a stack that is not `fresh` the first run is forced: the samples may be up to date.

    Returns:
        Whether every outcome is as expected.
    """
    endpoint = state.url("moto")
    seed(endpoint)
    print(f"\nPyramids, first run: {len(SAMPLES)} new pictures, each with its note.", flush=True)
    first = _run(layout, state, {} if fresh else {"force": True}, target / "first", EXPECTED)
    print("\nSecond run: the same pictures by their prefix. Nothing has changed.", flush=True)
    again = {key: "skipped" if end == "done" else end for key, end in EXPECTED.items()}
    second = _run(layout, state, {"prefix": "digital/"}, target / "second", again)
    saved = save_bucket(endpoint, IMAGE_BUCKET, target / "pyramids")
    print(_table(first, second), flush=True)
    return all(row.right for row in first + second) and saved >= sum(
        end == "done" for end in EXPECTED.values()
    )


def _run(
    layout: Layout, state: State, conf: dict[str, Any], target: Path, expected: Mapping[str, str]
) -> list[Row]:
    run = run_dag(layout, state, DAG_ID, conf, RUN_SECONDS)
    folder = keep(layout, run, target)
    outcomes = outcomes_of(run, folder)
    rows = []
    for key, end in expected.items():
        outcome = outcomes.get(key, {"state": "missing", "reason": "no outcome in the report"})
        rows.append(
            Row(key, end, outcome["state"], outcome.get("reason", ""), outcome.get("detail"))
        )
    return rows


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
