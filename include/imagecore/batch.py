"""Doing a batch: every item on its own, on a few threads, each outcome on record at once."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event, Lock

from imagecore.errors import ImageflowsError, InfrastructureError, ItemFailed, ItemRefused
from imagecore.manifest import Item
from imagecore.outcome import Outcome, OutcomeLog, Result, State, now
from imagecore.text import printable

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0
REASON_CHARACTERS = 2_000

Process = Callable[[Item], Result]


def run_batch(
    items: Iterable[Item],
    process: Process,
    record: OutcomeLog,
    *,
    threads: int,
    stop: Event,
    progress_seconds: float = PROGRESS_SECONDS,
) -> Counter[State]:
    """Process every item that has no outcome yet, and count the outcomes of the whole batch.

    What `process` raises ends its item alone: ItemRefused quarantines it, anything else fails it.
    Only InfrastructureError ends the batch: no new item is begun, those in flight end, their
    outcomes are recorded, and the error goes on. Setting `stop` from outside does the same.
    """
    batch = list(items)
    todo = [item for item in batch if item["key"] not in record.settled]
    if len(todo) < len(batch):
        log.info(
            "%d of %d items have their outcome from an earlier try",
            len(batch) - len(todo),
            len(batch),
        )
    progress = _Progress(len(todo))
    queue, queue_lock = iter(todo), Lock()

    def work() -> None:
        while not stop.is_set():
            with queue_lock:
                item = next(queue, None)
            if item is None:
                return
            try:
                outcome = attempt(process, item)
                record.record(outcome)
            except BaseException:
                stop.set()
                raise
            progress.count(outcome)

    with ThreadPoolExecutor(threads, thread_name_prefix="item") as pool:
        workers = [pool.submit(work) for _ in range(min(threads, len(todo)))]
        try:
            pending = set(workers)
            while pending:
                pending = wait(pending, progress_seconds).not_done
                if pending:
                    progress.show()
        finally:
            stop.set()
    for worker in workers:
        worker.result()
    if progress.done < len(todo):
        raise InfrastructureError(
            f"Stopped after {progress.done} of {len(todo)} items. The next try goes on from here."
        )
    record.finish()
    return Counter(outcome.state for outcome in record.outcomes())


def attempt(process: Process, item: Item) -> Outcome:
    """One item's outcome. Only InfrastructureError passes."""
    started = time.monotonic()
    key = item["key"]
    try:
        result = _recordable(process(item))
    except InfrastructureError:
        raise
    except ItemRefused as error:
        log.warning("%s quarantined: %s", printable(key), printable(error))
        result = Result(State.QUARANTINED, printable(error, REASON_CHARACTERS))
    except ImageflowsError as error:
        log.error("%s failed: %s", printable(key), printable(error))
        done = dict(error.detail) if isinstance(error, ItemFailed) else {}
        result = Result(State.FAILED, printable(error, REASON_CHARACTERS), done)
    except Exception as error:  # an item's failure, of whatever kind, is its own
        log.exception("%s failed unexpectedly", printable(key))
        reason = printable(f"unexpected {type(error).__name__}: {error}", REASON_CHARACTERS)
        result = Result(State.FAILED, reason)
    seconds = round(time.monotonic() - started, 3)
    return Outcome(key, result.state, result.reason, seconds, now(), result.detail)


def _recordable(result: Result) -> Result:
    """`result`; what cannot be written down raises here, where it is its item's own failure."""
    Outcome("", result.state, result.reason, detail=result.detail).line()
    return result


class _Progress:
    """Counts outcomes, and logs done/total, rate and remaining time."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = time.monotonic()
        self._lock = Lock()
        self._states: Counter[State] = Counter()

    @property
    def done(self) -> int:
        return self._states.total()

    def count(self, outcome: Outcome) -> None:
        with self._lock:
            self._states[outcome.state] += 1

    def show(self) -> None:
        with self._lock:
            states = dict(self._states)
        done = sum(states.values())
        rate = done / (time.monotonic() - self._started)
        left = f"{(self._total - done) / rate:.0f} s left" if rate else "no item finished yet"
        ends = ", ".join(f"{count} {state.value}" for state, count in sorted(states.items()))
        log.info("%d/%d items, %.2f/s, %s (%s)", done, self._total, rate, left, ends or "-")
