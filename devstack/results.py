"""What runs of the demo leave, read and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from devstack.errors import DevstackError
from devstack.runs import Run
from devstack.samples import client


def outcomes_of(run: Run, folder: Path) -> dict[str, dict[str, Any]]:
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


def save_bucket(endpoint: str, bucket: str, target: Path) -> int:
    """Download every object of a bucket below `target`; returns their number."""
    s3 = client(endpoint)
    saved = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", ()):
            file = target / entry["Key"]
            file.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, entry["Key"], str(file))
            saved += 1
    return saved
