"""Whole runs of `ez_image_sync`: a real Redis, the devstack's Riak, a folder or an archive."""

import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from devstack.riakserver import RiakServer
from devstack.samples import client
from imagecore.adler import HASH_PREFIX, adler32
from imagecore.imagedocument import decode
from tests.imagecore.pictures import data_of, quarters
from tests.imagecore.test_riaksync import bucket_at
from tests.integration.dag_runs import Ran, connection, run_dag
from tests.objects import new_bucket_of, put

pytest_plugins = ("tests.redisfixtures",)

JPEG = data_of(quarters(), "JPEG")


@pytest.fixture(scope="module")
def riak(tmp_path_factory):
    with RiakServer(tmp_path_factory.mktemp("riak")) as server:
        yield server


class Ez:
    """A Redis, a Riak bucket, an assets folder, and runs between them."""

    def __init__(self, redis: Any, riak: RiakServer, folder: Path, name: str, dag: Any) -> None:
        self.redis, self.bucket = redis, bucket_at(riak.port, name)
        self.assets, self.work = folder / "assets", folder / "work"
        self._dag = dag
        self.assets.mkdir()

    def file(self, path: str, data: bytes = JPEG) -> str:
        """Write a file below the assets; its reference."""
        file = self.assets / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return f"{adler32(f'{HASH_PREFIX}{path}'.encode())}-{file.name}"

    def page(self, name: str, *keys: str) -> None:
        """A document with references."""
        teasers = [{"teaser": {"image": f"ez/{key}"}} for key in keys]
        self.redis.set(f"content:v1:de:de:live:{name}", json.dumps({"page": teasers}))

    def run(self, **conf: Any) -> Ran:
        dag, defaults = self._dag
        return run_dag(dag, self.work, defaults | {"riak_bucket": self.bucket.name} | conf)

    def lines(self, ran: Ran, name: str) -> list[str]:
        return (ran.folder / name).read_text().splitlines()


@pytest.fixture
def ez(dags, defaults, redis_server, source, riak, tmp_path, monkeypatch, request) -> Ez:
    redis = {"conn_type": "redis", "host": "127.0.0.1", "port": redis_server.port}
    there = {"conn_type": "riak", "host": "127.0.0.1", "port": riak.port}
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", f"file://{tmp_path}/work")
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__ASSETS_ROOT", str(tmp_path / "assets"))
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_REDIS", json.dumps(redis))
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_RIAK", json.dumps(there))
    dag = dags["ez_image_sync"], defaults["ez_image_sync"]
    for task in dag[0].tasks:
        if not task.is_mapped:
            monkeypatch.setattr(task, "retries", 0)
    return Ez(source, riak, tmp_path, request.node.name, dag)


def results(ran: Ran) -> dict[str, str]:
    return {key: o["detail"].get("result", o["state"]) for key, o in ran.outcomes.items()}


def test_references_become_present_uploaded_or_named_and_the_logs_say_so(ez):
    there, new, twice = (
        ez.file("/a/there.jpg"),
        ez.file("/b/new.jpg"),
        ez.file("/media/aca/b/x.jpg"),
    )
    assert ez.file("/media/bab/b/x.jpg") == twice
    ez.bucket.put(there, b"{}", "application/json")
    wrong = f"1-{ez.file('/c/wrong.jpg').partition('-')[2]}"
    ez.page("home", there, new, wrong, "7-nowhere.jpg", twice)
    ez.page("other", new)
    ez.redis.set("content:v1:de:de:live:broken", b"{")
    ran = ez.run()
    assert ran.state == "success"  # up to max_quarantined
    assert results(ran) == {
        there: "present",
        new: "uploaded",
        wrong: "hash_mismatch",
        "7-nowhere.jpg": "missing",
        twice: "ambiguous",
    }
    assert decode(ez.bucket.get(new).data).picture == JPEG
    assert ez.lines(ran, "upload.log") == [new]
    assert "ERROR - Error could not find match for 7-nowhere.jpg" in ez.lines(ran, "error.log")
    assert f"WARNING - Error could not match hashes of {wrong}" in ez.lines(ran, "error.log")
    report = json.loads((ran.folder / "report.json").read_text())
    assert report["planned"] == sum(report["counts"].values()) == 5
    assert report["findings"] == {"not_json": 1}
    assert not (ran.folder / "assets.sqlite").exists()
    again = ez.run()
    assert Counter(results(again).values())["present"] == 2
    assert ez.lines(again, "upload.log") == []


def test_a_dry_run_stores_nothing(ez):
    ez.page("home", key := ez.file("/x.jpg"))
    ran = ez.run(mode="dryrun")
    assert (ran.state, ran.outcomes) == ("success", {})
    assert not ez.bucket.exists(key)


@pytest.mark.parametrize("where", ["local", "s3"])
def test_an_archive_is_unpacked_for_the_run_and_taken_away_after_it(
    ez, where, s3_endpoint, monkeypatch
):
    ez.page("home", key := ez.file("/deep/er/x.jpg"))
    archive = ez.assets.parent / "assets.tbz2"
    with tarfile.open(archive, "w:bz2") as tar:
        tar.add(ez.assets, "assets")
    shutil.rmtree(ez.assets)
    ez.assets.mkdir()
    assets = "assets.tbz2"
    if where == "s3":
        bucket = new_bucket_of(client(s3_endpoint))
        put(bucket, "dumps/assets.tbz2", archive.read_bytes())
        monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_S3", connection(s3_endpoint))
        assets = f"s3://{bucket.name}/dumps/assets.tbz2"
    else:
        archive.rename(ez.assets / assets)
    ran = ez.run(assets=assets)
    assert (ran.state, results(ran)) == ("success", {key: "uploaded"})
    assert [path for path in ez.assets.rglob("*") if path.is_file()] == (
        [] if where == "s3" else [ez.assets / assets]
    )


@pytest.mark.parametrize("assets", ["", "no-such-folder", "../work", "s3://no-such-bucket/a.tar"])
def test_assets_that_are_not_there_end_the_run_before_anything_is_stored(
    ez, assets, s3_endpoint, monkeypatch
):
    """The first: a folder in which no file is, as of a drive that is not mounted."""
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_S3", connection(s3_endpoint))
    ez.page("home", "1-x.jpg")
    ez.work.mkdir()
    ran = ez.run(assets=assets)
    assert (ran.state, ran.outcomes) == ("failed", {})
