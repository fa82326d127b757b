"""Notes: any object below rbsc/ is read, reported or refused, and none is lost."""

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imagecore.errors import ItemRefused
from imagecore.manifest import Item, decode, encode
from imagecore.notes import (
    NOTE_BYTES,
    Note,
    delete_notes,
    is_unchanged,
    looks_like_picture,
    merge_pictures,
    note_key,
    parse_note,
    picture,
    picture_or_refusal,
    planned_before,
    quarantine,
    quarantine_key,
    read_notes,
    target_key,
    write_note,
)
from imagecore.s3 import Bucket


@pytest.fixture
def process(s3_client: Any, new_bucket: Callable[[str], str]) -> Bucket:
    return Bucket(new_bucket("process"), s3_client)


def put(bucket: Bucket, key: str, note: Any) -> dict[str, str]:
    data = note if isinstance(note, bytes) else json.dumps(note).encode()
    bucket.write(key, data, "application/json")
    return asdict(Note.of(bucket.head(key)))


def keys(bucket: Bucket, prefix: str = "") -> list[str]:
    return [found.key for found in bucket.walk(prefix)]


NOTE = {"key": "digital/a/lantern.png", "path": "digital/a/"}


# What a note says


@pytest.mark.parametrize(
    ("more", "copyright"),
    [
        ({}, None),
        ({"eTag": "0123"}, None),
        ({"etag": "0123", "someone": ["else's", {"field": 1}]}, None),
        ({"copyrightStatus": "copyright"}, True),
        ({"copyrightStatus": "Copyright"}, True),
        ({"copyrightStatus": " COPYRIGHT \n"}, True),
        ({"copyright_status": "copyright"}, True),
        ({"copyrightStatus": "not copyright"}, False),
        ({"copyrightStatus": ""}, None),
        ({"copyrightStatus": None}, None),
        ({"copyrightStatus": ["copyright"]}, None),
    ],
)
def test_old_and_new_spellings_of_a_note_are_read(more: dict[str, Any], copyright: bool) -> None:
    item = parse_note(json.dumps({**NOTE, **more}).encode())
    assert item == {**NOTE, "copyright": copyright, "notes": []}
    assert target_key(item) == "digital/a/lantern.tif"


def test_a_note_without_a_path_means_the_picture_s_own_folder() -> None:
    assert parse_note(b'{"key": "digital/a/lantern.png"}')["path"] == "digital/a/"
    assert parse_note(b'{"key": "lantern.png"}')["path"] == ""
    assert parse_note(b'{"key": "digital/a/lantern.png", "path": ""}')["path"] == ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_note_may_be_in_any_encoding_of_json(encoding: str) -> None:
    note = json.dumps({"key": "é/写.jpg"}, ensure_ascii=False).encode(encoding)
    assert parse_note(note)["key"] == "é/写.jpg"


def nested(depth: int, inside: str) -> bytes:
    return inside.replace("@", "[" * depth + "]" * depth).encode()


