"""The sides of the sync benchmarks: our code in a process of its own, s5cmd, rclone and aws-cli.

All get the same server and keys by their environment, and nothing of the user's own settings. What
they print goes to files. Each is timed as a whole process, the start of Python and the imports
included; what is not in ours is Airflow, which a task has loaded before it begins.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from bench import ROOT
from bench.measure import Used, ratios, say, spread, used_by
from bench.server import rclone

if TYPE_CHECKING:
    from imagecore.s3 import Bucket

REMOTE = "bench"


def our_command(module: str, *arguments: str) -> list[str]:
    """A command that runs a module of the benchmarks wherever it is started."""
    return [sys.executable, "-m", module, *arguments]


def peers() -> dict[str, str]:
    """The command lines that are installed: s5cmd (the program itself, not its Python wrapper,
    whose memory would be taken for it), rclone and aws."""
    aws = Path(sys.executable).parent / "aws"
    found = {"s5cmd": _s5cmd(), "rclone": rclone(), "aws": str(aws) if aws.exists() else None}
    for name, command in found.items():
        if command is None:
            say(f"{name} is not installed: its row is left out")
    return {name: command for name, command in found.items() if command is not None}


def _s5cmd() -> str | None:
    try:
        files = distribution("s5cmd").files or []
    except PackageNotFoundError:
        return None
    return next((str(file.locate()) for file in files if file.match("s5cmd/bin/s5cmd*")), None)


@contextmanager
def reaching(endpoint: str) -> Iterator[None]:
    """The environment in which all of them use the server."""
    values = {
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_ENDPOINT_URL": endpoint,
        "S3_ENDPOINT_URL": endpoint,
        "NO_PROXY": "*",
        "RCLONE_CONFIG": os.devnull,
        f"RCLONE_CONFIG_{REMOTE.upper()}_TYPE": "s3",
        f"RCLONE_CONFIG_{REMOTE.upper()}_PROVIDER": "Rclone",
        f"RCLONE_CONFIG_{REMOTE.upper()}_ENDPOINT": endpoint,
        f"RCLONE_CONFIG_{REMOTE.upper()}_ENV_AUTH": "true",
    }
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def bucket_at(name: str, connections: int) -> Bucket:
    """A bucket of the server in the environment, with the client's settings that tasks have."""
    import boto3
    from botocore.config import Config
    from obstore.store import S3Store

    from imagecore.s3 import Bucket

    config = Config(
        max_pool_connections=connections,
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "max_attempts": 5},
    )
    store = S3Store(
        name,
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    return Bucket(name, boto3.client("s3", config=config), store)


def run(commands: Sequence[Sequence[str]], temp: Path, fine: Sequence[int] = (0,)) -> Used:
    """Run commands at once, what they print in `printed.0`, `printed.1` … of `temp`.

    The seconds are those until the last has ended, the memory that of the largest process.

    Raises:
        CalledProcessError: one ended with another code than is `fine`.
    """
    lines = [
        f'{shlex.join(command)} >printed.{number} 2>errors.{number} & pids="$pids $!"'
        for number, command in enumerate(commands)
    ]
    allowed = "|".join(map(str, fine))
    lines.append(f"for pid in $pids; do wait $pid; case $? in {allowed}) ;; *) exit 1;; esac; done")
    try:
        return used_by(["sh", "-c", "\n".join(lines)], temp)
    except Exception:
        for number in range(len(commands)):
            say((temp / f"errors.{number}").read_text(errors="replace")[-2_000:])
        raise


Side = Callable[[int], Used]
"""Does the work once, in the run of this number."""


def in_turns(sides: dict[str, Side], runs: int) -> dict[str, list[Used]]:
    """What each side took, run by run."""
    answers: dict[str, list[Used]] = {name: [] for name in sides}
    for number in range(runs):
        for name, side in sides.items():
            say(f"run {number + 1} of {runs}: {name}")
            answers[name].append(side(number))
    return answers


def row(name: str, used: Sequence[Used], *rates: float) -> tuple[str, ...]:
    """A row of a table: so many units a second for each of `rates`, then what it took."""
    return (
        name,
        *(spread((rate / use.seconds for use in used), 0) for rate in rates),
        spread((use.seconds for use in used), 2),
        spread((use.cpu for use in used), 2),
        spread((use.memory / 1e6 for use in used), 0),
    )


def speed(ours: str, answers: dict[str, list[Used]], others: Sequence[str]) -> str:
    """Speed of one side ÷ that of others, pair by pair."""
    mine = [use.seconds for use in answers[ours]]
    return ", ".join(
        f"{other} {ratios([use.seconds for use in answers[other]], mine)}"
        for other in others
        if other in answers
    )
