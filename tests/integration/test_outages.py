"""What a run outlives: a database restarted, S3 away for a minute, new code between two tries."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pyvips
import skimage

from devstack.layout import ROOT
from tests.faults import FaultProxy, drop
from tests.integration.airflow_stack import (
    ENDED,
    AirflowStack,
    airflow_stack,
    task_at_work,
    until,
)

ROCKET = Path(skimage.__file__).parent / "data" / "rocket.jpg"
DAG_ID = "pyramid_tiff"
PROJECT = ("dags", "plugins", "include", "config", "devstack")


@pytest.fixture(scope="module")
def s3_proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def stack(
    s3_proxy: FaultProxy, s3_client: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowStack]:
    """Airflow on a copy of the project, whose files a test may change."""
    folder = tmp_path_factory.mktemp("stack")
    for part in PROJECT:
        shutil.copytree(ROOT / part, folder / "project" / part)
    for role in ("source", "process", "image"):
        s3_client.create_bucket(Bucket=f"imageflows-{role}")
    # A task that is gone is noticed by the heartbeats it no longer sends.
    settings = {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    }
    root = folder / "project"
    with airflow_stack(folder, s3_proxy.url, s3_client, root, **settings) as running:
        yield running


@pytest.fixture
def pictures(stack: AirflowStack, request: pytest.FixtureRequest) -> list[str]:
    """Sixty pictures that only this test knows, and that take a while."""
    large = pyvips.Image.new_from_file(ROCKET).resize(3).jpegsave_buffer()
    names = [f"digital/{request.node.name}/{number:03d}.jpg" for number in range(60)]
    for name in names:
        stack.s3.put_object(Bucket="imageflows-source", Key=name, Body=large)
    return names


def start_run(stack: AirflowStack, pictures: list[str], **conf: Any) -> str:
    return stack.api.trigger(DAG_ID, {"prefix": str(Path(pictures[0]).parent) + "/", **conf})


def ended(stack: AirflowStack, run_id: str) -> str:
    """A run's state, once it has ended; services that died are started again meanwhile."""

    def over() -> bool:
        stack.revive()
        return stack.api.run_state(DAG_ID, run_id) in ENDED

    until(over)
    return stack.api.run_state(DAG_ID, run_id)


def tries(stack: AirflowStack, run_id: str) -> list[int]:
    """How often each batch was tried."""
    tasks = stack.api.task_instances(DAG_ID, run_id)
    return sorted(task.try_number for task in tasks if task.task_id == "pyramid")


def check_once(
    stack: AirflowStack, run_id: str, pictures: list[str], before: dict[str, str]
) -> None:
    """Every picture ended once, and what was on record before was not done again."""
    outcomes = stack.outcomes(DAG_ID, run_id)
    assert sorted(outcomes) == pictures
    assert {outcome["state"] for outcome in outcomes.values()} <= {"done", "skipped"}
    after = stack.recorded(DAG_ID, run_id)
    assert {key: after[key] for key in before} == before, "processed again"


def test_a_database_that_is_restarted_loses_nothing(stack, pictures):
    run_id = start_run(stack, pictures, images_per_task=30)
    until(lambda: len(stack.recorded(DAG_ID, run_id)) >= 5)
    stack.database.stop()
    before = stack.recorded(DAG_ID, run_id)
    time.sleep(10)
    stack.database.start()
    assert ended(stack, run_id) == "success"
    check_once(stack, run_id, pictures, before)


def test_a_minute_without_s3_costs_a_try_and_no_picture(stack, s3_proxy, pictures):
    run_id = start_run(stack, pictures, images_per_task=30)
    until(lambda: len(stack.recorded(DAG_ID, run_id)) >= 5)
    with s3_proxy.fault(None, drop()):
        time.sleep(60)
        before = stack.recorded(DAG_ID, run_id)
    assert len(before) < 60
    assert ended(stack, run_id) == "success"
    assert max(tries(stack, run_id)) > 1
    check_once(stack, run_id, pictures, before)


def test_a_dag_that_is_changed_between_two_tries_goes_on_where_it_was(stack, pictures):
    run_id = start_run(stack, pictures, images_per_task=60)
    until(lambda: len(stack.recorded(DAG_ID, run_id)) >= 5)
    at_work = task_at_work(stack.scheduler)
    at_work.suspend()  # however long the change takes
    file = stack.layout.root / "dags" / f"{DAG_ID}.py"
    old = file.read_text()
    new = old.replace("default_args=DEFAULT_ARGS", 'default_args={**DEFAULT_ARGS, "retries": 9}')
    file.write_text(new.replace('pool="image_cpu"', 'pool="image_cpu", threads=2'))
    versions = len(stack.versions(DAG_ID))
    stack.shell("airflow dags reserialize")
    assert len(stack.versions(DAG_ID)) == versions + 1
    at_work.kill()
    before = stack.recorded(DAG_ID, run_id)
    assert ended(stack, run_id) == "success"
    assert tries(stack, run_id) == [2]
    check_once(stack, run_id, pictures, before)


def test_two_runs_at_once_on_the_same_pictures_make_each_once(stack, pictures):
    runs = [start_run(stack, pictures, images_per_task=30) for _ in range(2)]
    assert [ended(stack, run_id) for run_id in runs] == ["success", "success"]
    found = [stack.outcomes(DAG_ID, run_id) for run_id in runs]
    assert [sorted(outcomes) for outcomes in found] == [pictures, pictures]
    states = [{outcome["state"] for outcome in outcomes.values()} for outcomes in found]
    assert states == [{"done"}, {"skipped"}]
