"""Messages about runs that failed or are late, from a real Airflow to a real HTTP server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import moto.s3.models
import pytest
import skimage
from moto.s3.exceptions import S3AccessDeniedError

from tests.integration.airflow_stack import AirflowStack, airflow_stack, until

ROCKET = (Path(skimage.__file__).parent / "data" / "rocket.jpg").read_bytes()
DAG_ID = "store_bucket_sync"
SECRET = "T0000/B0000/s3cretpath"


class Chat:
    """A chat's webhook: what was posted to it, and what it answers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.paths: set[str] = set()
        self.status = 200
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                chat.paths.add(self.path)
                chat.texts.append(json.loads(body)["text"])
                self.send_response(chat.status)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def connection(self) -> str:
        address = f"http://127.0.0.1:{self.server.server_port}/services"
        return json.dumps({"conn_type": "http", "host": address, "password": SECRET})


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    made = Chat()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def stack(
    s3_endpoint: str, s3_client: Any, chat: Chat, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowStack]:
    for role in ("originals", "store", "trash"):
        s3_client.create_bucket(Bucket=f"imageflows-{role}")
    settings = {
        "AIRFLOW__IMAGEFLOWS__FAILURE_NOTIFIER": "imageflows.notifier.WebhookNotifier",
        "AIRFLOW__IMAGEFLOWS__DEADLINE_HOURS": "0.002",
        "AIRFLOW_CONN_IMAGEFLOWS_ALERTS": chat.connection,
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
    }
    folder = tmp_path_factory.mktemp("stack")
    with airflow_stack(folder, s3_endpoint, s3_client, **settings) as running:
        until(lambda: running.api.dag(DAG_ID))
        yield running


class Store:
    """The shop's bucket: it may be slow, and refuse what is named `bad`."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.refuses = True


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    made = Store()
    for name in ("put_object", "copy_object"):
        plain = getattr(moto.s3.models.S3Backend, name)

        def guarded(self: Any, *args: Any, plain: Any = plain, **kwargs: Any) -> Any:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, str)]
            if "imageflows-store" in given:
                made.open.wait(120)
                if made.refuses and any(value.startswith("bad") for value in given):
                    raise S3AccessDeniedError
            return plain(self, *args, **kwargs)

        monkeypatch.setattr(moto.s3.models.S3Backend, name, guarded)
    yield made
    made.open.set()


def originals(stack: AirflowStack, *keys: str) -> None:
    for key in keys:
        stack.s3.put_object(Bucket="imageflows-originals", Key=key, Body=ROCKET)


def test_a_daily_run_that_is_late_is_told_once(stack, chat, store):
    originals(stack, "a.jpg")
    store.open.clear()
    stack.api.unpause(DAG_ID)
    [run_id] = until(lambda: stack.runs(DAG_ID))
    until(lambda: chat.texts)
    assert stack.api.run_state(DAG_ID, run_id) == "running"
    store.open.set()
    assert stack.ended(DAG_ID, run_id) == "success"
    [text] = chat.texts
    first, link, state = text.splitlines()
    assert first == f"Imageflows: {DAG_ID} is late"
    assert link.startswith(
        f"Run: http://localhost:{stack.state.ports['airflow']}/dags/{DAG_ID}/runs/"
    )
    assert state.startswith("It is running 0.002 hours after it was due.")


def test_a_run_with_five_failures_is_told_once_whenever_it_ends(stack, chat, store):
    chat.texts.clear()
    originals(stack, *(f"bad{number}.jpg" for number in range(5)), "good.jpg")
    run_id = stack.api.trigger(DAG_ID, {})
    assert stack.ended(DAG_ID, run_id) == "failed"
    until(lambda: chat.texts)
    clear = stack.report(DAG_ID, run_id)["run_again"][0]
    stack.shell(clear)
    until(lambda: len(chat.texts) > 1)
    assert stack.ended(DAG_ID, run_id) == "failed"
    store.refuses = False
    stack.shell(clear)
    assert stack.ended(DAG_ID, run_id) == "success"
    stack.api.trigger(DAG_ID, {"mode": "copy", "limt": 1})  # a typo: what ends the waiting
    until(lambda: len(chat.texts) > 2)

    first, again, last = chat.texts
    assert "limt" not in last
    assert "It came to no report: the log of task report says why (task_failure)." in last
    for text in (first, again):
        lines = text.splitlines()
        assert lines[0] == f"Imageflows: {DAG_ID} failed"
        assert lines[1].endswith(run_id.replace(":", "%3A").replace("+", "%2B"))
        assert lines[2] == "6 planned: 1 done, 5 failed"
        assert [line.split(":")[0].strip() for line in lines[3:8]] == [
            f"bad{number}.jpg" for number in range(5)
        ]
        assert lines[8] == f"Report: file://{stack.folder(DAG_ID, run_id)}/report.json"
        assert lines[9:] == [f"To run them again: {clear}"]
    assert chat.paths == {f"/services/{SECRET}"}


def test_a_message_that_is_not_taken_changes_no_run_and_is_in_the_log(stack, chat, store):
    chat.texts.clear()
    chat.status = 500
    originals(stack, "bad9.jpg")
    run_id = stack.api.trigger(DAG_ID, {})
    assert stack.ended(DAG_ID, run_id) == "failed"

    def logs() -> str:
        files = (file for file in stack.layout.state.rglob("*.log") if file.is_file())
        return "".join(file.read_text(errors="replace") for file in files)

    until(lambda: "its server answers 500" in logs())
    assert "Callback failed" in logs()
    assert "s3cretpath" not in logs()
    assert len(chat.texts) == 1
    assert stack.api.run_state(DAG_ID, run_id) == "failed"
