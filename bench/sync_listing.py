"""Listing and comparing 2 × 100,000 keys: `SyncPlan` beside s5cmd, rclone and aws-cli.

Compared by size: our plan of two bucket prefixes, with all its lists written; `s5cmd --dry-run
sync --size-only --delete`; `rclone check --size-only --fast-list --combined`; `aws s3 sync
--dryrun --size-only --delete`. Fair because all read the same two buckets of one server whole,
decide the same (it is checked that each finds exactly the changes that were laid out), write
down what they found, and are timed as whole processes. s5cmd has its default of 256 workers: what
it uses of them here are two, one a listing, as all others do.

The buckets are folders of files of a few bytes, 100 a folder, half a percent of them new, as many
modified and gone. The server hashes files for its ETags when it first lists them, and remembers:
it lists everything once before anybody is measured, so that its `--etag-hash` (left at its
default, MD5) is the same for all. The server runs on the same cores, and its part is given.

    python -m bench sync-listing [--runs 3] [--pictures 100000]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.measure import Used, say, table
from bench.server import Server, serving_folders
from bench.sync_tools import REMOTE, in_turns, our_command, peers, reaching, row, run, speed

RUNS = 3
KEYS = 100_000
SOURCE, DESTINATION = "sync-source", "sync-destination"
EVERY = 200
FOLDER = 100
OURS = "ours, lists written"

Found = tuple[int, int, int]
"""Numbers of new, modified and gone keys."""


def main(runs: int, count: int | None) -> None:
    """Measure all sides in turns, and print the tables."""
    keys = count or KEYS
    with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
        temp = Path(folder)
        expected = _lay_out(keys, temp / "s3")
        with serving_folders(temp / "s3", temp) as server, reaching(server.endpoint):
            _warm(temp)
            _compare(runs, keys, expected, server, temp)


def _lay_out(keys: int, root: Path) -> Found:
    """The two buckets as files; returns what there is to find."""
    for bucket in (SOURCE, DESTINATION):
        for number in range(keys):
            kind = number % EVERY
            if (kind, bucket) in {(0, DESTINATION), (2, SOURCE)}:
                continue
            file = root / bucket / "stores" / f"{number // FOLDER:05d}" / f"{number:07d}.jpg"
            if number % FOLDER in (0, 1):
                file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x" * (1 + (kind == 1 and bucket == SOURCE)))
    return len(range(0, keys, EVERY)), len(range(1, keys, EVERY)), len(range(2, keys, EVERY))


def _warm(temp: Path) -> None:
    say("the server hashes everything once")
    for bucket in (SOURCE, DESTINATION):
        run([our_command("bench.sync_listing", "list", bucket)], temp)


def _compare(runs: int, keys: int, expected: Found, server: Server, temp: Path) -> None:
    served: dict[str, list[float]] = {}

    def side(
        name: str, command: list[str], found: Callable[[Path], Found], fine: tuple[int, ...] = (0,)
    ) -> Callable[[int], Used]:
        def once(number: int) -> Used:
            before = server.cpu()
            used = run([command], temp, fine)
            served.setdefault(name, []).append(server.cpu() - before)
            if found(temp) != expected:
                raise RuntimeError(f"{name} found {found(temp)}, and there are {expected}")
            return used

        return once

    commands = {OURS: (our_command("bench.sync_listing", "plan"), _ours_found, (0,))}
    for name, path in peers().items():
        commands[_title(name)] = {
            "s5cmd": (_s5cmd(path), _s5cmd_found, (0,)),
            "rclone": (_rclone(path), _rclone_found, (0, 1)),  # 1: there are differences
            "aws": (_aws(path), _aws_found, (0,)),
        }[name]
    answers = in_turns({name: side(name, *each) for name, each in commands.items()}, runs)
    head = ("keys/s", "seconds", "CPU-seconds", "peak memory, MB", "CPU-seconds of the server")
    rows = [
        (*row(name, used, 2 * keys), f"{sorted(served[name])[len(used) // 2]:.2f}")
        for name, used in answers.items()
    ]
    table((f"2 × {keys:,} keys, by size", *head), rows)
    others = [name for name in answers if name != OURS]
    print(f"keys/s counts both sides. Speed, ours ÷ others: {speed(OURS, answers, others)}.\n")


def _title(name: str) -> str:
    return {
        "s5cmd": "`s5cmd sync --dry-run`",
        "rclone": "`rclone check --fast-list`",
        "aws": "`aws s3 sync --dryrun`",
    }[name]


def _s5cmd(path: str) -> list[str]:
    options = ["sync", "--size-only", "--delete"]
    return [path, "--dry-run", *options, f"s3://{SOURCE}/*", f"s3://{DESTINATION}/"]


def _rclone(path: str) -> list[str]:
    options = ["check", "--size-only", "--fast-list", "--combined", "combined.rclone"]
    return [path, *options, f"{REMOTE}:{SOURCE}", f"{REMOTE}:{DESTINATION}"]


def _aws(path: str) -> list[str]:
    options = ["s3", "sync", "--dryrun", "--size-only", "--delete"]
    return [path, *options, f"s3://{SOURCE}", f"s3://{DESTINATION}"]


def _ours_found(temp: Path) -> Found:
    lists = ("new", "modified", "duplicate_stores")
    return tuple(len((temp / f"{name}.txt").read_text().splitlines()) for name in lists)  # type: ignore[return-value]


def _s5cmd_found(temp: Path) -> Found:
    lines = (temp / "printed.0").read_text().splitlines()
    copied = [line.partition(".jpg")[0][-7:] for line in lines if line.startswith("cp ")]
    return _split(copied, sum(line.startswith("rm ") for line in lines))


def _aws_found(temp: Path) -> Found:
    lines = (temp / "printed.0").read_text().splitlines()
    copied = [line.partition(".jpg")[0][-7:] for line in lines if " copy: " in line]
    return _split(copied, sum(" delete: " in line for line in lines))


def _split(copied: list[str], gone: int) -> Found:
    """What a tool that does not tell new from modified found."""
    new = sum(int(number) % EVERY == 0 for number in copied)
    return new, len(copied) - new, gone


def _rclone_found(temp: Path) -> Found:
    signs = [line[0] for line in (temp / "combined.rclone").read_text().splitlines()]
    return signs.count("+"), signs.count("*"), signs.count("-")


def _plan() -> None:
    """In a fresh process: both sides listed and compared, the lists in the current folder."""
    from bench.sync_tools import bucket_at
    from imagecore.sides import S3Side
    from imagecore.syncplan import SyncPlan, SyncRules

    sides = [S3Side(bucket_at(name, 2), "") for name in (SOURCE, DESTINATION)]
    SyncPlan(*sides, SyncRules(compare="size", delete=True), Path.cwd()).make()


def _list(bucket: str) -> None:
    from bench.sync_tools import bucket_at
    from imagecore.sides import S3Side

    for _ in S3Side(bucket_at(bucket, 2), "").entries("", lambda key, reason: None):
        pass


if __name__ == "__main__":
    if sys.argv[1] == "plan":
        _plan()
    else:
        _list(sys.argv[2])
