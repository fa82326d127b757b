"""Rows of 46,000 and 1,000,000 outcomes: a first page, a rare state, a key; time and memory.

Measured: `runrows.rows` on an outcomes.jsonl as store_bucket_sync writes it (some 300 bytes a
line, one in 2,000 failed, one in 50 with letters beyond ASCII), in a work store that is a folder,
each time in a fresh process: the first 100 rows; the rows that failed; the rows of a state that
does not occur; and those that have one text in their key. Beside it `peer`: every line of the
whole file parsed, and the same rows filtered out of them, which is what any page costs that also
counts its rows. The two are held against each other. Both find the file in the system's cache.

    python -m bench outcome-rows [--runs 5] [--pictures 46000]
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench.measure import in_fresh_python, peak_memory, ratios, say, spread, table

if TYPE_CHECKING:
    from imagecore.runrows import Wanted

RUNS = 5
COUNTS = (46_000, 1_000_000)
ASKED = ("first page", "state failed", "state that does not occur", "key, one row")
PATH = "dag/run/outcomes.jsonl"
LIMIT = 100


def main(runs: int, count: int | None) -> None:
    """Measure ours and the peer in turns, for every number of outcomes, and print the table."""
    rows = []
    for number in (count,) if count else COUNTS:
        with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
            size = _write(Path(folder), number)
            for asked in ASKED:
                say(f"{number:,} outcomes, {asked}")
                rows.append(_row(asked, number, size, runs, folder))
    head = ("outcomes", "MB", "ms", "peer, ms", "ours ÷ peer", "memory, MB", "peer, MB")
    table(("rows", *head), rows)
    print("Memory is the process's peak, Python and imports included.\n")


def _row(asked: str, number: int, size: int, runs: int, folder: str) -> tuple[str, ...]:
    ours: list[dict[str, Any]] = []
    peer: list[dict[str, Any]] = []
    for _ in range(runs):
        for way, answers in (("ours", ours), ("peer", peer)):
            answers.append(in_fresh_python("bench.outcome_rows", way, asked, str(number), folder))
        if ours[-1]["found"] != peer[-1]["found"]:
            raise RuntimeError(f"{asked}: {ours[-1]['found']} rows, the peer {peer[-1]['found']}")
    seconds = [[each["seconds"] for each in side] for side in (ours, peer)]
    memory = [[each["memory"] / 1e6 for each in side] for side in (ours, peer)]
    return (
        asked,
        f"{number:,}",
        f"{size / 1e6:,.0f}",
        *(spread((1e3 * each for each in side), 1) for side in seconds),
        ratios(*seconds),
        *(spread(side, 0) for side in memory),
    )


def _lines(count: int) -> Iterator[bytes]:
    from imagecore.outcome import Outcome, State

    for number in range(count):
        name = "größe" if number % 50 == 0 else "photo"
        key = f"shop-{number // 100:06d}/photos/{name}-{number:08d}.jpg"
        wrote = [{"key": key, "etag": f"{number:032x}", "size": 7126, "replaced": None}]
        detail = {"action": "new", "bytes": 7126, "wrote": wrote, "removed": []}
        at = "2026-11-21T19:01:57.457+00:00"
        failed = number % 2_000 == 1_999
        state, reason = (State.FAILED, "the source changed") if failed else (State.DONE, "")
        yield Outcome(key, state, reason, 0.481, at, detail).line()


def _write(folder: Path, count: int) -> int:
    file = folder / PATH
    file.parent.mkdir(parents=True)
    with file.open("wb") as lines:
        lines.writelines(_lines(count))
    return file.stat().st_size


def _wanted(asked: str, count: int) -> Wanted:
    from imagecore.runrows import Wanted

    return {
        ASKED[0]: Wanted(),
        ASKED[1]: Wanted(frozenset(["failed"])),
        ASKED[2]: Wanted(frozenset(["quarantined"])),
        ASKED[3]: Wanted(key=f"PHOTO-{count - 1:08d}"),
    }[asked]


def _measure(way: str, asked: str, count: int, folder: str) -> dict[str, Any]:
    """In a fresh process: one page."""
    from imagecore.runrows import rows
    from imagecore.workstore import local_work_store

    store, wanted = local_work_store(f"file://{folder}"), _wanted(asked, count)
    started = perf_counter()
    if way == "ours":
        found = rows(store, PATH, wanted, None, LIMIT, 3_600).rows
    else:
        found = []
        with (Path(folder) / PATH).open("rb") as lines:
            for row in map(json.loads, lines):
                if wanted.takes(row) and len(found) < LIMIT:
                    found.append(row)
    seconds = perf_counter() - started
    return {
        "seconds": seconds,
        "memory": peak_memory(),
        "found": [row["key"] for row in found],
    }


if __name__ == "__main__":
    _way, _asked, _count, _folder = sys.argv[1:]
    print(json.dumps(_measure(_way, _asked, int(_count), _folder)))
