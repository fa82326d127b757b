"""A real scheduler and LocalExecutor: killed tasks, the commands of a failed run, backfills."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import moto.s3.models
import psutil
import pytest
import skimage
from moto.s3.exceptions import S3AccessDeniedError

from devstack.api import Api
from devstack.layout import ROOT, Layout
from devstack.runs import run_dag
from devstack.stack import down, up
from imagecore.workstore import run_folder

PICTURES = Path(skimage.__file__).parent / "data"
ROCKET = (PICTURES / "rocket.jpg").read_bytes()
ENDED = {"success", "failed"}


@pytest.fixture(scope="module")
def stack(
    s3_endpoint: str, s3_client: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Airflow as `make up` starts it, on this test's own S3."""
    for role in ("source", "process", "image"):
        s3_client.create_bucket(Bucket=f"imageflows-{role}")
    layout = Layout(ROOT, tmp_path_factory.mktemp("stack") / "state")
    connection = {
        "conn_type": "aws",
        "login": "test",
        "password": "test",
        "extra": {"endpoint_url": s3_endpoint, "region_name": "us-east-1"},
    }
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PY"))
    }
    try:
        state, _ = up(layout, ours | {"AIRFLOW_CONN_IMAGEFLOWS_S3": json.dumps(connection)})
        api = Api(state.url("airflow"))
        until(lambda: api.dag("pyramid_tiff"))
        yield SimpleNamespace(layout=layout, state=state, api=api, s3=s3_client)
    finally:
        down(layout)


@pytest.fixture(autouse=True)
def _empty_buckets(stack: Any) -> None:
    for role in ("source", "process", "image"):
        listing = stack.s3.list_objects_v2(Bucket=f"imageflows-{role}")
        for entry in listing.get("Contents", ()):
            stack.s3.delete_object(Bucket=f"imageflows-{role}", Key=entry["Key"])


def upload(stack: Any, name: str, data: bytes = ROCKET, *, note: bool = True) -> None:
    key = f"digital/{name}"
    stack.s3.put_object(Bucket="imageflows-source", Key=key, Body=data)
    if note:
        text = json.dumps({"key": key, "path": "digital/"})
        stack.s3.put_object(Bucket="imageflows-process", Key=f"rbsc/{name}.json", Body=text)


def outcomes(stack: Any, run_id: str) -> dict[str, dict[str, Any]]:
    file = stack.layout.work / run_folder("pyramid_tiff", run_id) / "outcomes.jsonl"
    return {(o := json.loads(line))["key"]: o for line in file.read_text().splitlines()}


def report(stack: Any, run_id: str) -> dict[str, Any]:
    folder = stack.layout.work / run_folder("pyramid_tiff", run_id)
    return json.loads((folder / "report.json").read_text())


