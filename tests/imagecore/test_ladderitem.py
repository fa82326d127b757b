"""A planned photo or menu is delivered as its ladder: at which keys, described how, seen as one."""

import io

import pytest
from pictures import data_of, photo
from PIL import Image

from devstack.samples import client
from imagecore import ladderitem
from imagecore.errors import ItemFailed, ItemRefused
from imagecore.ladder import ladder_recipe
from imagecore.ladderitem import LadderItems, Workshop
from imagecore.sandbox import picture_workers
from imagecore.syncitem import BucketSource, Trash
from imagecore.target import Target, probe
from tests.objects import kept, new_bucket_of, put, snapshot, versions, with_shortcut
from tests.syncworld import OPEN, World

LADDER = {"transform": "photo_ladder", "mapping": "width_folders", **OPEN}
PHOTO, MENU = "stores/1-cafe/photos/0.jpg", "chains/2-bar/menus/1.png"
COPIES = {
    "1-cafe/photos/__w-200-400__/0.jpg": 600,
    "1-cafe/photos/w200/0.jpg": 200,
    "1-cafe/photos/w400/0.jpg": 400,
    "chains/2-bar/menus/__w-200-800__/1.png": 1000,
    "chains/2-bar/menus/w200/1.png": 200,
    "chains/2-bar/menus/w800/1.png": 800,
}


@pytest.fixture(params=[False, True], ids=["boto3", "shortcut"])
def world(s3_endpoint, tmp_path, request) -> World:
    s3 = client(s3_endpoint)
    buckets = [new_bucket_of(s3, role) for role in ("source", "destination", "trash")]
    if request.param:
        buckets = [with_shortcut(bucket) for bucket in buckets]
    return World(*buckets, tmp_path / "world")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    temp = tmp_path_factory.mktemp("workshop")
    limits = {"timeout_s": 60, "memory_mb": 2048, "file_mb": None}
    with picture_workers(1, temp_dir=temp, **limits) as workers:
        yield Workshop(temp, workers, 10**6)


@pytest.fixture
def carry_out(world, workshop):
    """Plan, and do what is planned; `plan` names it. Returns the results."""
    conditions = probe(world.destination, "probe")

    def run(plan="run/1", items=None, **rules):
        if items is None:
            transfers, removals = world.plan(**LADDER, **rules)
            items = [*transfers, *removals]
        trash = Trash(Target(world.trash, conditions), f"{plan}/")
        source, target = BucketSource(world.source, True), Target(world.destination, conditions)
        does = LadderItems(source, target, trash, prefix="", plan=plan, workshop=workshop)
        return [does.process(item) for item in items]

    return run


def fill(world):
    put(world.source, PHOTO, data_of(photo(), "JPEG"))
    put(world.source, MENU, data_of(photo(1000, 667), "PNG"))


def width(data):
    return Image.open(io.BytesIO(data)).width


def test_a_picture_lies_in_exactly_these_folders(world, carry_out):
    fill(world)
    results = carry_out()
    found = snapshot(world.destination)
    assert {key: width(each.data) for key, each in found.items()} == COPIES
    assert {key[-3:]: each.content_type for key, each in found.items()} == {
        "jpg": "image/jpeg",
        "png": "image/png",
    }
    assert sorted(result.detail["widths"] for result in results) == [[200, 400], [200, 800]]
    assert {entry["key"] for each in results for entry in each.detail["wrote"]} == set(COPIES)


def test_each_copy_tells_what_it_was_made_of_and_how(world, carry_out):
    fill(world)
    carry_out()
    sources = versions(world.source)
    for key in COPIES:
        made = kept(world.destination, key).metadata
        assert made["source-etag"] == sources[MENU if "menus" in key else PHOTO]
        assert made["recipe"] == ladder_recipe()
        assert made.keys() == {"source-etag", "recipe", "sha256", "plan"}


def test_the_comparison_sees_one_picture_in_both_directions(world, carry_out):
    fill(world)
    carry_out()
    assert world.plan(**LADDER, delete=True) == ([], [])
    world.source.client.delete_object(Bucket=world.source.name, Key=PHOTO)
    transfers, [removal] = world.plan(**LADDER, delete=True)
    assert transfers == []
    assert {each["key"] for each in removal["remove"]} == {key for key in COPIES if "cafe" in key}
    carry_out(items=[removal], plan="run/2")
    assert set(versions(world.destination)) == {key for key in COPIES if "bar" in key}
    assert {key for key in versions(world.trash)} == {
        f"run/2/{key}" for key in COPIES if "cafe" in key
    }


def test_a_plan_carried_out_again_writes_nothing_new(world, carry_out):
    fill(world)
    items = world.plan(**LADDER)[0]
    first = carry_out(items=items)
    before = versions(world.destination)
    times = [each["LastModified"] for each in _listed(world)]
    again = carry_out(items=items)
    assert [each.detail for each in again] == [each.detail for each in first]
    assert versions(world.destination) == before
    assert [each["LastModified"] for each in _listed(world)] == times
    assert versions(world.trash) == {}


def _listed(world):
    return world.destination.client.list_objects_v2(Bucket=world.destination.name)["Contents"]


def test_another_recipe_is_recorded_when_force_makes_it_again(world, carry_out, monkeypatch):
    fill(world)
    carry_out()
    before = snapshot(world.destination)
    monkeypatch.setattr(ladderitem, "ladder_recipe", lambda: "0" * 16)
    assert carry_out("run/2") == []  # newer does not ask for the recipe
    carry_out("run/3", force=True)
    recipes = {each.metadata["recipe"] for each in snapshot(world.destination).values()}
    assert recipes == {"0" * 16}
    assert snapshot(world.trash, "run/3/") == before


def test_a_picture_that_is_too_large_or_none_is_refused_and_the_shop_keeps_its_own(
    world, carry_out
):
    fill(world)
    carry_out()
    before = versions(world.destination)
    put(world.source, PHOTO, bytes(10**6 + 1))
    put(world.source, MENU, b"no picture")
    for item in world.plan(**LADDER, force=True)[0]:
        with pytest.raises(ItemRefused, match=r"max_source_mb|not a picture"):
            carry_out("run/2", items=[item])
    assert versions(world.destination) == before


def test_a_copy_that_cannot_be_delivered_fails_with_what_was_written(world, carry_out):
    fill(world)
    [item] = [each for each in world.plan(**LADDER)[0] if each["source"]["key"] == PHOTO]
    put(world.destination, "1-cafe/photos/__w-200-400__/0.jpg", b"somebody's")
    with pytest.raises(ItemFailed, match="not what was planned") as caught:
        carry_out(items=[item])
    wrote = [each["key"] for each in caught.value.detail["wrote"]]
    assert wrote == ["1-cafe/photos/w200/0.jpg", "1-cafe/photos/w400/0.jpg"]
    assert kept(world.destination, "1-cafe/photos/__w-200-400__/0.jpg").data == b"somebody's"
