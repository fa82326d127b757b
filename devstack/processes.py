"""Processes that outlive the command that starts them, and their end, children included."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from devstack.errors import DevstackError

HOST = "127.0.0.1"
NEIGHBOURS = 50
"""How many ports after the wanted one are tried before any free port is taken."""


@dataclass(frozen=True)
class Process:
    """A process by number and start time (seconds since 1970): numbers are used again."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has the number now."""
        return cls(pid, psutil.Process(pid).create_time())


def start(command: Sequence[str], environ: Mapping[str, str], cwd: Path, log: Path) -> Process:
    """Start a command as the leader of its own session, its output appended to `log`."""
    try:
        with log.open("ab") as output:
            started = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise DevstackError(f"{command[0]} cannot be started: {error}.") from error
    return Process.of(started.pid)


def is_alive(process: Process) -> bool:
    """Whether that very process still runs."""
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(process.pid)
        return _is(found, process) and found.status() != psutil.STATUS_ZOMBIE
    return False


def stop(processes: Collection[Process], grace: float = 10) -> None:
    """End processes with all that they started: TERM, and after `grace` seconds KILL.

    Raises:
        DevstackError: something does not go away.
    """
    members = _members(processes)
    _signal(members, psutil.Process.terminate)
    psutil.wait_procs(members, timeout=grace)
    for _ in range(3):
        members = _members(processes)
        _signal(members, psutil.Process.kill)
        psutil.wait_procs(members, timeout=2)
        if not _members(processes):
            return
    left = ", ".join(str(member.pid) for member in _members(processes))
    raise DevstackError(f"Processes {left} do not end, not even by KILL. End them, and try again.")


def free_port(wanted: int, taken: Iterable[int] = ()) -> int:
    """The wanted port, or one near it, or any, that nobody uses on this machine."""
    taken = set(taken)
    for port in range(wanted, wanted + NEIGHBOURS):
        if port not in taken and not in_use(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listens(process: Process, port: int) -> bool:
    """Whether the process, or one it started, is the one that listens on the port."""
    for member in _members([process]):
        with suppress(psutil.Error):
            if any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                for connection in member.net_connections("tcp")
            ):
                return True
    return False


def tail(log: Path, lines: int = 25) -> str:
    """The end of a log file."""
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return ""


def in_use(port: int) -> bool:
    """Whether anybody has the port.

    Asks both loopback addresses: a browser may try either for `localhost`.
    """
    for family, host in ((socket.AF_INET, HOST), (socket.AF_INET6, "::1")):
        with suppress(OSError), socket.socket(family) as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _members(processes: Collection[Process]) -> list[psutil.Process]:
    """Everything alive in the processes' sessions, and below them.

    Sessions, not process groups: Airflow gives each task a group of its own. While any member
    lives, the system gives its session's number to no new process; so where the number belongs
    to a younger process, nothing of ours is left.
    """
    sessions, found = set(), {}
    for process in processes:
        try:
            leader = psutil.Process(process.pid)
            if not _is(leader, process):
                continue
            found.update({child.pid: child for child in leader.children(recursive=True)})
        except psutil.NoSuchProcess:
            pass
        sessions.add(process.pid)
    for candidate in psutil.process_iter():
        with suppress(OSError):
            if os.getsid(candidate.pid) in sessions:
                found[candidate.pid] = candidate
    return [member for member in found.values() if _runs(member)]


def _is(found: psutil.Process, process: Process) -> bool:
    return abs(found.create_time() - process.created) < 2


def _runs(process: psutil.Process) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _signal(processes: Iterable[psutil.Process], send: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            send(process)
