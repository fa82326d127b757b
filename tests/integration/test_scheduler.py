"""A real scheduler and LocalExecutor: killed tasks, the commands of a failed run, backfills."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import moto.s3.models
import pytest
import skimage
from moto.s3.exceptions import S3AccessDeniedError

from devstack.runs import run_dag
from tests.integration.airflow_stack import AirflowStack, airflow_stack, task_at_work, until

PICTURES = Path(skimage.__file__).parent / "data"
ROCKET = (PICTURES / "rocket.jpg").read_bytes()
DAG_ID = "pyramid_tiff"


@pytest.fixture(scope="module")
def stack(
    s3_endpoint: str, s3_client: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowStack]:
    for role in ("source", "process", "image"):
        s3_client.create_bucket(Bucket=f"imageflows-{role}")
    with airflow_stack(tmp_path_factory.mktemp("stack"), s3_endpoint, s3_client) as running:
        yield running


@pytest.fixture(autouse=True)
def _empty_buckets(stack: AirflowStack) -> None:
    for role in ("source", "process", "image"):
        listing = stack.s3.list_objects_v2(Bucket=f"imageflows-{role}")
        for entry in listing.get("Contents", ()):
            stack.s3.delete_object(Bucket=f"imageflows-{role}", Key=entry["Key"])


def upload(stack: AirflowStack, name: str, data: bytes = ROCKET, *, note: bool = True) -> None:
    key = f"digital/{name}"
    stack.s3.put_object(Bucket="imageflows-source", Key=key, Body=data)
    if note:
        text = json.dumps({"key": key, "path": "digital/"})
        stack.s3.put_object(Bucket="imageflows-process", Key=f"rbsc/{name}.json", Body=text)


def ends(stack: AirflowStack, run_id: str) -> dict[str, str]:
    """What became of each picture, by its name."""
    found = stack.outcomes(DAG_ID, run_id)
    return {key.removeprefix("digital/"): outcome["state"] for key, outcome in found.items()}


def test_a_task_killed_in_the_middle_goes_on_where_it_was(stack):
    names = [f"{number:03d}.jpg" for number in range(60)]
    for name in names:
        upload(stack, name)
    run_id = stack.api.trigger(DAG_ID, {"images_per_task": 60})
    until(lambda: len(stack.recorded(DAG_ID, run_id)) >= 10)
    task_at_work(stack.scheduler).kill()
    before = stack.recorded(DAG_ID, run_id)
    assert 10 <= len(before) < 60

    assert stack.ended(DAG_ID, run_id) == "success"
    instances = stack.api.task_instances(DAG_ID, run_id)
    assert {task.task_id: task.try_number for task in instances}["pyramid"] == 2
    assert sorted(ends(stack, run_id)) == names
    assert set(ends(stack, run_id).values()) <= {"done", "skipped"}
    after = stack.recorded(DAG_ID, run_id)
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
        run = run_dag(stack.layout, stack.state, DAG_ID, {}, 180)
    assert run.state == "failed"
    labels = {task.label for task in stack.api.task_instances(DAG_ID, run.run_id)}
    assert {"digital/a.jpg", "digital/b.jpg", "digital/denied.jpg"} <= labels
    assert stack.report(DAG_ID, run.run_id)["counts"]["failed"] == 1
    clear, trigger = stack.report(DAG_ID, run.run_id)["run_again"]

    before = set(stack.runs(DAG_ID))
    stack.shell(trigger)
    [new] = until(lambda: set(stack.runs(DAG_ID)) - before)
    assert stack.ended(DAG_ID, new) == "success"
    assert ends(stack, new) == {"denied.jpg": "done"}

    stack.shell(clear)
    assert stack.ended(DAG_ID, run.run_id) == "success"
    assert ends(stack, run.run_id) == {"a.jpg": "done", "b.jpg": "done", "denied.jpg": "skipped"}


def test_a_backfill_takes_the_pictures_of_its_day_and_what_was_bad_on_it(stack, monkeypatch):
    good = [f"{number:02d}.jpg" for number in range(17)]
    bad = ["bad-1.jpg", "bad-2.jpg", "bad-3.jpg"]
    new_york = ZoneInfo("America/New_York")
    start = datetime.now(new_york).replace(hour=5, minute=30, second=0, microsecond=0)
    start -= timedelta(days=3)
    with monkeypatch.context() as patch:
        noon = start.astimezone(ZoneInfo("UTC")).replace(tzinfo=None) + timedelta(hours=7)
        patch.setattr(moto.s3.models, "utcnow", lambda: noon)
        for name in good:
            upload(stack, name, note=False)
        for name in bad:
            upload(stack, name, ROCKET[:9_000], note=False)
    upload(stack, "of-today.jpg", note=False)

    day = start.astimezone(ZoneInfo("UTC")).isoformat()
    command = f"airflow backfill create --dag-id {DAG_ID} --from-date {day} --to-date {day}"
    before = set(stack.runs(DAG_ID))
    stack.shell(command)
    [run_id] = until(lambda: set(stack.runs(DAG_ID)) - before)
    assert stack.ended(DAG_ID, run_id) == "success"
    first = ends(stack, run_id)
    assert first == dict.fromkeys(good, "done") | dict.fromkeys(bad, "quarantined")

    for name in bad:
        upload(stack, name, note=False)
    until(lambda: not active_backfills(stack))
    *_, again = stack.report(DAG_ID, run_id)["run_again"]
    assert again == f"{command} --reprocess-behavior completed"
    made = {key: version_of(stack, key) for key in pyramids(stack)}
    stack.shell(again)
    until(lambda: ends(stack, run_id) != first)
    assert stack.ended(DAG_ID, run_id) == "success"
    assert ends(stack, run_id) == dict.fromkeys(good, "skipped") | dict.fromkeys(bad, "done")
    assert {key: version_of(stack, key) for key in made} == made, "made again"
    assert len(pyramids(stack)) == 20


def pyramids(stack: AirflowStack) -> list[str]:
    listing = stack.s3.list_objects_v2(Bucket="imageflows-image")
    return [entry["Key"] for entry in listing["Contents"]]


def version_of(stack: AirflowStack, key: str) -> datetime:
    """When a pyramid was written."""
    return stack.s3.head_object(Bucket="imageflows-image", Key=key)["LastModified"]


def active_backfills(stack: AirflowStack) -> list[dict[str, Any]]:
    listing = stack.api._call("GET", "/api/v2/backfills", params={"dag_id": DAG_ID})
    return [backfill for backfill in listing["backfills"] if backfill["completed_at"] is None]
