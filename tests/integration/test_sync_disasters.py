"""Whatever goes wrong with a sync, no object is lost, and the run says why."""

import json
import re
from itertools import count

import pytest

from tests.faults import call, cut_listing, denied, no_token, truncate
from tests.integration.sync_runs import REMOVE
from tests.objects import kept, new_bucket_of, put, snapshot, versions

JPG = re.compile(r"\.jpg$")


@pytest.fixture
def shop(any_syncs):
    """What would be lost first if a sync took an empty source for the truth."""
    any_syncs.fill(any_syncs.source, *(f"a/{number}.jpg" for number in range(5)))
    any_syncs.fill(any_syncs.destination, *(f"a/{number}.jpg" for number in range(9)))
    any_syncs.fill(any_syncs.trash, "a/kept.jpg")
    return any_syncs


def assert_refused(syncs, run, before, said):
    assert (run.state, run.ends) == ("failed", {})
    assert re.search(said, run.said)
    assert syncs.everything() == before


NOTHING = "has no picture that this sync takes"
OVERLAP = "overlap: give them prefixes of their own"


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        pytest.param({"source_prefix": "tpyo"}, NOTHING, id="mistyped source prefix"),
        pytest.param({"prefix": "tpyo"}, NOTHING, id="mistyped prefix"),
        pytest.param({"source_bucket": "{empty}"}, NOTHING, id="empty source"),
        pytest.param({"naming": "stores"}, NOTHING, id="nothing of the source taken"),
        pytest.param({"destination_bucket": "{source}"}, OVERLAP, id="source is destination"),
        pytest.param(
            {"destination_bucket": "{source}", "destination_prefix": "a"},
            OVERLAP,
            id="destination inside source",
        ),
        pytest.param(
            {"source_bucket": "{destination}", "source_prefix": "a/"},
            OVERLAP,
            id="source inside destination",
        ),
        pytest.param({"trash_bucket": "{source}"}, OVERLAP, id="source is trash"),
        pytest.param(
            {"trash_bucket": "{destination}", "trash_prefix": "old"},
            OVERLAP,
            id="trash inside destination",
        ),
        pytest.param(
            {"trash_bucket": "{destination}", "destination_prefix": "a"},
            OVERLAP,
            id="destination inside trash",
        ),
    ],
)
def test_what_would_empty_the_destination_is_refused(shop, conf, said):
    buckets = {
        "source": shop.source.name,
        "destination": shop.destination.name,
        "empty": new_bucket_of(shop.source.client, "empty").name,
    }
    before = shop.everything()
    run = shop.sync(**REMOVE | {name: value.format(**buckets) for name, value in conf.items()})
    assert_refused(shop, run, before, said)


def test_folders_beside_each_other_do_not_overlap(shop):
    here = {role: shop.source.name for role in ("destination_bucket", "trash_bucket")}
    places = {"source_prefix": "a", "destination_prefix": "ab", "trash_prefix": "a-trash"}
    run = shop.sync(**here, **places)
    assert (run.state, len(run.ends)) == ("success", 5)
    assert snapshot(shop.source, "ab/") == snapshot(shop.source, "a/")


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        pytest.param("empty", NOTHING, id="empty folder"),
        pytest.param("not-mounted", "is the drive mounted", id="unmounted path"),
        pytest.param("a-file", "is no folder", id="no folder"),
    ],
)
def test_a_drive_that_is_not_there_is_refused(shop, folder, said):
    (shop.folder / "empty").mkdir()
    shop.file("a-file")
    before = shop.everything()
    assert_refused(shop, shop.upload(folder=folder), before, said)


def test_a_drive_that_goes_away_half_way_harms_nothing(shop):
    for number in range(5):
        shop.file(f"a/{number}.jpg", b"another size")
    before = shop.everything()

    def unmount(_):
        shop.folder.rename(shop.folder.with_name("elsewhere"))
        shop.folder.mkdir()

    with shop.faults() as proxy:
        proxy.on("CopyObject", call(unmount), times=1, bucket=shop.trash.name, key=JPG)
        run = shop.upload(naming="none")
    assert (run.state, set(run.ends.values())) == ("failed", {"failed"})
    assert "cannot be read (No such file or directory)" in run.said
    assert snapshot(shop.destination) == before[shop.destination.name]


# Listings that are not whole


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param(truncate(300), "the server broke|cannot be reached", id="broken off"),
        pytest.param(no_token(), "but not where", id="leading nowhere"),
        pytest.param(denied(), "access denied", id="denied"),
    ],
)
def test_nothing_is_concluded_from_half_a_listing(shop, side, fault, said):
    before = shop.everything()
    with shop.faults() as proxy:
        proxy.on("ListObjectsV2", fault, bucket=getattr(shop, side).name)
        run = shop.sync(**REMOVE)
    assert_refused(shop, run, before, said)


def test_a_listing_that_ends_too_early_removes_nothing_that_the_source_has(shop):
    shop.fill(shop.source, *(f"a/{number}.jpg" for number in range(9)))
    before = shop.everything()
    with shop.faults() as proxy:
        proxy.on("ListObjectsV2", cut_listing(3), bucket=shop.source.name)
        run = shop.sync(**REMOVE, compare="size")
    assert (run.state, list(run.ends.values())) == ("failed", ["failed"] * 6)
    assert all("is in the source (again)" in run.reason(key) for key in run.ends)
    assert shop.everything() == before


