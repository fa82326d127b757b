"""10 million × 10 million made-up keys through `SyncPlan`: keys a second and peak memory.

Measured: `SyncPlan.make()` in a fresh process, by size, all lists written to disk, on two sides
that make their keys (39 characters) while they are asked for them, half a percent new, as many
modified and gone. The keys of both sides are counted. Making them is in the time, and given by
itself too; listing S3 is not in it (see sync-listing). `sorted`: the same, one side in no order as
a local folder's files are, so that both go through the external sort. Nothing beside it: the
question is the rate, whether it holds from 1 to 10 million, and whether memory stays flat.

    python -m bench sync-diff [--runs 1] [--pictures 10000000]

The lists of 10 million keys take 0.5 GB of disk, and sorting them another 3.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench.measure import cpu_seconds, in_fresh_python, peak_memory, say, spread, table

if TYPE_CHECKING:
    from imagecore.sides import Entry

RUNS = 1
KEYS = 10_000_000
EVERY = 200
WAYS = ("in order", "sorted")
SCATTER = 7_368_787
"""Has no factor in common with the numbers of keys."""
MODIFIED = 1_790_000_000 * 10**9


def main(runs: int, count: int | None) -> None:
    """Measure a tenth and the whole number of keys in turns, and print the table."""
    keys = count or KEYS
    answers: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in range(runs):
        for way in WAYS:
            for number in (keys // 10, keys):
                say(f"run {run + 1} of {runs}: 2 × {number:,} keys {way}")
                answers.setdefault((way, number), []).append(_diff(way, number))
    rows = [
        (
            way,
            f"2 × {number:,}",
            spread((2 * number / each["seconds"] for each in found), 0),
            spread((each["seconds"] for each in found), 1),
            spread((each["making"] for each in found), 1),
            spread((each["cpu"] for each in found), 1),
            spread((each["memory"] / 1e6 for each in found), 0),
        )
        for (way, number), found in answers.items()
    ]
    head = ("keys", "keys/s", "seconds", "of it making keys", "CPU-seconds", "peak memory, MB")
    table(("diff", *head), rows)
    before = spread((each["before"] / 1e6 for each in answers[WAYS[0], keys]), 0)
    print(f"keys/s counts both sides. {before} MB are Python and imports before it begins.\n")


def _diff(way: str, keys: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
        answer: dict[str, Any] = in_fresh_python("bench.sync_diff", way, str(keys), folder)
        return answer


class MadeUp:
    """A side with so many keys; `odd` is the place in each 200 where it has no key."""

    def __init__(self, keys: int, odd: int, size: int, ascending: bool) -> None:
        self.url = f"made-up://{odd}"
        self.ascending = ascending
        self._keys = keys
        self._odd = odd
        self._size = size

    def key(self, key: str) -> str:
        """The same key."""
        return key

    def entries(self, below: str, reject: Any) -> Iterator[Entry]:
        """All keys, in order or scattered."""
        from imagecore.sides import Entry

        odd, size, etag = self._odd, self._size, "d41d8cd98f00b204e9800998ecf8427e"
        step = 1 if self.ascending else SCATTER
        for count in range(self._keys):
            number = count * step % self._keys
            place = number % EVERY
            if place == odd:
                continue
            key = f"stores/shop-{number // 100:09d}/photos/{number:08d}.jpg"
            yield Entry(key, key, size + (place == 1 and odd == 2), MODIFIED, etag)


def _measure(way: str, keys: int, folder: Path) -> dict[str, float]:
    """In a fresh process: one comparison."""
    from imagecore.syncplan import SyncPlan, SyncRules

    sides = [MadeUp(keys, 2, 1000, way == WAYS[0]), MadeUp(keys, 0, 1000, True)]
    started = perf_counter()
    made = sum(1 for side in sides for _ in side.entries("", None))
    making, before, cpu = perf_counter() - started, peak_memory(), cpu_seconds()
    started = perf_counter()
    plan = SyncPlan(*sides, SyncRules(compare="size", delete=True), folder)
    plan.make()
    seconds = perf_counter() - started
    counts = plan.counts
    each = [counts.new.count, counts.modified.count, counts.duplicate.count]
    if 2 * (counts.unchanged.count + each[1]) + each[0] + each[2] != made or 0 in each:
        raise RuntimeError(f"of {made:,} keys it found {plan.summary()}")
    return {
        "seconds": seconds,
        "making": making,
        "cpu": cpu_seconds() - cpu,
        "memory": peak_memory(),
        "before": before,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
