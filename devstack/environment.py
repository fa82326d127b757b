"""The environment of the stack's processes: our defaults, the user's settings, what must match."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from shlex import quote
from types import MappingProxyType

from devstack.events import queue_url
from devstack.ez import COPIED_TO
from devstack.layout import Layout, truth
from devstack.processes import HOST

S3_CONNECTION = "AIRFLOW_CONN_IMAGEFLOWS_S3"
NOTES_QUEUE = "AIRFLOW__IMAGEFLOWS__PYRAMID_NOTES_QUEUE"
REDIS_CONNECTION = "AIRFLOW_CONN_IMAGEFLOWS_REDIS"
RIAK_CONNECTION = "AIRFLOW_CONN_IMAGEFLOWS_RIAK"
SCHEDULES = "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE"
SETTINGS = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "AWS_")
OURS = ("AIRFLOW__IMAGEFLOWS__", "AIRFLOW_CONN_IMAGEFLOWS_", SCHEDULES)


def embedded_only(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without the user's buckets, connection and schedules, for the demo: sample
    pictures never go into anyone's own buckets, and the result is the same everywhere."""
    return {name: value for name, value in environ.items() if not name.startswith(OURS)}


def settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's settings that the stack takes over, their values hashed: some are secrets."""
    return {
        name: sha256(value.encode()).hexdigest()
        for name, value in sorted(environ.items())
        if name.startswith(SETTINGS)
    }


def environment(
    layout: Layout, ports: Mapping[str, int], environ: Mapping[str, str]
) -> dict[str, str]:
    """What the stack sets. The user's own settings win over the defaults and are not repeated."""
    schedules = truth(environ, SCHEDULES, default=False)
    defaults = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(layout.root / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(layout.root / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": str(max(2, _cores())),
        # A run of a paused DAG stays queued for ever without a word. Unpausing a scheduled DAG
        # starts the run it missed last. So schedules are off, or DAGs are paused.
        SCHEDULES: str(schedules),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": str(schedules),
        # Airflow 3.3.2: one short task in six holds its slot this long after it is done.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__IMAGEFLOWS__WORK_STORE": layout.work.as_uri(),
        "AIRFLOW__IMAGEFLOWS__UPLOAD_ROOT": str(layout.upload),
        "AIRFLOW__IMAGEFLOWS__ASSETS_ROOT": str(layout.assets),
        "AIRFLOW__IMAGEFLOWS__RENDERS_ROOT": str(layout.renders),
        # The form of a connection has a button "Test", and nobody but this machine may press it.
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        S3_CONNECTION: _s3_connection(f"http://{HOST}:{ports['moto']}"),
        REDIS_CONNECTION: _connection("redis", ports["redis"]),
        f"{REDIS_CONNECTION}_SOURCE": _connection("redis", ports["redis"]),
        f"{REDIS_CONNECTION}_DESTINATION": _connection("redis", ports["redis"], {"db": COPIED_TO}),
        RIAK_CONNECTION: _connection("riak", ports["riak"]),
        "AIRFLOW_CONN_AIRFLOW_API": _connection("http", ports["airflow"]),
    }
    if S3_CONNECTION not in environ:  # nobody's own bucket tells this queue of uploads
        defaults[NOTES_QUEUE] = queue_url(ports)
    matching = {
        "AIRFLOW_HOME": str(layout.airflow),
        "AIRFLOW_CONFIG": str(layout.airflow / "airflow.cfg"),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{layout.airflow / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(layout.logs / "tasks"),
        **_address(ports["airflow"]),
        "PATH": _joined(os.pathsep, str(Path(sys.executable).parent), environ.get("PATH")),
        "PYTHONPATH": _joined(
            os.pathsep,
            os.pathsep.join(str(layout.root / name) for name in ("include", "plugins")),
            environ.get("PYTHONPATH"),
        ),
        **{name: _joined(",", HOST, environ.get(name)) for name in ("NO_PROXY", "no_proxy")},
    }
    wanted = {name: defaults[name] for name in defaults.keys() - environ.keys()}
    return {**wanted, **matching, **layout.settings}


def exports(variables: Mapping[str, str]) -> str:
    """The variables as a shell script that makes the `airflow` command speak to the stack."""
    return "".join(f"export {name}={quote(value)}\n" for name, value in sorted(variables.items()))


def _address(port: int) -> dict[str, str]:
    """Nobody has to log in, so nobody but this machine may get in."""
    return {
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://localhost:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{port}/execution/",
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
    }


def _s3_connection(endpoint: str) -> str:
    return json.dumps(
        {
            "conn_type": "aws",
            "login": "test",
            "password": "test",
            "extra": {"endpoint_url": endpoint, "region_name": "us-east-1"},
        }
    )


def _connection(kind: str, port: int, extra: Mapping[str, object] = MappingProxyType({})) -> str:
    return json.dumps({"conn_type": kind, "host": HOST, "port": port, "extra": dict(extra)})


def _joined(separator: str, first: str, rest: str | None) -> str:
    return separator.join([first, rest]) if rest else first


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
