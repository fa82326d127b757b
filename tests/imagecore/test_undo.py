"""Taking a sync back gives the destination back exactly: keys, bytes, metadata, types, tags."""

import random
from pathlib import Path

import pytest

from devstack.samples import client
from imagecore.outcome import Outcome, State
from imagecore.undo import lost, restores, touched_by, withdrawals
from tests.objects import impatient, kept, new_bucket_of, put, snapshot, uploads
from tests.syncworld import OPEN, World, ends

MIB = 2**20
DRESSED = {"ContentType": "image/gif", "CacheControl": "max-age=9", "Metadata": {"by": "Bob"}}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    impatient(monkeypatch)


@pytest.fixture(params=["s3_endpoint", "rclone_endpoint"])
def world(request, tmp_path) -> World:
    s3 = client(request.getfixturevalue(request.param))
    source, destination, trash = (
        new_bucket_of(s3, role) for role in ("source", "destination", "trash")
    )
    return World(source, destination, trash, tmp_path)


@pytest.fixture
def tagging(world, s3_endpoint) -> bool:
    """Whether the server knows tags."""
    return world.destination.client.meta.endpoint_url == s3_endpoint


def wrote(key: str, etag: str, replaced: dict | None = None) -> Outcome:
    entry = {"key": key, "etag": etag, "size": 1, "replaced": replaced}
    return Outcome(key, State.DONE, detail={"wrote": [entry], "removed": []})


def removed(key: str, was: dict) -> Outcome:
    return Outcome(key, State.DONE, detail={"wrote": [], "removed": [{"key": key, **was}]})


def was(etag: str, trash: str | None = "kept/a") -> dict:
    return {"etag": etag, "size": 1, "trash": trash, "kept": etag}


# What the receipts of a run come to


def test_what_a_run_touched_twice_goes_back_to_what_it_was_at_first():
    keys = touched_by(
        [wrote("a", "2", was("1", "kept/1/a")), wrote("a", "3", was("2", "kept/2/a"))]
    )
    [item] = restores(keys)
    assert (item["source"]["key"], item["before"]["etag"]) == ("kept/1/a", "3")
    assert list(withdrawals(keys)) == []


def test_what_was_removed_and_written_again_comes_back_as_it_was():
    keys = touched_by([removed("a", was("1")), wrote("a", "2")])
    [item] = restores(keys)
    assert (item["action"], item["source"]["etag"], item["before"]["etag"]) == (
        "modified",
        "1",
        "2",
    )


def test_what_was_new_and_removed_again_is_left_alone():
    keys = touched_by([wrote("a", "1"), removed("a", was("1"))])
    assert (list(restores(keys)), list(withdrawals(keys))) == ([], [])


def test_what_was_replaced_by_the_same_bytes_comes_back_too():
    """Its metadata may have been others."""
    keys = touched_by([wrote("a", "1", was("1"))])
    assert [item["key"] for item in restores(keys)] == ["a"]


def test_what_was_not_kept_is_named_as_lost():
    keys = touched_by([wrote("a", "2", was("1", None)), wrote("b", "1"), wrote("c", "2", was("1"))])
    assert lost(keys) == ["a"]
    assert [item["key"] for item in restores(keys)] == ["c"]


def test_what_failed_half_way_is_taken_back_as_far_as_it_went():
    failed = Outcome("b", State.FAILED, "changed", detail={"removed": [{"key": "a", **was("1")}]})
    assert [item["key"] for item in restores(touched_by([failed]))] == ["a"]


# Taken back from real buckets


def test_a_sync_is_taken_back(world):
    put(world.source, "new.jpg", b"new")
    put(world.source, "changed.jpg", b"changed", **DRESSED)
    put(world.destination, "changed.jpg", b"was", **DRESSED)
    put(world.destination, "gone.jpg", b"gone", **DRESSED)
    before = snapshot(world.destination)
    outcomes = world.sync(compare="size", delete=True)
    assert set(snapshot(world.destination)) == {"new.jpg", "changed.jpg"}
    assert set(ends(world.undo(outcomes)).values()) == {"done"}
    assert snapshot(world.destination) == before


def test_the_metadata_come_back_where_the_bytes_were_the_same(world):
    put(world.destination, "a.jpg", b"same", **DRESSED)
    before = snapshot(world.destination)
    put(world.source, "a.jpg", b"same", ContentType="image/png")
    outcomes = world.sync(compare="size", force=True)
    assert kept(world.destination, "a.jpg").content_type == "image/png"
    world.undo(outcomes)
    assert snapshot(world.destination) == before


