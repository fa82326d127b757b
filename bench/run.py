"""A whole run of the DAG pyramid_tiff, beside the bare loop over the same pictures.

Compared: the wall time from trigger to end of a run through Airflow's scheduler and LocalExecutor
(plan from the notes, one mapped task a batch, report; default parameters but the preset), and
`PyramidItems.process` on as many threads as there are cores, in one process that knows already
which pictures there are. Fair because both do the same to each picture (fetched, made, verified,
delivered, note taken away), with the same workers and on the same S3 server; the difference is
what Airflow and the project's own book-keeping cost. A run of one picture comes first, unmeasured:
a daily run finds a scheduler that is warm.

    python -m bench run [--runs 3] [--pictures 200]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import perf_counter

from bench.core import bare_loop, noted_items
from bench.machine import cores
from bench.measure import in_fresh_python, ratios, say, spread, table
from bench.pictures import CAMERA, PHOTOGRAPHS, pictures
from bench.server import keys_of, serving
from bench.stack import airflow

RUNS = 3
PICTURES = 200
PRESET = "iiif"


def main(runs: int, count: int | None) -> None:
    """Measure both in turns, and print the table."""
    number = count or PICTURES
    sources = pictures(CAMERA, len(PHOTOGRAPHS))
    whole: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
        temp = Path(folder)
        with serving(sources, number, temp) as server, airflow(server, temp) as stack:
            server.write_notes(keys_of(1))
            stack.run({"preset": PRESET})
            server.take_results(expected=1)
            for run in range(runs):
                say(f"run {run + 1} of {runs}, {number} pictures")
                server.write_notes(keys_of(number))
                seconds, tasks = stack.run({"preset": PRESET})
                whole.append(seconds)
                server.take_results(expected=number)
                server.write_notes(keys_of(number))
                bare.append(in_fresh_python("bench.run", server.endpoint))
                server.take_results(expected=number)
    rows = [
        _row(f"`pyramid_tiff`, {tasks} mapped tasks", number, whole),
        _row(f"bare loop, {cores()} threads", number, bare),
    ]
    table((f"{number} × 24 MP, {PRESET}", "seconds", "pictures/s"), rows)
    print(f"Time, DAG ÷ loop, pair by pair: {ratios(whole, bare)}.\n")


def _row(name: str, count: int, seconds: list[float]) -> tuple[str, ...]:
    return name, spread(seconds), spread((count / each for each in seconds), 2)


def _measure(endpoint: str) -> float:
    """In a fresh process: the bare loop, without its imports."""
    from imagecore import pyramid_item, sandbox
    from imagecore.recipe import PRESETS

    assert pyramid_item
    assert sandbox
    items = noted_items(endpoint)
    started = perf_counter()
    bare_loop(endpoint, items, PRESETS[PRESET], cores())
    return perf_counter() - started


if __name__ == "__main__":
    print(_measure(sys.argv[1]))
