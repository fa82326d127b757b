"""The operators of Redis: what a run gets of a real server, through Airflow's own connections."""

import json
import logging
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from devstack.redisserver import RedisServer
from imagecore.errors import InfrastructureError, PlanRefused
from imagecore.redisdb import SCAN_COUNT
from imageflows.hooks.redisdb import redis_database
from imageflows.operators.redis_copy import RedisCopyOperator, RedisCopyPlanOperator
from imageflows.operators.redis_refs import RedisImageRefOperator
from imageflows.redisparams import redis_copy_params, redis_ref_params
from tests.redistools import NewRedis, client_of

pytest_plugins = ("tests.redisfixtures",)

PAGE = "content:v1:de:de:live:/page"


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets an Airflow connection to a server."""

    def to(name: str, server: RedisServer, **fields: Any) -> None:
        connection = {"conn_type": "redis", "host": "127.0.0.1", "port": server.port, **fields}
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))

    return to


@pytest.fixture
def refs(new_run, connect, redis_server, source, work_store):
    """Plans from what is in Redis; gives the run, the items, plan.json and the findings."""
    connect("redis_live", redis_server)

    def plan(**params: Any) -> Any:
        ours = redis_ref_params()
        run = new_run(**{name: param.value for name, param in ours.items()} | params)
        context = run.context("plan")
        context["dag"].params |= ours
        operator = RedisImageRefOperator(task_id="plan", redis_conn_id="redis_live", min_batch=5)
        run.xcom["plan", "return_value"] = operator.execute(context)
        folder = run.xcom["plan", "plan"]
        run.items = lines(work_store.get(f"{folder}/manifest.jsonl"))
        run.written = json.loads(work_store.get(f"{folder}/plan.json"))
        return run

    return plan


def lines(data: bytes) -> list[dict]:
    return [json.loads(line) for line in data.splitlines()]


def put(client: Any, **pages: Any) -> None:
    for name, document in pages.items():
        client.set(f"{PAGE}/{name}", json.dumps(document))


def test_the_plan_has_every_reference_once_and_batches_of_them(refs, source):
    put(source, a={"src": "ez/2-b.jpg"}, b={"src": "ez/1-a.jpg"}, c={"cover": "ez/2-b.jpg"})
    run = refs()
    assert run.items == [
        {"key": "1-a.jpg", "redis_keys": [f"{PAGE}/b"], "documents": 1},
        {"key": "2-b.jpg", "redis_keys": [f"{PAGE}/a", f"{PAGE}/c"], "documents": 2},
    ]
    assert [batch["count"] for batch in run.xcom["plan", "return_value"]] == [1, 1]


def test_findings_are_a_file_of_the_run_and_counted_in_the_report(refs, source, work_store):
    put(source, a={"src": "http://x/y.jpg"}, b={"src": "ez/1-a.jpg"}, c={"src": "ez/nothing"})
    source.set(f"{PAGE}/d", "{")
    run = refs(mode="dryrun")
    found = lines(work_store.get(f"toy/{run.run_id}/findings.jsonl"))
    assert found == [
        {"redis_key": f"{PAGE}/a", "kind": "foreign", "reason": "src is http://x/y.jpg"},
        {
            "redis_key": f"{PAGE}/c",
            "kind": "malformed",
            "reason": "src is ez/nothing: it has no dash",
        },
        {
            "redis_key": f"{PAGE}/d",
            "kind": "not_json",
            "reason": "Expecting property name enclosed in double quotes at character 1",
        },
    ]
    run.report()
    report = json.loads(work_store.get(f"toy/{run.run_id}/report.json"))
    assert report["findings"] == {"foreign": 1, "malformed": 1, "not_json": 1}
    assert (report["documents"], report["planned"]) == (4, 1)
    assert report["findings_uri"] == work_store.uri(f"toy/{run.run_id}/findings.jsonl")


def test_findings_are_whole_when_limit_or_prefix_take_fewer_items(refs, source, work_store):
    put(source, **{f"p{n}": [{"src": f"ez/{n}-a.jpg"}, {"src": ""}] for n in range(9)})
    for params in ({"limit": 1}, {"prefix": "3-"}):
        run = refs(**params)
        assert len(run.items) == 1
        assert len(lines(work_store.get(f"toy/{run.run_id}/findings.jsonl"))) == 9


def test_a_manifest_is_planned_without_asking_redis(refs, source, work_store):
    put(source, a={"src": "ez/1-a.jpg"})
    work_store.put("failed.jsonl", b'{"key":"7-z.jpg","redis_keys":[],"documents":0}\n')
    run = refs(manifest_uri=work_store.uri("failed.jsonl"))
    assert [item["key"] for item in run.items] == ["7-z.jpg"]


def test_an_empty_redis_is_an_empty_plan(refs, work_store):
    run = refs()
    assert (run.items, run.written["summary"]["findings"]) == ([], {})
    assert work_store.get(f"toy/{run.run_id}/findings.jsonl") == b""


def test_nothing_is_written_when_redis_is_away(refs, new_redis: NewRedis, connect, work_store):
    server = new_redis()
    connect("redis_live", server)
    server.stop()
    with pytest.raises(InfrastructureError, match="Redis redis_live cannot be used"):
        refs()
    assert work_store.paths("toy") == []


class Breaking:
    """A wire to a Redis that breaks in the middle of the answer to `command`; not at the first
    two of them, and `times` in all."""

    def __init__(self, server: RedisServer, command: bytes, times: int) -> None:
        self._server, self._command, self._times = server.port, command, times
        self._seen = self.broke = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        breaks = False
        with client, socket.create_connection(("127.0.0.1", self._server)) as server:
            while True:
                for side in select.select([client, server], [], [])[0]:
                    if not (data := side.recv(2**20)):
                        return
                    if side is client:
                        if self._command in data:
                            self._seen += 1
                            breaks = self._seen > 2
                        server.sendall(data)
                    elif breaks and self.broke < self._times:
                        self.broke += 1
                        client.sendall(data[: len(data) // 2])
                        return
                    else:
                        client.sendall(data)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def breaking(redis_server, connect, source, monkeypatch):
    """Has redis_live lead over a wire that breaks, to many documents; says how many."""
    wires: list[Breaking] = []
    monkeypatch.setattr("redis.retry.sleep", lambda seconds: None)

    def start(command: bytes, times: int) -> tuple[Breaking, int]:
        keys = range(5 * SCAN_COUNT)
        source.mset({f"{PAGE}/{n}": json.dumps({"src": f"ez/{n:x}-a.jpg"}) for n in keys})
        wires.append(Breaking(redis_server, command, times))
        connect("redis_live", wires[0])
        return wires[0], len(keys)

    yield start
    wires[0].close()


@pytest.mark.parametrize("command", [b"SCAN", b"STRLEN", b"MGET"])
def test_a_redis_that_breaks_off_once_is_read_to_the_end(refs, breaking, command):
    wire, number = breaking(command, times=1)
    run = refs()
    assert wire.broke == 1
    assert {item["key"] for item in run.items} == {f"{n:x}-a.jpg" for n in range(number)}
    assert (len(run.items), run.written["summary"]["findings"]) == (number, {})


@pytest.mark.parametrize("command", [b"SCAN", b"STRLEN", b"MGET"])
def test_of_a_redis_that_breaks_off_for_good_there_is_no_manifest(
    refs, breaking, work_store, command
):
    wire, _ = breaking(command, times=1_000)
    with pytest.raises(InfrastructureError, match="Redis redis_live cannot be used"):
        refs()
    assert wire.broke > 1
    assert work_store.paths("toy") == []


def test_the_password_is_used_and_nowhere_shown(
    refs, new_redis: NewRedis, connect, work_store, caplog, capfd
):
    server = new_redis("--requirepass", "s3cret-pass")
    put(client_of(server, password="s3cret-pass"), a={"src": "ez/1-a.jpg"})
    connect("redis_live", server, password="s3cret-pass")
    caplog.set_level(logging.DEBUG)
    assert len(refs().items) == 1
    connect("redis_live", server, password="an0ther-pass")
    with pytest.raises(PlanRefused, match="does not let us in") as refused:
        refs()
    out = capfd.readouterr()
    stored = b"".join(work_store.get(path) for path in work_store.paths("toy"))
    for shown in (caplog.text, out.out, out.err, str(refused.value), stored.decode()):
        assert "s3cret-pass" not in shown
        assert "an0ther-pass" not in shown


def test_a_connection_that_is_not_there_is_refused_by_name():
    with pytest.raises(PlanRefused, match="The connection nowhere cannot be used"):
        redis_database("nowhere")


def test_a_cluster_is_reached_by_a_connection_that_says_so(connect, redis_cluster):
    port = redis_cluster.get_primaries()[0].port
    server = RedisServer(port, None)  # type: ignore[arg-type]
    redis_cluster.set("everywhere", "v")
    connect("redis_live", server, extra={"cluster": True})
    assert len(redis_database("redis_live").servers()) == 3
    connect("redis_live", server)
    with pytest.raises(PlanRefused, match="one node of a cluster"):
        redis_database("redis_live")


class Copies:
    """Runs of the copy, from one server to the other."""

    def __init__(self, new_run: Any, work_store: Any) -> None:
        self.new_run = new_run
        self.work_store = work_store
        self.connections = {"source_conn_id": "redis_live", "destination_conn_id": "redis_dev"}

    def plan(self, mode: str = "copy", **params: Any) -> Any:
        ours = {name: param.value for name, param in redis_copy_params().items()}
        run = self.new_run(**ours | {"mode": mode, "patterns": ["*"], **params})
        context = run.context("plan")
        context["dag"].params |= redis_copy_params()
        operator = RedisCopyPlanOperator(task_id="plan", **self.connections)
        run.xcom["plan", "return_value"] = operator.execute(context)
        return run

    def run(self, **params: Any) -> Any:
        run = self.plan(**params)
        for batch in run.xcom["plan", "return_value"]:
            operator = RedisCopyOperator(task_id="copy", batch=batch, **self.connections)
            operator.execute(run.context("copy"))
        run.report()
        run.result = json.loads(self.work_store.get(f"toy/{run.run_id}/report.json"))
        return run


@pytest.fixture
def copies(new_run, connect, redis_server, other_server, source, target, work_store):
    connect("redis_live", redis_server)
    connect("redis_dev", other_server)
    return Copies(new_run, work_store)


def test_keys_are_copied_and_every_one_has_an_outcome(copies, source, target):
    names = [f"k{number}".encode() for number in range(700)] + [b"\xff\x00", "Gr\u00fcn".encode()]
    source.mset({name: name for name in names})
    target.set("k1", "another value")
    run = copies.run(images_per_task=300)
    assert run.result["counts"]["done"] == 701
    assert run.result["counts"]["skipped"] == 1
    assert run.result["existing"] == 1
    assert target.get("k1") == b"another value"
    assert set(target.mget(names)) == {*names, b"another value"} - {b"k1"}


def test_a_second_run_copies_nothing(copies, source):
    source.mset({f"k{number}": "v" for number in range(30)})
    copies.run()
    assert copies.run().result["counts"]["skipped"] == 30


def test_a_dry_run_counts_and_writes_nothing(copies, source, target):
    source.mset({"a": "1", "b": "1", "c": "1"})
    target.set("a", "old")
    run = copies.run(mode="dryrun")
    assert (run.result["planned"], run.result["existing"]) == (3, 1)
    assert target.keys() == [b"a"]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"prefix": "b"}, ["b:1", "b:2"]),
        ({"limit": 2}, ["a:1", "b:1"]),
        ({"patterns": ["*:2", "a:*"]}, ["a:1", "b:2"]),
    ],
)
def test_the_parameters_say_which_keys(copies, source, target, params, expected):
    source.mset({"a:1": "v", "b:1": "v", "b:2": "v"})
    copies.run(**params)
    assert sorted(key.decode() for key in target.keys("*")) == expected


def test_partials_come_along_when_asked(copies, source, target):
    put(source, one={"url": "/two_partial"})
    source.set("content:v1:de:de:live:/two_partial", "{}")
    copies.run(patterns=[f"{PAGE}*"])
    assert len(target.keys()) == 1
    copies.run(patterns=[f"{PAGE}*"], partials=True)
    assert len(target.keys()) == 2


def test_what_is_there_is_replaced_when_asked(copies, source, target):
    source.set("k", "new")
    target.set("k", "old")
    assert copies.run(existing="replace").result["counts"]["done"] == 1
    assert target.get("k") == b"new"


def test_a_copy_onto_itself_is_refused(copies, connect, redis_server, source):
    connect("redis_dev", redis_server, host="localhost")
    with pytest.raises(PlanRefused, match="redis_live and redis_dev lead to the same"):
        copies.plan()
