"""A planned change is carried out as it was planned, with a receipt of what was done; or not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from devstack.samples import client
from imagecore.outcome import Outcome, State
from imagecore.s3 import Bucket
from tests.faults import FaultProxy, call, corrupt_request, drop_after_upstream, header, status
from tests.objects import honours, impatient, kept, new_bucket_of, put, snapshot, uploads, versions
from tests.syncworld import World, ends

MIB = 2**20
LARGE = b"large " * (MIB + MIB // 8)
JPEG = b"\xff\xd8\xff\xe0 a picture"
OLD = {"ContentType": "image/gif", "CacheControl": "max-age=9", "Metadata": {"by": "Bob"}}
COPIES = ("CopyObject", "CompleteMultipartUpload")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("imagecore.target.PART_BYTES", 5 * MIB)
    impatient(monkeypatch)


@pytest.fixture(params=["s3_endpoint", "rclone_endpoint"])
def endpoint(request) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
def world(endpoint, tmp_path) -> World:
    return make_world(endpoint, tmp_path)


@pytest.fixture
def moto_world(s3_endpoint, tmp_path) -> World:
    return make_world(s3_endpoint, tmp_path)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def make_world(endpoint: str, folder: Path) -> World:
    s3 = client(endpoint)
    source, destination, trash = (
        new_bucket_of(s3, role) for role in ("source", "destination", "trash")
    )
    return World(source, destination, trash, folder)


def behind(world: World, proxy: FaultProxy) -> World:
    """The same world, its requests made through the proxy."""
    s3 = client(proxy.url)
    buckets = (world.source, world.destination, world.trash)
    source, destination, trash = (
        Bucket(b.name, s3) if isinstance(b, Bucket) else b for b in buckets
    )
    return World(source, destination, trash, world.folder, world.server_side, world.conditions)


def only(outcomes: list[Outcome]) -> Outcome:
    [outcome] = outcomes
    return outcome


# Done


def test_a_new_object_is_copied_and_receipted(world):
    put(world.source, "a.jpg", JPEG, **OLD)
    outcome = only(world.sync())
    etag = versions(world.destination)["a.jpg"]
    wrote = {"key": "a.jpg", "etag": etag, "size": len(JPEG), "replaced": None}
    assert outcome.state is State.DONE
    assert outcome.detail == {"action": "new", "bytes": len(JPEG), "wrote": [wrote], "removed": []}
    assert kept(world.destination, "a.jpg") == kept(world.source, "a.jpg")


def test_what_is_replaced_is_kept_in_the_trash_with_all_that_belongs_to_it(world):
    put(world.destination, "a.jpg", b"old", **OLD)
    before = snapshot(world.destination)
    put(world.source, "a.jpg", JPEG)
    outcome = only(world.sync(compare="size"))
    replaced = outcome.detail["wrote"][0]["replaced"]
    assert kept(world.trash, replaced["trash"]) == before["a.jpg"]
    assert replaced["kept"] == versions(world.trash)[replaced["trash"]]
    assert kept(world.destination, "a.jpg").data == JPEG


def test_what_is_removed_is_moved_to_the_trash_with_all_that_belongs_to_it(world):
    put(world.source, "b.jpg")
    put(world.destination, "b.jpg")
    put(world.destination, "a.jpg", b"old", **OLD)
    before = snapshot(world.destination)
    outcome = only(world.sync(delete=True))
    [removed] = outcome.detail["removed"]
    assert (outcome.state, removed["key"], removed["size"]) == (State.DONE, "a.jpg", 3)
    assert kept(world.trash, removed["trash"]) == before["a.jpg"]
    assert set(versions(world.destination)) == {"b.jpg"}


def test_a_name_too_long_for_the_trash_is_kept_by_its_hash(world):
    key = "/".join(["x" * 203] * 5)
    put(world.destination, key, b"old")
    put(world.source, key, b"newer")
    replaced = only(world.sync(compare="size")).detail["wrote"][0]["replaced"]
    assert "sha256-" in replaced["trash"]
    assert kept(world.trash, replaced["trash"]).data == b"old"


def test_without_a_trash_the_receipt_says_that_it_was_not_kept(world):
    world.trash = None
    put(world.destination, "a.jpg", b"old")
    put(world.source, "a.jpg", JPEG)
    replaced = only(world.sync(compare="size")).detail["wrote"][0]["replaced"]
    assert (replaced["trash"], replaced["size"]) == (None, 3)


# A lost answer


LOST = {
    "PutObject": {"server_side": False},
    "CompleteMultipartUpload": {"server_side": False},
    "CopyObject": {},
}


@pytest.mark.parametrize("operation", LOST)
@pytest.mark.parametrize("there", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize("strict", [False, True], ids=["as it is", "all conditions"])
def test_a_write_whose_answer_is_lost_is_done_and_receipted(world, operation, there, strict):
    world.server_side = LOST[operation].get("server_side", True)
    data = LARGE if operation == "CompleteMultipartUpload" else JPEG
    put(world.source, "a.jpg", data)
    if there:
        put(world.destination, "a.jpg", b"old", **OLD)
    before = snapshot(world.destination)
    plan = world.plan(compare="size")
    with FaultProxy(world.destination.client.meta.endpoint_url) as proxy:
        through = behind(world, proxy)
        honour = honours(world.destination.client) if strict else None
        if honour:
            proxy.on(lambda r: r.operation in COPIES, honour)
        through.items()  # which finds out what the server honours
        which = {"bucket": world.destination.name, "key": "a.jpg", "times": 1}
        faults = [drop_after_upstream(), *([honour] if honour else [])]
        proxy.rules.insert(0, proxy.on(operation, *faults, **which))
        outcome = only(through.apply(*plan))
        assert proxy.rules[0].acted == 1
    [wrote] = outcome.detail["wrote"]
    assert (outcome.state, wrote["size"]) == (State.DONE, len(data))
    assert wrote["etag"] == versions(world.destination)["a.jpg"]
    assert kept(world.destination, "a.jpg").data == data
    assert uploads(world.destination) == []
    if there:
        assert kept(world.trash, wrote["replaced"]["trash"]) == before["a.jpg"]
    else:
        assert wrote["replaced"] is None


def test_a_removal_whose_answer_is_lost_is_done_and_receipted(world):
    put(world.source, "b.jpg")
    put(world.destination, "b.jpg")
    put(world.destination, "a.jpg", b"old", **OLD)
    before = snapshot(world.destination)
    plan = world.plan(delete=True)
    with FaultProxy(world.destination.client.meta.endpoint_url) as proxy:
        through = behind(world, proxy)
        proxy.on("DeleteObject", drop_after_upstream(), key="a.jpg", times=1)
        outcome = only(through.apply(*plan))
    [removed] = outcome.detail["removed"]
    assert outcome.state is State.DONE
    assert kept(world.trash, removed["trash"]) == before["a.jpg"]
    assert set(versions(world.destination)) == {"b.jpg"}


# Damage


@pytest.mark.parametrize("data", [JPEG, LARGE], ids=["small", "large"])
def test_a_damaged_upload_is_taken_back_and_what_it_replaced_is_put_back(world, data):
    world.server_side = False
    put(world.source, "a.jpg", data)
    put(world.destination, "a.jpg", b"old", **OLD)
    before = snapshot(world.destination)
    plan = world.plan(compare="size")
    with FaultProxy(world.destination.client.meta.endpoint_url) as proxy:
        through = behind(world, proxy)
        through.items()
        operation = "PutObject" if data is JPEG else "UploadPart"
        proxy.on(operation, corrupt_request(1), key="a.jpg", times=1)
        outcome = only(through.apply(*plan))
    assert (outcome.state, outcome.detail) == (State.FAILED, {})
    assert "deleted again" in outcome.reason or "arrived damaged" in outcome.reason
    assert (snapshot(world.destination), uploads(world.destination)) == (before, [])


def test_a_source_that_arrives_damaged_replaces_nothing(world):
    world.server_side = False
    put(world.source, "a.jpg", JPEG)
    put(world.destination, "a.jpg", b"old")
    before = snapshot(world.destination)
    plan = world.plan(compare="size")
    with FaultProxy(world.destination.client.meta.endpoint_url) as proxy:
        proxy.on("GetObject", header("ETag", '"' + "0" * 32 + '"'), key="a.jpg")
        outcome = only(behind(world, proxy).apply(*plan))
    assert outcome.state is State.FAILED
    assert snapshot(world.destination) == before


# Changed since it was planned


def test_an_object_that_someone_changed_stays_and_is_reported(world):
    put(world.source, "a.jpg", JPEG)
    put(world.destination, "a.jpg", b"old")
    plan = world.plan(compare="size")
    put(world.destination, "a.jpg", b"theirs")
    outcome = only(world.apply(*plan))
    assert outcome.state is State.FAILED
    assert "was to be replaced as" in outcome.reason
    assert kept(world.destination, "a.jpg").data == b"theirs"


def test_an_object_that_someone_made_to_be_removed_stays_and_is_reported(world):
    put(world.source, "b.jpg")
    put(world.destination, "a.jpg", b"old")
    _, removals = world.plan(delete=True)
    put(world.destination, "a.jpg", b"theirs")
    outcome = only(world.apply(removals))
    assert "was to be deleted as" in outcome.reason
    assert kept(world.destination, "a.jpg").data == b"theirs"


@pytest.mark.parametrize("server_side", [True, False], ids=["copied", "streamed"])
@pytest.mark.parametrize("trash", [True, False], ids=["trash", "no trash"])
def test_a_source_that_changed_is_not_copied_and_nothing_is_lost(world, server_side, trash):
    world.server_side = server_side
    world.trash = world.trash if trash else None
    put(world.source, "a.jpg", JPEG)
    put(world.destination, "a.jpg", b"old", **OLD)
    before = snapshot(world.destination)
    plan = world.plan(compare="size")
    put(world.source, "a.jpg", b"another picture")
    with FaultProxy(world.destination.client.meta.endpoint_url) as proxy:
        outcome = only(behind(world, proxy).apply(*plan))
        written = {"PutObject", "CopyObject", "DeleteObject"}
        here = {"bucket": world.destination.name, "key": "a.jpg"}
        assert proxy.requests.count(lambda r: r.operation in written, **here) == 0
    assert outcome.state is State.FAILED
    assert "changed since it was planned" in outcome.reason
    assert snapshot(world.destination) == before


def test_an_object_that_is_in_the_source_again_is_not_removed(world):
    put(world.source, "b.jpg")
    put(world.destination, "a.jpg", b"old")
    _, removals = world.plan(delete=True)
    put(world.source, "a.jpg", b"back")
    outcome = only(world.apply(removals))
    assert "is in the source (again)" in outcome.reason
    assert set(versions(world.destination)) == {"a.jpg"}


def test_what_someone_else_brought_up_to_date_is_not_claimed(world):
    """Else undoing this run would take away what it did not bring."""
    put(world.source, "a.jpg", JPEG)
    put(world.destination, "a.jpg", b"old")
    plan = world.plan(compare="size")
    put(world.destination, "a.jpg", JPEG)
    outcome = only(world.apply(*plan))
    assert (outcome.state, outcome.detail["wrote"]) == (State.SKIPPED, [])


def test_a_trash_that_holds_another_object_is_not_written_over(world):
    put(world.source, "a.jpg", JPEG)
    put(world.destination, "a.jpg", b"old")
    transfers, _ = world.plan(compare="size")
    put(world.trash, "kept/2/a.jpg", b"something")
    outcome = only(world.apply(transfers))
    assert "holds another object than the one to be kept" in outcome.reason
    assert kept(world.destination, "a.jpg").data == b"old"
    assert kept(world.trash, "kept/2/a.jpg").data == b"something"


def test_a_removal_that_stops_half_way_says_what_it_removed(world):
    etags = {key: put(world.destination, key, key.encode()) for key in ("1", "2")}
    remove = [{"key": "1", "etag": etags["1"]}, {"key": "2", "etag": "0" * 32}]
    item = {"key": "2", "name": "2", "action": "duplicate", "absent": None, "remove": remove}
    outcome = only(world.apply([item]))
    assert outcome.state is State.FAILED
    assert [entry["key"] for entry in outcome.detail["removed"]] == ["1"]
    assert set(versions(world.destination)) == {"2"}


def test_an_object_at_which_the_server_breaks_fails_alone(world):
    for key in "abcd":
        put(world.source, key, JPEG)
    plan = world.plan()
    with FaultProxy(world.destination.client.meta.endpoint_url) as proxy:
        through = behind(world, proxy)
        through.items()
        proxy.on("CopyObject", status(500), key="b")
        outcomes = through.apply(*plan)
    assert ends(outcomes) == {"a": "done", "b": "failed", "c": "done", "d": "done"}
    assert set(versions(world.destination)) == {"a", "c", "d"}


# From a folder


def test_a_file_gets_its_content_type_by_its_content(world, folder):
    world.source = folder
    (folder / "a.txt").write_bytes(JPEG)
    (folder / "b.jpg").write_bytes(b"a letter")
    (folder / "c.css").write_bytes(b"p {}")
    (folder / "empty").write_bytes(b"")
    assert set(ends(world.sync()).values()) == {"done"}
    types = {key: found.content_type for key, found in snapshot(world.destination).items()}
    octets = "application/octet-stream"
    assert types == {"a.txt": "image/jpeg", "b.jpg": octets, "c.css": "text/css", "empty": octets}


def test_a_large_file_goes_up_in_parts(world, folder):
    world.source = folder
    (folder / "a.jpg").write_bytes(JPEG + LARGE)
    [wrote] = only(world.sync()).detail["wrote"]
    assert wrote["size"] == len(JPEG + LARGE)
    assert kept(world.destination, "a.jpg")[:2] == (JPEG + LARGE, "image/jpeg")


def grow(file: Path) -> None:
    with file.open("ab") as data:
        data.write(b"more")


def replace_by_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/hostname")


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


CHANGES: dict[str, Callable[[Path], object]] = {
    "grown": grow,
    "cut": lambda file: os.truncate(file, 1),
    "touched": lambda file: os.utime(file, (1, 1)),
    "gone": Path.unlink,
    "a link": replace_by_link,
    "a pipe": replace_by_pipe,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("data", [JPEG, LARGE], ids=["small", "large"])
def test_a_file_that_changed_since_it_was_listed_fails_alone(moto_world, folder, change, data):
    world = moto_world
    world.source = folder
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(data)
    plan = world.plan()
    CHANGES[change](folder / "a.jpg")
    outcomes = world.apply(*plan)
    assert ends(outcomes) == {"a.jpg": "failed", "b.jpg": "done"}
    assert set(versions(world.destination)) == {"b.jpg"}
    assert uploads(world.destination) == []


def test_a_file_that_changes_while_it_is_sent_is_not_seen_torn(world, folder):
    world.source = folder
    (folder / "a.jpg").write_bytes(LARGE)
    plan = world.plan()
    with FaultProxy(world.destination.client.meta.endpoint_url) as proxy:
        through = behind(world, proxy)
        through.items()
        proxy.on("UploadPart", call(lambda _: grow(folder / "a.jpg")), times=1)
        outcome = only(through.apply(*plan))
    assert "changed since it was listed" in outcome.reason
    assert (versions(world.destination), uploads(world.destination)) == ({}, [])


def test_nothing_is_removed_for_a_folder_that_is_not_the_one_that_was_listed(moto_world, folder):
    world = moto_world
    world.source = folder
    (folder / "b.jpg").write_bytes(JPEG)
    put(world.destination, "a.jpg", b"old")
    _, removals = world.plan(delete=True)
    items = world.items()
    folder.rename(folder.with_name("moved"))
    folder.mkdir()
    (folder / "c.jpg").write_bytes(JPEG)
    with pytest.raises(Exception, match="Another drive is mounted"):
        items.process(removals[0])
    shutil.rmtree(folder)
    with pytest.raises(Exception, match="is the drive mounted"):
        items.process(removals[0])
    assert set(versions(world.destination)) == {"a.jpg"}
