"""`retry_failed_images` on a real Airflow: what it clears, what it leaves, and what it says."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import moto.s3.models
import pytest
import skimage
from moto.s3.exceptions import S3AccessDeniedError

from devstack.errors import UsageError
from devstack.processes import HOST, free_port
from imagecore.errors import InfrastructureError, PlanRefused
from imageflows.hooks.airflow_api import AirflowApiHook
from imageflows.operators.retry_failed import RetryFailedOperator, retry_failed_params
from tests.integration.airflow_stack import AirflowStack, airflow_stack, signing_in, until

ROCKET = (Path(skimage.__file__).parent / "data" / "rocket.jpg").read_bytes()
ITSELF = "retry_failed_images"


@pytest.fixture(scope="module")
def stack(
    s3_endpoint: str, s3_client: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowStack]:
    for role in ("source", "process", "image"):
        s3_client.create_bucket(Bucket=f"imageflows-{role}")
    with airflow_stack(tmp_path_factory.mktemp("stack"), s3_endpoint, s3_client) as running:
        until(lambda: running.api.dag(ITSELF))
        yield running


class Bucket:
    """The image bucket, which takes some pictures only when told to."""

    def __init__(self) -> None:
        self.denied: set[str] = set()
        self.held = threading.Event()
        self.held.set()

    def upload(self, stack: AirflowStack, *names: str) -> None:
        for name in names:
            key, note = f"digital/{name}", {"key": f"digital/{name}", "path": "digital/"}
            stack.s3.put_object(Bucket="imageflows-source", Key=key, Body=ROCKET)
            stack.s3.put_object(
                Bucket="imageflows-process", Key=f"rbsc/{name}.json", Body=json.dumps(note)
            )


@pytest.fixture
def bucket(stack: AirflowStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for role in ("source", "process", "image"):
        listing = stack.s3.list_objects_v2(Bucket=f"imageflows-{role}")
        for entry in listing.get("Contents", ()):
            stack.s3.delete_object(Bucket=f"imageflows-{role}", Key=entry["Key"])
    made, put_object = Bucket(), moto.s3.models.S3Backend.put_object

    def put(self: Any, bucket_name: str, key_name: str, *args: Any, **kwargs: Any) -> Any:
        if bucket_name == "imageflows-image":
            made.held.wait(60)
            if key_name in made.denied:
                raise S3AccessDeniedError
        return put_object(self, bucket_name, key_name, *args, **kwargs)

    monkeypatch.setattr(moto.s3.models.S3Backend, "put_object", put)
    yield made
    made.held.set()


@pytest.fixture
def failed_run(stack: AirflowStack, bucket: Bucket) -> str:
    """A run of four pictures, one of which was denied."""
    bucket.upload(stack, *(f"{name}.jpg" for name in "abcd"))
    bucket.denied = {"digital/d.tif"}
    run_id = stack.api.trigger("pyramid_tiff", {})
    assert stack.ended("pyramid_tiff", run_id) == "failed"
    return run_id


@pytest.fixture
def retry(stack: AirflowStack, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the operator here, with its parameters."""
    monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", connection(stack.state.url("airflow")))
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", stack.layout.work.as_uri())

    def run(**given: Any) -> dict[str, Any]:
        params = retry_failed_params()
        context: Any = {
            "params": {name: param.value for name, param in params.items()} | given,
            "dag": SimpleNamespace(dag_id=ITSELF, params=params),
            "dag_run": SimpleNamespace(conf=given),
        }
        conn_id = given.get("airflow_api_conn_id", "airflow_api")
        return RetryFailedOperator(task_id="retry", airflow_api_conn_id=conn_id).execute(context)

    return run


def connection(address: str, login: str = "", password: str = "") -> str:
    fields = {"conn_type": "http", "host": address, "login": login, "password": password}
    return json.dumps(fields)


def tries(stack: AirflowStack, run_id: str) -> dict[str, int]:
    """How often each instance ran, by its label."""
    instances = stack.api.task_instances("pyramid_tiff", run_id)
    return {task.label or task.task_id: task.try_number for task in instances}


