"""The short way to a bucket is taken only where it leads to what boto3 would have said."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devstack.samples import client
from imagecore.content import glance
from imagecore.errors import InfrastructureError
from imagecore.s3 import Bucket, ObjectChanged
from imagecore.shortcut import NotSure, Seen, head
from imagecore.target import Conditions, Target
from tests.faults import FaultProxy, denied, drop, drop_after_upstream, header, status
from tests.objects import impatient, kept, new_bucket_of, put, through, versions, with_shortcut


@pytest.fixture
def bucket(s3_endpoint) -> Bucket:
    return with_shortcut(new_bucket_of(client(s3_endpoint)))


@pytest.fixture
def proxy(s3_endpoint, monkeypatch) -> Iterator[FaultProxy]:
    impatient(monkeypatch)
    with FaultProxy(s3_endpoint) as proxy:
        yield proxy


def short(proxy: FaultProxy) -> list[bool]:
    """Of each request, whether it came the short way."""
    return ["boto" not in request.headers["user-agent"].lower() for request in proxy.requests]


PARTS = st.sampled_from(
    ["a", "B-9", "__w-200__", "1.jpg", ".", "..", ".x", "", " ", "é", "%41", "+"]
)
KEYS = st.lists(PARTS, min_size=1, max_size=4).map("/".join).filter(bool) | st.text(
    st.characters(codec="ascii", exclude_characters="\r\n"), min_size=1, max_size=9
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=KEYS, other=KEYS)
def test_it_finds_what_boto3_finds_or_is_not_sure(bucket, key, other):
    for name in (key, other):
        bucket.client.put_object(Bucket=bucket.name, Key=name, Body=name.encode())
    bucket.client.delete_object(Bucket=bucket.name, Key=other)
    for name in (key, other):
        there = bucket.find(name)
        try:
            assert head(bucket.shortcut, name) == (there and Seen(there.etag, there.size))
        except NotSure:
            assert not (name.isascii() and name.isalnum())


def test_plain_keys_are_asked_for_the_short_way_and_others_are_not(bucket, proxy):
    put(bucket, "stores/x-1/__w-200-400__/1.jpg")
    put(bucket, "a//b c.jpg")
    behind = through(bucket, proxy.url)
    assert glance(behind, "stores/x-1/__w-200-400__/1.jpg").size == 7
    assert glance(behind, "a//b c.jpg").size == 7
    assert (glance(behind, "no.jpg"), glance(behind, "no such.jpg")) == (None, None)
    assert short(proxy) == [True, False, True, False]


@pytest.mark.parametrize("fault", [drop(), status(503), denied(), header("ETag", "")])
def test_what_fails_on_the_short_way_is_asked_again_the_long_one(bucket, proxy, fault):
    etag = put(bucket, "a.jpg")
    with proxy.fault("HeadObject", fault, times=1):
        assert glance(through(bucket, proxy.url), "a.jpg").version == etag
    assert short(proxy) == [True, False]


def test_what_fails_on_both_ways_says_why(bucket, proxy):
    with (
        proxy.fault("HeadObject", status(503)),
        pytest.raises(InfrastructureError, match=r"a\.jpg"),
    ):
        glance(through(bucket, proxy.url), "a.jpg")


@pytest.mark.parametrize("expected", [None, "0" * 32], ids=["nothing", "another"])
def test_a_write_under_a_condition_that_does_not_hold_is_refused(bucket, proxy, expected):
    put(bucket, "a.jpg", b"theirs")
    target = Target(through(bucket, proxy.url), Conditions(put=True))
    with pytest.raises(ObjectChanged, match="and now is another"):
        target.write("a.jpg", [b"ours"], 4, {"ContentType": "image/jpeg"}, expected)
    assert kept(bucket, "a.jpg").data == b"theirs"
    assert short(proxy) == [True]


@pytest.mark.parametrize("there", [False, True], ids=["new", "replacing"])
def test_a_write_under_a_condition_that_holds_takes_two_short_requests(bucket, proxy, there):
    expected = put(bucket, "a.jpg", b"theirs") if there else None
    target = Target(through(bucket, proxy.url), Conditions(put=True))
    written = target.write("a.jpg", [b"ours"], 4, {"ContentType": "image/jpeg"}, expected)
    assert kept(bucket, "a.jpg")[:2] == (b"ours", "image/jpeg")
    assert written.etag == versions(bucket)["a.jpg"]
    assert [request.operation for request in proxy.requests] == ["PutObject", "HeadObject"]
    assert short(proxy) == [True, True]


@pytest.mark.parametrize("fault", [drop(), status(500), status(503), drop_after_upstream()])
def test_a_write_whose_answer_is_lost_is_never_written_over_another(bucket, proxy, fault):
    target = Target(through(bucket, proxy.url), Conditions(put=True))
    with proxy.fault("PutObject", fault, times=1):
        try:
            target.write("a.jpg", [b"ours"], 4, {"ContentType": "image/jpeg"}, None)
        except ObjectChanged:  # our own, of the first try: who carries out a plan looks at that
            assert fault.name == drop_after_upstream().name
    assert kept(bucket, "a.jpg").data == b"ours"
    assert short(proxy)[:2] == [True, False]


@pytest.mark.parametrize("headers", [{"Metadata": {"by": "Ann"}}, {"Tagging": "rights=free"}, {}])
def test_what_has_more_than_a_content_type_goes_the_long_way(bucket, proxy, headers):
    target = Target(through(bucket, proxy.url), Conditions(put=True))
    target.write("a.jpg", [b"ours"], 4, {"ContentType": "image/jpeg"} | headers, None)
    found = kept(bucket, "a.jpg")
    assert (found.metadata, found.tags) == (
        headers.get("Metadata", {}),
        {"rights": "free"} if "Tagging" in headers else {},
    )
    assert short(proxy) == [not headers, True]
