"""The work store is the same thing in a folder and in S3, and says so when it cannot be used."""

import os
import posixpath
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from obstore.store import S3Store

from imagecore.errors import InfrastructureError
from imagecore.workstore import WorkStore, local_work_store, run_folder, split_uri


def s3_store(endpoint: str, bucket: str) -> WorkStore:
    store = S3Store(
        bucket,
        prefix="airflow/work",
        endpoint=endpoint,
        region="us-east-1",
        access_key_id="test",
        secret_access_key="test",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    return WorkStore(f"s3://aws@{bucket}/airflow/work", store)


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> WorkStore:
    if request.param == "file":
        return local_work_store(f"file://{tmp_path}/work%20store")
    bucket = request.getfixturevalue("new_bucket")("work")
    return s3_store(request.getfixturevalue("s3_endpoint"), bucket)


def test_what_was_put_is_read_back_whole_and_in_part(store: WorkStore) -> None:
    assert store.put("dag/run/a.jsonl", b"0123456789") == f"{store.url}/dag/run/a.jsonl"
    assert store.get("dag/run/a.jsonl") == b"0123456789"
    assert store.get("dag/run/a.jsonl", 3, 4) == b"3456"
    assert store.get("dag/run/a.jsonl", 7, 3) == b"789"
    assert store.get("dag/run/a.jsonl", 7, 30) == b"789"
    assert store.get("dag/run/a.jsonl", 10, 3) == store.get("dag/run/a.jsonl", 99, 3) == b""


@pytest.mark.parametrize("size", [0, 1, 12_000_000])
def test_a_file_of_any_size_is_put_whole(store: WorkStore, tmp_path: Path, size: int) -> None:
    file = tmp_path / "manifest.jsonl"
    file.write_bytes(data := os.urandom(size))
    store.put("dag/manifest.jsonl", file)
    assert store.get("dag/manifest.jsonl") == data


def test_putting_again_replaces(store: WorkStore) -> None:
    store.put("dag/report.json", b"a long first version")
    store.put("dag/report.json", b"second")
    assert store.get("dag/report.json") == b"second"


def test_a_folder_lists_what_lies_below_it_at_any_depth_and_nothing_else(store: WorkStore) -> None:
    inside = ["run/outcomes/0001.jsonl", "run/outcomes/0001/000000.jsonl", "run/outcomes/0002.json"]
    for path in ["run/outcomes2/x", "run/outcome", "other/outcomes/y", *reversed(inside)]:
        store.put(path, b"x")
    assert store.paths("run/outcomes") == sorted(inside)
    assert store.paths("run/nothing") == []


def test_the_folders_directly_below_a_folder_are_named(store: WorkStore) -> None:
    for path in ["dag/run 2%2E:+/plan-1/plan.json", "dag/é/a/b/c", "dag/file", "dag2/run/x"]:
        store.put(path, b"x")
    assert store.folders("dag") == ["run 2%2E:+", "é"]
    assert store.folders("dag/é") == ["a"]
    assert store.folders("dag/é/a/b") == store.folders("dag/nothing") == []
    assert store.folders("dag/file") == []
    assert store.folders("") == ["dag", "dag2"]


def test_deleting_removes_what_is_named_and_takes_no_offence_at_what_is_gone(
    store: WorkStore,
) -> None:
    for path in ("run/a", "run/b", "run/c"):
        store.put(path, b"x")
    store.delete(["run/a", "run/never-was", "run/b"])
    assert store.paths("run") == ["run/c"]


def test_a_missing_object_is_a_missing_file(store: WorkStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.get("run/nothing")
    with pytest.raises(FileNotFoundError):
        store.get("run/nothing", 1, 2)


@pytest.mark.parametrize(
    "run_id", ["manual__2026-01-02T03:04:05.678+00:00", "..", "a/b c%20d", "é\n😀#1"]
)
def test_a_run_s_folder_is_listed_under_the_name_it_was_given(
    store: WorkStore, run_id: str
) -> None:
    path = f"{run_folder('dag', run_id)}/report.json"
    store.put(path, b"x")
    assert store.paths("dag") == store.paths(run_folder("dag", run_id)) == [path]
    assert store.get(path) == b"x"


def test_a_file_is_never_seen_half_written(tmp_path: Path) -> None:
    store = local_work_store(f"file://{tmp_path}/work")
    versions = [bytes([n]) * 300_000 for n in range(100)]
    store.put("report", versions[0])
    writer = threading.Thread(target=lambda: [store.put("report", v) for v in versions])
    writer.start()
    while writer.is_alive():
        assert store.get("report") in versions
    writer.join()
    assert store.get("report") == versions[-1]


USES: list[Callable[[WorkStore], object]] = [
    lambda store: store.put("run/a", b"x"),
    lambda store: store.put("run/a", Path(__file__)),
    lambda store: store.get("run/a"),
    lambda store: store.get("run/a", 0, 1),
    lambda store: store.paths("run"),
    lambda store: store.folders("run"),
]
NAMES = ["put", "put-file", "get", "get-range", "paths", "folders"]


@pytest.mark.parametrize("use", USES, ids=NAMES)
def test_a_store_that_does_not_answer_is_named(use: Callable[[WorkStore], object]) -> None:
    with pytest.raises(InfrastructureError, match=r"s3://aws@work/airflow/work/run.*work_store"):
        use(s3_store("http://127.0.0.1:9", "work"))


@pytest.mark.parametrize("use", USES, ids=NAMES)
def test_a_bucket_that_does_not_exist_is_named(
    use: Callable[[WorkStore], object], s3_endpoint: str
) -> None:
    with pytest.raises(InfrastructureError, match=r"s3://aws@nowhere/airflow/work/run"):
        use(s3_store(s3_endpoint, "nowhere"))


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    store = local_work_store(f"file://{tmp_path}/work")
    store.put("dag", b"a file where a folder should be")
    with pytest.raises(InfrastructureError) as caught:
        store.put("dag/run/report.json", b"x")
    assert f"file://{tmp_path}/work/dag/run/report.json" in str(caught.value)
    assert str(caught.value).isprintable()
    assert "Debug" not in str(caught.value)


def test_a_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for url in (f"file://{tmp_path}/file", f"file://{tmp_path}/file/work"):
        with pytest.raises(InfrastructureError, match=f"{url}.*work_store"):
            local_work_store(url)


def test_the_root_is_made_and_its_url_is_decoded(tmp_path: Path) -> None:
    store = local_work_store(f"file://{tmp_path}/a%20b/work/")
    store.put("x", b"x")
    assert (tmp_path / "a b" / "work" / "x").read_bytes() == b"x"
    assert store.uri("x") == f"file://{tmp_path}/a%20b/work/x"


RUN_IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(RUN_IDS | st.text("./%:", min_size=1))
@example(".")
@example("..")
@example("...")
@example("../../etc")
@example("/")
@example("%2E%2E")
def test_no_run_id_leaves_its_dag_s_folder_and_each_can_be_read_back(run_id: str) -> None:
    folder = run_folder("dag", run_id)
    assert posixpath.normpath(folder) == folder
    parent, name = posixpath.split(folder)
    assert parent == "dag"
    assert unquote(name) == run_id


def test_run_ids_as_airflow_makes_them_stay_readable() -> None:
    assert run_folder("dag", "manual__2026-01-02T03:04:05+00:00") == (
        "dag/manual__2026-01-02T03:04:05+00:00"
    )


@given(st.text(min_size=1).filter(lambda name: "/" not in name))
def test_an_address_is_split_into_folder_and_name(name: str) -> None:
    assert split_uri(f"s3://aws@bucket/runs/{name}") == ("s3://aws@bucket/runs", name)
    assert split_uri(f"s3://aws@bucket/{name}") == ("s3://aws@bucket", name)


@pytest.mark.parametrize(
    "uri", ["", "failed.jsonl", "/tmp/failed.jsonl", "s3://aws@bucket", "s3://aws@bucket/runs/"]
)
def test_what_is_no_address_of_a_file_is_refused_by_name(uri: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a file") as caught:
        split_uri(uri)
    assert repr(uri) in str(caught.value)
