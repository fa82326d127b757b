"""The plans of recorded listings, held against the lists that the legacy scripts made of them.

Deviations: `error.txt` has a reason after the name; there is nothing else in these recordings.
"""

import pytest

from imagecore.naming import NamingRule
from imagecore.sides import LocalSide
from tests.imagecore.synctools import ListedSide, entries, lines, plan_of, recorded, side


@pytest.fixture
def shop(tmp_path):
    """The recorded buckets, neither of them with a later picture than the other."""
    source = side(*entries(*recorded("bucket_sync_hyve-rootwork_keys"), at=1_000))
    destination = side(*entries(*recorded("bucket_sync_hyve-stores_keys"), at=1_000))
    return plan_of(
        source, destination, tmp_path, mapping="width_folders", compare="newer", delete=True
    )


@pytest.mark.parametrize(
    ("ours", "legacy"),
    [("new", "new"), ("modified", "modified"), ("duplicate_stores", "duplicates_stores")],
)
def test_the_recorded_buckets_give_the_recorded_lists(shop, ours, legacy):
    assert lines(shop, ours) == sorted(recorded(f"bucket_sync_{legacy}"))
    assert lines(shop, "error") == []


def test_the_other_way_round_every_picture_of_the_shop_is_known(shop):
    assert shop.counts.unchanged.count == len(recorded("bucket_sync_hyve-stores_keys"))
    assert shop.counts.foreign.count == 0
    assert shop.refusals() == []


@pytest.fixture
def drive(tmp_path):
    """The recorded drive, as files, against an empty bucket."""
    folder = tmp_path / "drive"
    for name in recorded("photo_upload_trimmed"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return plan_of(
        LocalSide(folder), ListedSide([]), tmp_path, compare="size", naming=NamingRule("stores")
    )


def test_the_recorded_drive_gives_the_recorded_success_and_error_lists(drive):
    assert lines(drive, "success") == sorted(recorded("photo_upload_success"))
    reasons = dict(line.split("\t") for line in lines(drive, "error"))
    assert sorted(reasons) == sorted(recorded("photo_upload_error"))
    assert set(reasons.values()) == {
        "its extension is not .jpg (lower case counts)",
        "its extension is not .jpg",
    }