def shell(stack: Any, command: str) -> str:
    """What a person types who has pasted the command; again when SQLite was busy."""
    for _ in range(10):
        done = subprocess.run(
            ["sh", "-c", f". {stack.layout.shell}; {command}"], capture_output=True, text=True
        )
        if "database is locked" not in done.stderr:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def until(true: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return found


def all_runs(stack: Any) -> dict[str, str]:
    listing = stack.api._all("/api/v2/dags/pyramid_tiff/dagRuns", "dag_runs")
    return {run["dag_run_id"]: run["state"] for run in listing}


def ended(stack: Any, run_id: str) -> str:
    until(lambda: stack.api.run_state("pyramid_tiff", run_id) in ENDED)
    return stack.api.run_state("pyramid_tiff", run_id)


def recorded(stack: Any, run_id: str) -> dict[str, str]:
    """The line on record of each key, whichever file it is in."""
    folder = stack.layout.work / run_folder("pyramid_tiff", run_id)
    files = folder.glob("plan-1-*/outcomes/**/*.jsonl")
    lines = [line for file in files for line in file.read_text().splitlines()]
    return {json.loads(line)["key"]: line for line in lines}


def task_at_work(stack: Any) -> psutil.Process | None:
    """The process of the task that has pictures made."""
    scheduler = psutil.Process(stack.state.services["airflow-scheduler"].pid)
    for process in scheduler.children(recursive=True):
        try:
            if "imagecore.sandbox" in " ".join(process.cmdline()):
                return process.parent()
        except psutil.NoSuchProcess:
            continue
    return None


def test_a_task_killed_in_the_middle_goes_on_where_it_was(stack):
    names = [f"{number:03d}.jpg" for number in range(60)]
    for name in names:
        upload(stack, name)
    run_id = stack.api.trigger("pyramid_tiff", {"images_per_task": 60})
    until(lambda: len(recorded(stack, run_id)) >= 10)
    task_at_work(stack).kill()
    before = recorded(stack, run_id)
    assert 10 <= len(before) < 60

    assert ended(stack, run_id) == "success"
    instances = stack.api.task_instances("pyramid_tiff", run_id)
    assert {task.task_id: task.try_number for task in instances}["pyramid"] == 2
    ends = outcomes(stack, run_id)
    assert sorted(ends) == [f"digital/{name}" for name in names]
    assert {end["state"] for end in ends.values()} <= {"done", "skipped"}
    after = recorded(stack, run_id)
    assert {key: after[key] for key in before} == before, "processed again"


def test_the_commands_a_failed_run_prints_run_again_just_what_failed(stack, monkeypatch):
    put_object = moto.s3.models.S3Backend.put_object

    def deny_one(self, bucket_name, key_name, *args, **kwargs):
        if key_name == "digital/denied.tif":
            raise S3AccessDeniedError
        return put_object(self, bucket_name, key_name, *args, **kwargs)

    for name in ("a.jpg", "b.jpg", "denied.jpg"):
        upload(stack, name)
    with monkeypatch.context() as patch:
        patch.setattr(moto.s3.models.S3Backend, "put_object", deny_one)
        run = run_dag(stack.layout, stack.state, "pyramid_tiff", {}, 180)
    assert run.state == "failed"
    labels = {task.label for task in stack.api.task_instances("pyramid_tiff", run.run_id)}
    assert {"digital/a.jpg", "digital/b.jpg", "digital/denied.jpg"} <= labels
    assert report(stack, run.run_id)["counts"]["failed"] == 1
    clear, trigger = report(stack, run.run_id)["run_again"]

    before = set(all_runs(stack))
    shell(stack, trigger)
    [new] = until(lambda: set(all_runs(stack)) - before)
    assert ended(stack, new) == "success"
    assert list(outcomes(stack, new)) == ["digital/denied.jpg"]

    shell(stack, clear)
    assert ended(stack, run.run_id) == "success"
    ends = {key: outcome["state"] for key, outcome in outcomes(stack, run.run_id).items()}
    assert ends == {
        "digital/a.jpg": "done", "digital/b.jpg": "done", "digital/denied.jpg": "skipped",
    }  # fmt: skip


def test_a_backfill_takes_the_pictures_of_its_day_and_what_was_bad_on_it(stack, monkeypatch):
    new_york = ZoneInfo("America/New_York")
    start = datetime.now(new_york).replace(hour=5, minute=30, second=0, microsecond=0)
    start -= timedelta(days=3)
    with monkeypatch.context() as patch:
        noon = start.astimezone(ZoneInfo("UTC")).replace(tzinfo=None) + timedelta(hours=7)
        patch.setattr(moto.s3.models, "utcnow", lambda: noon)
        upload(stack, "1.jpg", note=False)
        upload(stack, "2.jpg", note=False)
        upload(stack, "bad.jpg", ROCKET[:9_000], note=False)
    upload(stack, "of-today.jpg", note=False)

    day = start.astimezone(ZoneInfo("UTC")).isoformat()
    command = f"airflow backfill create --dag-id pyramid_tiff --from-date {day} --to-date {day}"
    before = set(all_runs(stack))
    shell(stack, command)
    [run_id] = until(lambda: set(all_runs(stack)) - before)
    assert ended(stack, run_id) == "success"
    ends = {key: outcome["state"] for key, outcome in outcomes(stack, run_id).items()}
    assert ends == {
        "digital/1.jpg": "done", "digital/2.jpg": "done", "digital/bad.jpg": "quarantined",
    }  # fmt: skip

    upload(stack, "bad.jpg", note=False)
    until(lambda: not active_backfills(stack))
    *_, again = report(stack, run_id)["run_again"]
    assert again == f"{command} --reprocess-behavior completed"
    shell(stack, again)
    until(lambda: outcomes(stack, run_id)["digital/bad.jpg"]["state"] == "done")
    assert ended(stack, run_id) == "success"
    ends = {key: outcome["state"] for key, outcome in outcomes(stack, run_id).items()}
    assert ends == {
        "digital/1.jpg": "skipped", "digital/2.jpg": "skipped", "digital/bad.jpg": "done",
    }  # fmt: skip


def active_backfills(stack: Any) -> list[dict[str, Any]]:
    listing = stack.api._call("GET", "/api/v2/backfills", params={"dag_id": "pyramid_tiff"})
    return [backfill for backfill in listing["backfills"] if backfill["completed_at"] is None]
