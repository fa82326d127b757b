"""A sync without Airflow: two sides and a trash, planned and carried out by the core alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

from imagecore.batch import run_batch
from imagecore.errors import InfrastructureError
from imagecore.manifest import Item
from imagecore.outcome import Outcome, OutcomeLog, State
from imagecore.s3 import Bucket
from imagecore.sides import LocalSide, S3Side
from imagecore.syncitem import BucketSource, FolderSource, SyncItems, Trash
from imagecore.syncplan import SyncPlan, SyncRules
from imagecore.target import Conditions, Target, probe
from imagecore.undo import restores, touched_by, withdrawals
from imagecore.workstore import WorkStore, local_work_store


@dataclass
class World:
    """A source (a bucket or a folder), a destination, and perhaps a trash. `folder` is for work.

    `server_side`: the destination's server copies from the source by itself.
    """

    source: Bucket | Path
    destination: Bucket
    trash: Bucket | None
    folder: Path
    server_side: bool = True
    conditions: Conditions | None = None
    numbers: Any = field(default_factory=lambda: count(1))

    def plan(self, **rules: Any) -> tuple[list[Item], list[Item]]:
        """What is to be transferred, and what removed."""
        folder = self.folder / f"plan-{next(self.numbers)}"
        folder.mkdir(parents=True)
        plan = SyncPlan(self._side(), S3Side(self.destination, ""), SyncRules(**rules), folder)
        plan.make()
        return list(plan.transfers()), list(plan.removals())

    def items(self, number: int = 0, source: Bucket | None = None) -> SyncItems:
        """What carries out the plan of this number; `source`: an undo's."""
        if self.conditions is None:
            self.conditions = probe(self.destination, "probe")
        target = Target(self.destination, self.conditions)
        trash = None
        if self.trash is not None:
            trash = Trash(Target(self.trash, self.conditions), f"kept/{number}/")
        if source is not None:
            return SyncItems(BucketSource(source, server_side=True), target, trash)
        if isinstance(self.source, Path):
            side = LocalSide(self.source)
            return SyncItems(FolderSource(side, side.identity()), target, trash)
        return SyncItems(BucketSource(self.source, self.server_side), target, trash)

    def apply(self, *stages: list[Item], source: Bucket | None = None) -> list[Outcome]:
        """Carry out items, stage after stage; a later one only when nothing failed before."""
        number = next(self.numbers)
        items = self.items(number, source)
        outcomes: list[Outcome] = []
        for stage, planned in enumerate(stages):
            if any(outcome.state is State.FAILED for outcome in outcomes):
                break
            record = OutcomeLog(self.store, f"run-{number}/outcomes/{stage}")
            with suppress(InfrastructureError):
                run_batch(planned, items.process, record, threads=8, stop=Event())
            outcomes += record.outcomes()
        return outcomes

    def sync(self, **rules: Any) -> list[Outcome]:
        """Plan and carry out."""
        return self.apply(*self.plan(**rules))

    def undo(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Take back what was carried out."""
        keys = touched_by(outcomes)
        return self.apply(list(restores(keys)), list(withdrawals(keys)), source=self.trash)

    @property
    def store(self) -> WorkStore:
        return local_work_store(f"file://{self.folder}/work")

    def _side(self) -> S3Side | LocalSide:
        if isinstance(self.source, Path):
            return LocalSide(self.source)
        return S3Side(self.source, "")


OPEN = {"max_delete": 10**9, "max_delete_ratio": 1.0}
"""Limits that refuse nothing."""


def ends(outcomes: list[Outcome]) -> dict[str, str]:
    """The state of each key."""
    return {outcome.key: outcome.state.value for outcome in outcomes}