def test_only_what_failed_runs_again_and_a_dry_run_clears_nothing(stack, bucket, failed_run, retry):
    before = tries(stack, failed_run)
    found = retry(dag_id="pyramid_tiff", run_id=failed_run)
    assert found["mode"] == "dryrun"
    cleared = {"dag_id": "pyramid_tiff", "run_id": failed_run, "cleared": 2}
    assert found["runs"] == [cleared]
    assert stack.api.run_state("pyramid_tiff", failed_run) == "failed"
    assert tries(stack, failed_run) == before

    # By a person, through the scheduler, with a connection made in the UI.
    fields = json.loads(connection(stack.state.url("airflow"))) | {"connection_id": "by_hand"}
    stack.api._call("POST", "/api/v2/connections", json=fields)
    bucket.denied = set()
    conf = {"dag_id": "pyramid_tiff", "run_id": failed_run, "mode": "clear"}
    itself = stack.api.trigger(ITSELF, {**conf, "airflow_api_conn_id": "by_hand"})
    assert stack.ended(ITSELF, itself) == "success"
    assert stack.api.xcom(ITSELF, itself, "retry", "return_value") == {
        "mode": "clear", "runs": [cleared], "left": [], "over_limit": 0,
    }  # fmt: skip
    assert stack.ended("pyramid_tiff", failed_run) == "success"
    again = {"digital/d.jpg", "report"}
    assert tries(stack, failed_run) == {
        label: number + (label in again) for label, number in before.items()
    }


def test_a_second_call_right_after_finds_the_run_running_and_leaves_it(
    stack, bucket, failed_run, retry
):
    bucket.held.clear()
    assert retry(dag_id="pyramid_tiff", run_id=failed_run, mode="clear")["runs"]
    second = retry(dag_id="pyramid_tiff", run_id=failed_run, mode="clear")
    assert not second["runs"]
    [left] = second["left"]
    assert left["run_id"] == failed_run
    assert left["reason"] in {"it is queued", "it is running"}
    bucket.denied = set()
    bucket.held.set()
    assert stack.ended("pyramid_tiff", failed_run) == "success"
    [left] = retry(dag_id="pyramid_tiff", run_id=failed_run, mode="clear")["left"]
    assert "it ended well" in left["reason"]


def test_a_window_takes_the_failed_runs_in_it_and_no_others(stack, bucket, failed_run, retry):
    begin = datetime.now(timezone.utc)
    bucket.upload(stack, "e.jpg")
    in_it = [stack.api.trigger("pyramid_tiff", {}) for _ in range(2)]
    assert [stack.ended("pyramid_tiff", run) for run in in_it] == ["failed", "failed"]
    bucket.denied = set()
    good = stack.api.trigger("pyramid_tiff", {})
    assert stack.ended("pyramid_tiff", good) == "success"
    refused = stack.api.trigger(ITSELF, {"dag_id": "no_such_dag", "run_id": "none"})
    assert stack.ended(ITSELF, refused) == "failed"
    end = datetime.now(timezone.utc)
    window = {"window_from": begin.isoformat(), "window_to": end.isoformat()}

    every = retry(**window)
    assert [run["run_id"] for run in every["runs"]] == in_it
    assert retry(**window, dag_id="pyramid_tiff")["runs"] == every["runs"]
    assert not retry(**window, dag_id="redis_copy")["runs"]
    one = retry(**window, limit=1, mode="clear")
    assert ([run["run_id"] for run in one["runs"]], one["over_limit"]) == (in_it[:1], 1)
    assert stack.ended("pyramid_tiff", in_it[0]) == "success"
    assert stack.api.run_state("pyramid_tiff", in_it[1]) == "failed"


