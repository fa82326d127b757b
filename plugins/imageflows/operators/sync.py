"""Bringing a bucket into line with another one, or with a local folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TriggerRule

from imagecore.errors import PlanRefused
from imageflows.operators.batch import ImageBatchOperator
from imageflows.operators.plan import PlanOperator
from imageflows.sides import (
    Where,
    open_planned,
    open_s3,
    open_side,
    refuse_overlap,
    where_local,
    where_s3,
)
from imageflows.syncparams import rules_of
from imageflows.work import folder_of_run, read_approved, read_plan, work_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.batch import Process
    from imagecore.ladderitem import Workshop
    from imagecore.manifest import Item
    from imagecore.syncitem import Trash
    from imagecore.target import Conditions, Target
    from imageflows.operators.plan import Remark


class SyncPlanOperator(PlanOperator):
    """What the plans of all syncs have: where they read and write, and a fingerprint of it.

    plan.json gets `sync` (the sides, as S3ApplyOperator opens them), `conditions` (which
    conditional requests the destination's server honours: tried, not assumed), `compared_at`,
    and `fingerprint`.
    """

    sync: dict[str, Any]
    """`source`, `destination`, `trash` (or None), `transform`, `acl`."""

    compared_at: str | None = None
    """When the sides were compared, where that was not now."""

    def trash_of_plan(self, trash: Where) -> Where:
        """A folder of its own in the trash, so that nothing kept there is written over."""
        return trash | {"folder": f"{self.folder}/"}

    def finish(self, plan: dict[str, Any]) -> dict[str, Any]:
        plan |= {"sync": self.sync, "compared_at": self.compared_at or plan["at"]}
        dryrun = plan["mode"] == "dryrun"
        return {
            "sync": self.sync,
            "compared_at": plan["compared_at"],
            "conditions": None if dryrun else self._probe(),
            "fingerprint": fingerprint(plan),
        }

    def _probe(self) -> dict[str, bool]:
        from imagecore.target import Conditions, probe

        if self.sync["trash"] is None:  # nowhere to try, so nothing is relied on
            return asdict(Conditions())
        trash, run = open_s3(self.sync["trash"]), self.folder.rpartition("/")[0]
        return asdict(probe(trash.bucket, trash.key(f"{run}/probe")))


class S3DiffOperator(SyncPlanOperator):
    """Compares a source with a destination bucket and plans what brings it into line.

    Sides are `s3://bucket/prefix`; the source may be `file:///folder`. The rules are the run's
    parameters of `sync_params`. Writes the lists `new.txt`, `modified.txt`,
    `duplicate_stores.txt`, `success.txt`, `error.txt` and `combined.txt` into the run's folder.

    With the parameter `approved_plan` nothing is compared: exactly that plan is carried out.

    Raises PlanRefused, before anything is written to a bucket, when the source is missing or has
    no picture, when sides overlap, or when more would be deleted than allowed. A dry run tells
    the last in its report instead.

    :param source: where pictures come from. (templated)
    :param destination: the bucket that is brought into line. (templated)
    :param trash: `s3://bucket/prefix` for what is replaced or deleted, outside both sides;
        without a bucket it is lost, and the run cannot be undone. (templated)
    :param source_conn_id: connection of a source in S3. (templated)
    :param destination_conn_id: connection of destination and trash. The same one for both sides
        lets the server copy by itself. (templated)
    :param local_root: the folder that a local source must lie in.
    """

    template_fields = ("source", "destination", "trash", "source_conn_id", "destination_conn_id")

    def __init__(
        self,
        *,
        min_batch: int = 500,
        source: str,
        destination: str,
        trash: str,
        destination_conn_id: str,
        source_conn_id: str = "",
        local_root: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(min_batch=min_batch, **kwargs)
        self.source = source
        self.destination = destination
        self.trash = trash
        self.source_conn_id = source_conn_id
        self.destination_conn_id = destination_conn_id
        self.local_root = local_root

    def items(self, context: Context, remark: Remark) -> Iterable[Item]:
        from imagecore.syncplan import SyncPlan

        params = context["params"]
        if params["approved_plan"]:
            return self._approve(context)
        rules = rules_of(context)
        self.sync = self._sides(params)
        plan = SyncPlan(
            open_side(self.sync["source"]), open_side(self.sync["destination"]), rules, self.temp
        )
        plan.make()
        store, run = work_store(), folder_of_run(context)
        for name, path in plan.files().items():
            store.put(f"{run}/{name}", path)
        self._summary = plan.summary() | {"lists": store.uri(run)}
        if params["mode"] != "dryrun" and self._summary["refused"]:
            raise PlanRefused(self._summary["refused"][0])
        self._removals: Iterable[Item] = plan.removals()
        return plan.transfers()

    def removals(self) -> Iterable[Item]:
        return self._removals

    def finish(self, plan: dict[str, Any]) -> dict[str, Any]:
        added = super().finish(plan)
        approved = plan["params"]["approved_plan"]
        if approved and added["fingerprint"] != approved.rpartition("#")[2]:
            raise PlanRefused(f"The plan {approved} could not be taken over as it is.")
        notes = [
            f"{name}: {self._summary[name]['count']:,} ({self._summary[name]['bytes']:,} bytes)"
            for name in ("new", "modified", "duplicate", "unchanged", "rejected", "foreign")
        ]
        notes += [f"would be refused: {reason}" for reason in self._summary["refused"]]
        notes += [f"lists: {self._summary['lists']}"]
        if plan["mode"] == "dryrun":
            address = f"{work_store().uri(self.folder)}/plan.json#{added['fingerprint']}"
            notes += [f"to carry out exactly this plan: approved_plan = {address}"]
        return added | {"summary": self._summary, "notes": notes}

    def _sides(self, params: dict[str, Any]) -> dict[str, Any]:
        destination = where_s3(self.destination, self.destination_conn_id)
        trash = None
        if self.trash.removeprefix("s3://").partition("/")[0]:
            trash = where_s3(self.trash, self.destination_conn_id)
        if self.source.startswith("file://"):
            source = where_local(self.source, self.local_root)
        else:
            source = where_s3(self.source, self.source_conn_id)
        named = {"source": source, "destination": destination, "trash": trash}
        refuse_overlap(
            {name: open_s3(side) for name, side in named.items() if side and "conn_id" in side}
        )
        return {
            **named,
            "trash": trash and self.trash_of_plan(trash),
            "transform": params.get("transform", "none"),
            "acl": params["acl"],
        }

    def _approve(self, context: Context) -> Iterator[Item]:
        """The items of an approved plan, which is as it was and allowed by this run's mode."""
        params = context["params"]
        if params["limit"] is not None or params["manifest_uri"] or params["prefix"]:
            raise PlanRefused(
                "approved_plan is carried out whole: leave limit, prefix and manifest_uri empty."
            )
        plan, items, removals = read_approved(params["approved_plan"])
        if plan["dag_id"] != context["dag_run"].dag_id:
            raise PlanRefused(f"{params['approved_plan']} is a plan of {plan['dag_id']}.")
        if plan["fingerprint"] != params["approved_plan"].rpartition("#")[2]:
            raise PlanRefused(
                f"{params['approved_plan']} is not the plan that was approved: its "
                "fingerprint differs."
            )
        check_plan(plan, params["max_plan_age"])
        if plan["removals"] and not (params["mode"] == "sync" and params["delete"]):
            raise PlanRefused(
                f"{params['approved_plan']} deletes: approve it in mode sync with delete."
            )
        if plan["summary"]["refused"] and params["mode"] != "dryrun":
            raise PlanRefused(plan["summary"]["refused"][0])
        self.sync, self.compared_at = plan["sync"], plan["compared_at"]
        self._summary, self._removals = plan["summary"], removals
        return items


CLOCKS_DIFFER = timedelta(minutes=5)
"""The most by which two machines' clocks may differ."""


def fingerprint(plan: dict[str, Any]) -> str:
    """The SHA-256 of what a plan is to do and where: it changes when any of that does."""
    what = {name: plan[name] for name in ("sha256", "sync", "compared_at")}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def check_plan(plan: dict[str, Any], max_age_hours: float) -> None:
    """Refuse a plan that was changed since it was made, or is older than allowed, or of an age
    that cannot be told.

    Raises:
        PlanRefused: saying which.
    """
    if fingerprint(plan) != plan["fingerprint"]:
        raise PlanRefused(
            "The plan is not what was planned (its fingerprint differs): clear the task `plan` to "
            "plan again."
        )
    age = datetime.now(timezone.utc) - datetime.fromisoformat(plan["compared_at"])
    if age < -CLOCKS_DIFFER:
        raise PlanRefused(
            f"The sides were compared at {plan['compared_at']}, which is yet to come by this "
            "machine's clock, so nobody knows how old the plan is: set the clocks right, and "
            "clear the task `plan` to plan again."
        )
    if age > timedelta(hours=max_age_hours):
        hours = age.total_seconds() / 3_600
        raise PlanRefused(
            f"The sides were compared {hours:.1f} hours ago, and max_plan_age allows "
            f"{max_age_hours:g}: clear the task `plan` to plan again."
        )


class RemovalsOperator(BaseOperator):
    """The gate before anything is deleted: it opens when every transfer ended well.

    Returns the descriptors of the plan's removals, to map over.

    :param plan_task_id: the task that planned.
    """

    def __init__(self, *, plan_task_id: str = "plan", **kwargs: Any) -> None:
        kwargs.setdefault("trigger_rule", TriggerRule.NONE_FAILED)
        super().__init__(**kwargs)
        self.plan_task_id = plan_task_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        folder = context["ti"].xcom_pull(task_ids=self.plan_task_id, key="plan")
        plan = read_plan(work_store(), folder)
        removals: list[dict[str, Any]] = plan["removals"]
        return [] if plan["mode"] == "dryrun" else removals


class S3ApplyOperator(ImageBatchOperator):
    """Carries out a batch of a sync's plan: what was planned, or nothing.

    Every object is written under the condition that what it replaces is still what was planned,
    verified in the destination, and receipted in its outcome. What is replaced or deleted is
    first kept in the trash. Refuses a plan older than the run's `max_plan_age` (hours).

    With the transform `photo_ladder` every picture becomes its ladder of widths, made in child
    processes with limits. Parameters: as for ImageBatchOperator, and of photo_ladder

    :param makers: how many ladders are made at once.
    :param timeout_s: seconds a ladder may take before its worker is killed.
    :param memory_mb: MB that a ladder may take.
    :param max_source_mb: MB; a larger picture is quarantined unread.
    """

    def __init__(
        self,
        *,
        threads: int = 16,
        makers: int = 1,
        timeout_s: float = 300,
        memory_mb: int = 2_048,
        max_source_mb: int = 200,
        **kwargs: Any,
    ) -> None:
        super().__init__(threads=threads, **kwargs)
        self.makers = makers
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb
        self.max_source_mb = max_source_mb

    @contextmanager
    def processor(self, context: Context) -> Iterator[Process]:
        from imagecore.ladderitem import LadderItems
        from imagecore.syncitem import SyncItems
        from imagecore.target import Conditions

        plan = read_plan(work_store(), self.folder)
        check_plan(plan, context["params"]["max_plan_age"])
        sync, conditions = plan["sync"], Conditions(**plan["conditions"])
        target = self._target(sync["destination"], "destination", conditions, sync["acl"])
        trash = self._trash(sync["trash"], conditions)
        where = sync["source"]
        same = where.get("conn_id") == sync["destination"]["conn_id"]
        source = open_planned(where, self.threads, server_side=same)
        if sync["transform"] != "photo_ladder":
            yield SyncItems(source, target, trash).process
            return
        prefix = open_s3(sync["destination"]).prefix
        with self._workshop() as workshop:
            yield LadderItems(
                source, target, trash, prefix=prefix, plan=self.folder, workshop=workshop
            ).process

    @contextmanager
    def _workshop(self) -> Iterator[Workshop]:
        from imagecore.ladderitem import Workshop
        from imagecore.sandbox import picture_workers
        from imagecore.tempspace import temp_space

        with (
            temp_space() as temp,
            picture_workers(
                self.makers,
                temp_dir=temp,
                timeout_s=self.timeout_s,
                memory_mb=self.memory_mb,
                file_mb=self.max_source_mb,
            ) as workers,
        ):
            yield Workshop(temp, workers, self.max_source_mb * 10**6)

    def _trash(self, where: Where | None, conditions: Conditions) -> Trash | None:
        from imagecore.syncitem import Trash

        if where is None:
            return None
        prefix = open_s3(where).prefix + where["folder"]
        return Trash(self._target(where, "trash", conditions, None), prefix)

    def _target(self, where: Where, role: str, conditions: Conditions, acl: str | None) -> Target:
        """A bucket to write to, in which earlier tries of this batch have left nothing open."""
        from imagecore.target import Target, abort_uploads
        from imagecore.uploadlog import UploadLog

        log = UploadLog(work_store(), f"{self.folder}/uploads/{self.batch['batch_id']}/{role}")
        bucket = open_s3(where, self.threads).bucket
        target = Target(bucket, conditions, acl=acl, begun=log.begun, ended=log.ended)
        for key, since in log.left():
            abort_uploads(bucket, key, since)
            log.ended(key)
        return target
