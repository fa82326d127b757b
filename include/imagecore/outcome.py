"""Outcomes: what became of each item, on record as items finish.

A try of a batch writes only files of its own below `outcomes/<batch_id>/`:

    <try>/000000.jsonl …   segments, one a commit, while it works
    <try>.jsonl            everything known of the batch, when it has finished

A killed try leaves its segments, so it loses at most the items in flight. The next try takes
over whatever is recorded. A try that finished is over: its *failed* items may be tried again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from threading import Lock
from typing import Any

from imagecore.errors import InfrastructureError
from imagecore.workstore import WorkStore

READS = 10
"""How often the outcomes of a batch are read anew when they change meanwhile."""


class State(str, Enum):
    """The four ends of an item."""

    DONE = "done"
    SKIPPED = "skipped"
    """Up to date already."""
    FAILED = "failed"
    """May work next time."""
    QUARANTINED = "quarantined"
    """The item itself is bad."""


@dataclass(frozen=True)
class Result:
    """What processing an item came to, when it raised nothing."""

    state: State = State.DONE
    reason: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A result on record: of which item, when (UTC, ISO 8601), and after how many seconds."""

    key: str
    state: State
    reason: str = ""
    seconds: float = 0.0
    at: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """The outcome as one line of JSON."""
        return json.dumps(vars(self), separators=(",", ":")).encode() + b"\n"


def now() -> str:
    """The present as outcomes and reports write it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def read_outcomes(store: WorkStore, folder: str) -> tuple[dict[str, Outcome], set[str], list[str]]:
    """What is on record of one batch.

    Returns:
        The outcome of each key; the keys that are `failed` in a finished try only, which a new
        try does again; the paths of all segments.

    Raises:
        InfrastructureError: the work store cannot be read, or other tries keep changing it.
    """
    for _ in range(READS):
        try:
            return _read(store, folder)
        except FileNotFoundError:
            continue  # another try finished just now: its segments are gone, its file is there
    raise InfrastructureError(
        f"The outcomes in {store.uri(folder)} change while they are read: "
        "is another try of this batch at work?"
    )


def _read(store: WorkStore, folder: str) -> tuple[dict[str, Outcome], set[str], list[str]]:
    finished_files, segments = tries(folder, store.paths(folder))
    finished = latest(_recorded(store, finished_files))
    interrupted = latest(_recorded(store, segments))
    merged = latest([*finished.values(), *interrupted.values()])
    again = {
        key
        for key, outcome in finished.items()
        if merged[key].state is State.FAILED and interrupted.get(key, outcome).at <= outcome.at
    }
    return merged, again, segments


def tries(folder: str, paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of the `paths` below a batch's `folder`: the files of finished tries, and all segments."""
    finished: list[str] = []
    segments: list[str] = []
    for path in paths:
        (segments if "/" in path[len(folder) + 1 :] else finished).append(path)
    return finished, segments


def parse_outcomes(lines: bytes) -> Iterator[Outcome]:
    """The outcomes that a file of a batch holds."""
    for line in lines.splitlines():
        fields = json.loads(line)
        yield Outcome(**{**fields, "state": State(fields["state"])})


def latest(outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    """Of each key the outcome that counts. Those of finished tries come before segments'.

    An item that ended well or in quarantine is never done again, so that outcome is the last.
    """
    found: dict[str, Outcome] = {}
    for outcome in outcomes:
        found[outcome.key] = max(found.get(outcome.key, outcome), outcome, key=_rank)
    return found


def _recorded(store: WorkStore, paths: list[str]) -> Iterator[Outcome]:
    return (outcome for path in paths for outcome in parse_outcomes(store.get(path)))


def _rank(outcome: Outcome) -> tuple[bool, str]:
    return outcome.state is not State.FAILED, outcome.at


class OutcomeLog:
    """The record of one try of a batch. Opening it takes over what earlier tries recorded.

    `record` returns when the outcome is in the work store. It is for many threads: whoever holds
    the store writes all that is waiting, so that a slow store costs one write for many outcomes.
    """

    def __init__(self, store: WorkStore, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._try = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        self._waiting: list[Outcome] = []
        self._waiting_lock = Lock()
        self._store_lock = Lock()
        recorded, again, self._segments = read_outcomes(store, folder)
        self.settled = {key: o for key, o in recorded.items() if key not in again}
        """Outcomes that stand: their items are not processed by this try."""
        self._known = dict(recorded)

    def record(self, outcome: Outcome) -> None:
        """Put an outcome on record.

        Raises:
            InfrastructureError: the work store cannot be written; the outcome is still waiting.
        """
        with self._waiting_lock:
            self._waiting.append(outcome)
        with self._store_lock:
            with self._waiting_lock:
                group, self._waiting = self._waiting, []
            if group:
                self._write(group)

    def finish(self) -> None:
        """Close the try: one file with everything known of the batch, and the segments go."""
        with self._waiting_lock:
            self._known.update({outcome.key: outcome for outcome in self._waiting})
            self._waiting = []
        path = f"{self._folder}/{self._try}.jsonl"
        self._store.put(path, b"".join(outcome.line() for outcome in self._known.values()))
        self._store.delete(self._segments)

    def outcomes(self) -> list[Outcome]:
        """Every outcome known of the batch."""
        return list(self._known.values())

    def _write(self, group: list[Outcome]) -> None:
        path = f"{self._folder}/{self._try}/{len(self._segments):06d}.jsonl"
        try:
            self._store.put(path, b"".join(outcome.line() for outcome in group))
        except BaseException:
            with self._waiting_lock:
                self._waiting = group + self._waiting
            raise
        self._segments.append(path)
        self._known.update({outcome.key: outcome for outcome in group})
