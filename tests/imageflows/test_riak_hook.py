"""The Riak connection: read, checked, tested, and known to an Airflow that starts from nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.riakserver import SERVER, RiakServer
from imagecore.errors import PlanRefused
from imagecore.riak import Quorums
from imagecore.riakhttp import Limits, Node
from imageflows.hooks.riak_hook import RiakHook

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RiakServer]:
    with RiakServer(tmp_path / "riak") as started:
        yield started


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch):
    """Makes the hook of a connection with these fields."""

    def made(**fields: Any) -> RiakHook:
        connection = {"conn_type": "riak", "host": "127.0.0.1", **fields}
        monkeypatch.setenv("AIRFLOW_CONN_RIAK_DEFAULT", json.dumps(connection))
        return RiakHook()

    return made


def test_the_hooks_client_reads_and_writes(connect, server):
    bucket = connect(port=server.port).bucket("ez")
    bucket.put("k", b"x", "a/b")
    assert bucket.get("k").data == b"x"


def test_a_connection_with_a_host_alone_has_the_usual_settings(connect):
    client = connect(host="riak1").get_conn()
    assert client.nodes.nodes == (Node("riak1", 8098),)
    assert client.nodes.limits == Limits()
    assert client.quorums == Quorums()


def test_a_connection_that_is_not_there_is_named():
    with pytest.raises(PlanRefused, match="nowhere"):
        RiakHook("nowhere").get_conn()


def test_a_connection_written_as_an_address_may_say_tls(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_RIAK_DEFAULT", "riak://riak1/?tls=false")
    assert RiakHook().get_conn().nodes.nodes == (Node("riak1", 8098),)
    monkeypatch.setenv("AIRFLOW_CONN_RIAK_DEFAULT", "riak://riak1/?tls=true&ca_file=%2Fnowhere")
    with pytest.raises(PlanRefused, match="ca_file cannot be used"):
        RiakHook().get_conn()


def test_every_field_is_taken(connect):
    client = connect(
        host="riak1, riak2:1234,[::1]:99,riak1",
        port=10018,
        extra={
            "r": "quorum",
            "pr": 1,
            "w": "2",
            "pw": "all",
            "dw": "one",
            "server_timeout_ms": "5000",
            "connect_timeout": 1.5,
            "read_timeout": "2",
            "request_timeout": 3,
            "tries": 7,
            "pool_size": 3,
        },
    ).get_conn()
    assert client.nodes.nodes == (Node("riak1", 10018), Node("riak2", 1234), Node("::1", 99))
    assert client.quorums == Quorums(r="quorum", pr=1, w=2, pw="all", dw="one", timeout=5000)
    assert client.nodes.limits == Limits(connect=1.5, read=2, request=3, tries=7)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("host", {"host": ""}),
        ("host", {"host": "http://riak1:8098"}),
        ("host", {"host": "riak1:port"}),
        ("host", {"host": "riak1,,riak2"}),
        ("host", {"host": "riak1:70000"}),
        ("login", {"login": "a:b", "password": "geheim"}),
        ("r", {"extra": {"r": "most"}}),
        ("dw", {"extra": {"dw": 0}}),
        ("tries", {"extra": {"tries": "often"}}),
        ("tries", {"extra": {"tries": True}}),
        ("pool_size", {"extra": {"pool_size": 0}}),
        ("read_timeout", {"extra": {"read_timeout": -1}}),
        ("request_timeout", {"extra": {"request_timeout": "nan"}}),
        ("server_timeout_ms", {"extra": {"server_timeout_ms": 0.5}}),
        ("tls", {"extra": {"tls": "yes"}}),
        ("ca_file", {"extra": {"ca_file": "/ca.pem"}}),
        ("ca_file", {"extra": {"tls": True, "ca_file": "/nowhere/ca.pem"}}),
        ("time_out", {"extra": {"time_out": 5}}),
    ],
)
def test_a_wrong_field_is_named(connect, field, fields):
    hook = connect(**fields)
    with pytest.raises(PlanRefused, match=rf"connection riak_default: {field} ") as caught:
        hook.get_conn()
    assert hook.test_connection() == (False, str(caught.value))
    assert "geheim" not in str(caught.value)


def test_empty_fields_of_the_form_are_as_if_not_there(connect):
    client = connect(extra={"r": "", "tries": None, "ca_file": ""}).get_conn()
    assert (client.quorums, client.nodes.limits) == (Quorums(), Limits())


def test_the_test_button_names_the_node(connect, server):
    assert connect(port=server.port).test_connection() == (True, f"Riak answers: {SERVER}")


def test_the_test_button_says_what_is_wrong_and_no_secret(connect):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        hook = connect(port=port, login="anna", password="geheim", extra={"tries": 1})
        works, message = hook.test_connection()
    assert not works
    assert f"127.0.0.1:{port}" in message
    assert "refused" in message
    assert "geheim" not in message


ASK_AIRFLOW = """
import json
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
from airflow.models import Connection
forms = [m.model_dump() for m in HookMetaService.hook_meta_data() if m.connection_type == "riak"]
connection = Connection.get_connection_from_secrets("riak_default")
print(json.dumps([forms, connection.test_connection()]))
"""


@pytest.mark.parametrize("pythonpath", [[ROOT / "plugins"], []], ids=["plugins", "nothing"])
def test_what_an_airflow_that_starts_from_nothing_knows(server, tmp_path, pythonpath):
    environ = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join(map(str, pythonpath)),
        "AIRFLOW_CONN_RIAK_DEFAULT": f"riak://127.0.0.1:{server.port}",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK_AIRFLOW],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    forms, tested = json.loads(done.stdout.splitlines()[-1])
    assert tested == [True, f"Riak answers: {SERVER}"]
    if not pythonpath:  # docs/RIAK.md says so
        assert forms == []
        return
    (form,) = forms
    assert form["hook_name"] == "Riak KV"
    assert form["standard_fields"]["host"]["title"] == "Nodes"
    assert form["standard_fields"]["url_schema"]["hidden"] is True
    assert {"tls", "r", "tries", "pool_size", "request_timeout"} <= form["extra_fields"].keys()


def test_the_form_offers_exactly_what_the_hook_takes():
    from imageflows.hooks import riak_hook
    from imageflows.provider import provider_info

    (connection,) = provider_info()["connection-types"]
    assert connection["conn-fields"].keys() == riak_hook._FIELDS
    assert connection["connection-type"] == RiakHook.conn_type
    assert connection["hook-class-name"] == f"{RiakHook.__module__}.{RiakHook.__qualname__}"