UNREADABLE = {
    "empty": b"",
    "not JSON": b"{'key': 'digital/a.jpg'}",
    "cut short": b'{"key": "digital/a.j',
    "not UTF-8": b'{"key": "\xff.jpg"}',
    "null": b"null",
    "a number": b"17",
    "a text": b'"digital/a.jpg"',
    "a list": b'[{"key": "digital/a.jpg"}]',
    "no key": b'{"path": "digital/"}',
    "empty key": b'{"key": ""}',
    "key of another type": b'{"key": ["digital/a.jpg"]}',
    "path of another type": b'{"key": "digital/a.jpg", "path": 7}',
    "path without a slash": b'{"key": "digital/a.jpg", "path": "digital"}',
    "half a character": b'{"key": "digital/\\ud800.jpg"}',
    "half a character in the path": b'{"key": "digital/a.jpg", "path": "\\udfff/"}',
    "a folder": b'{"key": "digital/"}',
    "out of its folder": b'{"key": "digital/../secret.jpg"}',
    "out by its path": b'{"key": "digital/a.jpg", "path": "../"}',
    "a dot": b'{"key": "digital/./a.jpg"}',
    "key too long": json.dumps({"key": "d/" * 600 + "a.jpg", "path": "p/"}).encode(),
    "result's key too long": json.dumps({"key": "a.jpg", "path": "d/" * 510 + "/"}).encode(),
    "huge": b'{"key": "digital/a.jpg", "x": "' + b"x" * NOTE_BYTES + b'"}',
    "deep": nested(30_000, '{"key": "digital/a.jpg", "x": @}'),
    "huge number": b'{"key": "digital/a.jpg", "x": ' + b"9" * 5_000 + b"}",
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_note_is_refused_with_a_sentence(kind: str) -> None:
    with pytest.raises(ItemRefused) as caught:
        parse_note(UNREADABLE[kind])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
NOTE_LIKE = st.fixed_dictionaries(
    {"key": JSON | st.text("ab./\0 ")},
    optional={"path": JSON | st.text("ab./"), "copyrightStatus": JSON, "copyright_status": JSON},
)


@given(st.binary() | (JSON | NOTE_LIKE).map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_picture_that_can_be_planned_or_refused(data: bytes) -> None:
    try:
        item = parse_note(data)
    except ItemRefused:
        return
    assert decode(encode(item), "x") == [item]
    assert len(item["key"].encode()) <= 1024
    assert len(target_key(item).encode()) <= 1024


@pytest.mark.parametrize("field", ["copyrightStatus", "path", "key", "x"])
def test_a_deeply_nested_note_is_read_or_refused_at_any_depth(field: str) -> None:
    for depth in [*range(1, 1_200, 7), *range(900, 1_000)]:
        note = {"key": '"a.jpg"', field: "@"}
        text = ", ".join(f'"{name}": {value}' for name, value in note.items())
        try:
            parse_note(nested(depth, f"{{{text}}}"))
        except ItemRefused:
            continue


# Where the result goes


@pytest.mark.parametrize(
    ("key", "path", "target"),
    [
        ("digital/a/lantern.png", "digital/a/", "digital/a/lantern.tif"),
        ("digital/a/lantern.png", "other/", "other/lantern.tif"),
        ("digital/a/lantern.png", "", "lantern.tif"),
        ("digital/a/lantern.png", None, "digital/a/lantern.tif"),
        ("lantern.png", None, "lantern.tif"),
        ("a/lantern", None, "a/lantern.tif"),
        ("a/lantern.", None, "a/lantern.tif"),
        ("a/lantern.2024.final.jpeg", None, "a/lantern.2024.final.tif"),
        ("a.b/lantern", None, "a.b/lantern.tif"),
        ("a/.hidden", None, "a/.hidden.tif"),
        ("a/.hidden.jpg", None, "a/.hidden.tif"),
        ("a/lantern.TIF", None, "a/lantern.tif"),
        ("a/écran + 100%.jpg", None, "a/écran + 100%.tif"),
        ("a//b.jpg", None, "a//b.tif"),
        ("a//b.jpg", "a//", "a//b.tif"),
        ("/b.jpg", None, "/b.tif"),
        ("//b.jpg", None, "//b.tif"),
    ],
)
def test_the_pyramid_of_a_picture_goes_to_its_path_and_stem(
    key: str, path: str | None, target: str
) -> None:
    assert target_key(picture(key, path)) == target


@given(st.text("ab/. %+é", min_size=1), st.sampled_from(["jpg", "TIFF", "x"]))
@example("a//b", "jpg")
@example("/b", "jpg")
def test_only_the_extension_of_a_key_is_changed(stem: str, extension: str) -> None:
    item = picture_or_refusal(f"{stem}.{extension}")
    if "refused" not in item and not stem.endswith("/"):
        assert target_key(item) == f"{stem}.tif"


# Reading them all


def read(bucket: Bucket) -> tuple[dict[str, Item], dict[str, str]]:
    items, remarks = {}, {}
    for item, key, remark in read_notes(bucket):
        if item is None:
            remarks[key] = remark
        else:
            assert (key, remark) == ("", "")
            items[item["key"]] = item
    return items, remarks


def test_every_object_below_rbsc_is_an_item_or_a_remark(process: Bucket) -> None:
    put(process, "rbsc/", b"")
    put(process, "rbsc/folder/", b"")
    put(process, "rbsc/readme.txt", b"hello")
    versions = {
        f"rbsc/bad {kind}.json": put(process, f"rbsc/bad {kind}.json", data)
        for kind, data in UNREADABLE.items()
    }
    good = put(process, "rbsc/sub/good.json", {**NOTE, "copyrightStatus": "copyright"})
    put(process, "quarantine/old.json", NOTE)
    put(process, "rbsc.json", NOTE)

    items, remarks = read(process)

    assert remarks == {
        "rbsc/": "a folder marker",
        "rbsc/folder/": "a folder marker",
        "rbsc/readme.txt": "not a note: its name does not end in .json",
    }
    assert items.pop(NOTE["key"]) == {**NOTE, "copyright": True, "notes": [good]}
    assert set(items) == set(versions)
    for key, item in items.items():
        assert item["refused"].startswith("unreadable note: ")
        assert item["notes"] == [versions[key]]


def test_a_note_that_goes_while_notes_are_read_is_a_remark(process: Bucket) -> None:
    put(process, "rbsc/a.json", NOTE)

    class Hasty(Bucket):
        def read(self, key: str) -> bytes:
            self.delete(key)
            return super().read(key)

    items, remarks = read(Hasty(process.name, process.client))
    assert items == {}
    assert remarks == {"rbsc/a.json": "gone while the notes were being read"}


def test_there_may_be_no_note_at_all(process: Bucket) -> None:
    assert read(process) == ({}, {})


# One item a source, one source a result


def version(n: int) -> dict[str, str]:
    return {"key": f"rbsc/{n}.json", "etag": str(n), "modified": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("statuses", "copyright"),
    [
        ([False, True], True),
        ([True, False], True),
        ([None, True], True),
        ([False, None], False),
        ([None, False], False),
        ([None, None], None),
        ([False, False, True, False], True),
    ],
)
def test_notes_of_one_source_become_one_item_and_copyright_in_any_counts(
    statuses: list[bool | None], copyright: bool | None
) -> None:
    notes = [version(n) for n in range(len(statuses))]
    found = [
        {**picture("a/b.jpg", "a/", status), "notes": [note]}
        for status, note in zip(statuses, notes, strict=True)
    ]
    assert merge_pictures(found) == [
        {"key": "a/b.jpg", "path": "a/", "copyright": copyright, "notes": notes}
    ]


def test_sources_of_one_result_are_all_refused_each_naming_all() -> None:
    rivals = ["a/b.jpg", "a/b.png", "c/b.jpg"]
    merged = merge_pictures(
        [picture("a/b.jpg"), picture("a/b.png"), picture("c/b.jpg", "a/"), picture("c/c.jpg")]
    )
    by_key = {item["key"]: item for item in merged}
    assert "refused" not in by_key["c/c.jpg"]
    for rival in rivals:
        reason = by_key[rival]["refused"]
        assert all(name in reason for name in [*rivals, "a/b.tif"])


def test_notes_that_ask_for_two_folders_are_refused_naming_both() -> None:
    notes = [
        {**picture("a/b.jpg", "y/"), "notes": [version(1)]},
        {**picture("a/b.jpg", "z/"), "notes": [version(2)]},
    ]
    (item,) = merge_pictures(notes)
    assert item["notes"] == [version(1), version(2)]
    assert "y/" in item["refused"]
    assert "z/" in item["refused"]


@pytest.mark.parametrize("paths", [("a/", "z/"), ("z/", "a/")])
def test_the_note_of_an_upload_does_not_take_back_a_folder_that_was_chosen(paths) -> None:
    notes = [
        {**picture("a/b.jpg", path), "notes": [version(number)]}
        for number, path in enumerate(paths, start=1)
    ]
    (item,) = merge_pictures(notes)
    assert (item["path"], "refused" in item) == ("z/", False)


def test_a_note_that_was_rewritten_asks_for_its_new_folder() -> None:
    new = {**picture("a/b.jpg", "z/"), "notes": [{**version(1), "etag": "new"}]}
    old = {**picture("a/b.jpg", "a/"), "notes": [version(1)]}
    (item,) = merge_pictures([new, old])
    assert item["path"] == "z/"
    assert "refused" not in item


def test_a_listed_picture_goes_where_its_note_says() -> None:
    note = {**picture("a/b.jpg", "z/", True), "notes": [version(1)]}
    (item,) = merge_pictures([note, picture("a/b.jpg")])
    assert item == {"key": "a/b.jpg", "path": "z/", "copyright": True, "notes": [version(1)]}


KEYS = st.lists(st.text("ab.", min_size=1, max_size=4).map(lambda name: f"d/{name}"), max_size=12)


@given(KEYS)
def test_no_two_items_that_are_not_refused_have_one_result(sources: list[str]) -> None:
    found = [picture_or_refusal(key) for key in sources]
    merged = merge_pictures(found)
    assert [item["key"] for item in merged] == sorted(set(sources))
    targets = [target_key(item) for item in merged if "refused" not in item]
    assert len(targets) == len(set(targets))


# Quarantine


def refuse(bucket: Bucket, item: Item, reason: str = "truncated") -> dict[str, Any]:
    quarantine(bucket, item, reason, "pyramid_tiff/run-1", "2026-01-01T00:00:00+00:00")
    document: dict[str, Any] = json.loads(bucket.read(quarantine_key(item)))
    return document


def test_in_quarantine_a_note_is_still_a_note_with_its_reason(process: Bucket) -> None:
    first = put(process, "rbsc/a.json", NOTE)
    second = put(process, "rbsc/b.json", {**NOTE, "copyrightStatus": "copyright"})
    item = {**NOTE, "copyright": True, "notes": [first, second]}
    document = refuse(process, item, "truncated after 5 lines")
    assert document == {
        **NOTE,
        "copyrightStatus": "copyright",
        "reason": "truncated after 5 lines",
        "run": "pyramid_tiff/run-1",
        "at": "2026-01-01T00:00:00+00:00",
    }
    again = parse_note(json.dumps(document).encode())
    assert again == {**item, "notes": []}
    assert keys(process) == [quarantine_key(item)]


@pytest.mark.parametrize("data", [b"", b"\xff\0 not a note", b'{"key": 7}'])
def test_an_unreadable_note_keeps_its_bytes_in_quarantine(process: Bucket, data: bytes) -> None:
    put(process, "rbsc/a.json", data)
    (item, _, _) = next(iter(read_notes(process)))
    assert item is not None
    document = refuse(process, item, item["refused"])
    assert document["reason"].startswith("unreadable note: ")
    assert keys(process, "rbsc/") == []
    kept = [key for key in keys(process) if key != quarantine_key(item)]
    assert [process.read(key) for key in kept] == [data]


def test_quarantine_cut_off_by_a_kill_is_finished_by_the_next_try(process: Bucket) -> None:
    put(process, "rbsc/a.json", b"not a note")
    (item, _, _) = next(iter(read_notes(process)))
    assert item is not None
    refuse(process, item)
    assert refuse(process, item)["reason"] == "truncated"
    assert b"not a note" in [process.read(key) for key in keys(process)]


def test_a_note_rewritten_since_it_was_read_is_never_deleted(process: Bucket) -> None:
    old = put(process, "rbsc/a.json", NOTE)
    put(process, "rbsc/a.json", {**NOTE, "copyrightStatus": "copyright"})
    item = {**NOTE, "copyright": False, "notes": [old]}
    assert not is_unchanged(process, old)
    refuse(process, item)
    delete_notes(process, item)
    assert keys(process, "rbsc/") == ["rbsc/a.json"]
    assert parse_note(process.read("rbsc/a.json"))["copyright"] is True


def test_a_note_is_deleted_while_it_is_the_one_that_was_read(process: Bucket) -> None:
    note = put(process, "rbsc/a.json", NOTE)
    put(process, "rbsc/b.json", NOTE)
    (listed,) = (found for found in process.walk("rbsc/a"))
    assert asdict(Note.of(listed)) == note, "a listing and HEAD show the same version"
    delete_notes(process, {**NOTE, "notes": [note, version(9)]})
    assert keys(process) == ["rbsc/b.json"]
    delete_notes(process, {**NOTE, "notes": [note]})


def test_sources_of_one_stem_lie_side_by_side_in_quarantine(process: Bucket) -> None:
    sources = ["a/b.jpg", "a/b.png", "b.jpg", "a/b", "c/b.jpg", "a//b.jpg", "/a/b.jpg"]
    for source in sources:
        refuse(process, picture(source), f"reason of {source}")
    for source in sources:
        document = json.loads(process.read(quarantine_key(picture(source))))
        assert (document["key"], document["reason"]) == (source, f"reason of {source}")


@given(st.lists(st.text(st.characters(), min_size=1), min_size=2, max_size=2, unique=True))
@example(["x" * 2_000, "x" * 2_001])
@example(["\ud800", "\ud801"])
@example(["a/../../rbsc/b", "rbsc/b"])
def test_every_source_has_a_place_of_its_own_in_quarantine(sources: list[str]) -> None:
    places = [quarantine_key({"key": source}) for source in sources]
    assert places[0] != places[1]
    for place in places:
        assert place.startswith("quarantine/")
        assert len(place.encode()) <= 1024
        assert not {".", ".."} & set(place.split("/"))


def test_a_note_with_a_long_name_has_room_in_quarantine(process: Bucket) -> None:
    key = f"rbsc/{'n' * 1010}.json"
    assert len(key) == 1020
    put(process, key, b"not a note")
    (item, _, _) = next(iter(read_notes(process)))
    assert item is not None
    refuse(process, item)
    assert all(len(key.encode()) <= 1024 for key in keys(process))
    assert b"not a note" in [process.read(key) for key in keys(process)]


def test_a_refused_picture_of_an_earlier_manifest_goes_to_quarantine(process: Bucket) -> None:
    note = put(process, "rbsc/a.json", {"key": "a/../b.jpg", "path": "a/"})
    row = {"key": "a/../b.jpg", "path": "a/", "copyright": False, "notes": [note]}
    [item] = planned_again([row])
    assert "refused" in item
    document = refuse(process, item, item["refused"])
    assert (document["key"], document["path"]) == ("a/../b.jpg", "a/")
    assert keys(process, "rbsc/") == []


# Planning from an earlier manifest


def planned_again(rows: list[Item]) -> list[Item]:
    """The items of a manifest whose notes are all gone."""
    gone: Any = SimpleNamespace(find=lambda key: None)
    return [item for item, _, _ in planned_before(rows, gone) if item is not None]


def test_the_pictures_of_an_earlier_manifest_are_looked_at_anew() -> None:
    rows: list[Item] = [
        {"key": "a/b.jpg", "path": "a/", "copyright": True, "notes": [version(1)]},
        {"key": "a/c.jpg", "path": "", "copyright": None, "notes": [], "refused": "a rival then"},
        {"key": "a/d.jpg", "path": "a/"},
    ]
    assert planned_again(rows) == [
        {"key": "a/b.jpg", "path": "a/", "copyright": True, "notes": [version(1)]},
        {"key": "a/c.jpg", "path": "", "copyright": None, "notes": []},
        {"key": "a/d.jpg", "path": "a/", "copyright": None, "notes": []},
    ]


def test_what_an_earlier_manifest_refused_by_name_is_refused_again_and_not_dropped() -> None:
    listed = picture_or_refusal("a/../b.jpg")
    [again] = planned_again([listed])
    assert again == listed
    assert "refused" in again


def test_of_a_picture_in_a_manifest_only_the_key_need_be_given() -> None:
    assert planned_again([{"key": "a/b.jpg"}]) == [
        {"key": "a/b.jpg", "path": "a/", "copyright": None, "notes": []}
    ]


def test_a_note_of_an_earlier_manifest_is_read_again_or_remarked(process: Bucket) -> None:
    note = put(process, "rbsc/a.json", NOTE)
    rows: list[Item] = [
        {"key": "rbsc/a.json", "failed": "unreadable note: access denied", "notes": [note]},
        {"key": "rbsc/b.json", "refused": "unreadable note: not JSON", "notes": [version(1)]},
    ]
    assert list(planned_before(rows, process)) == [
        ({**NOTE, "copyright": None, "notes": [note]}, "", ""),
        (None, "rbsc/b.json", "a note that is gone"),
    ]


NOT_NOTES = [
    {"key": "digital/a.jpg", "etag": "1", "modified": "2026"},
    {"key": "quarantine/a.json", "etag": "1", "modified": "2026"},
    {"key": "/rbsc/a.json", "etag": "1", "modified": "2026"},
    {"key": "rbsc", "etag": "1", "modified": "2026"},
    {"key": "rbsc/a.json"},
    {"key": "rbsc/a.json", "etag": 1, "modified": "2026"},
    {"key": "rbsc/a.json", "etag": "1", "modified": "2026", "more": "x"},
    "rbsc/a.json",
    None,
    7,
]


@pytest.mark.parametrize("note", NOT_NOTES, ids=repr)
def test_nothing_but_a_note_below_rbsc_is_taken_for_one(note: Any) -> None:
    row = {"key": "a/b.jpg", "path": "a/", "copyright": False, "notes": [note, version(1)]}
    [item] = planned_again([row])
    assert item["notes"] == [version(1)]


@given(
    st.fixed_dictionaries(
        {"key": st.text(st.characters(), min_size=1)},
        optional={
            "path": JSON | st.just("a/"),
            "copyright": JSON,
            "notes": JSON | st.lists(st.sampled_from(NOT_NOTES) | JSON),
            "refused": JSON,
        },
    )
)
@example({"key": "a.jpg", "path": "", "notes": True})
@example({"key": "a.jpg", "path": "", "notes": {"key": "rbsc/a.json"}})
def test_any_manifest_gives_pictures_or_refusals_and_no_false_note(row: Item) -> None:
    for item in planned_again([row]):
        assert item["key"] == row["key"]
        assert item["notes"] == []
        assert "refused" in item or target_key(item)
        assert "refused" in item or item["copyright"] in (True, False, None)
        decode(encode(item), "x")


# Notes of new uploads


def told(bucket: Bucket, key: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bucket.read(note_key(key)))
    return document


def test_a_new_upload_gets_a_note_that_can_be_planned(process: Bucket) -> None:
    assert write_note(process, "digital/a/b.jpg", etag="0123", sequencer="00F1")
    assert told(process, "digital/a/b.jpg") == {
        "key": "digital/a/b.jpg", "path": "digital/a/", "eTag": "0123", "sequencer": "00F1",
    }  # fmt: skip
    note = asdict(Note.of(process.head(note_key("digital/a/b.jpg"))))
    items, _ = read(process)
    assert items == {"digital/a/b.jpg": {**picture("digital/a/b.jpg"), "notes": [note]}}


def test_pictures_of_one_stem_have_notes_of_their_own(process: Bucket) -> None:
    sources = ["d/a.jpg", "d/a.png", "d/a.jpg.png", "a.jpg", "d/A.jpg", "d/a.jpg.json/b.jpg"]
    for source in sources:
        assert write_note(process, source, etag=source, sequencer="1")
    assert sorted(read(process)[0]) == sorted(sources)


@given(st.text(st.characters(), min_size=1), st.text(st.characters(), min_size=1))
def test_no_two_sources_have_one_note(one: str, other: str) -> None:
    assert (note_key(one) == note_key(other)) is (one == other)
    assert note_key(one).startswith("rbsc/")
    assert len(note_key(one).encode()) <= 1_024


SEQUENCERS = st.text("0123456789ABCDEFabcdef", min_size=1, max_size=6)


def number(sequencer: str) -> int:
    """Its place in the order, whatever its length."""
    return int(sequencer.ljust(6, "0"), 16)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SEQUENCERS, min_size=1, max_size=5), st.data())
