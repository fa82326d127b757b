"""A sync's tasks in a process of its own, which is killed at a chosen request to S3.

    with FaultProxy(s3_endpoint) as proxy, Lives(proxy, tmp_path, environment) as lives:
        proxy.on(None, lives.death)
        assert lives.live(task, dies_at=7) is None
        assert lives.live(task) == {"return_value": ...}

Airflow forks a task's process from one that has everything imported, and so does this module
when it is run: starting Python and Airflow a hundred times would take minutes.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from tests.faults import FaultProxy
from tests.faultwire import Dropped, Fault, Request, Response

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
Task = dict[str, Any]
"""`operator` and its `arguments`, `dag_id`, `run_id` and `conf`."""


class Lives:
    """Runs tasks, each try in a new process. `death` is the fault that every request must meet.

    Parameters:
        folder: where the tasks' log is written.
        environment: what the process has besides this one's.
    """

    def __init__(self, proxy: FaultProxy, folder: Path, environment: dict[str, str]) -> None:
        self.death = Fault("death", before=self._before, after=self._after)
        self.deaths = 0
        self._address = urlsplit(proxy.url)
        self._xcom, self._log = folder / "xcom.json", folder / "tasks.log"
        self._lock = threading.Lock()
        self._reset(None, False, False)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.syncchaos"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env={**os.environ, **environment, "TMPDIR": str(folder)},
            )

    def __enter__(self) -> Lives:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def live(
        self,
        task: Task,
        *,
        try_number: int = 1,
        dies_at: int | None = None,
        writing: bool = False,
        answered: bool = False,
    ) -> dict[str, Any] | None:
        """Run a task until it ends, or until its request of number `dies_at`; its XComs, or None.

        `writing`: only requests that write are counted. `answered`: the server has done what the
        last request asks. What else is under way when the process dies reaches the server, and
        has its effect before this returns.
        """
        others = set(threading.enumerate())
        self._reset(dies_at, writing, answered)
        self._xcom.unlink(missing_ok=True)
        task = task | {"xcom": str(self._xcom), "try": try_number}
        print(json.dumps(task), file=self._stdin, flush=True)
        self._pid.set_result(self._number())
        status = self._number()
        self._settle(others)
        if status == -signal.SIGKILL:
            self.deaths += 1
            return None
        assert status == 0, self._log.read_text()[-5_000:]
        xcom: dict[str, Any] = json.loads(self._xcom.read_text())
        return xcom

    def _reset(self, dies_at: int | None, writing: bool, answered: bool) -> None:
        self._dies_at, self._writing, self._answered = dies_at, writing, answered
        self._pid: Future[int] = Future()
        self._count, self._dead = 0, False
        self._last: Request | None = None

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    def _number(self) -> int:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        assert line, self._log.read_text()[-5_000:]
        return int(line)

    def _before(self, request: Request) -> None:
        with self._lock:
            if self._dead:
                raise Dropped
            if self._last or (self._writing and request.method in ("GET", "HEAD")):
                return
            self._count += 1
            if self._count != self._dies_at:
                return
            self._last = request
            if not self._answered:
                self._die()

    def _after(self, request: Request, response: Response) -> None:
        if request is self._last:
            for _ in response.body:
                pass
            with self._lock:
                self._die()

    def _die(self) -> None:
        self._dead = True
        os.kill(self._pid.result(), signal.SIGKILL)
        raise Dropped

    def _settle(self, others: set[threading.Thread]) -> None:
        """Wait until the proxy has served every connection of a process that has ended."""
        with socket.create_connection((self._address.hostname, self._address.port or 80)) as last:
            last.shutdown(socket.SHUT_WR)  # connections are taken up in their order
            assert last.recv(1) == b""
        for thread in set(threading.enumerate()) - others:
            if thread.name == "fault proxy":
                thread.join()


def main() -> None:
    """Fork a process for each task that stdin names; write its id, and then how it ended."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    perform = _prepare()
    assert threading.active_count() == 1, threading.enumerate()
    gc.freeze()
    for line in sys.stdin:
        process = os.fork()
        if not process:
            _end_with(perform, json.loads(line))
        print(process, file=replies)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=replies)


def _end_with(perform: Callable[[Task], None], task: Task) -> None:
    status = 1
    try:
        perform(task)
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def _prepare() -> Callable[[Task], None]:
    """Import what tasks need, and make their clients, which take a third of a second each."""
    from imagecore import target
    from imageflows.hooks import s3
    from imageflows.operators.sync import S3ApplyOperator, S3DiffOperator
    from imageflows.operators.undo import UndoPlanOperator

    target.PART_BYTES = 5 * MIB
    target.COPY_BYTES = int(os.environ["CHAOS_COPY_BYTES"])
    names = ("own", "other")
    clients = {name: s3.s3_client(name, connections=8) for name in names}
    s3.s3_client = lambda name, *, connections: clients[name]  # type: ignore[assignment]
    names = ("store_bucket_sync", "store_photo_upload", "sync_undo")
    dags = {name: import_module(f"dags.{name}").dag for name in names}
    operators = {
        kind.__name__: kind for kind in (S3ApplyOperator, S3DiffOperator, UndoPlanOperator)
    }

    def perform(task: Task) -> None:
        xcom: dict[str, Any] = {}
        dag, conf = dags[task["dag_id"]], task["conf"]
        operator = operators[task["operator"]](task_id="task", **task["arguments"])
        context: Any = {
            "ti": SimpleNamespace(
                try_number=task["try"],
                max_tries=1_000,
                xcom_push=lambda key, value: xcom.update({key: value}),
            ),
            "dag_run": SimpleNamespace(
                dag_id=task["dag_id"], run_id=task["run_id"], run_type="manual", conf=conf
            ),
            "dag": dag,
            "params": dag.params.dump() | conf,
        }
        xcom["return_value"] = operator.execute(context)
        Path(task["xcom"]).write_text(json.dumps(xcom))

    return perform


if __name__ == "__main__":
    main()
