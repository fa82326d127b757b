"""python -m bench [NAME] [--runs N] [--pictures N]: one benchmark, or all in order.

Prints Markdown tables. Default sizes are those of docs/PERFORMANCE.md; `--pictures 8 --runs 1`
shows in a minute or two whether a benchmark works.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import subprocess
import sys
from time import monotonic
from types import FrameType

from bench.machine import describe
from bench.measure import say
from devstack.errors import DevstackError

NAMES = (
    "large",
    "batch",
    "run",
    "planning",
    "fanout",
    "sync-listing",
    "sync-copy",
    "sync-diff",
    "redis-scan",
    "riak-sync",
    "riak-head",
    "renders",
    "outcome-rows",
)


def main() -> int:
    """Run what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=NAMES, help="all of them when left out")
    parser.add_argument("--runs", type=int, help="how often each side is measured")
    parser.add_argument(
        "--pictures", type=int, help="pictures of a run (planning: items; sync: keys)"
    )
    arguments = parser.parse_args()
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _leave)
    print(describe(), flush=True)
    failed = 0
    for name in [arguments.name] if arguments.name else NAMES:
        started = monotonic()
        benchmark = importlib.import_module(f"bench.{name.replace('-', '_')}")
        print(f"\n## {name}\n", flush=True)
        try:
            benchmark.main(arguments.runs or benchmark.RUNS, arguments.pictures)
        except (RuntimeError, OSError, DevstackError, subprocess.SubprocessError) as error:
            print(f"Not measured: {error}\n", flush=True)
            failed = 1
        say(f"{name}: {monotonic() - started:.0f} s")
    return failed


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
