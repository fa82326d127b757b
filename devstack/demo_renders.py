"""A dress in every colour: layers, composites, what breaks in the bucket, and how it is mended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from devstack.demo_runs import DemoRuns
from devstack.layout import Layout, State
from devstack.renders import BUCKET, COLOURS, STYLE, seed_renders
from devstack.results import outcomes_of, save_bucket
from devstack.samples import client

COMPOSITES = f"renders/composites/{STYLE}"
LOST = f"{COMPOSITES}/800x800/default-maxi-front-0006.png"
HALVED = f"{COMPOSITES}/142x142/default-mini-back-0013.png"
PLAIN = {"prefix": "default-", "images_per_task": 54}
"""The plain dress: three lengths, two sides."""


def renders(layout: Layout, state: State, target: Path) -> bool:
    """Run `render_layers`, `render_composites` and `render_verify` on the sample style.

    Returns:
        Whether everything came out as expected.
    """
    endpoint = state.url("moto")
    s3 = client(endpoint)
    seed_renders(endpoint, layout.renders)
    _empty(s3)
    demo = DemoRuns(layout, state, target)
    plain = 6 * len(COLOURS)
    demo.run(
        "Renders: the layers of a neckline are brought to the bucket.",
        "render_layers",
        {"prefix": "t1/", "images_per_task": 18},
        done=2 * len(COLOURS),
    )
    demo.run(
        "The plain dress is composited in every length and colour, in four cuts.",
        "render_composites",
        PLAIN,
        done=plain,
    )
    sheets = demo.folder / "contact_sheet" / "index.html"
    shown = sheets.is_file()
    save_bucket(endpoint, BUCKET, target / "bucket")
    whole = {key: _bytes(s3, key) for key in (LOST, HALVED)}
    s3.delete_object(Bucket=BUCKET, Key=LOST)
    s3.put_object(Bucket=BUCKET, Key=HALVED, Body=whole[HALVED][: len(whole[HALVED]) // 2])
    verify = demo.run(
        "One file is deleted and one is cut in half: both are found.",
        "render_verify",
        PLAIN,
        "failed",
        done=plain - 2,
        failed=2,
    )
    found = {
        wrong["key"]
        for outcome in outcomes_of(verify, demo.folder).values()
        for wrong in outcome["detail"].get("wrong", ())
    }
    failed = f"{verify.report.rpartition('/')[0]}/failed.jsonl"
    demo.run(
        "Run again from what failed, they are as they were.",
        "render_composites",
        {"manifest_uri": failed},
        done=2,
    )
    facts = {
        "verification named exactly those two": {key.rpartition("/")[2] for key in found}
        == {key.rpartition("/")[2] for key in whole},
        "mended, byte for byte": {key: _bytes(s3, key) for key in whole} == whole,
        "there are contact sheets to look through": shown,
    }
    if shown:
        print(f"Contact sheets: {sheets}")
    return demo.tell(facts)


def _empty(s3: Any) -> None:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for found in page.get("Contents", ()):
            s3.delete_object(Bucket=BUCKET, Key=found["Key"])


def _bytes(s3: Any, key: str) -> bytes:
    data: bytes = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return data