def test_a_listing_of_the_destination_that_ends_too_early_replaces_nothing(shop):
    put(shop.destination, "a/4.jpg", b"an original that the listing does not show")
    before = shop.everything()
    with shop.faults() as proxy:
        proxy.on("ListObjectsV2", cut_listing(3), bucket=shop.destination.name)
        run = shop.sync(**REMOVE, compare="checksum")
    assert run.state == "failed"
    assert run.ends["a/4.jpg"] == "failed"
    assert "an original" not in run.reason("a/4.jpg")
    assert snapshot(shop.destination) == before[shop.destination.name]


# Half-way


def test_whenever_the_credentials_are_revoked_nothing_is_lost_and_another_run_goes_on(any_syncs):
    syncs = any_syncs
    names = [f"{number}.jpg" for number in range(6)]
    syncs.fill(syncs.source, *names)
    syncs.fill(syncs.destination, *names[3:], "gone.jpg", "gone too.jpg", data=b"was")
    before = snapshot(syncs.destination)
    for requests in count(1, 20):
        with syncs.faults() as proxy:
            revoked = proxy.on(None, denied(), after=requests)
            run = syncs.sync(**REMOVE, compare="size")
        now, trash = snapshot(syncs.destination), snapshot(syncs.trash)
        for key, was in before.items():
            assert now.get(key) == was or was in [
                trash[name] for name in trash if name.endswith(f"/{key}")
            ]
        if not revoked.acted:
            break
        assert run.state == "failed"
        assert re.search("may not be used with these credentials|access denied", run.said)
    assert run.state == "success"
    assert requests > 40
    assert now == snapshot(syncs.source)


def test_what_others_write_while_the_run_is_at_it_is_reported_and_stays(any_syncs):
    syncs = any_syncs
    names = {"0.jpg", "1.jpg", "2.jpg", "3.jpg"}
    syncs.fill(syncs.source, *names, "new.jpg")
    syncs.fill(syncs.destination, *names, data=b"was")
    theirs, changed, gone = "", "", ""

    def interfere(first):  # who is the first, Airflow decides
        nonlocal theirs, changed, gone
        theirs, changed, gone = sorted(names - {first.key[-5:]})
        put(syncs.destination, theirs, b"theirs")
        put(syncs.destination, "new.jpg", b"theirs")
        put(syncs.source, changed, b"another picture")
        syncs.destination.delete(gone)

    with syncs.faults() as proxy:
        proxy.on("CopyObject", call(interfere), times=1, bucket=syncs.trash.name, key=JPG)
        run = syncs.sync(**REMOVE, compare="size", images_per_task=1)
    assert run.state == "failed"
    failed = {key for key, state in run.ends.items() if state == "failed"}
    assert failed - {"new.jpg"} == {theirs, changed, gone}
    assert "was to be replaced as" in run.reason(theirs)
    assert "changed since it was planned" in run.reason(changed)
    assert "is gone" in run.reason(gone)
    now = {key: found.data for key, found in snapshot(syncs.destination).items()}
    assert now == {
        (names - failed).pop(): b"picture",
        theirs: b"theirs",
        changed: b"was",
        "new.jpg": b"theirs",
    }


def test_what_was_to_go_and_is_wanted_again_stays(any_three):
    syncs = any_three
    syncs.fill(syncs.destination, "back.jpg")

    def interfere(_):
        put(syncs.destination, "gone.jpg", b"theirs")
        put(syncs.source, "back.jpg")

    with syncs.faults() as proxy:
        proxy.on("CopyObject", call(interfere), times=1, key="new.jpg")
        run = syncs.sync(**REMOVE)
    assert run.state == "failed"
    assert run.ends == {
        "changed.jpg": "done",
        "new.jpg": "done",
        "back.jpg": "failed",
        "gone.jpg": "failed",
    }
    assert "is in the source (again)" in run.reason("back.jpg")
    assert "was to be deleted as" in run.reason("gone.jpg")
    assert kept(syncs.destination, "gone.jpg").data == b"theirs"
    assert "back.jpg" in versions(syncs.destination)


# Limits


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"max_delete": 3, "max_delete_ratio": 1.0}, id="number"),
        pytest.param({"max_delete": 4, "max_delete_ratio": 0.4}, id="share"),
    ],
)
def test_more_deletions_than_allowed_are_refused_with_the_numbers_and_what_allows_them(
    shop, limits
):
    before = shop.everything()
    run = shop.sync(**REMOVE | limits)
    assert_refused(shop, run, before, "would delete 4 of 9 pictures")
    assert f"Allowed are {limits['max_delete']} (max_delete) and" in run.said
    assert run.lines("duplicate_stores") == [f"a/{number}.jpg" for number in range(5, 9)]
    override = json.loads(re.findall(r"run with (\{.*?\})", run.said)[0])
    allowed = shop.sync(**REMOVE | limits | override)
    assert (allowed.state, len(allowed.ends)) == ("success", 4)
    assert versions(shop.destination) == versions(shop.source)
