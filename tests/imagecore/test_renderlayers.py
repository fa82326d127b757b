"""Layers brought to the bucket: from a folder or a bucket, once, whole, and described."""

import hashlib
import io
import os
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from pictures import data_of, photo
from PIL import Image

from devstack.samples import client
from imagecore.errors import InfrastructureError, ItemFailed, ItemRefused
from imagecore.ladderitem import Workshop
from imagecore.layerindex import index_layers
from imagecore.layerpicture import LayerRecipe
from imagecore.outcome import State
from imagecore.renderlayers import LayerItems, layer_items, source_version
from imagecore.renderstyle import Style
from imagecore.s3 import Bucket, S3Object
from imagecore.sandbox import picture_workers
from imagecore.sides import LocalSide, S3Side
from imagecore.syncitem import BucketSource, FolderSource
from tests.faults import FaultProxy, corrupt_request, status
from tests.objects import impatient, kept, new_bucket_of, put, snapshot, through, versions

PREFIX = "renders/caddy/dress/"
NECK, BELT = "new/T13_Neckline_front_0000.PNG", "old/base_belt_front_0000.png"
KEYS = {NECK: "t13/t13_neckline_front_0000.png", BELT: "base/base_belt_front_0000.png"}
STYLE = Style(
    name="dress",
    title="Dress",
    colours=1,
    lengths={"knee": "Knee"},
    codes=("t13",),
    search=("new", "old"),
    defaults={"knee": {"front": {"belt": "base_belt_front"}}},
)
SMALL = LayerRecipe(80, 80)


def drawn(width=40, height=50):
    picture = photo(width, height).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((width, height)))
    return data_of(picture, "PNG")


class Renders:
    """Drawn layers, in a folder or a bucket, and what a run takes them for."""

    def __init__(self, place, bucket, workshop):
        self.place = place
        self.bucket = bucket
        self.workshop = workshop

    @property
    def side(self):
        if isinstance(self.place, Bucket):
            return S3Side(self.place, "drawn/")
        return LocalSide(self.place)

    def draw(self, key, data):
        if isinstance(self.place, Bucket):
            put(self.place, f"drawn/{key}", data)
            return
        (self.place / key).parent.mkdir(parents=True, exist_ok=True)
        (self.place / key).write_bytes(data)

    def plan(self):
        return list(layer_items(index_layers(STYLE, self.side), self.side))

    def run(self, items=None, *, force=False, recipe=SMALL, bucket=None):
        """Carry out items, or what is planned now; the results by key."""
        source = (
            BucketSource(self.place, server_side=False)
            if isinstance(self.place, Bucket)
            else FolderSource(self.side, self.side.identity())
        )
        target = bucket or self.bucket
        does = LayerItems(source, target, PREFIX, recipe, self.workshop, force=force)
        return {each["key"]: does.process(each) for each in items or self.plan()}

    def states(self, **options):
        return {key: result.state for key, result in self.run(**options).items()}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    temp = tmp_path_factory.mktemp("workshop")
    limits = {"timeout_s": 60, "memory_mb": 2048, "file_mb": None}
    with picture_workers(1, temp_dir=temp, **limits) as workers:
        yield Workshop(temp, workers, 10**5)


@pytest.fixture(params=["folder to moto", "bucket to moto", "bucket to rclone"])
def renders(request, tmp_path, workshop, s3_endpoint, rclone_endpoint):
    server = client(rclone_endpoint if "rclone" in request.param else s3_endpoint)
    place = tmp_path / "drawn"
    if "bucket" in request.param:
        place = new_bucket_of(server, "drawn")
    found = Renders(place, new_bucket_of(server, "renders"), workshop)
    found.draw(NECK, drawn())
    found.draw(BELT, drawn(160, 120))
    return found


@pytest.fixture
def plain(tmp_path, workshop, s3_client):
    """Drawn in a folder, which is enough where the source does not matter."""
    found = Renders(tmp_path / "drawn", new_bucket_of(s3_client, "renders"), workshop)
    found.draw(NECK, drawn())
    found.draw(BELT, drawn(160, 120))
    return found


