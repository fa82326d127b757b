"""A drive of store pictures, uploaded, brought into the shop's bucket, and a sync taken back."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devstack.demo_runs import DemoRuns
from devstack.layout import Layout, State
from devstack.results import save_bucket
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

LADDER = {"mapping": "width_folders", "transform": "photo_ladder"}
REMOVING = {**LADDER, "mode": "sync", "delete": True}


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
    demo = DemoRuns(layout, state, target)
    demo.run("Stores: a drive is uploaded.", "store_photo_upload", {}, done=len(UPLOADED))
    rejected = {line.partition("\t")[0] for line in demo.lines("error.txt")}
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
    return demo.tell(facts)


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
