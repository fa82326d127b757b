"""Taking back what a sync did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param

from imagecore.errors import PlanRefused
from imagecore.workstore import run_folder
from imageflows.operators.sync import SyncPlanOperator
from imageflows.sides import Where, open_s3
from imageflows.work import read_items, read_plan, work_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.manifest import Item
    from imagecore.outcome import Outcome
    from imagecore.s3 import Bucket
    from imagecore.undo import Touched
    from imageflows.operators.plan import Remark

LOOKS = 16
"""How many objects a plan looks at at once."""

SYNCS = ("store_bucket_sync", "store_photo_upload", "sync_undo")


def undo_params() -> dict[str, Param]:
    """Which run is taken back."""
    return {
        "dag_id": Param(
            SYNCS[0],
            type="string",
            enum=list(SYNCS),
            title="DAG",
            description="The DAG whose run is taken back.",
            section="What to do",
        ),
        "run_id": Param(
            None,
            type=["null", "string"],
            title="Run",
            description="The run that is taken back, by its run id.",
            section="What to do",
        ),
    }


class UndoPlanOperator(SyncPlanOperator):
    """Plans what takes a run of a sync back, from its receipts.

    What was replaced or removed comes back from the trash; what was new moves there. An object
    that is no longer what the run left is reported and stays. Items without a receipt (their try
    was killed) are remarks: clear the run first, so that it ends, and it can be taken back whole.

    Parameters: as for PlanOperator; the run's parameters `dag_id` and `run_id` name the run.
    """

    def items(self, context: Context, remark: Remark) -> Iterable[Item]:
        from imagecore.undo import lost, restores, touched_by

        params = context["params"]
        plans = _plans(params["dag_id"], params["run_id"])
        self.sync = self._sides(plans)
        keys = touched_by(_outcomes(plans, remark))
        for key in lost(keys):
            remark(key, "what it was before was not kept: the run had no trash")
        self._keys = _selected(keys, params)
        for key in _back_already(self._keys, open_s3(self.sync["destination"]).bucket):
            remark(key, "it is there again already")
            del self._keys[key]
        return restores(self._keys)

    def removals(self) -> Iterable[Item]:
        from imagecore.undo import withdrawals

        return withdrawals(self._keys)

    def finish(self, plan: dict[str, Any]) -> dict[str, Any]:
        restored, withdrawn = (
            sum(batch["count"] for batch in plan[stage]) for stage in ("batches", "removals")
        )
        summary = {"restored": restored, "withdrawn": withdrawn}
        notes = [
            f"to be brought back from the trash: {restored:,}",
            f"to be moved to the trash: {withdrawn:,}",
        ]
        return super().finish(plan) | {"summary": summary, "notes": notes}

    def _sides(self, plans: list[dict[str, Any]]) -> dict[str, Any]:
        """The run's destination, from its trash, with a trash of its own beside the run's."""
        sync = plans[-1]["sync"]
        if any(plan["sync"]["destination"] != sync["destination"] for plan in plans):
            raise PlanRefused("The run's plans have several destinations; take them back by hand.")
        if sync["trash"] is None:
            raise PlanRefused("The run had no trash (trash_bucket was empty), so nothing was kept.")
        bucket = sync["trash"]["url"].removeprefix("s3://").partition("/")[0]
        source: Where = {"url": f"s3://{bucket}/", "conn_id": sync["trash"]["conn_id"]}
        return {
            "source": source,
            "destination": sync["destination"],
            "trash": self.trash_of_plan(sync["trash"]),
            "transform": "none",
            "acl": sync["acl"],
        }


def _plans(dag_id: str, run_id: str | None) -> list[dict[str, Any]]:
    """The plans of a run that were carried out, the earliest first, each with its folder."""
    if not run_id:
        raise PlanRefused("run_id is empty: name the run that is to be taken back.")
    store, run = work_store(), run_folder(dag_id, run_id)
    folders = {path.rpartition("/")[0] for path in store.paths(run) if path.endswith("/plan.json")}
    plans = [read_plan(store, folder) | {"folder": folder} for folder in folders]
    carried_out = [plan for plan in plans if plan["mode"] != "dryrun"]
    if not carried_out:
        raise PlanRefused(
            f"{store.uri(run)} has no plan that was carried out: is dag_id {dag_id} and run_id "
            f"{run_id} the run you mean?"
        )
    return sorted(carried_out, key=lambda plan: plan["at"])


def _outcomes(plans: list[dict[str, Any]], remark: Remark) -> Iterator[Outcome]:
    from imagecore.manifest import Batch, read_batch
    from imagecore.outcome import read_outcomes

    store = work_store()
    for plan in plans:
        for batch in (Batch(**fields) for fields in (*plan["batches"], *plan["removals"])):
            recorded = read_outcomes(store, f"{plan['folder']}/outcomes/{batch.batch_id}")[0]
            for item in read_batch(store, batch.uri.removeprefix(f"{store.url}/"), batch):
                if item["key"] not in recorded:
                    remark(item["key"], "it has no receipt: what became of it is not known")
            yield from recorded.values()


def _back_already(keys: dict[str, Touched], bucket: Bucket) -> list[str]:
    """Keys whose object the run removed, and which is there again as it was.

    Brought back once more it would be receipted as new, and undoing that would remove it.
    """
    removed = {
        key: {touched.before["etag"], touched.before["kept"]}
        for key, touched in keys.items()
        if touched.left is None and touched.before and touched.before["trash"]
    }
    with ThreadPoolExecutor(LOOKS) as pool:
        found = pool.map(bucket.find, removed)
        return [
            key
            for (key, etags), there in zip(removed.items(), found, strict=True)
            if there is not None and there.etag in etags
        ]


def _selected(keys: dict[str, Touched], params: dict[str, Any]) -> dict[str, Touched]:
    """Those that the run's parameters prefix, manifest_uri and limit take."""
    prefix, only = params["prefix"] or "", None
    if params["manifest_uri"]:
        only = {item["key"] for item in read_items(params["manifest_uri"])}
    taken = (
        key for key in sorted(keys) if key.startswith(prefix) and (only is None or key in only)
    )
    return {key: keys[key] for key in islice(taken, params["limit"])}
