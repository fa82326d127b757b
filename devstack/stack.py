"""Starting the stack, stopping it, and telling which of the two it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import httpx

from devstack.environment import (
    REDIS_CONNECTION,
    RIAK_CONNECTION,
    S3_CONNECTION,
    SCHEDULES,
    environment,
    exports,
    settings,
)
from devstack.errors import DevstackError, PortTaken, UsageError
from devstack.layout import Layout, State, load_state, locked, truth
from devstack.processes import Process, free_port, in_use, is_alive, listens, start, stop, tail
from devstack.services import SERVICES, Service

TRIES = 3
START_SECONDS = 120
"""A first start compiles Airflow, on a busy machine too."""


def running(layout: Layout, services: Sequence[Service] = SERVICES) -> State | None:
    """The stack's state when all of it runs, else None."""
    state = load_state(layout)
    if state is None or state.services.keys() != {service.name for service in services}:
        return None
    return state if all(map(is_alive, state.services.values())) else None


def up(
    layout: Layout,
    environ: Mapping[str, str],
    services: Sequence[Service] = SERVICES,
    *,
    stays: bool = True,
) -> tuple[State, bool]:
    """Start the stack, or find it running.

    With `stays` False it belongs to the calling process, which has to stop it.

    Returns:
        Its state, and whether this call started it.

    Raises:
        DevstackError: a service did not become ready (everything started is stopped again), or
            the running stack belongs to a `run` or `demo` that will stop it.
    """
    with locked(layout):
        state = running(layout, services)
        if state is not None and not _is_leftover(state):
            _check_usable(state, environ)
            return state, False
        _stop_leftovers(layout)
        for _ in range(TRIES - 1):
            with suppress(PortTaken):
                return _start_all(layout, environ, services, stays), True
        return _start_all(layout, environ, services, stays), True


def down(layout: Layout) -> bool:
    """Stop whatever runs and remove the state folder.

    Returns:
        Whether there was anything.
    """
    with locked(layout):
        _stop_leftovers(layout)
        if not layout.state.exists():
            return False
        shutil.rmtree(layout.state)
        return True


def failure(what: str, log: Path) -> DevstackError:
    """An error with the end of the service's log, which says why."""
    return DevstackError(f"{what}. The end of its log:\n\n{_indented(tail(log))}\n")


def dead_services(layout: Layout, state: State) -> list[str]:
    """Names of the services that ended by themselves."""
    return [name for name, process in state.services.items() if not is_alive(process)]


def _is_leftover(state: State) -> bool:
    """Whether a `run` or `demo` that started the stack was killed before it could stop it."""
    return state.owner is not None and not is_alive(state.owner)


def _check_usable(state: State, environ: Mapping[str, str]) -> None:
    if state.owner is not None:
        raise DevstackError(
            f"The stack belongs to a `make run` or `make demo` (process {state.owner.pid}) that "
            "stops it when it ends. Wait for that, or start with `make up` first."
        )
    mine = settings(environ)
    names = mine.keys() | state.settings.keys()
    other = sorted(name for name in names if mine.get(name) != state.settings.get(name))
    if other:
        raise UsageError(
            f"The running stack was started with other values of {', '.join(other)} than your "
            "environment asks for now. Stop it with `make down` and try again, or take the "
            "values back."
        )


def _stop_leftovers(layout: Layout) -> None:
    state = load_state(layout)
    if state is None:
        return
    dead = dead_services(layout, state)
    if dead and len(dead) < len(state.services):
        print(f"No longer running: {', '.join(dead)}. Stopping the rest.", flush=True)
    stop(state.services.values())
    (layout.state / "state.json").unlink()


def _start_all(
    layout: Layout, environ: Mapping[str, str], services: Sequence[Service], stays: bool
) -> State:
    ports: dict[str, int] = {}
    for service in services:
        if service.port:
            ports[service.port] = free_port(service.wanted_port, ports.values())
    kept = (layout.work, layout.upload, layout.assets, layout.redis, layout.riak)
    for folder in (layout.airflow, *kept, layout.logs):
        folder.mkdir(parents=True, exist_ok=True)
    ours = environment(layout, {"moto": 0, "redis": 0, "riak": 0, "airflow": 0, **ports}, environ)
    child_environ = {**environ, **ours}
    state = State(
        ports=ports,
        embedded_s3=S3_CONNECTION not in environ,
        embedded_ez=not {REDIS_CONNECTION, RIAK_CONNECTION} & environ.keys(),
        schedules=truth(environ, SCHEDULES, default=False),
        settings=settings(environ),
        work_store=child_environ["AIRFLOW__IMAGEFLOWS__WORK_STORE"],
        owner=None if stays else Process.of(os.getpid()),
    )
    with _all_or_nothing(layout, state):
        layout.shell.touch(mode=0o600)
        layout.shell.write_text(exports(ours))
        for service in services:
            _start(layout, state, service, child_environ)
        deadline = monotonic() + START_SECONDS
        for service in services:
            _wait_until_ready(layout, state, service, deadline)
    return state


@contextmanager
def _all_or_nothing(layout: Layout, state: State) -> Iterator[None]:
    """Stop what was started when not everything can be; the logs stay."""
    try:
        state.save(layout)
        yield
    except BaseException:
        stop(state.services.values())
        with suppress(FileNotFoundError):
            (layout.state / "state.json").unlink()
        raise


def _start(layout: Layout, state: State, service: Service, environ: Mapping[str, str]) -> None:
    log = layout.logs / f"{service.name}.log"
    for arguments in service.prepare:
        command = [sys.executable, "-m", *arguments]
        with log.open("ab") as output:
            done = subprocess.run(
                command, cwd=layout.root, env=dict(environ), stdout=output, stderr=output
            )
        if done.returncode:
            raise failure(f"`{' '.join(arguments)}` failed", log)
    state.services[service.name] = start(
        service.command(state.ports, layout), environ, layout.root, log
    )
    state.save(layout)


def _wait_until_ready(layout: Layout, state: State, service: Service, deadline: float) -> None:
    log = layout.logs / f"{service.name}.log"
    while True:
        _check_port(state, service)
        if not is_alive(state.services[service.name]):
            raise failure(f"{service.name} ended while starting", log)
        if service.port is None or _answers(state, service):
            return
        if monotonic() > deadline:
            raise failure(f"{service.name} was not ready after {START_SECONDS} seconds", log)
        for name in dead_services(layout, state):
            raise failure(f"{name} ended while starting", layout.logs / f"{name}.log")
        sleep(0.2)


def _check_port(state: State, service: Service) -> None:
    """Another Airflow that took the port meanwhile would answer in place of ours."""
    if service.port is None:
        return
    port, process = state.ports[service.port], state.services[service.name]
    if in_use(port) and not listens(process, port):
        raise PortTaken(
            f"Port {port}, free a moment ago, was taken while {service.name} started. Try again."
        )


def _answers(state: State, service: Service) -> bool:
    if not listens(state.services[service.name], state.ports[service.port or ""]):
        return False
    if service.answers is not None:
        return service.answers(state.ports[service.port or ""])
    url = state.url(service.port or "") + service.path
    try:
        return service.ready(httpx.get(url, timeout=5, trust_env=False))
    except (httpx.HTTPError, ValueError):
        return False


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    (it is empty)"
