"""The services of the stack, in the order they are started. A new one is one more entry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from devstack.processes import HOST


@dataclass(frozen=True)
class Service:
    """A process of the stack.

    `port` names the port it listens on (None: it listens on none) and `wanted_port` is the one
    it gets when it is free. `prepare` are commands run to their end before it starts. It is ready
    when `path`, asked over HTTP, gives an answer that `ready` accepts.
    """

    name: str
    command: Callable[[Mapping[str, int]], list[str]]
    port: str | None = None
    wanted_port: int = 0
    prepare: tuple[tuple[str, ...], ...] = ()
    path: str = ""
    ready: Callable[[httpx.Response], bool] = lambda answer: answer.is_success


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def _all_components_healthy(answer: httpx.Response) -> bool:
    components = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    return answer.is_success and all(
        (answer.json().get(name) or {}).get("status") == "healthy" for name in components
    )


MOTO = Service(
    name="moto",
    command=lambda ports: _python("moto.server", "-H", HOST, "-p", str(ports["moto"])),
    port="moto",
    wanted_port=5555,
    path="/moto-api/",
)

# Not `airflow standalone`: its log servers listen on every address of the machine, and only the
# single components can be told to have none. All logs are on this disk, so none is needed.
AIRFLOW = (
    Service(
        name="airflow-api",
        command=lambda ports: _python("airflow", "api-server"),
        port="airflow",
        wanted_port=8080,
        prepare=(
            ("airflow", "db", "migrate"),
            ("airflow", "pools", "import", "config/pools.json"),
        ),
        path="/api/v2/monitor/health",
        ready=_all_components_healthy,
    ),
    Service("airflow-scheduler", lambda ports: _python("airflow", "scheduler", "-s")),
    Service("airflow-dag-processor", lambda ports: _python("airflow", "dag-processor")),
    Service("airflow-triggerer", lambda ports: _python("airflow", "triggerer", "-s")),
)

SERVICES = (MOTO, *AIRFLOW)
