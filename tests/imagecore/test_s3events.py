"""Event messages: every upload in them is found, and nothing in one hides another."""

import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecore.notes import looks_like_picture
from imagecore.s3events import (
    CREATED,
    FOLDER,
    INCOMPLETE,
    NO_PICTURE,
    NO_RECORDS,
    NOT_JSON,
    OTHER_BUCKET,
    OTHER_EVENT,
    OTHER_PREFIX,
    TEST_EVENT,
    Events,
    Upload,
    read_events,
)
from tests import uploadevents
from tests.uploadevents import SEQUENCER, message, record

BUCKET, PREFIXES = "uploads", ["digital/", "collections/"]


def read(*bodies: Any) -> Events:
    return read_events(bodies, BUCKET, PREFIXES)


def keys(events: Events) -> list[str]:
    return [upload.key for upload in events.uploads]


def test_an_upload_is_read_with_its_etag_and_its_place_in_the_order():
    events = read(message(record()))
    assert events.uploads == [Upload("digital/a.jpg", "d41d8c", SEQUENCER)]
    assert (events.messages, events.records, dict(events.ignored)) == (1, 1, {})


def test_all_records_of_all_messages_count():
    names = [f"digital/{number}.jpg" for number in range(5)]
    events = read(message(*map(record, names[:3])), message(*map(record, names[3:])))
    assert keys(events) == names
    assert (events.messages, events.records) == (2, 5)


@pytest.mark.parametrize("prefix", ["", "s3:"])
@pytest.mark.parametrize("how", ["Put", "Post", "CompleteMultipartUpload"])
def test_every_kind_of_upload_counts(prefix: str, how: str):
    assert keys(read(message(record(event=f"{prefix}ObjectCreated:{how}")))) == ["digital/a.jpg"]


IGNORED = {
    "a copy": (record(event="ObjectCreated:Copy"), OTHER_EVENT),
    "a removal": (record(event="s3:ObjectRemoved:Delete"), OTHER_EVENT),
    "any creation": (record(event="ObjectCreated:"), OTHER_EVENT),
    "another bucket": (record(bucket="uploads-2"), OTHER_BUCKET),
    "a name that begins like ours": (record("digitally/a.jpg"), OTHER_PREFIX),
    "outside": (record("a.jpg"), OTHER_PREFIX),
    "a folder": (record("digital/new/"), FOLDER),
    "a folder of pictures": (record("digital/a.jpg/"), FOLDER),
    "a text": (record("digital/a.txt"), NO_PICTURE),
    "a hidden file": (record("digital/.a.jpg"), NO_PICTURE),
    "no event": ({"s3": record()["s3"]}, INCOMPLETE),
    "no s3": ({"eventName": "ObjectCreated:Put"}, INCOMPLETE),
    "no key": (record(""), INCOMPLETE),
    "a key too long": (record("digital/" + "a" * 1_024 + ".jpg"), INCOMPLETE),
    "s3 is a text": ({**record(), "s3": "bucket"}, INCOMPLETE),
    "a number": (7, INCOMPLETE),
    "null": (None, INCOMPLETE),
    "a list": ([record()], INCOMPLETE),
}


@pytest.mark.parametrize("what", IGNORED)
def test_what_is_no_upload_of_a_picture_is_ignored_with_its_reason(what: str):
    other, reason = IGNORED[what]
    events = read(message(record("digital/1.jpg"), other, record("digital/2.jpg")))
    assert keys(events) == ["digital/1.jpg", "digital/2.jpg"]
    assert (events.records, dict(events.ignored)) == (3, {reason: 1})


SNS = {"Type": "Notification", "Message": message(record())}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (uploadevents.TEST_EVENT, TEST_EVENT),
        (json.dumps(SNS), NO_RECORDS),
        ('{"Records": []}', NO_RECORDS),
        ('{"Records": {"0": 1}}', NO_RECORDS),
        ("{}", NO_RECORDS),
        ("null", NO_RECORDS),
        ('"Records"', NO_RECORDS),
        ("", NOT_JSON),
        ("hello", NOT_JSON),
        ("[" * 100_000, NOT_JSON),
        ('{"Records": [' + "9" * 5_000 + "]}", NOT_JSON),
        (None, NOT_JSON),
        (7, NOT_JSON),
        ({"Records": [record()]}, NOT_JSON),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_message_that_is_none_is_ignored_with_its_reason(body: Any, reason: str):
    events = read(message(record("digital/1.jpg")), body, message(record("digital/2.jpg")))
    assert keys(events) == ["digital/1.jpg", "digital/2.jpg"]
    assert (events.messages, dict(events.ignored)) == (3, {reason: 1})


