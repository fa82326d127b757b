"""Planning 1,000, 46,000 and 1,000,000 items: time and memory, and what XCom has to carry.

Measured: `PlanOperator.execute()`, each time in a fresh process, on items such as the notes of
pyramid_tiff give (a key of some 50 characters, a path, one note), made up while they are asked
for. Work store: a folder. Nothing beside it: the question is whether cost grows linearly. The
first rows are the operator alone, which streams; the others with `merge_pictures` before it,
which pyramid_tiff needs to see that no two pictures become the same pyramid, and which holds the
items in memory. Reading notes from S3 is not in it. The last rows are what `reconcile` costs a
day that lost nothing: two listings of so many objects, made up as well, sorted and joined.

    python -m bench planning [--runs 2] [--pictures 46000]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench.core import airflow_environ, context
from bench.measure import in_fresh_python, peak_memory, say, spread, table

if TYPE_CHECKING:
    from imagecore.manifest import Item

RUNS = 2
COUNTS = (1_000, 46_000, 1_000_000)
WAYS = ("operator alone", "with merge_pictures", "reconcile, nothing lost")


def main(runs: int, count: int | None) -> None:
    """Measure every number of items in turns, and print the table."""
    counts = (count,) if count else COUNTS
    answers: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in range(runs):
        say(f"run {run + 1} of {runs}")
        for way in WAYS:
            for number in counts:
                answers.setdefault((way, number), []).append(_plan(way, number))
    rows = [
        (
            way,
            f"{number:,}",
            spread((each["seconds"] for each in found), 2),
            spread((1e6 * each["seconds"] / number for each in found), 0),
            spread((each["memory"] / 1e6 for each in found), 0),
            str(found[0]["batches"]),
            f"{found[0]['json'] / 1000:,.1f}",
        )
        for (way, number), found in answers.items()
    ]
    head = ("items", "seconds", "µs an item", "peak memory, MB", "batches", "XCom, kB")
    table(("plan", *head), rows)
    base = spread((each["before"] / 1e6 for each in answers[WAYS[0], counts[0]]), 0)
    print(f"Of the memory, {base} MB are Python and Airflow before the plan begins.\n")


def _plan(way: str, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
        environ = airflow_environ(Path(folder), TMPDIR=folder)
        answer: dict[str, Any] = in_fresh_python("bench.planning", way, str(count), **environ)
        return answer


def _items(count: int) -> Iterator[Item]:
    """In the order of their numbers, which is not that of their keys."""
    for number in range(count):
        scrambled = number * 7_368_787 % 10_000_019
        stem = f"MSS{number % 997:04d}_{scrambled:08d}"
        yield {
            "key": f"digital/bookreader/{stem[:7]}/{stem}.tif",
            "path": f"digital/bookreader/{stem[:7]}/",
            "copyright": False,
            "notes": [
                {
                    "key": f"rbsc/{stem}.json",
                    "etag": f"{scrambled:032x}",
                    "modified": "2026-11-21T05:30:00+00:00",
                }
            ],
        }


def _reconciled(count: int, folder: Path) -> Iterator[Item]:
    """What is found where every picture has its pyramid: nothing."""
    from imagecore.listing import Listed
    from imagecore.reconcile import Reconciliation

    def all_of(extension: str) -> Iterator[Listed]:
        for number in range(count):
            stem = f"MSS{number // 1_000:04d}"
            key = f"digital/bookreader/{stem}/{stem}_{number:08d}.{extension}"
            yield Listed(key, 1_000_000, 10**18, "0" * 32)

    listings = Reconciliation(
        lambda prefix: all_of("jpg"),
        lambda prefix: all_of("tif"),
        lambda prefix: (),
        same=False,
        makes=lambda target, key: False,
        folder=folder,
    )
    return (item for item, _ in listings.lost(["digital/"]))


def _measure(way: str, count: int) -> dict[str, float]:
    """In a fresh process: one plan."""
    from imagecore.notes import merge_pictures
    from imageflows.operators.plan import PlanOperator
    from imageflows.params import shared_params

    class CountOperator(PlanOperator):
        """Plans made-up items."""

        def items(self, context: Any, remark: Any) -> Any:
            if way == WAYS[2]:
                return _reconciled(count, self.temp)
            return merge_pictures(_items(count)) if way == WAYS[1] else _items(count)

    operator = CountOperator(task_id="plan", min_batch=4)
    before = peak_memory()
    started = perf_counter()
    batches = operator.execute(context({}, shared_params()))
    seconds = perf_counter() - started
    return {
        "seconds": seconds,
        "memory": peak_memory(),
        "before": before,
        "batches": len(batches),
        "json": len(json.dumps(batches)),
    }


if __name__ == "__main__":
    _answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Airflow logs to standard output
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]))), file=_answer)
