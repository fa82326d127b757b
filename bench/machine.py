"""The machine a figure was measured on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import psutil


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def vips_command() -> str | None:
    """The `vips` command line, when it is installed."""
    return shutil.which("vips")


def describe() -> str:
    """One line: processor, cores, memory, system, versions, and how busy it is."""
    ours = _output(
        sys.executable,
        "-c",
        "import pyvips; print('.'.join(str(pyvips.version(n)) for n in range(3)))",
    )
    vips = vips_command()
    theirs = _output(vips, "--version") if vips else "not installed: its rows are left out"
    return (
        f"{_processor()}, {cores()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB, "
        f"{platform.system()} {platform.release()}; Python {platform.python_version()}; "
        f"libvips of pyvips {ours}; `vips` command line: {theirs}; "
        f"load before the start {os.getloadavg()[0]:.1f}"
    )


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
