"""Where everything lies. All state of the stack is below one folder, so that it can go whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from time import monotonic, sleep

from devstack.errors import DevstackError
from devstack.processes import Process

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Layout:
    """The project's folder, and the folder of the stack's state.

    `settings` are `AIRFLOW__…` variables that stand in place of the stack's own, such as another
    database than SQLite: for tests.
    """

    root: Path = ROOT
    state: Path = ROOT / ".devstack"
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.state / "airflow"

    @property
    def work(self) -> Path:
        """The work store, unless the environment names another."""
        return self.state / "work"

    @property
    def upload(self) -> Path:
        """The drive that `store_photo_upload` reads, unless the environment names another."""
        return self.state / "upload"

    @property
    def assets(self) -> Path:
        """The dumped assets of `ez_image_sync`, unless the environment names others."""
        return self.state / "assets"

    @property
    def renders(self) -> Path:
        """The drive that `render_layers` and `render_composites` read, unless the environment
        names another."""
        return self.state / "renders"

    @property
    def redis(self) -> Path:
        """What the embedded Redis keeps."""
        return self.state / "redis"

    @property
    def riak(self) -> Path:
        """What the embedded Riak keeps."""
        return self.state / "riak"

    @property
    def logs(self) -> Path:
        """One file a service, and the logs of tasks in `tasks/`."""
        return self.state / "logs"

    @property
    def shell(self) -> Path:
        """A script for the shell in which `airflow` commands are to speak to the stack."""
        return self.state / "airflow.env"

    @property
    def build(self) -> Path:
        """What outlives the stack: results of the demo and of single runs."""
        return self.root / "build"


@dataclass
class State:
    """What is running, as state.json holds it.

    `settings` are the settings of the user's own environment it was started with, their values
    hashed. `owner` is the process of a `run` or `demo` that started the stack and will stop it;
    None when it is to stay.
    """

    ports: dict[str, int]
    embedded_s3: bool
    embedded_ez: bool
    schedules: bool
    work_store: str
    settings: dict[str, str]
    owner: Process | None = None
    services: dict[str, Process] = field(default_factory=dict)

    def url(self, port: str) -> str:
        """The address of a port by its name."""
        return f"http://127.0.0.1:{self.ports[port]}"

    def save(self, layout: Layout) -> None:
        """Write state.json whole: a reader sees the old one or the new one."""
        draft = layout.state / "state.json.new"
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        os.replace(draft, layout.state / "state.json")


def load_state(layout: Layout) -> State | None:
    """The recorded state, or None when there is none.

    Raises:
        DevstackError: the file cannot be understood, so that what runs is not known.
    """
    path = layout.state / "state.json"
    try:
        known = json.loads(path.read_text())
        owner = known.pop("owner")
        services = known.pop("services")
        return State(
            **known,
            owner=Process(**owner) if owner else None,
            services={name: Process(**process) for name, process in services.items()},
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DevstackError(
            f"{path} cannot be read ({error}), so what runs is not known. Stop the processes that "
            f"`ps` shows for {layout.root}, and delete {layout.state}."
        ) from error


@contextmanager
def locked(layout: Layout, seconds: float = 120) -> Iterator[None]:
    """Let one command at a time start or stop the stack.

    The lock is on the folder that holds the state folder: a lock file would be left behind, or
    be deleted under another command's hands.

    Raises:
        DevstackError: another command holds the lock for longer than `seconds`.
    """
    folder = os.open(layout.state.parent, os.O_RDONLY)
    deadline = monotonic() + seconds
    waiting = False
    try:
        while True:
            try:
                flock(folder, LOCK_EX | LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() > deadline:
                    raise DevstackError(
                        "Another devstack command has been starting or stopping the stack for "
                        f"{seconds:.0f} seconds. See what it does, or end it, and try again."
                    ) from None
                if not waiting:
                    print("Another devstack command is at work; waiting for it.", flush=True)
                    waiting = True
                sleep(0.2)
        yield
    finally:
        os.close(folder)


def truth(environ: Mapping[str, str], name: str, default: bool) -> bool:
    """A yes-or-no setting of the environment, read as Airflow reads it."""
    value = environ.get(name)
    return default if value is None else value.strip().lower() in {"t", "true", "1"}
