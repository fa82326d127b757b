"""While others write, and whenever it is killed, a sync does what was planned, once, or nothing."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock

import pytest

from devstack.samples import client
from imagecore.outcome import Outcome
from imagecore.s3 import Bucket
from tests.faults import FaultProxy, call
from tests.faultwire import Request
from tests.killedsync import KilledSync, Kind, killed_sync
from tests.objects import Kept, honours, impatient, new_bucket_of, put, snapshot, uploads, versions
from tests.syncchaos import MIB
from tests.syncworld import World, ends

WRITES = ("PutObject", "CopyObject", "DeleteObject")
CHANGED = 100


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    impatient(monkeypatch)


def etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def make_world(endpoint: str, folder: Path) -> World:
    s3 = client(endpoint)
    source, destination, trash = (
        new_bucket_of(s3, role) for role in ("source", "destination", "trash")
    )
    return World(source, destination, trash, folder)


def behind(world: World, proxy: FaultProxy) -> World:
    """The same world, its requests made through the proxy."""
    s3 = client(proxy.url)
    source = world.source if isinstance(world.source, Path) else Bucket(world.source.name, s3)
    destination, trash = (Bucket(b.name, s3) for b in (world.destination, world.trash))
    return World(source, destination, trash, world.folder, world.server_side, world.conditions)


def fill(world: World, dice: random.Random, new: int, modified: int, duplicates: int) -> list[str]:
    """Pictures of each kind, in no order; their names."""
    kinds = ["new"] * new + ["modified"] * modified + ["duplicate"] * duplicates
    dice.shuffle(kinds)
    names = [f"{number:04}-{kind}.jpg" for number, kind in enumerate(kinds)]
    for name in names:
        if "new" not in name:
            put(world.destination, name, f"{name} as it was".encode())
        if "duplicate" not in name and isinstance(world.source, Path):
            (world.source / name).write_bytes(f"{name} of the source".encode())
        elif "duplicate" not in name:
            put(world.source, name, f"{name} of the source".encode())
    return names


def planned(name: str) -> str | None:
    """The ETag of what a plan brings to the destination."""
    return None if "duplicate" in name else etag(f"{name} of the source".encode())


class ForeignWriter:
    """Changes each of some objects once, immediately before a request that a rule hands to it."""

    def __init__(self, bucket: Bucket, names: list[str], dice: random.Random) -> None:
        self.left: dict[str, str | None] = {}
        """The ETag of what was left at each key; None: nothing."""
        self._bucket, self._lock = bucket, Lock()
        self._changes = {name: dice.choice(self._kinds(name)) for name in names}

    @staticmethod
    def _kinds(name: str) -> list[str]:
        if "new" in name:
            return ["write"]
        return ["write", "replace", "delete"] if "modified" in name else ["write", "replace"]

    def __call__(self, request: Request) -> None:
        with self._lock:
            change = self._changes.pop(request.key, None)
        if change in ("replace", "delete"):
            self._bucket.client.delete_object(Bucket=self._bucket.name, Key=request.key)
            self.left[request.key] = None
        if change in ("replace", "write"):
            self.left[request.key] = put(
                self._bucket, request.key, f"{request.key} is mine".encode()
            )


# Others write at the same time


def check_reported(outcomes: list[Outcome], names: list[str], changed: list[str]) -> None:
    others = dict.fromkeys(names, "done")
    assert ends(outcomes) == others | dict.fromkeys(changed, "failed")
    assert all(o.key in o.reason for o in outcomes if o.key in changed)


MOMENTS = {
    "in the very moment of writing": ("s3_endpoint", WRITES),
    "before it is looked at": ("rclone_endpoint", ("HeadObject",)),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_of_1000_objects_the_100_that_a_foreign_writer_changes_are_reported_and_stay(
    moment, request, tmp_path
):
    """Where the server honours conditions, there is no moment at which it could lose."""
    server, operations = MOMENTS[moment]
    dice = random.Random(1_000)
    world = make_world(request.getfixturevalue(server), tmp_path)
    world.source = tmp_path / "pictures"
    world.source.mkdir()
    names = fill(world, dice, new=860, modified=70, duplicates=70)
    changed = dice.sample(names, CHANGED)
    transfers, removals = world.plan(compare="size", delete=True)
    writer = ForeignWriter(world.destination, changed, dice)
    with FaultProxy(world.destination.client.meta.endpoint_url) as proxy:
        through = behind(world, proxy)
        through.items()  # which finds out what the server honours
        where = {"bucket": world.destination.name}
        proxy.on(lambda r: r.operation in operations, call(writer), **where)
        outcomes = through.apply([*transfers, *removals])
    check_reported(outcomes, names, changed)
    expected = {name: planned(name) for name in names} | writer.left
    assert set(writer.left) == set(changed)
    assert versions(world.destination) == {key: tag for key, tag in expected.items() if tag}


COPY, READ, LOOK = ("destination", "CopyObject"), ("source", "GetObject"), ("source", "HeadObject")
READINGS = {
    "copied, under conditions": ("s3_endpoint", True, COPY),
    "copied": ("rclone_endpoint", True, LOOK),
    "streamed": ("rclone_endpoint", False, READ),
}


@pytest.mark.parametrize("reading", READINGS)
def test_100_sources_that_change_are_reported_and_no_other_version_is_brought(
    reading, request, tmp_path
):
    server, server_side, (role, operation) = READINGS[reading]
    dice = random.Random(100)
    world = make_world(request.getfixturevalue(server), tmp_path)
    world.server_side = server_side
    names = fill(world, dice, new=120, modified=40, duplicates=0)
    before = versions(world.destination)
    changed = dice.sample(names, CHANGED)
    transfers, _ = world.plan(compare="size")
    writer = ForeignWriter(world.source, changed, dice)
    with FaultProxy(world.destination.client.meta.endpoint_url) as proxy:
        strict = [honours(world.source.client)] if operation == "CopyObject" else []
        proxy.on(operation, call(writer), *strict, bucket=getattr(world, role).name)
        outcomes = behind(world, proxy).apply(transfers)
    check_reported(outcomes, names, changed)
    expected = {name: planned(name) for name in names if name not in changed}
    assert versions(world.destination) == expected | {k: before[k] for k in changed if k in before}
    assert set(writer.left) == set(changed)


# Killed


KINDS = {
    "copied": ("s3_endpoint", Kind("copied", 80, 16, (70, 30), strict=True, copy_bytes=5 * MIB)),
    "streamed": ("rclone_endpoint", Kind("streamed", 50, 24, (14, 6), tags=False)),
    "uploaded": ("s3_endpoint", Kind("folder", 24, 36, (14,), work_in_s3=True)),
}


@dataclass(repr=False)
class Left:
    """What a sync that was killed left, and what there was before."""

    sync: KilledSync
    plan: str
    before: dict[str, Kept]
    after: dict[str, Kept]
    trash: dict[str, Kept]
    touched_again: set[str]


@pytest.fixture(scope="module", params=KINDS)
def left(request, tmp_path_factory) -> Iterator[Left]:
    endpoint, kind = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with killed_sync(kind, request.getfixturevalue(endpoint), folder) as sync:
        before = snapshot(sync.destination)
        plan = sync.plan()
        sync.apply(plan, *kind.deaths)
        after, trash = snapshot(sync.destination), snapshot(sync.trash, f"{plan}/")
        assert sync.lives.deaths == sum(kind.deaths)
        yield Left(sync, plan, before, after, trash, sync.touched_again())


def test_a_sync_that_is_killed_100_times_comes_to_what_was_planned(left):
    source = left.sync.source
    if isinstance(source, Path):
        files = {f"{f.relative_to(source)}": f.read_bytes() for f in source.rglob("*.jpg")}
        there = {key: found.data for key, found in left.after.items()}
        assert {key: there[key] for key in files} == files
    else:
        assert left.after == snapshot(source)


def test_no_object_is_touched_again_after_its_receipt(left):
    assert left.sync.receipted
    assert left.touched_again == set()


def test_each_object_has_exactly_one_receipt(left):
    planned = sorted(item["key"] for item in left.sync.items(left.plan))
    receipts = left.sync.receipts(left.plan)
    assert sorted(receipt["key"] for receipt in receipts) == planned
    assert {receipt["state"] for receipt in receipts} == {"done"}


def test_the_trash_holds_exactly_what_was_replaced_or_removed(left):
    gone = {key: was for key, was in left.before.items() if left.after.get(key) != was}
    assert left.trash == gone


def test_no_upload_is_left_open(left):
    assert uploads(left.sync.destination) + uploads(left.sync.trash) == []


def test_an_undo_that_is_killed_as_well_gives_back_the_destination(left):
    undo = left.sync.plan_undo(left.plan)
    left.sync.apply(undo, 6, 4)
    assert snapshot(left.sync.destination) == left.before
    assert uploads(left.sync.destination) + uploads(left.sync.trash) == []


def test_a_plan_that_is_killed_is_there_whole_or_not_at_all(s3_endpoint, tmp_path):
    """Killed at every fourth request it makes, and when its last one was answered."""
    with killed_sync(Kind("copied", 6, 0, (), work_in_s3=True), s3_endpoint, tmp_path) as sync:
        before = versions(sync.destination)
        for at in count(1, 4):
            earlier = len(sync.proxy.requests)
            if sync.lives.live(sync.planning(), dies_at=at):
                break
            assert sync.plans() == []
        last = len(sync.proxy.requests) - earlier
        assert sync.lives.live(sync.planning(), dies_at=last, answered=True) is None
        ended, killed = map(sync.items, sync.plans())
        assert ended == killed != []
        assert versions(sync.destination) == before
        assert (versions(sync.trash), uploads(sync.trash)) == ({}, [])