def test_whatever_the_order_of_its_events_a_note_is_of_the_newest(
    process: Bucket, sequencers: list[str], data: st.DataObject
) -> None:
    key = f"digital/{uuid.uuid4().hex}.jpg"
    known = -1
    for sequencer in data.draw(st.permutations(sequencers * 2)):
        written = write_note(process, key, etag=sequencer, sequencer=sequencer)
        assert written is (number(sequencer) > known)
        known = max(known, number(sequencer))
    note = told(process, key)
    assert number(note["sequencer"]) == number(note["eTag"]) == max(map(number, sequencers))


@pytest.mark.parametrize(
    ("known", "sequencer", "written"),
    [
        ("0055AED6", "0055AED7", True),
        ("0055AED6", "0055aed7", True),
        ("0055AED6", "0055aed6", False),
        ("0055AED6", "0055AED600", False),
        ("0055AED6", "0055AED601", True),
        ("0055AED601", "0055AED6", False),
        ("00FF", "01", True),
        ("0055AED6", None, True),
        (None, "0055AED6", True),
        (7, "0055AED6", True),
    ],
)
def test_the_shorter_sequencer_counts_as_filled_with_zeros(
    process: Bucket, known: Any, sequencer: str | None, written: bool
) -> None:
    put(process, note_key("a.jpg"), {"key": "a.jpg", "sequencer": known})
    assert write_note(process, "a.jpg", etag="new", sequencer=sequencer) is written
    assert told(process, "a.jpg").get("eTag") == ("new" if written else None)
    assert told(process, "a.jpg")["sequencer"] == (
        sequencer if written and sequencer is not None else known
    )


