"""A run of a sync whose tasks are killed again and again, and what it left."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from devstack.samples import client
from imagecore.manifest import Batch, Item, read_batch
from imagecore.s3 import Bucket
from imagecore.workstore import WorkStore
from imageflows.work import open_store
from tests.faults import FaultProxy
from tests.faultwire import Fault, Request, Response
from tests.objects import honours, new_bucket_of, put
from tests.syncchaos import MIB, Lives, Task

CONDITIONAL = {"CopyObject", "CompleteMultipartUpload"}
RUN = "manual__1"
RULES = {"mode": "sync", "compare": "size", "naming": "none", "max_fanout": 1}
DELETION = {"delete": True, "max_delete": 10**6, "max_delete_ratio": 1.0}


def _begun_now(request: Request, response: Response) -> None:
    now = f"<Initiated>{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S.000Z}<".encode()
    xml = b"".join(response.body)
    response.set_body(re.sub(rb"<Initiated>[^<]*<", now, xml))


BEGUN_NOW = Fault("begun_now", after=_begun_now)
"""Uploads in parts were begun just now: moto says in 2010, of each."""


@dataclass(frozen=True)
class Kind:
    """A way to sync.

    Parameters:
        source: `copied` inside the server, `streamed` from bucket to bucket, or a `folder`.
        objects: how many, besides three large ones.
        most: a process dies at one of its first so many requests, or of the first quarter
            as many that write.
        deaths: of the tasks that transfer and that remove.
        strict: the server honours conditions of copies and of joined uploads as well.
        copy_bytes: what is larger is copied in parts.
        work_in_s3: so is the work store, and a process also dies while it writes there.
        tags: the server knows them.
    """

    source: str
    objects: int
    most: int
    deaths: tuple[int, ...]
    strict: bool = False
    copy_bytes: int = 5 * 2**30
    work_in_s3: bool = False
    tags: bool = True


@dataclass
class KilledSync:
    """A run's tasks, between a source, a destination and a trash."""

    kind: Kind
    folder: Path
    store: WorkStore
    proxy: FaultProxy
    lives: Lives
    source: Bucket | Path
    destination: Bucket
    trash: Bucket
    dice: random.Random = field(default_factory=lambda: random.Random(100))
    receipted: dict[str, int] = field(default_factory=dict)
    """Items that had a receipt when a process had died, and how many requests there had been."""

    def fill(self) -> None:
        """New, modified, removed and equal objects; of each kind but the last also a large one."""
        kinds = ["same", *["new", "modified", "gone"] * 3]
        for number in range(self.kind.objects):
            self._make(f"{number:04}.jpg", self.dice.choice(kinds))
        for kind in ("new", "modified", "gone"):  # the first in order: they meet the most deaths
            self._make(f"+/large {kind}.jpg", kind, 6 * MIB)

    def _make(self, key: str, kind: str, size: int = 0) -> None:
        is_now, was = f"{key} now".ljust(size).encode(), f"{key} then".ljust(size + 1).encode()
        if kind != "gone" and isinstance(self.source, Path):
            path = self.source / key
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(is_now)
        elif kind != "gone":
            put(self.source, key, is_now, **self._dress("Ann"))
        if kind == "same":
            put(self.destination, key, is_now, **self._dress("Ann"))
        elif kind != "new":
            put(self.destination, key, was, **self._dress("Bob"))

    def _dress(self, by: str) -> dict[str, Any]:
        tags = {"Tagging": f"by={by}"} if self.kind.tags else {}
        return {
            "ContentType": "image/gif",
            "CacheControl": "max-age=9",
            "Metadata": {"by": by},
        } | tags

    def plan(self, deaths: int = 0) -> str:
        """Compare; the plan's folder."""
        return self._until_it_ends(self.planning(), deaths)["plan"]

    def planning(self) -> Task:
        """The task that plans."""
        local = isinstance(self.source, Path)
        return {
            "operator": "S3DiffOperator",
            "run_id": RUN,
            "dag_id": "store_photo_upload" if local else "store_bucket_sync",
            "conf": RULES if local else RULES | DELETION,
            "arguments": {
                "source": f"file://{self.source}" if local else f"s3://{self.source.name}/",
                "destination": f"s3://{self.destination.name}/",
                "trash": f"s3://{self.trash.name}/",
                "source_conn_id": "other" if self.kind.source == "streamed" else "own",
                "destination_conn_id": "own",
                "local_root": str(self.folder),
            },
        }

    def plan_undo(self, folder: str, deaths: int = 0) -> str:
        """Plan what takes back the run that carried out a plan; the new plan's folder."""
        conf = {"mode": "undo", "dag_id": self.read(folder)["dag_id"], "run_id": RUN}
        task = {"operator": "UndoPlanOperator", "dag_id": "sync_undo", "run_id": RUN}
        task |= {"conf": conf | {"max_fanout": 1}, "arguments": {"min_batch": 500}}
        return self._until_it_ends(task, deaths)["plan"]

    def apply(self, folder: str, *deaths: int) -> None:
        """Carry out a plan: its transfers, then its removals, each killed so many times."""
        plan = self.read(folder)
        for batch, times in zip([*plan["batches"], *plan["removals"]], deaths, strict=True):
            task = {"operator": "S3ApplyOperator", "dag_id": plan["dag_id"], "run_id": RUN}
            task |= {"conf": {}, "arguments": {"batch": batch, "threads": 4}}
            self._until_it_ends(task, times)

    def _until_it_ends(self, task: Task, deaths: int) -> dict[str, Any]:
        """Begin a task again whenever it was killed, up to so often, and let it end; its XComs."""
        for number in range(1, deaths + 1):
            writing, answered = self.dice.random() < 0.5, self.dice.random() < 0.5
            at = self.dice.randint(1, self.kind.most // (4 if writing else 1))
            when = {"dies_at": at, "writing": writing, "answered": answered}
            ended = self.lives.live(task, try_number=number, **when)
            if ended is not None:
                return ended
            if "batch" in task["arguments"]:
                for receipt in self._receipts(task["arguments"]["batch"]):
                    self.receipted.setdefault(receipt["key"], len(self.proxy.requests))
        ended = self.lives.live(task, try_number=deaths + 1)
        assert ended is not None
        return ended

    def read(self, folder: str) -> dict[str, Any]:
        """A plan."""
        return json.loads(self.store.get(f"{folder}/plan.json"))

    def plans(self) -> list[str]:
        """The folders of all plans there are."""
        return [p.rpartition("/")[0] for p in self.store.paths("") if p.endswith("/plan.json")]

    def items(self, folder: str) -> list[Item]:
        """What a plan says is to be done."""
        return [
            item
            for batch in self._batches(folder)
            for item in read_batch(self.store, self._path(batch), Batch(**batch))
        ]

    def receipts(self, folder: str) -> list[dict[str, Any]]:
        """All outcomes on record of a plan's items: the different ones."""
        return [each for batch in self._batches(folder) for each in self._receipts(batch)]

    def _batches(self, folder: str) -> list[dict[str, Any]]:
        plan = self.read(folder)
        return [*plan["batches"], *plan["removals"]]

    def _path(self, batch: dict[str, Any]) -> str:
        return batch["uri"].removeprefix(f"{self.store.url}/")

    def _receipts(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        folder = f"{self._path(batch).rpartition('/')[0]}/outcomes/{batch['batch_id']}"
        files = [self.store.get(path) for path in self.store.paths(folder)]
        return [json.loads(line) for line in {line for file in files for line in file.splitlines()}]

    def touched_again(self) -> set[str]:
        """Items that a process asked S3 anything about although they had their receipt."""
        return {
            key
            for key, then in self.receipted.items()
            for request in self.proxy.requests[then:]
            if f"/{request.key}".endswith(f"/{key}")
        }


@contextmanager
def killed_sync(kind: Kind, endpoint: str, folder: Path) -> Iterator[KilledSync]:
    """Buckets with objects, and a process that can be killed."""
    s3 = client(endpoint)
    destination, trash, work = (new_bucket_of(s3, role) for role in ("dest", "trash", "work"))
    source: Bucket | Path = folder / "pictures"
    if isinstance(source, Path) and kind.source == "folder":
        source.mkdir()
    else:
        source = new_bucket_of(s3, "source")
    url = f"s3://own@{work.name}/runs" if kind.work_in_s3 else f"file://{folder}/work"
    with pytest.MonkeyPatch.context() as patch, FaultProxy(endpoint) as proxy:
        patch.setenv("AIRFLOW_CONN_OWN", _connection(endpoint))
        environment = {
            "AIRFLOW_CONN_OWN": _connection(proxy.url),
            "AIRFLOW_CONN_OTHER": _connection(proxy.url),
            "AIRFLOW__IMAGEFLOWS__WORK_STORE": url,
            "CHAOS_COPY_BYTES": str(kind.copy_bytes),
        }
        with Lives(proxy, folder, environment) as lives:
            strict = [honours(s3)] if kind.strict else []
            proxy.on(lambda request: request.operation in CONDITIONAL, *strict, lives.death)
            proxy.on("GET ?uploads", lives.death, BEGUN_NOW)
            proxy.on(None, lives.death)
            made = KilledSync(
                kind, folder, open_store(url), proxy, lives, source, destination, trash
            )
            made.fill()
            yield made


def _connection(endpoint: str) -> str:
    extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    return json.dumps({"conn_type": "aws", "login": "test", "password": "test", "extra": extra})
