"""python -m devstack up | down | run DAG [CONF] | demo"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from devstack.demo import demo
from devstack.environment import embedded_only
from devstack.errors import DevstackError
from devstack.ez import seed_ez
from devstack.layout import Layout, State
from devstack.renders import seed_renders
from devstack.runs import keep, kept_folder, parse_conf, run_dag
from devstack.samples import seed
from devstack.stack import down, up
from devstack.stores import seed_stores


def main() -> int:
    """Do what the command line says; returns the exit code."""
    arguments = _parser().parse_args()
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _leave)
    layout = Layout()
    try:
        return int(arguments.do(layout, arguments))
    except DevstackError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devstack", description=__doc__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("up", help="start S3, SQS, Redis, Riak and Airflow").set_defaults(do=_up)
    commands.add_parser("down", help="stop them, leave nothing").set_defaults(do=_down)
    run = commands.add_parser("run", help="run a DAG to its end; exit code 0 if it succeeds")
    run.add_argument("dag", help="the DAG's id")
    run.add_argument("conf", nargs="?", default="", help="its parameters: a JSON object")
    run.set_defaults(do=_run)
    commands.add_parser("demo", help="all workflows on sample pictures").set_defaults(do=_demo)
    return parser


def _up(layout: Layout, arguments: argparse.Namespace) -> int:
    print("Starting S3, SQS, Redis, Riak and Airflow …", flush=True)
    state, started = up(layout, os.environ)
    if started:
        seed_all(layout, state)
    _say_where(layout, state, started)
    return 0


def _down(layout: Layout, arguments: argparse.Namespace) -> int:
    print(f"Stopped; {layout.state} is gone." if down(layout) else "Nothing was up.")
    return 0


def _run(layout: Layout, arguments: argparse.Namespace) -> int:
    conf = parse_conf(arguments.conf)
    with _stack(layout, dict(os.environ)) as (state, started):
        if started:
            seed_all(layout, state)
        run = run_dag(layout, state, arguments.dag, conf)
        report = run.report
        if started:
            folder = keep(layout, run, kept_folder(layout, run))
            report = report if run.local_folder is None else str(folder)
        print(f"Report: {report}", flush=True)
    return 0 if run.state == "success" else 1


def _demo(layout: Layout, arguments: argparse.Namespace) -> int:
    with _stack(layout, embedded_only(os.environ)) as (state, started):
        right = demo(layout, state, fresh=started)
        if started:
            print(
                "Stopping the stack. After `make up` the demo runs in one that stays, and its runs "
                "and pictures can be looked at in Airflow's UI."
            )
        else:
            print(
                "The stack stays up; its runs and pictures: "
                f"http://localhost:{state.ports['airflow']}/plugin/images"
            )
    return 0 if right else 1


def seed_all(layout: Layout, state: State) -> None:
    """Samples for every DAG; none where they could get into somebody's own buckets."""
    if state.embedded_s3:
        seed(state.url("moto"))
        seed_stores(state.url("moto"), layout.upload)
        seed_renders(state.url("moto"), layout.renders)
    if state.embedded_ez:
        seed_ez(state.ports["redis"], state.url("riak"), layout.assets)


@contextmanager
def _stack(layout: Layout, environ: dict[str, str]) -> Iterator[tuple[State, bool]]:
    """The running stack; one that had to be started goes again at the end."""
    print("Starting S3, SQS, Redis, Riak and Airflow …", flush=True)
    state, started = up(layout, environ, stays=False)
    try:
        yield state, started
    finally:
        if started:
            down(layout)


def _say_where(layout: Layout, state: State, started: bool) -> None:
    airflow, moto = state.ports["airflow"], state.ports["moto"]
    schedules = (
        "on: a DAG is paused until you unpause it"
        if state.schedules
        else "off: a DAG runs when you trigger it "
        "(AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE=True make up turns them on)"
    )
    print(
        f"{'Up' if started else 'It is up already'}.\n"
        f"  Airflow    http://localhost:{airflow}\n"
        "             without a password, reachable only from this machine (127.0.0.1)\n"
        f"  pictures   http://localhost:{airflow}/plugin/images\n"
        f"  S3, SQS    http://127.0.0.1:{moto} (any key and secret)"
        f"{'' if state.embedded_s3 else ', not used: your connection is'}\n"
        f"  Redis      127.0.0.1:{state.ports['redis']}\n"
        f"  Riak       {state.url('riak')} (not a real one: see docs/RIAK.md)\n"
        f"  schedules  {schedules}\n"
        f"  logs       {layout.logs}\n"
        f"  work       {state.work_store}\n"
        f"  commands   . {layout.shell}   (then `airflow …` speaks to this one)\n"
        "  stop       make down"
    )


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
