"""Whatever goes wrong between Redis, the assets and Riak, every reference has one end in
`ez_image_sync`, and is stored once."""

import errno
import json
import os
import shutil
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from airflow.models import dagrun
from airflow.models.dagrun import DagRun
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState

from imagecore.adler import HASH_PREFIX, adler32
from imagecore.imagedocument import decode
from imageflows.operators.riak_sync import UNPACKED, AssetsOperator, RemoveAssetsOperator
from tests.faults import FaultProxy, delay, drop, drop_after_upstream, status
from tests.faultwire import Request
from tests.imagecore.pictures import data_of, quarters
from tests.imagecore.test_riak import free_port
from tests.integration.dag_runs import Ran, run_dag
from tests.integration.test_ez_image_sync import JPEG, Ez, results

pytest_plugins = ("tests.redisfixtures", "tests.integration.test_ez_image_sync")


@pytest.fixture
def proxies(riak) -> Iterator[Callable[[], FaultProxy]]:
    """Makes nodes of Riak that fail on demand; all lead to one server, as to one cluster."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(FaultProxy(f"http://127.0.0.1:{riak.port}"))


@pytest.fixture
def lead(monkeypatch) -> Callable[..., None]:
    """Has the connection to Riak lead to nodes: proxies, or ports of this machine."""

    def to(*nodes: FaultProxy | int, **extra: Any) -> None:
        hosts = [f"127.0.0.1:{port_of(n) if isinstance(n, FaultProxy) else n}" for n in nodes]
        connection = {"conn_type": "riak", "host": ",".join(hosts), "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_RIAK", json.dumps(connection))

    return to


@pytest.fixture
def tries(ez, dags, monkeypatch) -> Callable[[int], None]:
    """Sets how often a batch is tried, with no pause in between."""

    def of_a_batch(number: int) -> None:
        settings = dags["ez_image_sync"].task_dict["sync"].partial_kwargs
        monkeypatch.setitem(settings, "retries", number - 1)
        monkeypatch.setitem(settings, "retry_delay", timedelta(0))

    return of_a_batch


def port_of(proxy: FaultProxy) -> int:
    return int(proxy.url.rpartition(":")[2])


def many(ez: Ez, number: int) -> list[str]:
    """Files, and pages with references to them: each is in several."""
    keys = [ez.file(f"/media/{n}/picture {n}.jpg") for n in range(number)]
    for n in range(number):
        ez.page(f"{n}", *{keys[n], keys[n // 2], keys[0]})
    return keys


def stored_by(*proxies: FaultProxy) -> Counter[str]:
    """How often each key was written."""
    return Counter(
        request.key.rpartition("/")[2]
        for proxy in proxies
        for request in proxy.requests.select("PUT")
        if request.upstream_status == 204
    )


def assert_whole(ez: Ez, ran: Ran, keys: list[str]) -> None:
    """Each reference has one outcome, and its picture is in Riak."""
    report = json.loads((ran.folder / "report.json").read_text())
    assert ran.state == "success"
    assert report["planned"] == sum(report["counts"].values()) == len(keys)
    assert len(ez.lines(ran, "outcomes.jsonl")) == len(keys)
    assert ran.outcomes.keys() == {*keys}
    assert all(decode(ez.bucket.get(key).data).picture == JPEG for key in keys)


# Riak


@pytest.mark.parametrize(
    "fault",
    ["gone", delay(60), status(500), status(503)],
    ids=["gone", "hangs", "500", "503"],
)
def test_one_node_of_three_is_not_missed(ez, proxies, lead, fault):
    keys = many(ez, 20)
    sound, another, faulty = proxies(), proxies(), proxies()
    if fault == "gone":
        lead(sound, free_port(), another)
    else:
        faulty.on(None, fault)
        lead(sound, faulty, another, read_timeout=5)
    ran = ez.run(max_fanout=1)
    assert_whole(ez, ran, keys)
    assert set(results(ran).values()) == {"uploaded"}
    # What was asked of a node that hangs may be done late, or again by another.
    assert stored_by(sound, another, faulty).keys() == {*keys}
    assert bool(faulty.requests) is (fault != "gone")


def is_of_properties(request: Request) -> bool:
    return request.target.endswith("/props")


@pytest.mark.parametrize("fault", [drop(), status(503)], ids=["away", "503"])
def test_riak_down_in_mid_run_the_next_try_of_the_task_goes_on(
    ez, proxies, lead, tries, capfd, fault
):
    keys = many(ez, 20)
    proxy = proxies()

    def is_down(request: Request) -> bool:
        asked = proxy.requests.count(is_of_properties)  # once more by each try of the task
        return len(proxy.requests) > 30 and asked < 3

    proxy.on(is_down, fault)
    lead(proxy, tries=1)
    tries(3)
    ran = ez.run(max_fanout=1)
    assert_whole(ez, ran, keys)
    assert proxy.requests.count(is_of_properties) == 3
    assert stored_by(proxy) == dict.fromkeys(keys, 1)
    assert {*results(ran).values()} <= {"uploaded", "present"}
    said = "".join(capfd.readouterr())
    assert "no answer of Riak" in said or "Riak is overloaded or away (503" in said


def clear(ez: Ez, dag: Any, ran: Ran, *task_ids: str, **which: Any) -> Ran:
    """Clear tasks of a run, as the UI does, and let the run go on."""
    known = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
    with create_session() as session:
        known.clear(
            run_id=ran.run_id,
            task_ids=task_ids or None,
            dag_run_state=DagRunState.RUNNING,
            session=session,
            **which,
        )

    def found(*, dag: Any, session: Any, **_: Any) -> DagRun:
        run = session.query(DagRun).filter_by(dag_id=dag.dag_id, run_id=ran.run_id).one()
        run.dag = dag
        return run

    with (
        patch.object(SerializedDAG, "clear_dags"),
        patch.object(dagrun, "get_or_create_dagrun", found),
    ):
        return run_dag(dag, ez.work, {})


@pytest.mark.parametrize(
    ("assets", "task_ids", "which"),
    [
        pytest.param("", (), {"only_failed": True}, id="only failed"),
        pytest.param("assets.tar", (), {}, id="archive, the whole run"),
        pytest.param("assets.tar", ("sync", "report"), {}, id="archive, tasks"),
    ],
)
def test_a_run_that_failed_as_riak_was_down_is_cleared_and_ends(
    ez, dags, proxies, lead, tries, capfd, assets, task_ids, which
):
    keys = many(ez, 20)
    if assets:
        pack(ez, assets)
    proxy = proxies()
    proxy.on(None, drop(), after=30)
    lead(proxy, tries=2)
    tries(1)
    failed = ez.run(max_fanout=1, assets=assets)
    assert failed.state == "failed"
    assert "no answer of Riak after 2 tries" in "".join(capfd.readouterr())
    done = stored_by(proxy)
    assert 0 < len(done) < len(keys)
    report = json.loads((failed.folder / "report.json").read_text())
    assert report["planned"] == sum(report["counts"].values()) + report["missing"] == len(keys)
    proxy.rules.clear()
    again = clear(ez, dags["ez_image_sync"], failed, *task_ids, **which)
    assert_whole(ez, again, keys)
    assert stored_by(proxy) == dict.fromkeys(keys, 1)


def test_only_what_failed_is_not_cleared_of_a_run_whose_archive_was_removed(
    ez, dags, proxies, lead, tries, capfd
):
    many(ez, 6)
    pack(ez, "assets.tar")
    proxy = proxies()
    rule = proxy.on(None, drop(), after=10)
    lead(proxy, tries=1)
    tries(1)
    failed = ez.run(max_fanout=1, assets="assets.tar")
    done = stored_by(proxy)
    proxy.rules.remove(rule)
    again = clear(ez, dags["ez_image_sync"], failed, only_failed=True)
    assert (again.state, stored_by(proxy)) == ("failed", done)
    assert "clear the whole run" in "".join(capfd.readouterr())
    report = json.loads((again.folder / "report.json").read_text())
    assert "--only-failed" not in report["run_again"][0]


def test_a_riak_that_breaks_off_at_random_has_everything_in_the_end(ez, proxies, lead):
    keys = many(ez, 40)
    proxy = proxies()
    rules = {
        method: [
            proxy.on(method, fault, probability=0.2, seed=seed)
            for seed, fault in enumerate((drop(), drop_after_upstream()))
        ]
        for method in ("HEAD", "PUT", "GET")
    }
    lead(proxy, tries=12)
    ran = ez.run(images_per_task=20)
    assert all(rule.acted for method in rules for rule in rules[method])
    assert_whole(ez, ran, keys)
    assert set(results(ran).values()) == {"uploaded"}
    for key in keys:
        of_key = proxy.requests.select(key=f"{ez.bucket.name}/keys/{key}", bucket="buckets")
        assert (of_key[-1].method, of_key[-1].status) == ("GET", 200)


# Documents and pictures of any size and name


def test_a_document_of_50_mb_and_all_others_are_read(ez):
    keys = many(ez, 6)
    filler = [{"text": "x" * 500, "n": n} for n in range(90_000)]
    rows = [*filler[:1], {"image": f"ez/{keys[0]}"}, *filler, {"src": "ez/7-nowhere.jpg"}]
    ez.redis.set("content:v1:de:de:live:large", document := json.dumps(rows))
    assert len(document) > 45_000_000
    ran = ez.run(max_fanout=1)
    assert results(ran) == {"7-nowhere.jpg": "missing", **dict.fromkeys(keys, "uploaded")}
    report = json.loads((ran.folder / "report.json").read_text())
    assert (report["documents"], report["findings"]) == (7, {})


def test_a_picture_over_riaks_limit_is_set_aside_and_all_others_are_stored(ez):
    keys = many(ez, 6)
    large = ez.file("/media/large.jpg")
    os.truncate(ez.assets / "media/large.jpg", 45_000_000)
    ez.page("large", large)
    ran = ez.run(max_fanout=1)
    assert results(ran) == {large: "too_large", **dict.fromkeys(keys, "uploaded")}
    assert ran.outcomes[large]["state"] == "quarantined"
    assert ran.state == "success"
    assert [line for line in ez.lines(ran, "error.log") if large in line] == [
        f"ERROR - {large}: {ran.outcomes[large]['reason']}"
    ]
    assert not ez.bucket.exists(large)


NAMES = [
    "[a]*?.jpg",
    "[!a-z].jpg",
    "a+b c.jpg",
    "100%.jpg",
    "%2F%00.jpg",
    " blanks .jpg ",
    "Grüße 图片 😀.jpg",
    unicodedata.normalize("NFC", "Ä.jpg"),
    unicodedata.normalize("NFD", "Ä.jpg"),
    "..jpg",
    "-dash--.jpg",
    "\\back\"slash'.jpg",
    "a?b#c&d=e;f.jpg",
    "x" * 251 + ".jpg",
    "ü" * 125 + ".jpg",
]


def test_whatever_its_name_a_picture_goes_from_a_document_to_riak(ez):
    pictures = {}
    for number, name in enumerate(NAMES):
        data = data_of(quarters(40 + number), "JPEG")
        pictures[ez.file(f"/media/{name}", data)] = data
    for number, folder in enumerate(("one", "two")):
        data = data_of(quarters(64, 40 + number), "JPEG")
        pictures[ez.file(f"/{folder}/same.jpg", data)] = data
    paths = (f"/{'a' * length}/zeros.jpg" for length in range(1, 200))
    path = next(path for path in paths if adler32(f"{HASH_PREFIX}{path}".encode())[0] == "0")
    zeros = ez.file(path)
    pictures[zeros] = pictures[zeros.lstrip("0")] = JPEG
    there, nowhere = f"1-{'ä' * 150}", f"2-{'ä' * 150}"
    ez.bucket.put(there, b"{}", "application/json")
    ez.page("ascii", *pictures)
    page = json.dumps([{"src": f"ez/{key}"} for key in (there, nowhere)], ensure_ascii=False)
    ez.redis.set("content:v1:de:de:live:utf-8", page)
    ran = ez.run(max_fanout=1)
    uploaded = dict.fromkeys(pictures, "uploaded")
    assert results(ran) == {there: "present", nowhere: "missing", **uploaded}
    for key, data in pictures.items():
        document = decode(ez.bucket.get(key).data)
        assert (document.key, document.title) == (key, key.partition("-")[2])
        assert document.picture == data
    assert {*ez.lines(ran, "upload.log")} == {*pictures}


# The unpacked assets


def pack(ez: Ez, name: str, mode: str = "w") -> Path:
    """Make an archive of all assets, in place of them."""
    archive = ez.assets.parent / name
    with tarfile.open(archive, mode) as tar:
        tar.add(ez.assets, "assets")
    shutil.rmtree(ez.assets)
    ez.assets.mkdir()
    return archive.rename(ez.assets / name)


def left(ez: Ez) -> list[Path]:
    """What is left of unpacking and indexing."""
    return [*(ez.assets / UNPACKED).glob("*"), *ez.work.rglob("assets.sqlite*")]


def context(run_id: str, assets: str) -> Any:
    """What Airflow hands to `execute`, of a run beside those of the test."""
    run = SimpleNamespace(dag_id="ez_image_sync", run_id=run_id)
    return {"dag_run": run, "params": {"assets": assets, "mode": "copy"}}


def remove(assets: dict[str, Any]) -> None:
    RemoveAssetsOperator(task_id="remove_assets", assets=assets).execute({})


def test_unpacked_assets_are_removed_after_failures_too_and_the_next_run_ends_well(
    ez, proxies, lead, tries
):
    keys = many(ez, 6)
    pack(ez, "assets.tar")
    proxy = proxies()
    rule = proxy.on("PUT", drop())
    lead(proxy, tries=1)
    tries(1)
    assert ez.run(assets="assets.tar", max_fanout=1).state == "failed"
    assert left(ez) == []
    proxy.rules.remove(rule)
    assert_whole(ez, ez.run(assets="assets.tar", max_fanout=1), keys)
    assert left(ez) == []


def test_unpacked_assets_are_removed_when_the_plan_is_refused(ez, monkeypatch):
    many(ez, 1)
    pack(ez, "assets.tar")
    monkeypatch.delenv("AIRFLOW_CONN_IMAGEFLOWS_REDIS")
    assert ez.run(assets="assets.tar").state == "failed"
    assert left(ez) == []


def test_nothing_is_left_of_a_damaged_archive_and_nothing_is_stored(ez):
    keys = many(ez, 6)
    archive = pack(ez, "assets.tar.gz", "w:gz")
    os.truncate(archive, archive.stat().st_size * 2 // 3)
    ran = ez.run(assets="assets.tar.gz")
    assert (ran.state, ran.outcomes, left(ez)) == ("failed", {}, [])
    assert not any(ez.bucket.exists(key) for key in keys)


@pytest.mark.parametrize("fault", ["no file", "no room for the index"])
def test_nothing_is_left_of_an_archive_that_cannot_be_indexed(ez, monkeypatch, fault):
    if fault == "no file":
        ez.page("home", "7-nowhere.jpg")
    else:
        many(ez, 1)
        monkeypatch.setattr("imagecore.assets.build_index", full)
    pack(ez, "assets.tar")
    assert ez.run(assets="assets.tar").state == "failed"
    assert left(ez) == []


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_runs_beside_each_other_keep_their_own_unpacked_files(ez):
    keys = many(ez, 6)
    pack(ez, "assets.tar")
    other = AssetsOperator(task_id="assets").execute(context("other", "assets.tar"))
    before = sorted(Path(other["folder"]).rglob("*"))
    assert_whole(ez, ez.run(assets="assets.tar", max_fanout=1), keys)
    assert sorted(Path(other["folder"]).rglob("*")) == before
    assert (ez.work / other["index"]).exists()
    remove(other)
    assert left(ez) == []


def test_another_try_of_a_run_unpacks_anew(ez):
    ez.file("/x.jpg")
    pack(ez, "assets.tar")
    operator = AssetsOperator(task_id="assets")
    first = operator.execute(context("run", "assets.tar"))
    (Path(first["folder"]) / "x.jpg").unlink()
    assert operator.execute(context("run", "assets.tar")) == first
    assert (Path(first["folder"]) / "x.jpg").exists()


def test_what_another_run_unpacked_is_no_asset(ez):
    key = ez.file("/x.jpg")
    pack(ez, "assets.tar")
    ez.file("/y.jpg")
    ez.page("home", key)
    AssetsOperator(task_id="assets").execute(context("other", "assets.tar"))
    assert results(ez.run()) == {key: "missing"}


def test_removing_twice_is_no_error(ez):
    ez.file("/x.jpg")
    pack(ez, "assets.tar")
    assets = AssetsOperator(task_id="assets").execute(context("run", "assets.tar"))
    remove(assets)
    remove(assets)