def test_what_else_a_note_says_stays(process: Bucket) -> None:
    mine = {"path": "elsewhere/", "copyrightStatus": "copyright", "by": ["someone"]}
    put(process, note_key("a.jpg"), {"key": "a.jpg", **mine, "sequencer": "1", "eTag": "old"})
    assert write_note(process, "a.jpg", etag="new", sequencer="2")
    assert told(process, "a.jpg") == {
        "key": "a.jpg", **mine, "sequencer": "2", "eTag": "new",
    }  # fmt: skip


WRONG = {
    "path of another type",
    "path without a slash",
    "half a character in the path",
    "out by its path",
    "result's key too long",
    "huge",
}


@pytest.mark.parametrize("kind", sorted(UNREADABLE.keys() - WRONG))
def test_an_unreadable_note_gives_way_to_one_that_can_be_read(process: Bucket, kind: str) -> None:
    put(process, note_key("digital/a.jpg"), UNREADABLE[kind])
    assert write_note(process, "digital/a.jpg", etag="e", sequencer="1")
    assert parse_note(process.read(note_key("digital/a.jpg")))["key"] == "digital/a.jpg"
    if keys(process, "quarantine/"):  # it was no object: it is kept as it was
        assert process.read("quarantine/digital/a.jpg") == UNREADABLE[kind]
    else:
        assert (
            json.loads(UNREADABLE[kind]).keys() - {"key"} <= told(process, "digital/a.jpg").keys()
        )


