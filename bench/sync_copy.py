"""Copying 10,000 objects of 10 kB and 20 of 256 MB: our sync beside s5cmd and rclone.

Two ways: bucket to bucket inside the server, and from a folder to a bucket. Each side brings
everything into an empty bucket with 16 workers: ours (a plan of both sides, then `run_batch` with
`SyncItems` on 16 threads, as the DAG's tasks do; and the same plan cut in two, in two processes at
once with 8 threads each, as two mapped tasks would), `s5cmd --numworkers 16 cp`, and `rclone copy
--transfers 16 --checkers 16`. Ours is timed with its plan, since the others list too. Fair in what
arrives: every file of the destination is compared with its source afterwards, outside the time.
Not equal in what is promised: ours looks before each write where the server honours no condition
(rclone's honours none), looks at the result after it, compares it with the checksum of what was
sent, and puts each outcome on record in a local work store; rclone compares too; s5cmd does not.

The server is rclone, on the same cores and the same disk; its part is given. It has hashed the
sources before anybody is measured. Its `--etag-hash` is left at MD5: it hashes what is new when
somebody looks at it, which ours and rclone make it do and s5cmd does not. Destinations are deleted
after each measurement, and dirty pages written; about 11 GB of disk are used at most.

    python -m bench sync-copy [--runs 2] [--pictures 10000]

--pictures is the number of small objects; there is one large one for each 500.
"""

from __future__ import annotations

import filecmp
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event

from bench.measure import Used, say, spread, table
from bench.server import Server, serving_folders
from bench.sync_tools import (
    REMOTE,
    bucket_at,
    in_turns,
    our_command,
    peers,
    reaching,
    row,
    run,
    speed,
)
from devstack.samples import client

RUNS = 2
OBJECTS = 10_000
SMALL, LARGE = 10_000, 256 * 10**6
SMALL_A_LARGE = 500
WORKERS = 16
SOURCE = "sync-source"
WAYS = ("bucket to bucket", "disk to bucket")
OURS = {1: "ours, verified, one process", 2: "ours, verified, two processes"}


@dataclass(frozen=True)
class Work:
    """What is copied: `count` files of `size` bytes in `folder`, which is a bucket too."""

    folder: Path
    count: int
    size: int
    way: str

    @property
    def title(self) -> str:
        size = f"{self.size // 10**6} MB" if self.size >= 10**6 else f"{self.size // 10**3} kB"
        return f"{self.count:,} × {size}, {self.way}"


