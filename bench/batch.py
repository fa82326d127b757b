"""Pictures of 24 megapixels by the batch: our operator beside `xargs vips tiffsave`.

Compared: `PyramidTiffOperator.execute()` as the DAG runs it (a task process a core, that is the
slots of the pool image_cpu, each with the operator's own `threads`, one libvips thread a
picture), and `ls | xargs -P$(nproc) vips tiffsave` with the same settings of the file. Theirs reads
and writes local files and verifies nothing. Ours fetches from S3 and delivers to S3 on the same
machine, compares checksums, has every pyramid read back by another library, and takes the note
away. The S3 server runs on the same cores; what it takes is shown apart. Ours is timed from
`execute` on, so with the start of its workers but without that of Airflow, which `run` measures;
theirs with the start of each process. The sides take turns.

    python -m bench batch [--runs 3] [--pictures 200]

deflate is done with a fifth of the pictures: each takes five times as long.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from bench import ROOT
from bench.core import (
    BUCKETS,
    DAG_ID,
    RUN_ID,
    airflow_environ,
    buckets_at,
    context,
    noted_items,
    patched,
)
from bench.machine import cores, vips_command
from bench.measure import Used, cpu_seconds, ratios, say, spread, table, used_by
from bench.pictures import CAMERA, PHOTOGRAPHS, pictures
from bench.server import Server, keys_of, lay_out, serving

RUNS = 3
PICTURES = 200
SHARE = {"iiif": 1.0, "lossless": 0.2}
SETTINGS = {
    "iiif": ("--compression", "jpeg", "--Q", "85"),
    "lossless": ("--compression", "deflate"),
}
TILED = ("--tile", "--tile-width", "512", "--tile-height", "512", "--pyramid")
DPI = ("--resunit", "inch", "--xres", "11.811", "--yres", "11.811")


@dataclass(frozen=True)
class Ours:
    """One measurement of our side: `server` are the CPU-seconds of the S3 server."""

    seconds: float
    cpu: float
    server: float


def main(runs: int, count: int | None) -> None:
    """Measure both presets in turns with the command line, and print the tables."""
    sources = pictures(CAMERA, len(PHOTOGRAPHS))
    for preset, share in SHARE.items():
        number = max(2, cores(), round((count or PICTURES) * share))
        with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
            temp = Path(folder)
            with serving(sources, number, temp) as server:
                _compare(preset, number, runs, server, lay_out(sources, number, temp), temp)
                _where_the_time_goes(preset, server, min(number, len(PHOTOGRAPHS)))


def _compare(
    preset: str, count: int, runs: int, server: Server, files: list[Path], temp: Path
) -> None:
    vips = vips_command()
    ours: list[Ours] = []
    theirs: list[Used] = []
    for run in range(runs):
        say(f"{preset}: run {run + 1} of {runs}, {count} pictures")
        ours.append(_ours(preset, count, server, temp))
        if vips:
            theirs.append(_theirs(vips, preset, files, temp))
    rows = [_row("ours, S3 to S3, verified", count, [(run.seconds, run.cpu) for run in ours])]
    if theirs:
        peer = [(use.seconds, use.cpu) for use in theirs]
        rows.append(_row(f"`xargs -P{cores()} vips tiffsave`, local files", count, peer))
    head = (f"{count} × 24 MP, {preset}", "pictures/s", "seconds", "CPU-seconds a picture")
    table(head, rows)
    print(
        f"The S3 server ({server.name}) took another "
        f"{spread((run.server / count for run in ours), 2)} CPU-seconds a picture.\n"
    )
    if theirs:
        rate = ratios([use.seconds for use in theirs], [run.seconds for run in ours])
        print(f"Rate, ours ÷ `xargs vips`, pair by pair: {rate}.\n")
    else:
        print("`vips` is not installed (Debian: libvips-tools), so there is nothing beside it.\n")


def _row(name: str, count: int, runs: list[tuple[float, float]]) -> tuple[str, ...]:
    return (
        name,
        spread((count / seconds for seconds, _ in runs), 2),
        spread((seconds for seconds, _ in runs), 1),
        spread((cpu / count for _, cpu in runs), 2),
    )


def _ours(preset: str, count: int, server: Server, temp: Path) -> Ours:
    """A task process a core, each with an equal part of the pictures, started together."""
    server.write_notes(keys_of(count))
    environ = airflow_environ(temp, AIRFLOW_CONN_IMAGEFLOWS_S3=server.connection())
    batches = _plan(server, temp, -(-count // cores()))
    with _tasks([[preset, json.dumps(asdict(batch))] for batch in batches], environ) as tasks:
        for task in tasks:
            _answer(task)
        before, started = server.cpu(), perf_counter()
        for task in tasks:
            task.stdin.write("go\n")
            task.stdin.flush()
        answers = [_answer(task) for task in tasks]
        seconds = perf_counter() - started
    served = server.cpu() - before
    server.take_results(expected=count)
    shutil.rmtree(temp / "work")
    return Ours(seconds, sum(answer["cpu"] for answer in answers), served)


def _plan(server: Server, temp: Path, size: int) -> list[Any]:
    from imagecore.manifest import write_manifest
    from imagecore.workstore import local_work_store

    store = local_work_store(f"file://{temp}/work")
    path = f"{DAG_ID}/{RUN_ID}/plan-1/manifest.jsonl"
    return write_manifest(noted_items(server.endpoint), store, path, lambda count: size)[1]


@contextmanager
def _tasks(arguments: list[list[str]], environ: dict[str, str]) -> Iterator[list[Any]]:
    """Task processes that wait for a word on their standard input; none outlives the block."""
    with ExitStack() as stack:
        tasks = []
        for each in arguments:
            task = subprocess.Popen(
                [sys.executable, "-m", "bench.batch", *each],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(task)
            stack.callback(task.kill)
            tasks.append(task)
        yield tasks
        for task in tasks:
            task.stdin.close()
            task.wait(timeout=60)


def _answer(task: Any) -> Any:
    line = task.stdout.readline()
    if not line:
        raise RuntimeError("a task process ended without an answer: its error is above")
    return json.loads(line)


def _theirs(vips: str, preset: str, files: list[Path], temp: Path) -> Used:
    target = temp / "theirs"
    target.mkdir()
    settings = " ".join([*TILED, *SETTINGS[preset], *DPI])
    command = (
        f"ls {files[0].parent}/*.jpg | xargs -P{cores()} -I{{}} "
        f'sh -c \'{vips} tiffsave "$1[access=sequential]" '
        f'"{target}/$(basename "$1" .jpg).tif" {settings}\' - {{}}'
    )
    used = used_by(["sh", "-c", command], temp)
    made = len(list(target.glob("*.tif")))
    shutil.rmtree(target)
    if made != len(files):
        raise RuntimeError(f"vips made {made} files of {len(files)} pictures")
    return used


class Watch:
    """Adds up the seconds that functions take, by name, where one calls another too."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, with a look at the clock before and after."""

        def call(*arguments: Any, **named: Any) -> Any:
            started = perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                took = perf_counter() - started
                self.seconds[name] = self.seconds.get(name, 0.0) + took

        return call


