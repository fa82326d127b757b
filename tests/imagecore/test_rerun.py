"""Pictures are chosen by what is said, counted once, and their notes read back."""

import json
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecore import extsort
from imagecore.errors import ItemFailed, PlanRefused
from imagecore.notes import EXTENSIONS, looks_like_picture, note_key, parse_note
from imagecore.rerun import (
    Counts,
    Selection,
    extensions_of,
    listed,
    matched,
    of_manifest,
    waiting,
    write_again,
)
from imagecore.s3 import Bucket
from tests.objects import put

NOON = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


@pytest.fixture
def bucket(s3_client: Any, new_bucket: Callable[[str], str]) -> Bucket:
    return Bucket(new_bucket("rerun"), s3_client)


@pytest.mark.parametrize(
    ("glob", "key", "is_meant"),
    [
        ("digital/*.tif", "digital/a/b.tif", True),
        ("digital/*.tif", "digital/a/b.TIF", False),
        ("*.tif", "digital/a.tif.bak", False),
        ("*/MSS_????.jpg", "d/MSS_0001.jpg", True),
        ("*/MSS_????.jpg", "d/MSS_00001.jpg", False),
        ("d/[0-3].jpg", "d/2.jpg", True),
        ("d/[0-3].jpg", "d/4.jpg", False),
        ("d/[[]1].jpg", "d/[1].jpg", True),
        ("digital", "digital/a.jpg", False),
    ],
)
def test_a_glob_is_held_against_the_whole_key(glob: str, key: str, is_meant: bool) -> None:
    assert (Selection(glob=glob).name_refusal(key) == "") is is_meant


@pytest.mark.parametrize(
    ("key", "is_meant"),
    [("a.jpg", True), ("a.JPG", True), ("b.a.jpg", True), ("a.jpg.png", False), ("jpg", False)],
)
def test_extensions_are_compared_in_any_case(key: str, is_meant: bool) -> None:
    wanted = Selection(extensions=extensions_of([".JPG"]))
    assert (wanted.name_refusal(key) == "") is is_meant


def test_extensions_may_be_given_in_many_ways_and_none_means_all_pictures() -> None:
    assert extensions_of(["jpg", ".TIF", " png "]) == {"jpg", "tif", "png"}
    assert extensions_of(None) == EXTENSIONS


@pytest.mark.parametrize("wrong", ["", ".", "tar.gz", "*/jpg"])
def test_what_is_no_extension_is_refused(wrong: str) -> None:
    with pytest.raises(PlanRefused, match="give them as in jpg, tif"):
        extensions_of(["jpg", wrong])


@pytest.mark.parametrize(
    ("modified", "is_meant"),
    [(NOON - HOUR, False), (NOON, True), (NOON + HOUR, True), (NOON + 2 * HOUR, False)],
)
def test_a_window_has_its_beginning_and_not_its_end(modified: datetime, is_meant: bool) -> None:
    wanted = Selection(start=NOON, end=NOON + 2 * HOUR)
    assert (wanted.date_refusal(modified) == "") is is_meant


@pytest.mark.parametrize("hours", [-9, 0, 9])
def test_a_window_may_be_open_on_either_side(hours: int) -> None:
    modified = NOON + hours * HOUR
    assert (Selection(start=NOON).date_refusal(modified) == "") is (hours >= 0)
    assert (Selection(end=NOON).date_refusal(modified) == "") is (hours < 0)
    assert Selection().date_refusal(modified) == ""


def test_a_listing_counts_what_it_takes_and_why_it_skips_the_rest(bucket: Bucket) -> None:
    keys = ("d/", "d/.a.jpg", "d/.jpg", "d/b.jpg", "d/c.TIF", "d/list.xml", "d/none", "e/f.jpg")
    for key in keys:
        put(bucket, key)
    counts = Counts()
    wanted = Selection(glob="*b*", extensions=EXTENSIONS)
    assert list(listed(bucket, ["d/"], wanted, counts)) == ["d/b.jpg"]
    assert counts.listed == 7
    assert counts.skipped == {
        "a folder marker": 1,
        "hidden: its name begins with a dot": 2,
        "another extension": 2,
        "not of the glob": 1,
    }


@given(st.text(st.sampled_from("a./JPGjpg"), min_size=1, max_size=12))
def test_by_default_a_listing_takes_what_pyramid_tiff_takes(key: str) -> None:
    name = key.rpartition("/")[2]
    taken = not name.startswith(".") and not Selection(extensions=EXTENSIONS).name_refusal(key)
    assert taken == looks_like_picture(key)


def test_of_a_manifest_dates_are_those_of_the_objects(bucket: Bucket) -> None:
    put(bucket, "a.jpg")
    looks = [("a.jpg", bucket.find("a.jpg")), ("gone.jpg", None)]
    counts = Counts()
    assert list(of_manifest(looks, Selection(start=NOON), counts)) == ["a.jpg"]
    assert counts.skipped == {"not in the source bucket": 1}
    unlooked = [(key, None) for key, _ in looks]
    assert list(of_manifest(unlooked, Selection(), Counts())) == ["a.jpg", "gone.jpg"]


@given(
    st.lists(st.text("ab/.é", min_size=1, max_size=3)),
    st.lists(st.text("ab/.é", min_size=1, max_size=3)),
    st.integers(1, 2_000),
)
def test_each_key_comes_once_in_order_and_waiting_notes_are_counted(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], noted: list[str], run: int
) -> None:
    counts = Counts()
    notes = sorted({*map(note_key, noted), "rbsc/", "rbsc/readme.txt"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extsort, "SORT_BYTES", run)
        found = list(matched(keys, notes, counts, tmp_path_factory.getbasetemp()))
    assert found == sorted(set(keys))
    assert (counts.matched, counts.waiting) == (len(found), len({*keys} & {*noted}))


def test_memory_does_not_grow_with_the_number_of_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extsort, "SORT_BYTES", 200_000)
    monkeypatch.setattr(extsort, "BLOCK", 16)
    keys = (f"digital/{number:08}.jpg" for number in range(20_000))
    tracemalloc.start()
    found = sum(1 for _ in matched(keys, (), Counts(), tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == 20_000
    assert peak < 1_000_000  # the keys of all of them alone would take 1,400,000


def test_a_note_is_written_again_with_what_it_said_and_read_back(bucket: Bucket) -> None:
    said = {"key": "d/a.jpg", "path": "d/", "copyrightStatus": "copyright"}
    put(bucket, "rbsc/d/a.jpg.json", json.dumps(said).encode())
    result = write_again(bucket, "d/a.jpg", force=True)
    item = parse_note(bucket.read("rbsc/d/a.jpg.json"))
    assert (item["key"], item["copyright"], item["force"]) == ("d/a.jpg", True, True)
    assert result.detail == {"target": "rbsc/d/a.jpg.json"}
    assert list(waiting(bucket)) == ["rbsc/d/a.jpg.json"]


def test_without_force_a_note_asks_for_none(bucket: Bucket) -> None:
    write_again(bucket, "d/a.jpg", force=False)
    assert "force" not in parse_note(bucket.read("rbsc/d/a.jpg.json"))


@pytest.mark.parametrize("there", [b"{}", b"not JSON", b"[]", b'{"key": "d/a.jpg"}'])
def test_a_note_that_does_not_lie_there_fails(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, there: bytes
) -> None:
    monkeypatch.setattr(Bucket, "write", lambda *_: put(bucket, "rbsc/d/a.jpg.json", there))
    with pytest.raises(ItemFailed, match=r"rbsc/d/a\.jpg\.json is not the note that was written"):
        write_again(bucket, "d/a.jpg", force=True)