def main(runs: int, count: int | None) -> None:
    """Measure both sizes and both ways, all sides in turns, and print the tables."""
    objects = count or OBJECTS
    for number, size in ((objects, SMALL), (max(2, objects // SMALL_A_LARGE), LARGE)):
        with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
            temp = Path(folder)
            source = temp / "s3" / SOURCE
            _lay_out(source, number, size)
            with serving_folders(temp / "s3", temp) as server, reaching(server.endpoint):
                say("the server hashes everything once")
                run([our_command("bench.sync_listing", "list", SOURCE)], temp)
                for way in WAYS:
                    _compare(Work(source, number, size, way), runs, server, temp)


def _lay_out(folder: Path, count: int, size: int) -> None:
    """Files of bytes that differ from each other."""
    noise = random.Random(0)
    block = min(size, 10**6)
    for number in range(count):
        file = folder / f"{number // 100:03d}" / f"{number:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        data = noise.randbytes(block)
        with file.open("wb") as target:
            for _ in range(size // block):
                target.write(data)


def _compare(work: Work, runs: int, server: Server, temp: Path) -> None:
    served: dict[str, list[float]] = {}

    def side(name: str, copy: Callable[[str], Used]) -> Callable[[int], Used]:
        def once(number: int) -> Used:
            bucket = f"sync-target-{len(served)}-{number}-{WAYS.index(work.way)}"
            client(server.endpoint).create_bucket(Bucket=bucket)
            os.sync()
            before = server.cpu()
            used = copy(bucket)
            served.setdefault(name, []).append(server.cpu() - before)
            _take_away(temp / "s3" / bucket, work)
            return used

        return once

    sides = {name: side(name, _ours(work, tasks, temp)) for tasks, name in OURS.items()}
    for name, path in peers().items():
        if name in _PEERS:
            command = _PEERS[name]
            sides[f"`{name}`"] = side(
                f"`{name}`",
                lambda bucket, path=path, command=command: run([command(path, work, bucket)], temp),  # type: ignore[misc]
            )
    answers = in_turns(sides, runs)
    rows = [
        (
            *row(name, used, work.count, work.count * work.size / 1e6),
            spread(served[name], 2),
        )
        for name, used in answers.items()
    ]
    head = ("objects/s", "MB/s", "seconds", "CPU-seconds", "peak memory, MB", "CPU-s of the server")
    table((work.title, *head), rows)
    others = [name for name in answers if name not in OURS.values()]
    for name in OURS.values():
        print(f"Rate, {name} ÷ others: {speed(name, answers, others)}.")
    print("Peak memory is that of the largest process.\n", flush=True)


def _take_away(copies: Path, work: Work) -> None:
    """Delete the copies, which must be those of all sources.

    Raises:
        RuntimeError: they are not.
    """
    names = [str(path.relative_to(work.folder)) for path in work.folder.rglob("*.jpg")]
    _, wrong, missing = filecmp.cmpfiles(work.folder, copies, names, shallow=False)
    filecmp.clear_cache()
    found = sum(1 for path in copies.rglob("*") if path.is_file())
    if wrong or missing or found != work.count:
        raise RuntimeError(
            f"{found} copies of {work.count}: {len(wrong)} are wrong, {len(missing)} missing"
        )
    shutil.rmtree(copies)


def _ours(work: Work, tasks: int, temp: Path) -> Callable[[str], Used]:
    """A plan, then so many processes at once with an equal part of it each."""

    def copy(bucket: str) -> Used:
        local = str(work.folder) if work.way == WAYS[1] else ""
        plan = run([our_command("bench.sync_copy", "plan", bucket, local)], temp)
        commands = [
            our_command("bench.sync_copy", "apply", bucket, local, str(task), str(tasks))
            for task in range(tasks)
        ]
        used = run(commands, temp)
        shutil.rmtree(temp / "work")
        memory = max(plan.memory, used.memory)
        return Used(plan.seconds + used.seconds, plan.cpu + used.cpu, memory)

    return copy


def _s5cmd(path: str, work: Work, bucket: str) -> list[str]:
    source = f"s3://{SOURCE}/*" if work.way == WAYS[0] else f"{work.folder}/"
    return [path, "--numworkers", str(WORKERS), "cp", source, f"s3://{bucket}/"]


def _rclone(path: str, work: Work, bucket: str) -> list[str]:
    source = f"{REMOTE}:{SOURCE}" if work.way == WAYS[0] else str(work.folder)
    workers = ["--transfers", str(WORKERS), "--checkers", str(WORKERS)]
    return [path, "copy", *workers, source, f"{REMOTE}:{bucket}"]


_PEERS = {"s5cmd": _s5cmd, "rclone": _rclone}


def _plan(bucket: str, local: str) -> None:
    """In a fresh process: what is to be copied, and which conditions the server honours."""
    import json
    from dataclasses import asdict

    from imagecore.manifest import write_manifest
    from imagecore.sides import LocalSide, S3Side
    from imagecore.syncplan import SyncPlan, SyncRules
    from imagecore.target import probe
    from imagecore.workstore import local_work_store

    target = bucket_at(bucket, 2)
    source = LocalSide(Path(local)) if local else S3Side(bucket_at(SOURCE, 2), "")
    with tempfile.TemporaryDirectory(dir=".") as lists:
        plan = SyncPlan(source, S3Side(target, ""), SyncRules(compare="size"), Path(lists))
        plan.make()
        store = local_work_store(f"file://{Path.cwd()}/work")
        write_manifest(plan.transfers(), store, "manifest.jsonl", lambda count: count)
    store.put("conditions.json", json.dumps(asdict(probe(target, "probe"))).encode())


def _apply(bucket: str, local: str, task: int, tasks: int) -> None:
    """In a fresh process: one of `tasks` equal parts of the plan."""
    import json

    from imagecore.batch import run_batch
    from imagecore.manifest import decode
    from imagecore.outcome import OutcomeLog, State
    from imagecore.sides import LocalSide
    from imagecore.syncitem import BucketSource, FolderSource, SyncItems
    from imagecore.target import Conditions, Target
    from imagecore.uploadlog import UploadLog
    from imagecore.workstore import local_work_store

    store = local_work_store(f"file://{Path.cwd()}/work")
    items = decode(_part(store.get("manifest.jsonl").splitlines(True), task, tasks), "manifest")
    threads = WORKERS // tasks
    uploads = UploadLog(store, f"uploads/{task}")
    target = Target(
        bucket_at(bucket, threads),
        Conditions(**json.loads(store.get("conditions.json"))),
        begun=uploads.begun,
        ended=uploads.ended,
    )
    side = LocalSide(Path(local))
    source = (
        FolderSource(side, side.identity())
        if local
        else BucketSource(bucket_at(SOURCE, threads), server_side=True)
    )
    process = SyncItems(source, target, trash=None).process
    record = OutcomeLog(store, f"outcomes/{task}")
    states = run_batch(items, process, record, threads=threads, stop=Event())
    if states[State.DONE] != len(items):
        raise SystemExit(f"not all were copied: {states}")


def _part(lines: list[bytes], task: int, tasks: int) -> bytes:
    each = -(-len(lines) // tasks)
    return b"".join(islice(lines, task * each, (task + 1) * each))


if __name__ == "__main__":
    if sys.argv[1] == "plan":
        _plan(*sys.argv[2:])
    else:
        _apply(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