def _where_the_time_goes(preset: str, server: Server, count: int) -> None:
    """Pictures one after the other in one process, with a clock in each function."""
    server.write_notes(keys_of(count))
    command = [sys.executable, "-m", "bench.batch", "--where", preset, server.endpoint]
    environ = {**os.environ, "VIPS_CONCURRENCY": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True, check=True
    )
    parts = json.loads(done.stdout)
    server.take_results(expected=count)
    total = sum(parts.values())
    rows = [(name, f"{1000 * took:,.0f}", f"{took / total:.0%}") for name, took in parts.items()]
    rows.append(("together", f"{1000 * total:,.0f}", "100%"))
    table((f"one picture of 24 MP, {preset}, one thread", "milliseconds", "part"), rows)


def _measure_parts(preset: str, endpoint: str) -> dict[str, float]:
    """Seconds a picture, each function's own time; the first picture is for warming up."""
    from types import SimpleNamespace

    from imagecore import pyramid
    from imagecore.recipe import PRESETS
    from imagecore.s3 import Bucket

    watch = Watch()
    worker = SimpleNamespace(
        make_pyramid=watch.timed("make", pyramid.make_pyramid), __enter__=None, __exit__=None
    )
    items = noted_items(endpoint)
    with (
        patched(pyramid, "_verify", watch.timed("verify", pyramid._verify)),
        patched(pyramid, "sha256_of", watch.timed("hash", pyramid.sha256_of)),
        patched(Bucket, "fetch", watch.timed("fetch", Bucket.fetch)),
        patched(Bucket, "deliver", watch.timed("deliver", Bucket.deliver)),
        tempfile.TemporaryDirectory(prefix="imageflows-bench-") as temp,
    ):
        process = watch.timed("whole", _processor(endpoint, preset, PRESETS, worker, Path(temp)))
        process(items[0])
        watch.seconds.clear()
        for item in items[1:]:
            process(item)
    took = {name: seconds / (len(items) - 1) for name, seconds in watch.seconds.items()}
    return {
        "fetch, checksum compared": took["fetch"],
        "make": took["make"] - took["verify"] - took["hash"],
        "verify": took["verify"],
        "hash": took["hash"],
        "deliver, compared again": took["deliver"],
        "look at source, result and note": (
            took["whole"] - took["fetch"] - took["make"] - took["deliver"]
        ),
    }


def _processor(endpoint: str, preset: str, presets: Any, worker: Any, temp: Path) -> Any:
    from queue import SimpleQueue

    from imagecore.pyramid_item import PyramidItems

    workers: SimpleQueue[Any] = SimpleQueue()
    workers.put(worker)
    return PyramidItems(
        buckets_at(endpoint),
        presets[preset],
        temp,
        workers,
        run=RUN_ID,
        force=False,
        max_source_bytes=10**10,
    ).process


def _task(preset: str, batch: dict[str, Any]) -> None:
    """What a mapped task does, from `execute` on, at a word from the other side."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Airflow logs to standard output
    from imagecore import pyramid_item, sandbox, tempspace
    from imageflows.hooks.s3 import s3_client
    from imageflows.operators.pyramid import PyramidTiffOperator, pyramid_params
    from imageflows.params import shared_params

    # As in a task process forked from one that has them.
    assert pyramid_item
    assert sandbox
    assert tempspace
    s3_client("imageflows_s3", connections=1)
    operator = PyramidTiffOperator(
        task_id="pyramid", batch=batch, aws_conn_id="imageflows_s3", **BUCKETS
    )
    print('"ready"', file=answers, flush=True)
    if not sys.stdin.readline():
        return
    before = cpu_seconds()
    known = {**shared_params(), **pyramid_params()}
    operator.execute(context({"preset": preset}, known))
    print(json.dumps({"cpu": cpu_seconds() - before}), file=answers, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--where":
        print(json.dumps(_measure_parts(*sys.argv[2:])))
    else:
        _task(sys.argv[1], json.loads(sys.argv[2]))
