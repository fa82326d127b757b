"""The services of the stack, in the order they are started. A new one is one more entry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from devstack import redisserver
from devstack.layout import Layout
from devstack.processes import HOST


@dataclass(frozen=True)
class Service:
    """A process of the stack.

    `port` names the port it listens on (None: it listens on none) and `wanted_port` is the one
    it gets when it is free. `prepare` are commands run to their end before it starts. It is ready
    when `path`, asked over HTTP, gives an answer that `ready` accepts; or, where it does not speak
    HTTP, when `answers` says of its port that it does.
    """

    name: str
    command: Callable[[Mapping[str, int], Layout], list[str]]
    port: str | None = None
    wanted_port: int = 0
    prepare: tuple[tuple[str, ...], ...] = ()
    path: str = ""
    ready: Callable[[httpx.Response], bool] = lambda answer: answer.is_success
    answers: Callable[[int], bool] | None = None


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def _all_components_healthy(answer: httpx.Response) -> bool:
    components = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    return answer.is_success and all(
        (answer.json().get(name) or {}).get("status") == "healthy" for name in components
    )


MOTO = Service(
    name="moto",
    command=lambda ports, _: _python("moto.server", "-H", HOST, "-p", str(ports["moto"])),
    port="moto",
    wanted_port=5555,
    path="/moto-api/",
)

REDIS = Service(
    name="redis",
    command=lambda ports, layout: redisserver.command(ports["redis"], layout.redis),
    port="redis",
    wanted_port=redisserver.WANTED_PORT,
    answers=redisserver.answers,
)

RIAK = Service(
    name="riak",
    command=lambda ports, layout: _python(
        "devstack.riakserver", "--port", str(ports["riak"]), "--folder", str(layout.riak)
    ),
    port="riak",
    wanted_port=8098,
    path="/ping",
)

# Not `airflow standalone`: its log servers listen on every address of the machine, and only the
# single components can be told to have none. All logs are on this disk, so none is needed.
AIRFLOW = (
    Service(
        name="airflow-api",
        command=lambda ports, _: _python("airflow", "api-server"),
        port="airflow",
        wanted_port=8080,
        prepare=(
            ("airflow", "db", "migrate"),
            ("airflow", "pools", "import", "config/pools.json"),
        ),
        path="/api/v2/monitor/health",
        ready=_all_components_healthy,
    ),
    Service("airflow-scheduler", lambda ports, _: _python("airflow", "scheduler", "-s")),
    Service("airflow-dag-processor", lambda ports, _: _python("airflow", "dag-processor")),
    Service("airflow-triggerer", lambda ports, _: _python("airflow", "triggerer", "-s")),
)

SERVICES = (MOTO, REDIS, RIAK, *AIRFLOW)
