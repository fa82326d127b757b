"""Passwords of connections are in none of the files, tables and logs that failing runs write."""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.faults import FaultProxy, denied
from tests.integration.airflow_stack import AirflowStack, airflow_stack, until

PASSWORD = 'kn0wn/Pass"w%40rd+'
HELD_BACK = {"failed", "up_for_retry"}


def connection(kind: str, **more: Any) -> str:
    return json.dumps({"conn_type": kind, "login": "someone", "password": PASSWORD, **more})


@pytest.fixture(scope="module")
def stack(
    s3_endpoint: str, s3_client: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowStack]:
    """Airflow whose connections have a password, and of which none works."""
    nowhere = {"host": "127.0.0.1", "port": 1}
    with FaultProxy(s3_endpoint) as proxy, proxy.fault(None, denied()):
        s3 = {"endpoint_url": proxy.url, "region_name": "us-east-1"}
        settings = {
            "AIRFLOW_CONN_IMAGEFLOWS_S3": connection("aws", extra=s3),
            "AIRFLOW_CONN_IMAGEFLOWS_REDIS": connection("redis", **nowhere),
            "AIRFLOW_CONN_IMAGEFLOWS_RIAK": connection("riak", **nowhere),
            "AIRFLOW_CONN_WORK": connection("aws", extra=s3),
        }
        folder = tmp_path_factory.mktemp("stack")
        with airflow_stack(folder, s3_endpoint, s3_client, **settings) as running:
            yield running


RUNS = [
    ("pyramid_tiff", {}),
    ("store_bucket_sync", {}),
    ("store_photo_upload", {}),
    ("ez_image_sync", {"redis_conn_id": "imageflows_redis_source"}),
    ("redis_copy", {"redis_source_conn_id": "imageflows_redis"}),
    ("render_layers", {}),
    ("pyramid_rerun", {"prefix": "digital/"}),
    ("retry_failed_images", {}),
]


def test_no_password_is_written_by_runs_that_fail(stack):
    started = [(dag_id, stack.api.trigger(dag_id, conf)) for dag_id, conf in RUNS]

    for run in started:
        until(lambda run=run: HELD_BACK & {t.state for t in stack.api.task_instances(*run)})
    written = {
        str(path.relative_to(stack.layout.state)): path.read_bytes()
        for path in stack.layout.state.rglob("*")
        if path.is_file() and path != stack.layout.shell
    }
    written["the database"] = stack.database.dump()
    assert any("task_id=plan" in name for name in written), "the logs of tasks"
    assert all(run_id.encode() in written["the database"] for _, run_id in started)
    leaks = {
        (name, form) for name, data in written.items() for form in forms(PASSWORD) if form in data
    }
    assert leaks == set()


def forms(password: str) -> list[bytes]:
    """How a password may look in a text."""
    texts = [password, quote(password), quote(password, safe=""), json.dumps(password)[1:-1]]
    in_headers = b64encode(f"someone:{password}".encode())
    return [*(text.encode() for text in texts), in_headers]


def test_the_shell_script_with_the_connections_is_for_its_owner_alone(stack):
    assert any(form in stack.layout.shell.read_bytes() for form in forms(PASSWORD))
    assert stack.layout.shell.stat().st_mode & 0o077 == 0
