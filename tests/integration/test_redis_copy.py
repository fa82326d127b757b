"""Whole runs of `redis_copy`, by Airflow's real task runner, between two real servers."""

import json
from pathlib import Path
from typing import Any

import pytest

from devstack.redisserver import RedisServer
from tests.integration.dag_runs import Ran, run_dag

pytest_plugins = ("tests.redisfixtures",)

PREFIX = "content:v1:de:de:live:"


@pytest.fixture
def run(dags, defaults, redis_server, other_server, source, target, tmp_path: Path, monkeypatch):
    """Runs the DAG from one server to the other."""

    def connection(server: RedisServer) -> str:
        return json.dumps({"conn_type": "redis", "host": "127.0.0.1", "port": server.port})

    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", f"file://{tmp_path}/work")
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_REDIS_SOURCE", connection(redis_server))
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_REDIS_DESTINATION", connection(other_server))

    def start(**conf: Any) -> Ran:
        return run_dag(dags["redis_copy"], tmp_path / "work", defaults["redis_copy"] | conf)

    return start


def report(ran: Ran) -> dict[str, Any]:
    return json.loads((ran.folder / "report.json").read_text())


def fill(client: Any) -> None:
    client.set(f"{PREFIX}/home", json.dumps({"teaser": [{"url": "/teaser_partial"}]}), ex=1_000)
    client.set(f"{PREFIX}/binary", b"\x00\xff")
    client.hset("buzz:v1:de:de:live:counts", mapping={"views": 7})
    client.set("session:1", "secret")


def test_by_default_it_is_a_dry_run(run, source, target):
    fill(source)
    ran = run()
    assert ran.state == "success"
    assert (report(ran)["mode"], report(ran)["planned"]) == ("dryrun", 3)
    assert target.keys() == []


def test_pages_are_copied_with_their_time_to_live_and_nothing_else(run, source, target):
    fill(source)
    ran = run(mode="copy")
    assert ran.state == "success"
    assert {outcome["state"] for outcome in ran.outcomes.values()} == {"done"}
    assert len(target.keys()) == 3
    assert 900 < target.ttl(f"{PREFIX}/home") <= 1_000
    assert target.get(f"{PREFIX}/binary") == b"\x00\xff"
    assert target.hgetall("buzz:v1:de:de:live:counts") == {b"views": b"7"}
    again = run(mode="copy")
    assert {outcome["state"] for outcome in again.outcomes.values()} == {"skipped"}


def test_a_run_onto_itself_fails_and_writes_nothing(run, redis_server, source, monkeypatch):
    fill(source)
    source.config_resetstat()
    same = json.dumps({"conn_type": "redis", "host": "localhost", "port": redis_server.port})
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_REDIS_DESTINATION", same)
    assert run(mode="copy", existing="replace").state == "failed"
    assert "cmdstat_restore" not in source.info("commandstats")
