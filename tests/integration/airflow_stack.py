"""Airflow as `make up` starts it, but on PostgreSQL and on a test's own S3."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from devstack.api import Api
from devstack.layout import ROOT, Layout, State
from devstack.processes import HOST, free_port, is_alive, start, stop, tail
from devstack.services import SERVICES, Service
from devstack.stack import dead_services, down, up
from imagecore.workstore import run_folder
from tests.postgres import Postgres, postgres

ENDED = {"success", "failed"}


@dataclass(frozen=True)
class AirflowStack:
    """A running Airflow, its REST API, its database and the S3 it works on."""

    layout: Layout
    state: State
    api: Api
    database: Postgres
    s3: Any

    @property
    def scheduler(self) -> psutil.Process:
        """The scheduler, whose children run the tasks."""
        return psutil.Process(self.state.services["airflow-scheduler"].pid)

    def shell(self, command: str) -> str:
        """What a person gets who pastes the command."""
        done = subprocess.run(
            self.in_shell(command), env=plain_environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def in_shell(self, command: str) -> list[str]:
        """A command for a shell whose `airflow` speaks to the stack."""
        return ["sh", "-c", f". {self.layout.shell}; {command}"]

    def revive(self) -> list[str]:
        """Start again what has died, as systemd or Docker would; the names."""
        dead = dead_services(self.layout, self.state)
        for service in SERVICES:
            if service.name in dead:
                command = shlex.join(service.command(self.state.ports, self.layout))
                log = self.layout.logs / f"{service.name}.log"
                self.state.services[service.name] = start(
                    self.in_shell(f"exec {command}"), plain_environment(), self.layout.root, log
                )
        self.state.save(self.layout)
        return dead

    def versions(self, dag_id: str) -> list[int]:
        """The numbers of a DAG's versions."""
        listing = self.api._all(f"/api/v2/dags/{dag_id}/dagVersions", "dag_versions")
        return [version["version_number"] for version in listing]

    def runs(self, dag_id: str) -> dict[str, str]:
        """Every run of a DAG with its state."""
        listing = self.api._all(f"/api/v2/dags/{dag_id}/dagRuns", "dag_runs")
        return {run["dag_run_id"]: run["state"] for run in listing}

    def ended(self, dag_id: str, run_id: str) -> str:
        """A run's state, once it has ended."""
        until(lambda: self.api.run_state(dag_id, run_id) in ENDED)
        return self.api.run_state(dag_id, run_id)

    def folder(self, dag_id: str, run_id: str) -> Path:
        """Where a run keeps its plans and its report."""
        return self.layout.work / run_folder(dag_id, run_id)

    def outcomes(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """What the report says became of each item, by its key."""
        file = self.folder(dag_id, run_id) / "outcomes.jsonl"
        return {(o := json.loads(line))["key"]: o for line in file.read_text().splitlines()}

    def recorded(self, dag_id: str, run_id: str) -> dict[str, str]:
        """The line on record of each item, by its key, whichever file it is in."""
        files = self.folder(dag_id, run_id).glob("plan-*/outcomes/**/*.jsonl")
        lines = [line for file in files for line in file.read_text().splitlines()]
        return {json.loads(line)["key"]: line for line in lines}

    def report(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """A run's report."""
        found: dict[str, Any] = json.loads(
            (self.folder(dag_id, run_id) / "report.json").read_text()
        )
        return found


@contextmanager
def airflow_stack(
    folder: Path, s3_endpoint: str, s3: Any, root: Path = ROOT, **settings: str
) -> Iterator[AirflowStack]:
    """The stack, its state below a folder; down again afterwards. `root` is the project's.

    Its buckets are emptied: other tests have used them.

    `settings` are variables of the environment: Airflow's stand in place of the stack's own.
    """
    connection = {
        "conn_type": "aws",
        "login": "test",
        "password": "test",
        "extra": {"endpoint_url": s3_endpoint, "region_name": "us-east-1"},
    }
    _empty_buckets(s3)
    with postgres() as database:
        ours = {"AIRFLOW_CONN_IMAGEFLOWS_S3": json.dumps(connection), **database.airflow_settings}
        layout = Layout(root, folder / "state", {**ours, **settings})
        try:
            state, _ = up(layout, plain_environment(), own_ports())
            api = Api(state.url("airflow"))
            until(lambda: api.dag("pyramid_tiff"))
            yield AirflowStack(layout, state, api, database, s3)
        finally:
            down(layout)


@contextmanager
def signing_in(
    stack: AirflowStack, folder: Path, people: Mapping[str, str], password: str
) -> Iterator[str]:
    """The address of a second API server of the same Airflow, where people, each with a role and
    all with one password, have to sign in."""
    port = free_port(8480)
    passwords, log = folder / "passwords.json", folder / "log"
    passwords.write_text(json.dumps(dict.fromkeys(people, password)))
    address = f"http://localhost:{port}"
    settings = {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(map(":".join, people.items())),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }
    exports = " ".join(f"{name}={value}" for name, value in settings.items())
    command = stack.in_shell(f"{exports} exec airflow api-server")
    server = start(command, plain_environment(), stack.layout.root, log)

    def answers() -> bool:
        try:
            url = f"http://{HOST}:{port}/api/v2/version"
            return httpx.get(url, trust_env=False).is_success
        except httpx.TransportError:
            assert is_alive(server), tail(log)
            return False

    try:
        until(answers)
        yield address
    finally:
        stop([server])


def _empty_buckets(s3: Any) -> None:
    names = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    for name in (name for name in names if name.startswith("imageflows-")):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
            for entry in page.get("Contents", ()):
                s3.delete_object(Bucket=name, Key=entry["Key"])


def own_ports() -> list[Service]:
    """The services at ports that no other worker of the tests asks for at the same moment."""
    shift = 100 * (1 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))
    return [replace(each, wanted_port=each.wanted_port + shift) for each in SERVICES]


def plain_environment() -> dict[str, str]:
    """The environment without what the tests set in it."""
    ours = ("AIRFLOW", "PY")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def task_at_work(machine: psutil.Process) -> psutil.Process | None:
    """The process, below that of a scheduler or a worker, of a task that has pictures made."""
    for process in machine.children(recursive=True):
        try:
            if "imagecore.sandbox" in " ".join(process.cmdline()):
                return process.parent()
        except psutil.NoSuchProcess:
            continue
    return None


def until(true: Callable[[], Any], seconds: float = 300) -> Any:
    """Wait until something is true; what it then is."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return found