def test_undoing_is_taken_back_as_well(world):
    put(world.source, "new.jpg", b"new", **DRESSED)
    put(world.source, "changed.jpg", b"changed", **DRESSED)
    put(world.destination, "changed.jpg", b"was")
    put(world.destination, "gone.jpg", b"gone")
    before = snapshot(world.destination)
    outcomes = world.sync(compare="size", delete=True)
    synced = snapshot(world.destination)
    undone = world.undo(outcomes)
    assert snapshot(world.destination) == before
    again = world.undo(undone)
    assert snapshot(world.destination) == synced
    world.undo(again)
    assert snapshot(world.destination) == before


def test_what_someone_changed_since_stays_and_is_reported(world):
    names = ("new.jpg", "changed.jpg", "other.jpg")
    for name in names:
        put(world.source, name, b"from the source")
    for name in (*names[1:], "gone.jpg"):
        put(world.destination, name, b"was")
    before = snapshot(world.destination)
    outcomes = world.sync(compare="size", delete=True)
    theirs = {name: put(world.destination, name, b"theirs") for name in (*names[:2], "gone.jpg")}
    keys = touched_by(outcomes)
    undone = world.apply([*restores(keys), *withdrawals(keys)], source=world.trash)
    assert ends(undone) == {name: "failed" for name in theirs} | {"other.jpg": "done"}
    assert all("to be replaced as" in o.reason or "was to be deleted" in o.reason
               or "was not there when it was planned" in o.reason
               for o in undone if o.key in theirs)  # fmt: skip
    found = snapshot(world.destination)
    assert {name: found[name].data for name in theirs} == dict.fromkeys(theirs, b"theirs")
    assert found["other.jpg"] == before["other.jpg"]


def test_undoing_twice_changes_nothing_more(world):
    put(world.source, "new.jpg", b"new")
    put(world.destination, "gone.jpg", b"gone")
    before = snapshot(world.destination)
    outcomes = world.sync(delete=True)
    world.undo(outcomes)
    assert set(ends(world.undo(outcomes)).values()) <= {"done", "skipped"}
    assert snapshot(world.destination) == before


NAMES = [
    "a.jpg", "b/c.jpg", "b/d e.jpg", "b/ü+%41.jpg", "stores/x/photos/1.jpg", "quote'\".jpg", "z",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_undoing_random_syncs_gives_back_the_destination_exactly(world, tagging, seed):
    dice = random.Random(seed)

    def fill(bucket, share: float) -> None:
        for name in NAMES:
            if dice.random() < share:
                headers: dict = {"ContentType": dice.choice(["image/png", "image/jpeg"])}
                headers["Metadata"] = {"by": dice.choice(["Ann", "Bob"])}
                headers["CacheControl"] = dice.choice(["no-store", "max-age=1"])
                if tagging:  # always: moto's copy of an untagged object leaves the tags of another
                    headers["Tagging"] = f"rights={dice.choice(['free', 'none'])}"
                put(bucket, name, dice.choice([b"", b"1", b"22", b"x" * MIB]), **headers)

    def rules() -> dict:
        return OPEN | {
            "compare": dice.choice(["newer", "size", "etag", "checksum"]),
            "delete": dice.random() < 0.7,
            "force": dice.random() < 0.3,
        }

    world.server_side = dice.random() < 0.5
    fill(world.destination, 0.7)
    fill(world.source, 0.7)
    states, runs = [], []
    for _ in range(2):
        states.append(snapshot(world.destination))
        runs.append(world.sync(**rules()))
        fill(world.source, 0.4)
    for state, run in zip(reversed(states), reversed(runs), strict=True):
        assert set(ends(world.undo(run)).values()) <= {"done", "skipped"}
        assert snapshot(world.destination) == state
    assert uploads(world.destination) == []


@pytest.mark.parametrize("seed", range(4))
def test_undoing_several_syncs_at_once_gives_back_what_was_before_them(world, seed):
    """As of a run whose plan was cleared and made again."""
    dice = random.Random(seed)

    def fill(bucket) -> None:
        for name in NAMES:
            if dice.random() < 0.6:
                put(bucket, name, dice.choice([b"1", b"22", b"333"]), Metadata={"n": name[:1]})

    fill(world.destination)
    before = snapshot(world.destination)
    outcomes = []
    for _ in range(3):
        fill(world.source)
        outcomes += world.sync(**OPEN, compare="etag", delete=True)
    world.undo(outcomes)
    assert snapshot(world.destination) == before


def test_a_folder_is_taken_back_as_a_bucket_is(world, tmp_path: Path):
    world.source = tmp_path / "pictures"
    world.source.mkdir()
    (world.source / "a.jpg").write_bytes(b"\xff\xd8\xff new")
    put(world.destination, "a.jpg", b"was", **DRESSED)
    before = snapshot(world.destination)
    outcomes = world.sync(compare="size")
    assert kept(world.destination, "a.jpg").content_type == "image/jpeg"
    world.undo(outcomes)
    assert snapshot(world.destination) == before