@pytest.mark.parametrize("kind", sorted(WRONG))
def test_a_note_with_a_wrong_folder_stays_wrong(process: Bucket, kind: str) -> None:
    # It may speak of copyright as well: quarantine says what to correct.
    put(process, note_key("digital/a.jpg"), UNREADABLE[kind])
    assert write_note(process, "digital/a.jpg", etag="e", sequencer="1")
    with pytest.raises(ItemRefused):
        parse_note(process.read(note_key("digital/a.jpg")))


def test_a_note_may_force_and_that_reaches_every_run_of_its_picture(process: Bucket) -> None:
    key = "digital/a/lantern.png"
    write_note(process, key, force=True)
    write_note(process, key, sequencer="0055")
    put(process, "rbsc/lantern.json", NOTE)
    [item] = merge_pictures(item for item, _, _ in read_notes(process) if item)
    assert item["force"] is True
    assert planned_again([item])[0]["force"] is True
    assert "force" not in picture(key)
    assert "force" not in parse_note(json.dumps({**NOTE, "force": "yes"}).encode())


def test_a_note_that_says_nothing_new_is_another_version_all_the_same(process: Bucket) -> None:
    # A run that has read the old one must not delete it: it may have fetched the old picture.
    write_note(process, "a.jpg", etag="e", sequencer="1")
    old = asdict(Note.of(process.head(note_key("a.jpg"))))
    write_note(process, "a.jpg", etag="e", sequencer="2")
    assert not is_unchanged(process, old)


# What a listing takes for a picture


@pytest.mark.parametrize(
    ("key", "is_picture"),
    [
        ("digital/a.jpg", True),
        ("digital/a.JPEG", True),
        ("digital/a.b.Tiff", True),
        ("a.png", True),
        ("digital/a", False),
        ("digital/jpg", False),
        ("digital/.jpg", False),
        ("digital/.a.jpg", False),
        ("digital/a.jpg/", False),
        ("digital/a.jpg.json", False),
        ("digital/.hidden/a.jpg", True),
        ("digital/a.jpgx", False),
    ],
)
def test_a_picture_is_known_by_its_extension(key: str, is_picture: bool) -> None:
    assert looks_like_picture(key) is is_picture
