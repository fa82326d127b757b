"""The first step of every workflow: what is to be done, as a manifest cut into batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf

from imagecore.manifest import Item, batch_size, write_manifest
from imagecore.outcome import now
from imagecore.report import write_json
from imagecore.tempspace import disk_errors, temp_space
from imagecore.text import printable
from imageflows.params import refuse_unknown
from imageflows.work import folder_of_run, work_store

if TYPE_CHECKING:
    from airflow.sdk import Context

MANIFEST, REMOVALS = "manifest.jsonl", "removals.jsonl"

REMARKS = 1_000
"""How many remarks plan.json lists; all are counted."""

Remark = Callable[[str, str], None]


class Remarks:
    """What a plan found that is no item: (key, remark). All counted, the first ones kept."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[dict[str, str]] = []

    def add(self, key: str, remark: str) -> None:
        self.count += 1
        if len(self.first) < REMARKS:
            self.first.append({"key": printable(key), "remark": remark})


class PlanOperator(BaseOperator):
    """Lists the items of a run and writes them down: the manifest, and the batches it is cut into.

    Subclasses give `items`. The run's parameters are read by their shared names: `limit`,
    `max_fanout`, `images_per_task`, and `mode`, which for `dryrun` plans no batch.

    Every try writes a folder of its own, so that nothing of an earlier plan or of its outcomes is
    mistaken for this one's; not even when a run was deleted and made again under its name.

    Returns the batches' descriptors, to map over; XCom `plan` has the plan's folder.

    :param min_batch: beyond `max_fanout` items no batch is smaller. Choose what comes to some
        twenty seconds of work, so that starting a task (about one CPU-second) costs few percent.
    """

    def __init__(self, *, min_batch: int = 25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.min_batch = min_batch

    @abstractmethod
    def items(self, context: Context, remark: Remark) -> Iterable[Item]:
        """The items of this run, in the order in which `limit` is to take them.

        `remark` what was found that is none. `self.temp` is a folder for the time of planning.
        """

    shared: Callable[[str, str], int] | None = None
    """How much two neighbouring keys have in common, where batches are cut by that."""

    def removals(self) -> Iterable[Item]:
        """Items for a second stage, after the first ended well; asked for after `items`."""
        return ()

    def finish(self, plan: dict[str, Any]) -> dict[str, Any]:
        """What a subclass adds to plan.json; called last, with all the rest of it.

        `summary` becomes part of the report; `notes` are lines that the report shows people.
        """
        return {}

    def execute(self, context: Context) -> list[dict[str, Any]]:
        with temp_space() as self.temp, disk_errors(self.temp):
            return self._plan(context)

    def _plan(self, context: Context) -> list[dict[str, Any]]:
        params = context["params"]
        dag_run, task_instance = context["dag_run"], context["ti"]
        refuse_unknown(dag_run.conf, context["dag"].params)
        store = work_store()
        folder = f"{folder_of_run(context)}/plan-{task_instance.try_number}-{uuid4().hex[:8]}"
        self.folder = folder
        remarks = Remarks()
        size_of = partial(
            batch_size,
            max_fanout=params["max_fanout"],
            max_tasks=conf.getint("core", "max_map_length"),
            min_batch=self.min_batch,
            images_per_task=params["images_per_task"],
        )
        items = islice(self.items(context, remarks.add), params["limit"])
        manifest, batches = write_manifest(
            items, store, f"{folder}/{MANIFEST}", size_of, shared=self.shared
        )
        removed, removals = write_manifest(
            self.removals(), store, f"{folder}/{REMOVALS}", size_of, prefix="removals-"
        )
        plan = {
            "dag_id": dag_run.dag_id,
            "run_id": dag_run.run_id,
            "at": now(),
            "mode": params["mode"],
            "planned": manifest.count + removed.count,
            "batches": [asdict(batch) for batch in batches],
            "removals": [asdict(batch) for batch in removals],
            "sha256": {MANIFEST: manifest.sha256, REMOVALS: removed.sha256},
            "params": dict(params),
            "remarks": remarks.count,
            "first_remarks": remarks.first,
        }
        plan |= self.finish(plan)
        write_json(store, f"{folder}/plan.json", plan)
        task_instance.xcom_push(key="plan", value=folder)
        self.log.info(
            "Planned %d items in %d batches, %d remarks: %s",
            plan["planned"],
            len(batches) + len(removals),
            remarks.count,
            manifest.uri,
        )
        return [] if params["mode"] == "dryrun" else plan["batches"]