@pytest.mark.parametrize("quoted", ["digital/%FF.jpg", "digital/%C3.jpg", "digital/\ud800.jpg"])
def test_a_key_that_s3_cannot_have_is_no_key(quoted: str):
    broken = record()
    broken["s3"]["object"]["key"] = quoted
    assert dict(read(message(broken)).ignored) == {INCOMPLETE: 1}


@pytest.mark.parametrize("etag", [None, "", 7, ["x"], "two words", "x" * 300])
@pytest.mark.parametrize("sequencer", [None, "", 7, "zebra", "0 1", "0" * 129, "٣"])
def test_an_upload_without_a_usable_etag_or_sequencer_is_one_all_the_same(etag, sequencer):
    odd = record()
    odd["s3"]["object"] |= {"eTag": etag, "sequencer": sequencer}
    assert read(message(odd)).uploads == [Upload("digital/a.jpg")]


# Any key that S3 allows


CHARACTERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80)


@given(CHARACTERS, st.sampled_from([quote_plus, quote]))
def test_a_key_is_the_one_that_was_uploaded(name: str, quoting: Any):
    key = f"digital/{name}.jpg"
    uploaded = record()
    uploaded["s3"]["object"]["key"] = quoting(key)
    events = read(message(uploaded))
    assert keys(events) == ([key] if looks_like_picture(key) else [])


# Any message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
HOLED = st.fixed_dictionaries(
    {},
    optional={
        "eventName": JSON | st.sampled_from(sorted(CREATED)),
        "s3": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "bucket": JSON | st.just({"name": BUCKET}),
                "object": JSON
                | st.fixed_dictionaries({"key": JSON | st.just("digital/a.jpg")})
                | st.fixed_dictionaries({"key": st.text(), "eTag": JSON, "sequencer": JSON}),
            },
        ),
    },
)
WHOLE = st.integers(0, 99).map(lambda number: record(f"digital/{number}.jpg"))
RECORDS = st.lists(WHOLE | HOLED | JSON)
BODIES = st.lists(
    st.text() | st.none() | JSON.map(json.dumps) | RECORDS.map(lambda rows: message(*rows))
)


@given(BODIES)
def test_any_messages_are_read_and_all_is_counted(bodies: list[Any]):
    events = read(*bodies)
    of_messages = sum(events.ignored[reason] for reason in (NOT_JSON, NO_RECORDS, TEST_EVENT))
    assert events.messages == len(bodies)
    assert events.records == len(events.uploads) + events.ignored.total() - of_messages
    assert of_messages <= events.messages
    for upload in events.uploads:
        assert upload.key.startswith(tuple(PREFIXES))
        assert len(upload.key.encode()) <= 1_024


@given(st.lists(RECORDS))
def test_no_broken_record_hides_another(batches: list[list[Any]]):
    alone = [row for rows in batches for row in rows if read(message(row)).uploads]
    together = read(*(message(*rows) for rows in batches))
    assert together.uploads == read(message(*alone)).uploads


# Order


def upload(sequencer: str | None, key: str = "digital/a.jpg") -> Upload:
    return Upload(key, str(sequencer), sequencer)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("0055AED6DCD90281E5", "0055AED6DCD90281E6"),
        ("0055aed6", "0055AED7"),
        ("0055AED6", "0055AED60001"),  # as if filled with zeros on its right
        ("0F", "10"),
        (None, "00F1"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_newest_of_a_key_counts_in_whatever_order_they_come(older, newer, turned):
    both = [upload(older), upload(newer)]
    events = Events(uploads=both[::-1] if turned else both)
    assert events.newest() == [upload(newer)]


@given(st.permutations([f"{number:X}" for number in range(0x10, 0x30)]))
def test_of_each_key_one_is_left(order: list[str]):
    events = Events(uploads=[upload(each, f"digital/{int(each, 16) % 3}") for each in order])
    assert sorted(each.sequencer or "" for each in events.newest()) == ["2D", "2E", "2F"]


@pytest.mark.parametrize("same", [["F0", "F"], ["F", "F0"], ["f", "F"]])
def test_of_two_in_one_place_the_last_one_counts(same: list[str]):
    assert Events(uploads=[*map(upload, same)]).newest() == [upload(same[-1])]


def test_where_the_server_sends_no_order_the_last_one_counts():
    assert Events(uploads=[Upload("a", "1"), Upload("a", "2")]).newest() == [Upload("a", "2")]
