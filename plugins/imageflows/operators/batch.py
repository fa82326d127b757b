"""The middle step of every workflow: one mapped task does one batch."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from threading import Event
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from imagecore.batch import Process, run_batch
from imagecore.errors import ImageflowsError, InfrastructureError, PlanRefused
from imagecore.manifest import Batch, Item, read_batch
from imagecore.outcome import OutcomeLog, State
from imagecore.report import NAMED, OUTCOMES
from imagecore.text import printable
from imageflows.work import work_store

if TYPE_CHECKING:
    from airflow.sdk import Context

LABEL_CHARACTERS = 250
"""What Airflow's database holds of a mapped task's name."""


class ItemsFailed(ImageflowsError):
    """Some items of a batch failed; the others are done."""


class ImageBatchOperator(BaseOperator):
    """Does the items of one batch, each on its own.

    To be mapped: `partial(…, map_index_template=BATCH_LABEL).expand(batch=plan.output)`.
    Outcomes are recorded as items finish; a retry goes on where the last try stopped. In the end
    the task fails when items failed, so that "clear failed" does this batch alone again, and of
    it only what failed.

    Subclasses give `processor`. Outcomes go to the folder `outcomes` of the plan's; a second step
    over the same batches has one of its own.

    :param batch: a descriptor from PlanOperator.
    :param threads: how many items are in work at once. Two let one wait for the network while
        the other has the processor.
    """

    outcomes = OUTCOMES

    def __init__(self, *, batch: dict[str, Any], threads: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch = batch
        self.threads = threads

    @abstractmethod
    def processor(self, context: Context) -> AbstractContextManager[Process]:
        """What does one item, called from several threads; its resources, for as long as needed.

        `self.folder` is the plan's folder in the work store.

        It returns a Result, or raises: ItemRefused to quarantine the item, InfrastructureError to
        stop the batch and have it retried, anything else to fail the item.
        """

    def execute(self, context: Context) -> dict[str, int]:
        store, batch = work_store(), Batch(**self.batch)
        path = batch.uri.removeprefix(f"{store.url}/")
        folder = path.rpartition("/")[0]
        if not batch.uri.startswith(f"{store.url}/"):
            raise PlanRefused(
                f"{batch.uri} is not in the work store {store.url}: the setting [imageflows] "
                "work_store changed since the plan. Clear the task `plan` to plan again."
            )
        items = read_batch(store, path, batch)
        context["batch_label"] = label(items)  # type: ignore[typeddict-unknown-key]
        record = OutcomeLog(store, f"{folder}/{self.outcomes}/{batch.batch_id}")
        self.folder = folder
        self._stop = Event()
        with self.processor(context) as process:
            try:
                counts = run_batch(items, process, record, threads=self.threads, stop=self._stop)
            except InfrastructureError:
                if context["ti"].try_number > context["ti"].max_tries:
                    record.finish()  # whoever clears it wants its failed items done again
                raise
        self.log.info(
            "%d items: %s", len(items), ", ".join(f"{n} {s.value}" for s, n in counts.items())
        )
        if counts[State.FAILED]:
            raise ItemsFailed(_failures(record))
        return {state.value: counts[state] for state in State}

    def on_kill(self) -> None:
        """Begin no further item; those in work end, and the next try goes on from there."""
        stop = getattr(self, "_stop", None)
        if stop is not None:
            stop.set()


BATCH_LABEL = "{{ batch_label }}"


def label(items: list[Item]) -> str:
    """A batch's name in the grid: its item's key, or the first key and how many more."""
    first = printable(items[0]["key"])
    more = f" +{len(items) - 1}" if len(items) > 1 else ""
    return printable(first, LABEL_CHARACTERS - len(more)) + more


def _failures(record: OutcomeLog) -> str:
    failed = [outcome for outcome in record.outcomes() if outcome.state is State.FAILED]
    lines = [f"  {printable(outcome.key)}: {outcome.reason}" for outcome in failed[:NAMED]]
    if len(failed) > NAMED:
        lines.append(f"  … and {len(failed) - NAMED} more; the run's report lists all")
    return "\n".join([f"{len(failed)} of {len(record.outcomes())} items failed:", *lines])
