"""Past one machine: Celery workers that share nothing but S3, the broker and the API server."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pyvips
import skimage

from devstack.layout import ROOT
from imagecore.workstore import run_folder
from tests.integration.airflow_stack import (
    AirflowStack,
    airflow_stack,
    plain_environment,
    task_at_work,
    until,
)

pytest_plugins = ("tests.redisfixtures",)

ROCKET = Path(skimage.__file__).parent / "data" / "rocket.jpg"
DAG_ID = "pyramid_tiff"
BUCKETS = ("source", "process", "image", "work")


@pytest.fixture
def stack(
    s3_endpoint: str, s3_client: Any, new_redis: Any, tmp_path: Path
) -> Iterator[AirflowStack]:
    """Airflow with the CeleryExecutor; its work store is in S3."""
    for role in BUCKETS:
        s3_client.create_bucket(Bucket=f"imageflows-{role}")
    settings = {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": new_redis().url,
        # A worker that is gone is noticed by the heartbeats it no longer sends.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "AIRFLOW__IMAGEFLOWS__WORK_STORE": "s3://imageflows_s3@imageflows-work/runs",
    }
    with airflow_stack(tmp_path, s3_endpoint, s3_client, **settings) as running:
        yield running
    for role in BUCKETS:
        for key in keys(s3_client, role):
            s3_client.delete_object(Bucket=f"imageflows-{role}", Key=key)


@pytest.fixture
def workers(stack: AirflowStack, tmp_path: Path) -> Iterator[list[psutil.Process]]:
    """Two, each with a copy of the project and folders of its own."""
    started = [start_worker(stack, tmp_path / name) for name in ("worker-1", "worker-2")]
    yield started
    for worker in started:
        kill_machine(worker)


def start_worker(stack: AirflowStack, machine: Path) -> psutil.Process:
    project = machine / "project"
    for part in ("dags", "plugins", "include", "config"):
        shutil.copytree(ROOT / part, project / part)
    own = {
        "AIRFLOW_HOME": machine / "airflow",
        "AIRFLOW_CONFIG": machine / "airflow" / "airflow.cfg",
        "AIRFLOW__CORE__DAGS_FOLDER": project / "dags",
        "AIRFLOW__CORE__PLUGINS_FOLDER": project / "plugins",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": machine / "logs",
        "PYTHONPATH": os.pathsep.join(str(project / part) for part in ("include", "plugins")),
        "TMPDIR": machine / "tmp",
    }
    (machine / "tmp").mkdir()
    (machine / "airflow").mkdir()
    exports = " ".join(f"{name}='{value}'" for name, value in own.items())
    worker = f"airflow celery worker --concurrency 1 --celery-hostname {machine.name}@%h"
    command = stack.in_shell(f"export {exports}; exec {worker} --skip-serve-logs")
    with (machine / "worker.log").open("wb") as log:
        started = subprocess.Popen(
            command, cwd=machine, env=plain_environment(), stdout=log, stderr=log
        )
    until(lambda: f"{machine.name}@" in (machine / "worker.log").read_text())
    return psutil.Process(started.pid)


def kill_machine(worker: psutil.Process) -> None:
    """As when its power goes."""
    if worker.is_running():
        for process in [worker, *worker.children(recursive=True)]:
            process.kill()


def keys(s3: Any, role: str, prefix: str = "") -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=f"imageflows-{role}", Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


def lines(s3: Any, key: str) -> list[str]:
    return s3.get_object(Bucket="imageflows-work", Key=key)["Body"].read().decode().splitlines()


def recorded(s3: Any, run_id: str) -> dict[str, str]:
    """The line on record of each picture, whichever file it is in."""
    found = keys(s3, "work", f"runs/{run_folder(DAG_ID, run_id)}/plan-")
    outcomes = [key for key in found if "/outcomes/" in key]
    return {json.loads(line)["key"]: line for key in outcomes for line in lines(s3, key)}


def test_a_worker_lost_in_the_middle_of_a_batch_loses_nothing(stack, workers):
    names = [f"digital/{number:03d}.jpg" for number in range(60)]
    large = pyvips.Image.new_from_file(ROCKET).resize(3).jpegsave_buffer()  # a batch takes a while
    for name in names:
        stack.s3.put_object(Bucket="imageflows-source", Key=name, Body=large)
    run_id = stack.api.trigger(DAG_ID, {"prefix": "digital/", "images_per_task": 20})
    until(lambda: len(recorded(stack.s3, run_id)) >= 6)
    kill_machine(until(lambda: next(filter(task_at_work, workers), None)))
    before = recorded(stack.s3, run_id)
    assert 6 <= len(before) < 60

    assert stack.ended(DAG_ID, run_id) == "success"
    tries = [
        task.try_number
        for task in stack.api.task_instances(DAG_ID, run_id)
        if task.task_id == "pyramid"
    ]
    assert sorted(tries) == [1, 1, 2]
    folder = f"runs/{run_folder(DAG_ID, run_id)}"
    ends = [json.loads(line) for line in lines(stack.s3, f"{folder}/outcomes.jsonl")]
    assert [end["key"] for end in ends] == names
    assert {end["state"] for end in ends} <= {"done", "skipped"}
    assert len(keys(stack.s3, "image")) == 60
    after = recorded(stack.s3, run_id)
    assert {key: after[key] for key in before} == before, "processed again after its receipt"
