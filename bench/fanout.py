"""One mapped task an image, or batches: what either costs on a run of small pictures.

Compared: runs of the DAG pyramid_tiff over the same 240 pictures of 640 × 480 on the same stack,
in turns, which differ in one parameter: `images_per_task` 1; the default (at most max_fanout = 100
tasks, at least 4 pictures each); `images_per_task` 40. Such pictures take some milliseconds, so
nearly all that is seen is the cost of tasks. CPU-seconds are those of all processes of the stack,
tasks and their workers included; the S3 server is not counted.

    python -m bench fanout [--runs 2] [--pictures 240]
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

from bench.measure import ratios, say, spread, table
from bench.pictures import PHOTOGRAPHS, SMALL, pictures
from bench.server import Server, keys_of, serving
from bench.stack import Airflow, airflow

RUNS = 2
PICTURES = 240
VARIANTS: dict[str, dict[str, int]] = {
    "one task an image": {"images_per_task": 1},
    "default fan-out": {},
    "40 images a task": {"images_per_task": 40},
}


def main(runs: int, count: int | None) -> None:
    """Measure the variants in turns, and print the table."""
    number = count or PICTURES
    sources = pictures(SMALL, len(PHOTOGRAPHS))
    measured: dict[str, list[tuple[float, float]]] = defaultdict(list)
    tasks: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
        temp = Path(folder)
        with serving(sources, number, temp) as server, airflow(server, temp) as stack:
            _run(server, stack, 1, {})
            for run in range(runs):
                say(f"run {run + 1} of {runs}, {number} pictures")
                for name, conf in VARIANTS.items():
                    seconds, cpu, tasks[name] = _run(server, stack, number, conf)
                    measured[name].append((seconds, cpu))
    _print(measured, tasks, number)


def _run(
    server: Server, stack: Airflow, count: int, conf: dict[str, int]
) -> tuple[float, float, int]:
    server.write_notes(keys_of(count))
    before = stack.cpu()
    seconds, tasks = stack.run(conf)
    cpu = stack.cpu() - before
    server.take_results(expected=count)
    if conf and tasks != -(-count // conf["images_per_task"]):
        raise RuntimeError(f"{count} pictures with {conf} were {tasks} tasks")
    return seconds, cpu, tasks


def _print(
    measured: dict[str, list[tuple[float, float]]], tasks: dict[str, int], count: int
) -> None:
    rows = [
        (
            name,
            str(tasks[name]),
            spread(seconds for seconds, _ in runs),
            spread(cpu for _, cpu in runs),
            spread((cpu / count for _, cpu in runs), 2),
        )
        for name, runs in measured.items()
    ]
    head = ("tasks", "seconds", "CPU-seconds", "CPU-seconds a picture")
    table((f"{count} pictures of 640 × 480", *head), rows)
    one, default = (measured[name] for name in list(VARIANTS)[:2])
    slower = ratios([seconds for seconds, _ in one], [seconds for seconds, _ in default])
    print(f"Time, one task an image ÷ default, pair by pair: {slower}.\n")
