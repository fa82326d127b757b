"""A drive of store pictures, uploaded, brought into the shop's bucket, and a sync taken back."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.layout import Layout, State
from devstack.results import outcomes_of, save_bucket
from devstack.runs import Run, keep, run_dag
from devstack.samples import client, jpeg_of
from devstack.stores import (
    BUCKETS,
    ORIGINALS_BUCKET,
    REJECTED,
    REMOVED,
    REPLACED,
    STORE_BUCKET,
    UPLOADED,
    fill,
)

RUN_SECONDS = 120
LADDER = {"mapping": "width_folders", "transform": "photo_ladder"}
REMOVING = {**LADDER, "mode": "sync", "delete": True}


@dataclass(frozen=True)
class Row:
    """A run of the demo, what became of it, and what had to."""

    what: str
    state: str
    counts: Mapping[str, int]
    expected_state: str
    expected: Mapping[str, int]

    @property
    def right(self) -> bool:
        """Whether it is as expected."""
        return self.state == self.expected_state and self.counts == self.expected


class _Demo:
    """The demo's runs, one after the other."""

    def __init__(self, layout: Layout, state: State, target: Path) -> None:
        self._layout = layout
        self._state = state
        self._target = target
        self.rows: list[Row] = []

    def run(
        self, what: str, dag_id: str, conf: dict[str, Any], state: str = "success", **expected: int
    ) -> Run:
        """Run a DAG and note what came of it."""
        print(f"\n{what}", flush=True)
        run = run_dag(self._layout, self._state, dag_id, conf, RUN_SECONDS)
        folder = keep(self._layout, run, self._target / f"{len(self.rows) + 1}-{dag_id}")
        counts: dict[str, int] = {}
        if expected:
            for outcome in outcomes_of(run, folder).values():
                counts[outcome["state"]] = counts.get(outcome["state"], 0) + 1
        self.rows.append(Row(what, run.state, counts, state, expected))
        return run

    def rejected(self) -> set[str]:
        """The keys in error.txt of the last run."""
        file = max(self._target.glob("*/error.txt"), key=lambda path: path.stat().st_mtime_ns)
        return {line.partition("\t")[0] for line in file.read_text().splitlines()}


def stores(layout: Layout, state: State, target: Path) -> bool:
    """Run `store_photo_upload`, `store_bucket_sync` and `sync_undo` on a sample drive.

    Returns:
        Whether everything came out as expected.
    """
    endpoint = state.url("moto")
    s3 = client(endpoint)
    _empty(s3)
    shutil.rmtree(layout.upload, ignore_errors=True)
    fill(layout.upload)
    demo = _Demo(layout, state, target)
    demo.run("Stores: a drive is uploaded.", "store_photo_upload", {}, done=len(UPLOADED))
    rejected = demo.rejected()
    demo.run(
        "Into the shop's bucket: every picture in its widths, with a watermark.",
        "store_bucket_sync",
        LADDER,
        done=len(UPLOADED) - 1,
        quarantined=1,
    )
    before = _snapshot(s3, STORE_BUCKET)
    save_bucket(endpoint, STORE_BUCKET, target / "store")
    s3.delete_object(Bucket=ORIGINALS_BUCKET, Key=REMOVED)
    s3.put_object(Bucket=ORIGINALS_BUCKET, Key=REPLACED, Body=jpeg_of("retina.jpg"))
    demo.run(
        "A picture left the source: removing a quarter of the shop is refused.",
        "store_bucket_sync",
        REMOVING,
        "failed",
    )
    refused = _snapshot(s3, STORE_BUCKET) == before
    sync = demo.run(
        "Allowed on purpose: it goes to the trash, and the changed one is made again.",
        "store_bucket_sync",
        {**REMOVING, "max_delete_ratio": 0.3},
        done=2,
        quarantined=1,
    )
    changed = _snapshot(s3, STORE_BUCKET) != before
    undo = {"mode": "undo", "run_id": sync.run_id, "images_per_task": 100}
    demo.run("That run is taken back.", "sync_undo", undo, done=_differing(s3, before))
    after = _snapshot(s3, STORE_BUCKET) == before
    facts = {
        "rejected by name, as they must be": rejected == REJECTED,
        "nothing touched by the refused run": refused,
        "changed by the allowed one": changed,
        "the same again after undoing, object for object": after,
    }
    print(_table(demo.rows, facts), flush=True)
    return all(row.right for row in demo.rows) and all(facts.values())


def _differing(s3: Any, before: Mapping[str, Any]) -> int:
    """How many objects there are to restore or withdraw."""
    now = _snapshot(s3, STORE_BUCKET)
    return sum(before.get(key) != now.get(key) for key in before.keys() | now.keys())


def _empty(s3: Any) -> None:
    for bucket in BUCKETS:
        s3.create_bucket(Bucket=bucket)
        for key in _snapshot(s3, bucket):
            s3.delete_object(Bucket=bucket, Key=key)


def _snapshot(s3: Any, bucket: str) -> dict[str, tuple[Any, ...]]:
    """Every object: ETag, content type and metadata."""
    found = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", ()):
            head = s3.head_object(Bucket=bucket, Key=entry["Key"])
            found[entry["Key"]] = (head["ETag"], head["ContentType"], head["Metadata"])
    return found


def _table(rows: list[Row], facts: Mapping[str, bool]) -> str:
    lines = [""]
    for row in rows:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(row.counts.items()))
        wrong = "" if row.right else f"   NOT AS EXPECTED: {row.expected_state} {row.expected}"
        lines.append(f"{row.state:<8} {counts or '-':<28} {row.what}{wrong}")
    lines += [f"{'yes' if true else 'NO':<8} {what}" for what, true in facts.items()]
    return "\n".join(lines)
