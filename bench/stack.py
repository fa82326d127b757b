"""Airflow as `make up` starts it, in a place of its own, on a benchmark's S3 server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

import psutil

from bench import ROOT
from bench.measure import say
from bench.server import Server
from devstack.api import Api
from devstack.environment import S3_CONNECTION, SETTINGS
from devstack.layout import Layout, State
from devstack.services import AIRFLOW
from devstack.stack import down, failure, up

DAG_ID = "pyramid_tiff"
PARSE_SECONDS = 60
RUN_SECONDS = 1_800
ASK_SECONDS = 0.5


@dataclass(frozen=True)
class Airflow:
    """The running stack."""

    layout: Layout
    state: State
    api: Api

    def run(self, conf: dict[str, Any]) -> tuple[float, int]:
        """Trigger a run and wait for its end; returns its seconds and its number of tasks.

        Raises:
            DevstackError: it failed, or takes longer than RUN_SECONDS.
        """
        started = perf_counter()
        run_id = self.api.trigger(DAG_ID, conf)
        while (state := self.api.run_state(DAG_ID, run_id)) in {"queued", "running"}:
            if perf_counter() - started > RUN_SECONDS:
                break
            sleep(ASK_SECONDS)
        seconds = perf_counter() - started
        if state != "success":
            raise failure(f"The run ended {state}", self._a_log(run_id))
        mapped = [i for i in self.api.task_instances(DAG_ID, run_id) if i.task_id == "pyramid"]
        return seconds, len(mapped)

    def cpu(self) -> float:
        """CPU-seconds of the stack until now, with every process that has come and gone in it."""
        processes = [psutil.Process(each.pid) for each in self.state.services.values()]
        processes += [child for each in processes for child in each.children(recursive=True)]
        total = 0.0
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
        return total

    def _a_log(self, run_id: str) -> Path:
        logs = self.layout.logs.glob(f"tasks/*/run_id={run_id}/task_id=report/*.log")
        return max(logs, default=self.layout.logs / "airflow-scheduler.log")


@contextmanager
def airflow(server: Server, temp: Path) -> Iterator[Airflow]:
    """Scheduler, LocalExecutor and API server, ready to run DAG_ID; stopped at the end."""
    layout = Layout(state=temp / "stack")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    environ[S3_CONNECTION] = server.connection()
    layout.state.mkdir()
    try:
        state, _ = up(layout, environ, AIRFLOW, stays=False)
        api = Api(state.url("airflow"))
        deadline = monotonic() + PARSE_SECONDS
        while api.dag(DAG_ID) is None:
            if monotonic() > deadline:
                raise failure(f"No DAG {DAG_ID}", layout.logs / "airflow-dag-processor.log")
            sleep(ASK_SECONDS)
        yield Airflow(layout, state, api)
    except Exception:
        kept = ROOT / "build" / "bench" / "logs"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(layout.logs, kept, dirs_exist_ok=True)
        say(f"the logs of the stack that failed: {kept}")
        raise
    finally:
        down(layout)
        shutil.rmtree(layout.state, ignore_errors=True)
