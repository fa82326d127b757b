"""Runs of the syncs' DAGs, between real buckets and a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from devstack.samples import client
from imagecore.s3 import Bucket
from imageflows.hooks import s3
from tests.faults import FaultProxy
from tests.integration.dag_runs import Ran, connection, run_dag
from tests.objects import Kept, impatient, new_bucket_of, put, snapshot

OPEN = {"max_delete": 1_000_000, "max_delete_ratio": 1.0}
"""Limits that refuse nothing."""

REMOVE = {"mode": "sync", "delete": True, **OPEN}
"""All that a sync may do."""

DRESSED = {"ContentType": "image/gif", "CacheControl": "max-age=9", "Metadata": {"by": "Bob"}}


@dataclass
class Run:
    """A run that ended; `said` is all that its tasks logged."""

    ran: Ran
    said: str

    @property
    def state(self) -> str:
        return self.ran.state

    @property
    def id(self) -> str:
        return self.ran.run_id

    @property
    def ends(self) -> dict[str, str]:
        """The state of each key."""
        return {key: outcome["state"] for key, outcome in self.ran.outcomes.items()}

    def reason(self, key: str) -> str:
        return self.ran.outcomes[key]["reason"]

    def report(self) -> dict[str, Any]:
        return json.loads((self.ran.folder / "report.json").read_text())

    def lines(self, name: str) -> list[str]:
        """The lines of one of its lists."""
        return (self.ran.folder / f"{name}.txt").read_text().splitlines()

    @property
    def plan_file(self) -> Path:
        return max(self.ran.folder.glob("plan-*/plan.json"), key=lambda file: file.stat().st_mtime)

    def plan(self) -> dict[str, Any]:
        return json.loads(self.plan_file.read_text())

    def approval(self) -> str:
        """What a person copies from the report of a dry run."""
        return next(
            note.rpartition(" ")[2] for note in self.plan()["notes"] if "approved_plan = " in note
        )


@dataclass
class Syncs:
    """Two buckets, a folder and a trash, and runs between them."""

    endpoint: str
    source: Bucket
    destination: Bucket
    trash: Bucket
    folder: Path
    work: Path
    dags: dict[str, DAG]
    defaults: dict[str, dict[str, Any]]
    capfd: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    always: dict[str, Any] = field(default_factory=dict)
    """Parameters of every run."""

    def sync(self, **conf: Any) -> Run:
        """Run store_bucket_sync."""
        return self.run("store_bucket_sync", {"source_bucket": self.source.name, **conf})

    def upload(self, **conf: Any) -> Run:
        """Run store_photo_upload."""
        return self.run("store_photo_upload", conf)

    def undo(self, run: Run, **conf: Any) -> Run:
        """Run sync_undo of a run."""
        named = {"dag_id": run.ran.folder.parent.name, "run_id": run.id, "mode": "undo"}
        return self.run("sync_undo", named | conf)

    def run(self, dag_id: str, conf: dict[str, Any], **options: Any) -> Run:
        """Run a DAG."""
        known = self.defaults[dag_id]
        where = {"destination_bucket": self.destination.name, "trash_bucket": self.trash.name}
        ours = {name: v for name, v in (where | self.always).items() if name in known}
        self.capfd.readouterr()
        ran = run_dag(
            self.dags[dag_id], self.work, known | ours | {"max_fanout": 1} | conf, **options
        )
        return Run(ran, "".join(self.capfd.readouterr()))

    def connect(self, endpoint: str, conn_id: str = "imageflows_s3") -> None:
        """Have a connection lead there."""
        self.monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", connection(endpoint))

    @contextmanager
    def faults(self) -> Iterator[FaultProxy]:
        """What can go wrong between the runs and the server; `source` and so on do not meet it."""
        with FaultProxy(self.endpoint) as proxy:
            self.connect(proxy.url)
            yield proxy
        self.connect(self.endpoint)

    def file(self, name: str, data: bytes = b"\xff\xd8\xff a picture") -> Path:
        """Write a file below the folder that is uploaded."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def fill(self, bucket: Bucket, *keys: str, data: bytes = b"picture", **headers: Any) -> None:
        for key in keys:
            put(bucket, key, data, **headers)

    def everything(self) -> dict[str, dict[str, Kept]]:
        """All three buckets."""
        return {b.name: snapshot(b) for b in (self.source, self.destination, self.trash)}


def make_syncs(
    endpoint: str,
    dags: dict[str, DAG],
    defaults: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Syncs:
    """Runs on new buckets of a server.

    What would be tried again after a while fails at once, and a run's clients of S3 serve all of
    its tasks: making one takes a third of a second.
    """
    impatient(monkeypatch)
    own = client(endpoint)
    folder = tmp_path / "upload"
    folder.mkdir()
    for dag in (dags[name] for name in ("store_bucket_sync", "store_photo_upload", "sync_undo")):
        for task in dag.tasks:
            if task.is_mapped:
                monkeypatch.setitem(task.partial_kwargs, "retries", 0)
            else:
                monkeypatch.setattr(task, "retries", 0)
    plan = dags["store_photo_upload"].task_dict["plan"]
    monkeypatch.setattr(plan, "source", f"file://{folder}/{{{{ params.folder or '' }}}}")
    monkeypatch.setattr(plan, "local_root", str(folder))
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", f"file://{tmp_path}/work")
    syncs = Syncs(
        endpoint,
        new_bucket_of(own, "source"),
        new_bucket_of(own, "destination"),
        new_bucket_of(own, "trash"),
        folder,
        tmp_path / "work",
        dags,
        defaults,
        capfd,
        monkeypatch,
    )
    syncs.connect(endpoint)
    syncs.connect(endpoint, "imageflows_other")
    made, make = {}, s3.s3_client

    def client_once(conn_id: str, *, connections: int) -> Any:
        what = (os.environ.get(f"AIRFLOW_CONN_{conn_id.upper()}"), conn_id, connections)
        if what not in made:
            made[what] = make(conn_id, connections=connections)
        return made[what]

    monkeypatch.setattr(s3, "s3_client", client_once)
    return syncs


def three_of(syncs: Syncs) -> Syncs:
    """One picture that is new, one that is modified, one that is to go; and one that is as is."""
    syncs.fill(syncs.destination, "changed.jpg", "gone.jpg", data=b"was", **DRESSED)
    syncs.fill(syncs.destination, "same.jpg")
    syncs.fill(syncs.source, "changed.jpg", "new.jpg", "same.jpg", **DRESSED)
    syncs.always = {"compare": "size", "max_delete_ratio": 1.0}
    return syncs
