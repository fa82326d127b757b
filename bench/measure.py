"""Measuring a process, and saying several measurements in one cell of a table."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import ROOT

# A process starts with the peak memory of the one that forked it, and that one should be small.
_LAUNCHER = """
import json, os, sys, time
started = time.monotonic()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)
with open(sys.argv[1], "w") as file:
    json.dump([time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss], file)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""
_TO_BYTES = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Used:
    """What a command took, with all it started: seconds, CPU-seconds, and the peak memory of its
    largest process in bytes."""

    seconds: float
    cpu: float
    memory: int


def used_by(command: Sequence[str], temp: Path) -> Used:
    """Run a command to its end; a failing one raises CalledProcessError."""
    answer = temp / "used.json"
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(answer), *command], check=True, cwd=temp
    )
    seconds, cpu, kilobytes = json.loads(answer.read_text())
    answer.unlink()
    return Used(seconds, cpu, kilobytes * _TO_BYTES)


def in_fresh_python(module: str, *arguments: str, **environ: str) -> Any:
    """Run `python -m module arguments`, and return the JSON on its last line of output."""
    import os

    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> int:
    """The most memory this very process has used until now, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _TO_BYTES
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def cpu_seconds() -> float:
    """CPU-seconds of this process and of those it started that have ended."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Median, and from least to most where there are several."""
    values = list(values)
    middle = f"{median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def ratios(ours: Iterable[float], theirs: Iterable[float]) -> str:
    """Ours ÷ theirs, pair by pair as they were measured."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)], 2)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table; all columns but the first are figures."""
    print(f"| {' | '.join(head)} |")
    print(f"|---|{'---:|' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def say(text: str) -> None:
    """Tell whoever waits what is going on, beside the tables."""
    print(text, file=sys.stderr, flush=True)