def test_layers_are_at_their_keys_in_lower_case(renders):
    results = renders.run()
    assert results.keys() == set(KEYS.values())
    found = snapshot(renders.bucket, PREFIX)
    assert found.keys() == set(KEYS.values())
    sizes = {key: Image.open(io.BytesIO(each.data)).size for key, each in found.items()}
    assert sizes == {KEYS[NECK]: (64, 80), KEYS[BELT]: (80, 60)}
    assert {each.content_type for each in found.values()} == {"image/png"}


def test_each_layer_tells_what_it_was_made_of_and_how(renders):
    items = renders.plan()
    results = renders.run(items)
    for item in items:
        made = kept(renders.bucket, PREFIX + item["key"])
        sha256 = hashlib.sha256(made.data).hexdigest()
        result = results[item["key"]]
        width, height = Image.open(io.BytesIO(made.data)).size
        described = {"width": width, "height": height, "bytes": len(made.data), "sha256": sha256}
        own = {"target": PREFIX + item["key"], "source": item["source"]["key"]}
        assert (result.state, result.detail) == (State.DONE, own | described)
        assert made.metadata == {
            "source-etag": source_version(item["source"]),
            "recipe": SMALL.fingerprint(),
            "etag": hashlib.md5(made.data).hexdigest(),
            **{name: str(value) for name, value in described.items()},
        }


def test_what_is_up_to_date_is_not_made_again(renders):
    renders.run()
    before = snapshot(renders.bucket)
    assert set(renders.states().values()) == {State.SKIPPED}
    assert snapshot(renders.bucket) == before
    assert set(renders.states(force=True).values()) == {State.DONE}


def test_only_a_changed_layer_is_made_again(renders):
    renders.run()
    before = versions(renders.bucket)
    renders.draw(NECK, drawn(44, 50))
    assert renders.states() == {KEYS[NECK]: State.DONE, KEYS[BELT]: State.SKIPPED}
    changed = {key for key, etag in versions(renders.bucket).items() if before[key] != etag}
    assert changed == {PREFIX + KEYS[NECK]}


def test_another_recipe_makes_all_again(plain):
    plain.run()
    assert set(plain.states(recipe=LayerRecipe(80, 80, 96)).values()) == {State.DONE}


def test_a_file_that_is_only_newer_is_made_again(plain):
    plain.run()
    os.utime(plain.place / BELT, ns=(0, 1))
    assert plain.states() == {KEYS[NECK]: State.SKIPPED, KEYS[BELT]: State.DONE}


def test_a_layer_that_was_written_over_is_made_again(plain):
    plain.run()
    key = PREFIX + KEYS[BELT]
    before = kept(plain.bucket, key)
    for data in (b"other bytes", b"x" * len(before.data)):
        put(plain.bucket, key, data, Metadata=before.metadata)
        assert plain.states()[KEYS[BELT]] is State.DONE
        assert kept(plain.bucket, key) == before
    plain.bucket.client.delete_object(Bucket=plain.bucket.name, Key=key)
    assert plain.states() == {KEYS[NECK]: State.SKIPPED, KEYS[BELT]: State.DONE}


def test_where_an_etag_is_no_hash_the_metadata_decide(plain):
    made = {"source-etag": "1", "recipe": "2", "bytes": "7"}
    found = S3Object("a.png", "0" * 32, 7, datetime.now(timezone.utc), made, etag_is_hash=False)
    origin = {"source-etag": "1", "recipe": "2"}
    assert plain.bucket.is_current(found, origin)
    assert not plain.bucket.is_current(found, {**origin, "source-etag": "2"})
    assert not plain.bucket.is_current(found, {**origin, "recipe": "1"})
    assert not plain.bucket.is_current(replace(found, size=8), origin)


def test_a_source_is_known_again_by_its_etag_a_file_by_its_size_and_time():
    planned = {"key": "a.png", "size": 7, "modified": 12, "etag": ""}
    assert source_version(planned) == "7-12"
    assert source_version({**planned, "etag": "0" * 32}) == "0" * 32