def test_runs_that_cannot_be_run_again_so_are_left_with_the_reason(stack, failed_run, retry):
    pause = {"params": {"update_mask": "is_paused"}, "json": {"is_paused": True}}
    stack.api._call("PATCH", "/api/v2/dags/pyramid_tiff", **pause)
    try:
        [left] = retry(dag_id="pyramid_tiff", run_id=failed_run, mode="clear")["left"]
    finally:
        stack.api.unpause("pyramid_tiff")
    assert "paused" in left["reason"]

    file = stack.folder("pyramid_tiff", failed_run) / "report.json"
    whole = "airflow dags clear pyramid_tiff --run-id it -y"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"run_again": [whole]}))
    [left] = retry(dag_id="pyramid_tiff", run_id=failed_run, mode="clear")["left"]
    assert whole in left["reason"]
    assert stack.api.run_state("pyramid_tiff", failed_run) == "failed"


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "Say which runs"),
        ({"dag_id": "pyramid_tiff"}, "Say which runs"),
        ({"run_id": "a"}, "goes with dag_id"),
        ({"window_from": "2026-01-01T00:00:00Z"}, "both of them"),
        ({"window_to": "2026-01-01T00:00:00Z"}, "both of them"),
        (
            {"window_from": "2026-01-01T00:00:00", "window_to": "2026-01-02T00:00:00Z"},
            "window_from .* has no time zone",
        ),
        (
            {"window_from": "2026-01-02T00:00:00Z", "window_to": "2026-01-02T00:00:00Z"},
            "not before",
        ),
        ({"dag_id": ITSELF, "run_id": "a"}, "runs of its own"),
        ({"dag_id": "no_such_dag", "run_id": "a"}, "There is no DAG no_such_dag"),
        ({"dag_id": "pyramid_tiff", "run_id": "none + of these"}, "has no run none"),
        ({"dag_id": "pyramid_tiff", "run_id": "100%25"}, "has no run 100%25"),
        ({"dag_id": "pyramid_tiff", "run_id": "a", "windw_to": "x"}, "Unknown parameter windw_to"),
        (
            {"dag_id": "pyramid_tiff", "run_id": "a", "airflow_api_conn_id": "none_such"},
            "no connection none_such",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name(retry, params, says):
    with pytest.raises(PlanRefused, match=says):
        retry(**params, mode="clear")


@pytest.mark.parametrize(
    "conf",
    [
        {"dag_id": "a/b"},
        {"dag_id": ".."},
        {"dag_id": "pyramid%5Ftiff"},
        {"dag_id": "~"},
        {"dag_id": "pyramid_tiff", "run_id": "../x"},
        {"dag_id": "pyramid_tiff", "run_id": ".."},
        {"dag_id": "pyramid_tiff", "run_id": "a\x00b"},
        {"window_from": "2026-01-01T00:00:00", "window_to": "2026-01-02T00:00:00Z"},
        {"mode": "copy"},
        {"limit": 0},
    ],
)
def test_what_is_no_id_and_no_time_starts_no_run(stack, conf):
    before = stack.runs(ITSELF)
    with pytest.raises(UsageError):
        stack.api.trigger(ITSELF, conf)
    assert stack.runs(ITSELF) == before


@pytest.fixture(scope="module")
def guarded(stack: AirflowStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the same Airflow's API, where one has to log in."""
    people = {"operator": "op", "viewer": "viewer"}
    with signing_in(stack, tmp_path_factory.mktemp("guarded"), people, "s3cret") as address:
        yield address


def test_a_login_is_used_and_a_wrong_one_is_named_without_its_password(
    guarded, retry, failed_run, monkeypatch, caplog
):
    monkeypatch.setenv("AIRFLOW_CONN_OPERATOR", connection(guarded, "operator", "s3cret"))
    monkeypatch.setenv("AIRFLOW_CONN_VIEWER", connection(guarded, "viewer", "s3cret"))
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", connection(guarded, "operator", "mist4ke"))
    monkeypatch.setenv("AIRFLOW_CONN_NOBODY", connection(guarded))
    run = {"dag_id": "pyramid_tiff", "run_id": failed_run}
    assert retry(**run, airflow_api_conn_id="operator")["runs"][0]["cleared"] == 2
    for name, says in (
        ("wrong", "does not know the login of the connection wrong"),
        ("viewer", "does not allow this to the login of the connection viewer"),
        ("nobody", "connection nobody"),
    ):
        with pytest.raises(PlanRefused, match=says) as error:
            retry(**run, mode="clear", airflow_api_conn_id=name)
        assert "s3cret" not in str(error.value) + caplog.text
        assert "mist4ke" not in str(error.value) + caplog.text


def test_an_api_that_is_down_is_worth_another_try_and_something_else_is_not(
    retry, s3_endpoint, monkeypatch
):
    down = f"http://{HOST}:{free_port(8490)}"
    monkeypatch.setenv("AIRFLOW_CONN_DOWN", connection(down))
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection(s3_endpoint))
    run = {"dag_id": "pyramid_tiff", "run_id": "a"}
    with pytest.raises(InfrastructureError, match=r"does not answer at .* connection down"):
        retry(**run, airflow_api_conn_id="down")
    with pytest.raises(PlanRefused, match="connection other"):
        retry(**run, airflow_api_conn_id="other")


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        ({"host": "flow.example", "schema": "https"}, "https://flow.example"),
        ({"host": "flow.example", "port": 8080}, "http://flow.example:8080"),
        ({"host": "https://flow.example/air/"}, "https://flow.example/air"),
    ],
)
def test_the_address_is_the_connections_and_certificates_are_checked(monkeypatch, fields, host):
    monkeypatch.setenv("AIRFLOW_CONN_API", json.dumps({"conn_type": "http", **fields}))
    monkeypatch.setattr(AirflowApiHook, "_token", lambda self, client, connection: "token")
    client = AirflowApiHook("api").get_conn()
    assert client.configuration.host == host
    assert client.configuration.verify_ssl is True
