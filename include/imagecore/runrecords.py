"""What a run has on record: its plan, one of its items, and its outcomes while it is at work."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from imagecore.manifest import Batch, Item
from imagecore.outcome import Outcome, read_outcomes
from imagecore.report import OUTCOMES
from imagecore.runrows import LINE_BYTES, Looks, Page, RecordsDamaged, Wanted, page_of
from imagecore.text import printable
from imagecore.workstore import WorkStore

Plan = dict[str, Any]
"""What a plan.json holds."""

_LOOK = 1 << 12
_BLOCK = 1 << 16
"""What is left of a manifest is read at once when it is no longer than this."""


def latest_plan(store: WorkStore, run: str) -> str | None:
    """The folder of the newest plan of the run folder `run`; None where nothing is planned yet.

    A part of a run (`dag/run/verify`) has the plan of the run itself.
    """
    run = "/".join(run.split("/")[:2])
    found: list[tuple[str, str]] = []
    for name in store.folders(run):
        if name.startswith("plan-"):
            with suppress(FileNotFoundError):  # its task is still at work, or was killed
                found.append((json.loads(store.get(f"{run}/{name}/plan.json"))["at"], name))
    return f"{run}/{max(found)[1]}" if found else None


def planned_batches(plan: Plan) -> list[Batch]:
    """The batches of a plan, and then those of its removals."""
    return [Batch(**batch) for batch in (*plan["batches"], *plan["removals"])]


def live_rows(
    store: WorkStore,
    plan_folder: str,
    plan: Plan,
    wanted: Wanted,
    cursor: str | None,
    limit: int,
    seconds: float,
    step: str = OUTCOMES,
    batch_id: str | None = None,
) -> Page:
    """As `runrows.rows`, of a run that has no report yet: the outcomes as they are recorded.

    They come batch by batch, in the manifest's order. What a batch records before a cursor's
    place while somebody turns pages moves the rows behind it.

    Parameters:
        step: the folder of the plan with the outcomes that are meant.
        batch_id: this batch alone.

    Raises:
        ValueError: the plan has no such batch, or `cursor` is no place in it.
    """
    batches = [b.batch_id for b in planned_batches(plan) if batch_id in (None, b.batch_id)]
    if batch_id is not None and not batches:
        raise ValueError(f"{plan_folder} has no batch {printable(batch_id, 40)!r}.")
    if cursor is None:
        batch, row = 0, 0
    elif re.fullmatch(r"[0-9]{1,9}:[0-9]{1,9}", cursor):
        batch, row = map(int, cursor.split(":"))
    else:
        raise _no_place(cursor)
    if cursor and batch >= len(batches):
        raise _no_place(cursor)
    looks = _recorded(store, f"{plan_folder}/{step}", batches, wanted, batch, row)
    return page_of(looks, limit, seconds)


def _no_place(cursor: str) -> ValueError:
    return ValueError(f"The cursor {printable(cursor, 40)!r} is no place in the run's outcomes.")


def _recorded(
    store: WorkStore, folder: str, batches: list[str], wanted: Wanted, first: int, begin: int
) -> Looks:
    begun = set(store.folders(folder))
    looked_at = 0
    for number in range(first, len(batches)):
        recorded: list[Outcome] = []
        if batches[number] in begun:
            by_key = read_outcomes(store, f"{folder}/{batches[number]}")[0]
            recorded = [by_key[key] for key in sorted(by_key, key=json.dumps)]
        if begin > len(recorded):
            raise _no_place(f"{number}:{begin}")
        for place, outcome in enumerate(recorded[begin:], begin + 1):
            looked_at += 1
            row = {**vars(outcome), "state": outcome.state.value}
            yield f"{number}:{place}", looked_at, row if wanted.takes(row) else None
        begin = 0
        if recorded and number + 1 < len(batches):
            yield f"{number + 1}:0", looked_at, None


def find_item(
    store: WorkStore, plan_folder: str, plan: Plan, key: str
) -> tuple[Item, Batch] | None:
    """The item of this key and its batch, of the manifest or else of the removals.

    It takes some twenty small reads of the largest manifest.

    Raises:
        FileNotFoundError: the manifest is gone.
        RecordsDamaged: a line of it is longer than LINE_BYTES.
    """
    for stage in (plan["batches"], plan["removals"]):
        batches = [Batch(**batch) for batch in stage]
        if not batches:
            continue
        path = f"{plan_folder}/{batches[0].uri.rpartition('/')[2]}"
        stop = batches[-1].offset + batches[-1].length
        found = _find_line(store, path, stop, b'{"key":' + json.dumps(key).encode())
        if found is not None:
            at, line = found
            return json.loads(line), next(b for b in batches if at < b.offset + b.length)
    return None


def find_outcome(
    store: WorkStore, plan_folder: str, plan: Plan, key: str, step: str = OUTCOMES
) -> tuple[Item, Outcome | None] | None:
    """The item of this key and what became of it in `step`, None as yet; None: no such item."""
    found = find_item(store, plan_folder, plan, key)
    if found is None:
        return None
    item, batch = found
    recorded = read_outcomes(store, f"{plan_folder}/{step}/{batch.batch_id}")[0]
    return item, recorded.get(item["key"])


def _find_line(
    store: WorkStore, path: str, stop: int, beginning: bytes
) -> tuple[int, bytes] | None:
    """The line with this beginning, and where it is; lines are sorted, and end at `stop`."""
    low, high = 0, stop  # where it can begin; low and stop are always beginnings of lines
    while low < high:
        if stop - low <= _BLOCK:
            return _first(_lines(store.get(path, low, stop - low), low), beginning)
        middle = (low + high) // 2
        found = _line_from(store, path, middle, high)
        if found is None:
            high = middle
            continue
        at, line = found
        if line.startswith(beginning):
            return found
        if line < beginning:
            low = at + len(line)
        else:
            high, stop = middle, at
    return None


def _lines(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    for line in data.splitlines(keepends=True):
        yield at, line
        at += len(line)


def _first(lines: Iterator[tuple[int, bytes]], beginning: bytes) -> tuple[int, bytes] | None:
    return next((found for found in lines if found[1].startswith(beginning)), None)


def _line_from(store: WorkStore, path: str, start: int, stop: int) -> tuple[int, bytes] | None:
    """The first line that begins at `start` or later, but before `stop`, and where it begins."""
    before = min(start, 1)  # a byte more, to see whether a line ends there
    length = _LOOK
    while True:
        data = store.get(path, start - before, length)
        begin = data.find(b"\n") + 1 if before else 0
        is_line = begin or not before
        at = start - before + (begin if is_line else len(data))
        if at >= stop:
            return None
        end = data.find(b"\n", begin) + 1 if is_line else 0
        if end:
            return at, data[begin:end]
        if len(data) < length or length > 2 * LINE_BYTES:
            raise RecordsDamaged(
                f"{store.uri(path)} is damaged near byte {start}: there is no line of at most "
                f"{LINE_BYTES:,} bytes. Clear the task `plan` to plan again."
            )
        length *= 4