def test_two_files_for_one_layer_are_refused_and_the_bucket_keeps_its_own(plain):
    plain.run()
    before = snapshot(plain.bucket)
    plain.draw("new/again/t13_neckline_front_0000.png", drawn(44, 50))
    [item] = [each for each in plain.plan() if "refused" in each]
    assert item["key"] == KEYS[NECK]
    with pytest.raises(ItemRefused, match=r"new/T13_.* and new/again/t13_.* would be one layer"):
        plain.run([item])
    assert snapshot(plain.bucket) == before


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"no picture", "not a picture"),
        (drawn()[:1000], "damaged"),
        (bytes(10**5 + 1), r"100,001 bytes, and max_source_mb allows 100,000"),
    ],
)
def test_a_bad_layer_is_refused_and_the_others_are_made(plain, data, why):
    plain.draw(NECK, data)
    items = {each["key"]: each for each in plain.plan()}
    with pytest.raises(ItemRefused, match=why):
        plain.run([items[KEYS[NECK]]])
    plain.run([items[KEYS[BELT]]])
    assert set(versions(plain.bucket)) == {PREFIX + KEYS[BELT]}
    assert not [each for each in plain.workshop.temp.iterdir() if "picture-" not in each.name]


def test_what_changed_since_it_was_planned_is_not_taken(renders):
    items = renders.plan()
    renders.draw(NECK, drawn(44, 50))
    renders.draw(BELT, drawn(44, 50))
    for item in items:
        with pytest.raises(ItemFailed, match="changed since it was"):
            renders.run([item])
    assert versions(renders.bucket) == {}


def test_what_was_removed_since_it_was_planned_fails(plain):
    items = plain.plan()
    (plain.place / NECK).unlink()
    with pytest.raises(ItemFailed, match="cannot be read"):
        plain.run([each for each in items if each["key"] == KEYS[NECK]])


def test_nothing_that_somebody_drew_is_written_over(workshop, s3_client):
    bucket = new_bucket_of(s3_client)
    own = Renders(bucket, bucket, workshop)
    own.draw(BELT, drawn())
    put(bucket, PREFIX + KEYS[BELT], b"drawn by hand")
    with pytest.raises(ItemRefused, match="choose another prefix"):
        own.run()
    assert kept(bucket, PREFIX + KEYS[BELT]).data == b"drawn by hand"


def test_layers_of_the_legacy_scripts_in_another_bucket_are_replaced(plain):
    put(plain.bucket, PREFIX + KEYS[BELT], b"legacy")
    assert plain.states()[KEYS[BELT]] is State.DONE


def test_a_bucket_that_is_gone_is_nobodys_bad_layer(plain):
    gone = Bucket("no-such-bucket", plain.bucket.client)
    with pytest.raises(InfrastructureError, match="the bucket does not exist"):
        plain.run(bucket=gone)


def test_a_layer_at_which_the_server_breaks_fails_alone(plain, s3_endpoint, monkeypatch):
    impatient(monkeypatch)
    items = {each["key"]: each for each in plain.plan()}
    with FaultProxy(s3_endpoint) as proxy:
        proxy.on("PutObject", status(500), key=PREFIX + KEYS[NECK])
        broken = through(plain.bucket, proxy.url)
        with pytest.raises(ItemFailed, match="the server answers for others"):
            plain.run([items[KEYS[NECK]]], bucket=broken)
        assert plain.run([items[KEYS[BELT]]], bucket=broken)[KEYS[BELT]].state is State.DONE


def test_a_layer_that_arrives_otherwise_is_not_left_in_the_bucket(plain, s3_endpoint):
    with FaultProxy(s3_endpoint) as proxy:
        proxy.on("PutObject", corrupt_request(200))
        with pytest.raises(ItemFailed):
            plain.run(bucket=through(plain.bucket, proxy.url))
    assert versions(plain.bucket) == {}
