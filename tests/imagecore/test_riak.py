"""The Riak client against the devstack's server, against recorded bytes, and against faults."""

from __future__ import annotations

import ipaddress
import pickle
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from devstack.riakserver import RiakServer
from imagecore.errors import InfrastructureError, ItemFailed
from imagecore.riak import OBJECT_BYTES, Quorums, RiakBucket, RiakClient
from imagecore.riakanswer import (
    RiakDenied,
    RiakNotFound,
    RiakPreconditionFailed,
    RiakRefused,
    RiakServerError,
    RiakSiblings,
)
from imagecore.riakhttp import Limits, Node, RiakNodes, RiakTooLarge, RiakUnavailable
from tests.faults import FaultProxy, delay, drop, drop_after_upstream, status, truncate
from tests.riakrecordings import Replay, names, read, request_bytes, response_bytes

QUICK = Limits(connect=5, read=5, request=10, tries=3, backoff=0, avoid=60)
KEYS = st.text(min_size=1, max_size=60)
BODIES = st.binary(max_size=5000)


def client_of(*ports: int, limits: Limits = QUICK, quorums: Quorums | None = None) -> RiakClient:
    nodes = [Node("127.0.0.1", port) for port in ports]
    return RiakClient(RiakNodes(nodes, limits=limits), quorums or Quorums())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RiakServer]:
    with RiakServer(tmp_path_factory.mktemp("riak"), bucket_types=["photos"]) as started:
        yield started


@pytest.fixture
def bucket(server: RiakServer, request: pytest.FixtureRequest) -> RiakBucket:
    """An empty bucket of the test's own, which keeps one value a key."""
    return client_of(server.port).bucket(request.node.name)


@pytest.fixture
def siblings(server: RiakServer, request: pytest.FixtureRequest) -> RiakBucket:
    """An empty bucket of the test's own, which keeps siblings."""
    kept = client_of(server.port).bucket(request.node.name)
    kept.set_properties(allow_mult=True)
    return kept


@pytest.fixture
def proxy(server: RiakServer) -> Iterator[FaultProxy]:
    with FaultProxy(f"http://127.0.0.1:{server.port}") as started:
        yield started


def port_of(proxy: FaultProxy) -> int:
    return int(proxy.url.rpartition(":")[2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# -- objects


def test_what_is_put_is_got_back_with_its_type_and_metadata(bucket):
    bucket.put("k", b"\0\xff\r\n", "image/jpeg", metadata={"Owner": 'Bär, "a"; b', "camera_x": ""})
    found = bucket.get("k")
    assert (found.data, found.size, found.content_type) == (b"\0\xff\r\n", 4, "image/jpeg")
    assert found.metadata == {"owner": 'Bär, "a"; b', "camera_x": ""}
    assert found.vclock
    assert found.etag
    assert found.modified


def test_a_head_has_everything_but_the_data(bucket):
    bucket.put("k", b"12345", "text/plain; charset=utf-8", metadata={"a": "b"})
    seen, got = bucket.head("k"), bucket.get("k")
    assert (seen.data, seen.size) == (b"", 5)
    assert (seen.etag, seen.vclock, seen.metadata) == (got.etag, got.vclock, got.metadata)


def test_metadata_is_replaced_as_a_whole(bucket):
    bucket.put("k", b"1", "a/b", metadata={"a": "1"})
    bucket.put("k", b"2", "a/b", vclock=bucket.head("k").vclock)
    assert bucket.head("k").metadata == {}


def test_what_is_not_there_is_not_found(bucket):
    assert not bucket.exists("nothing")
    with pytest.raises(RiakNotFound, match=r"riak://.*/nothing does not exist"):
        bucket.head("nothing")
    with pytest.raises(RiakNotFound):
        bucket.get("nothing")


def test_what_was_deleted_is_not_found_and_its_tombstone_has_a_vclock(bucket):
    bucket.put("k", b"x", "a/b")
    bucket.delete("k")
    bucket.delete("k")
    with pytest.raises(RiakNotFound) as caught:
        bucket.get("k")
    assert caught.value.vclock


def test_creating_what_exists_is_refused(bucket):
    bucket.create("k", b"first", "a/b")
    with pytest.raises(RiakPreconditionFailed, match="exists already"):
        bucket.create("k", b"second", "a/b")
    assert bucket.get("k").data == b"first"


@given(KEYS, BODIES)
@example(".", b"")
@example("..", b"\r\n\r\n")
@example("../../etc", b"x")
@example("//", b"x")
@example("%2F%", b"x")
@example("a+b c", b"x")
@example("\0\r\n\t\x7f", b"x")
@example("?#;&=", b"x")
@example("ä.jpg", b"NFC")
@example("a\u0308.jpg", b"NFD")
@example("\udcff\udc80", b"bytes that are not UTF-8")
@example("n" * 300, b"x")
def test_any_key_and_any_data_come_back(server, key, data):
    bucket = client_of(server.port).bucket("any")
    bucket.put(key, data, "application/octet-stream")
    assert bucket.get(key).data == data
    bucket.delete(key)
    assert not bucket.exists(key)


@given(KEYS, KEYS)
def test_different_keys_are_different_objects(server, one, other):
    if one == other:
        return
    bucket = client_of(server.port).bucket(one)
    bucket.put(one, b"one", "a/b")
    bucket.put(other, b"other", "a/b")
    assert (bucket.get(one).data, bucket.get(other).data) == (b"one", b"other")


@pytest.mark.parametrize("key", ["", "half \ud83d"])
def test_a_key_that_riak_cannot_have_is_refused(bucket, key):
    with pytest.raises(RiakRefused):
        bucket.put(key, b"x", "a/b")


@pytest.mark.parametrize("value", ["a\nb", "a\rX-Riak-Vclock: x", " a", "a\0"])
def test_metadata_that_does_not_fit_into_a_header_is_refused(bucket, value):
    with pytest.raises(RiakRefused, match="metadata"):
        bucket.put("k", b"x", "a/b", metadata={"name": value})


def test_a_wrong_content_type_is_the_items_failure(bucket):
    with pytest.raises(RiakRefused, match="415"):
        bucket.put("k", b"x", "bogus")


def test_a_malformed_vclock_is_the_items_failure(bucket):
    with pytest.raises(RiakServerError, match="500"):
        bucket.put("k", b"x", "a/b", vclock="not-base64!")


def test_an_object_over_riaks_limit_is_refused_before_it_is_sent():
    nobody = client_of(free_port()).bucket("ez")
    with pytest.raises(RiakTooLarge, match="52,428,801"):
        nobody.put("k", bytes(OBJECT_BYTES + 1), "a/b")


def test_an_object_of_riaks_limit_is_stored(bucket):
    bucket.put("k", bytes(OBJECT_BYTES), "a/b")
    assert bucket.head("k").size == OBJECT_BYTES


def test_an_answer_over_the_limit_is_not_read_and_the_next_one_is(server, bucket):
    bucket.put("large", bytes(5000), "a/b")
    bucket.put("small", b"x", "a/b")
    careful = client_of(server.port, limits=Limits(answer=1000)).bucket(bucket.name)
    with pytest.raises(RiakTooLarge, match="1,000 bytes"):
        careful.get("large")
    assert careful.head("large").size == 5000
    assert careful.get("small").data == b"x"


# -- siblings


def test_siblings_are_told_with_their_vclock_and_end_with_a_write(siblings):
    siblings.put("k", b"one", "a/b", metadata={"v": "1"})
    siblings.put("k", b"\r\n--two--\r\n", "c/d")
    with pytest.raises(RiakSiblings, match="2 values") as caught:
        siblings.get("k")
    values = {(value.data, value.content_type) for value in caught.value.siblings}
    assert values == {(b"one", "a/b"), (b"\r\n--two--\r\n", "c/d")}
    siblings.put("k", b"three", "a/b", vclock=caught.value.vclock)
    assert siblings.get("k").data == b"three"


def test_a_head_tells_of_siblings_but_not_which(siblings):
    siblings.put("k", b"one", "a/b")
    siblings.put("k", b"two", "a/b")
    with pytest.raises(RiakSiblings) as caught:
        siblings.exists("k")
    assert caught.value.siblings == ()
    assert caught.value.vclock


def test_a_tombstone_among_siblings_is_marked(siblings):
    siblings.put("k", b"one", "a/b")
    old = siblings.head("k").vclock
    siblings.put("k", b"two", "a/b", vclock=old)
    siblings.delete("k", vclock=old)
    with pytest.raises(RiakSiblings) as caught:
        siblings.get("k")
    assert sorted((value.deleted, value.data) for value in caught.value.siblings) == [
        (False, b"two"),
        (True, b""),
    ]


@given(st.lists(BODIES, min_size=2, max_size=4))
def test_any_siblings_come_back(server, values):
    bucket = client_of(server.port).bucket("any siblings", "photos")
    bucket.delete("k")
    with pytest.raises(RiakNotFound) as gone:
        bucket.get("k")
    bucket.put("k", values[0], "a/b", vclock=gone.value.vclock)
    for value in values[1:]:
        bucket.put("k", value, "a/b")
    with pytest.raises(RiakSiblings) as caught:
        bucket.get("k")
    assert sorted(value.data for value in caught.value.siblings) == sorted(values)


# -- buckets and the cluster


def test_properties_are_read_and_some_are_set(bucket):
    assert bucket.properties()["allow_mult"] is False
    bucket.set_properties(allow_mult=True)
    assert bucket.properties()["allow_mult"] is True
    assert bucket.properties()["n_val"] == 3


def test_a_wrong_property_is_refused_with_riaks_words(bucket):
    with pytest.raises(RiakRefused, match="not_boolean"):
        bucket.set_properties(allow_mult="maybe")


def test_a_bucket_type_that_is_not_there_is_named(server):
    with pytest.raises(RiakRefused, match="Unknown bucket type: nosuch"):
        client_of(server.port).bucket("ez", "nosuch").get("k")


def test_bucket_types_are_worlds_of_their_own(server):
    client = client_of(server.port)
    client.bucket("worlds", "photos").put("k", b"x", "a/b")
    assert not client.bucket("worlds").exists("k")
    assert client.bucket("worlds", "photos").exists("k")


def test_all_keys_are_listed_by_asking_for_just_that(bucket):
    keys = {f"{number:04}-ä/ö" for number in range(1200)}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: bucket.put(key, b"", "a/b"), keys))
    assert set(bucket.keys_by_reading_the_whole_cluster()) == keys


def test_other_requests_may_be_made_while_keys_are_listed(bucket):
    for key in "abc":
        bucket.put(key, key.encode(), "a/b")
    listed = bucket.keys_by_reading_the_whole_cluster()
    assert sorted(bucket.get(key).data for key in listed) == [b"a", b"b", b"c"]


def test_a_key_that_is_not_utf8_makes_the_list_fail_with_the_buckets_name(bucket):
    bucket.put("\udce4.jpg", b"", "a/b")
    with pytest.raises(RiakServerError, match=bucket.name):
        list(bucket.keys_by_reading_the_whole_cluster())


def test_a_node_is_alive_and_has_statistics(server):
    client = client_of(server.port)
    client.ping()
    assert client.stats()["node_puts_total"] >= 0


def test_threads_share_a_client(bucket):
    def work(number: int) -> bytes:
        bucket.put(f"k{number}", b"%d" % number, "a/b")
        return bucket.get(f"k{number}").data

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(work, range(200))) == [b"%d" % number for number in range(200)]


@pytest.mark.parametrize("wrong", [{"r": 0}, {"w": "most"}, {"pr": True}, {"timeout": -1}])
def test_a_wrong_quorum_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Quorums(**wrong)


# -- recorded bytes


@contextmanager
def replay(*recordings: str, quorums: Quorums | None = None) -> Iterator[RiakClient]:
    with Replay(*recordings) as riak:
        yield client_of(riak.port, limits=Limits(tries=1), quorums=quorums)
    assert riak.surprises == []


def test_recorded_object():
    with replay("007-put-jpeg", "008-get-jpeg", "009-head-jpeg") as client:
        ez, key = client.bucket("ez"), "1a2b3c4d-Bild ä.jpg"
        ez.put(key, b"x", "image/jpeg", metadata={"owner": "anna"})
        found, seen = ez.get(key), ez.head(key)
    assert found.data == read(response_bytes("008-get-jpeg")).body
    assert (found.size, found.content_type, found.etag) == (
        3022,
        "image/jpeg",
        "3ccdiSRjcI0WB3V0Z94MmC",
    )
    assert found.metadata == {
        "owner": "anna",
        "original-name": "Bild ä.jpg",
        "camera_model": "EOS 5D",
    }
    assert found.modified == datetime(2026, 11, 21, 3, 12, 13, tzinfo=timezone.utc)
    assert (seen.size, seen.vclock) == (3022, found.vclock)


def test_recorded_metadata_is_kept_byte_for_byte():
    with replay("093-meta-head") as client:
        found = client.bucket("ez").head("meta").metadata
    assert found["percent"] == "Bild%20%C3%A4.jpg"
    assert found["quote"] == '"a, b"; c=d'
    assert (found["empty"], found["dup"]) == ("", "one, two")


def test_recorded_siblings():
    with replay("163-sib-get-multipart-star") as client, pytest.raises(RiakSiblings) as caught:
        client.bucket("ezmult").get("sib ä.jpg")
    first, second = caught.value.siblings
    assert first.data == bytes(range(256)) * 4
    assert second.data == read(response_bytes("008-get-jpeg")).body
    assert [value.metadata["v"] for value in (first, second)] == ["two", "one"]
    assert caught.value.vclock.startswith("a85hYGBgzGDKBVI8ypz")


def test_recorded_siblings_of_a_head_and_with_tombstones():
    with replay("161-sib-head-300", "178-sib-get-with-tombstone") as client:
        bucket = client.bucket("ezmult")
        with pytest.raises(RiakSiblings) as seen:
            bucket.head("sib ä.jpg")
        with pytest.raises(RiakSiblings, match="4 values") as got:
            bucket.get("sib ä.jpg")
    assert seen.value.siblings == ()
    assert [value.deleted for value in got.value.siblings] == [True, True, False, False]
    assert [value.data for value in got.value.siblings] == [b"", b"", b"five", b"four"]


def test_recorded_absence():
    key = "1a2b3c4d-Bild ä.jpg"
    recordings = ["005-head-absent", "006-delete-absent", "032-delete-with-vclock"]
    with replay(*recordings, "033-get-just-deleted") as client:
        assert not client.bucket("ez").exists(key)
        client.bucket("ez").delete(key)
        client.bucket("ez").delete(key)
        with pytest.raises(RiakNotFound) as caught:
            client.bucket("ez").get(key)
    assert caught.value.vclock == "a85hYGBgzGDKBVI8ypz/fu5Yf1oeIpTInsfKwNdR+oQvCwA="


def test_a_recorded_head_says_whether_it_is_there_in_one_request():
    with replay("009-head-jpeg", "005-head-absent") as client:
        assert client.bucket("ez").exists("1a2b3c4d-Bild ä.jpg")
        assert not client.bucket("ez").exists("1a2b3c4d-Bild ä.jpg")


@pytest.mark.parametrize(
    ("recording", "error"),
    [
        ("022-put-if-none-match-star", RiakPreconditionFailed),
        ("028-put-if-not-modified-stale", RiakPreconditionFailed),
    ],
)
def test_recorded_conditions(recording, error):
    with replay(recording) as client, pytest.raises(error):
        client.bucket("ez").create("1a2b3c4d-Bild ä.jpg", b"x", "image/jpeg")


def test_recorded_refusals_give_riaks_words():
    with replay("094-ct-missing", "102-ct-bogus-put", "217-too-large-60m") as client:
        with pytest.raises(RiakRefused, match="Missing Content-Type"):
            client.bucket("ez").put("ct0", b"", "")
        with pytest.raises(RiakRefused, match="not a valid media type"):
            client.bucket("ez").put("ct4", b"", "bogus")
        with pytest.raises(RiakTooLarge, match="62914746"):
            client.bucket("ezbig").put("huge", b"", "image/jpeg")


def test_recorded_quorums():
    quorums = Quorums(r="quorum", pr=1)
    with replay("116-ok-r-quorum", quorums=quorums) as client:
        assert client.bucket("ez").get("empty").data == b""
    wrong = replay("114-err-r-too-big", quorums=Quorums(r=5))
    with wrong as client, pytest.raises(RiakRefused, match="n value of 3"):
        client.bucket("ez").get("meta")
    with replay("118-err-pw-all", quorums=Quorums(pw="all")) as client:
        client.bucket("ez").put("w", b"x", "image/jpeg")
    with replay("128-ok-timeout", quorums=Quorums(timeout=5000)) as client:
        client.bucket("ez").get("empty")


def test_a_recorded_encoding_is_not_undone():
    with replay("100-ct-gzip-get") as client:
        assert client.bucket("ez").get("ct3").data == b'{"not":"gzip"}'


def test_recorded_bucket():
    with replay("001-ping", "138-props-get", "140-props-put") as client:
        client.ping()
        assert client.bucket("ez").properties()["n_val"] == 3
        client.bucket("ezmult").set_properties(allow_mult=True)
    with replay("150-list-keys-stream", "152-list-keys-stream-empty") as client:
        keys = set(client.bucket("ez").keys_by_reading_the_whole_cluster())
        assert keys > {"meta", "ct3", "big", "WHoS39Jqjw6HUBf9pBX4kxiqcgN"}
        assert list(client.bucket("neverused").keys_by_reading_the_whole_cluster()) == []


def test_recorded_bucket_types():
    with replay("232-type-put", "124-err-unknown-type") as client:
        client.bucket("ez", "photos").put("1a2b3c4d-Bild ä.jpg", b"x", "image/jpeg")
        with pytest.raises(RiakRefused, match="Unknown bucket type: nosuch"):
            client.bucket("ez", "nosuch").get("k")


RECORDED_KEYS = [name for name in names() if "-key-" in name and name.endswith("-put")]


@pytest.mark.parametrize("recording", RECORDED_KEYS)
def test_recorded_keys_are_sent_as_they_were(recording):
    target = read(request_bytes(recording)).first.split()[1]
    key = unquote_to_bytes(target.rpartition("/")[2].replace("+", " "))
    with Replay(recording) as riak:
        bucket = client_of(riak.port).bucket("ezkeys")
        bucket.put(key.decode("utf-8", "surrogateescape"), b"x", "image/jpeg")
    sent = riak.asked[0].first.split()[1]
    assert sent.count("/") == 4
    assert unquote_to_bytes(sent.rpartition("/")[2]) == key
    assert "+" not in sent


# -- faults


def test_a_cluster_that_is_away_is_named_and_ends_a_batch():
    port = free_port()
    with pytest.raises(RiakUnavailable, match=rf"after 3 tries; last 127.0.0.1:{port}: .*refused"):
        client_of(port).bucket("ez").get("k")
    assert issubclass(RiakUnavailable, InfrastructureError)


def test_one_node_of_three_gone_is_not_noticed(server, proxy, bucket):
    three = client_of(server.port, free_port(), port_of(proxy)).bucket(bucket.name)
    for number in range(12):
        three.create(f"k{number}", b"x", "a/b")
        assert three.get(f"k{number}").data == b"x"


def test_a_node_that_failed_is_left_in_peace(server, proxy, bucket):
    bucket.put("k", b"x", "a/b")
    both = client_of(port_of(proxy), server.port).bucket(bucket.name)
    proxy.on("GET", drop())
    for _ in range(10):
        assert both.get("k").data == b"x"
    assert proxy.requests.count("GET") == 1


def test_a_node_is_asked_again_when_its_time_is_over(server, proxy, bucket):
    bucket.put("k", b"x", "a/b")
    soon = Limits(tries=3, backoff=0, avoid=0)
    both = client_of(port_of(proxy), server.port, limits=soon).bucket(bucket.name)
    proxy.on("GET", drop(), times=1)
    for _ in range(6):
        assert both.get("k").data == b"x"
    assert proxy.requests.count("GET") > 1


@pytest.mark.parametrize("fault", [drop(), drop_after_upstream(), status(503), status(500)])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_what_may_be_repeated_is_repeated(proxy, bucket, fault, method):
    bucket.put("k", b"x", "a/b")
    shaky = client_of(port_of(proxy)).bucket(bucket.name)
    calls: dict[str, Callable[[], object]] = {
        "GET": lambda: shaky.get("k"),
        "HEAD": lambda: shaky.head("k"),
        "PUT": lambda: shaky.put("k", b"y", "a/b"),
        "DELETE": lambda: shaky.delete("k"),
    }
    with proxy.fault(method, fault, times=2) as rule:
        calls[method]()
    assert rule.acted == 2
    assert proxy.requests.count(method) == 3


@pytest.mark.parametrize("method", ["get", "head"])
def test_a_faulty_answer_leaves_its_connection_to_the_next_try(proxy, bucket, method):
    bucket.put("k", b"x", "a/b")
    twice = Limits(connect=5, read=5, request=10, tries=2, backoff=0)
    shaky = client_of(port_of(proxy), limits=twice).bucket(bucket.name)
    with proxy.fault(method.upper(), status(500), times=1):
        getattr(shaky, method)("k")


@pytest.mark.parametrize("fault", [drop(), drop_after_upstream()])
def test_what_must_not_be_repeated_is_not_and_says_what_is_not_known(proxy, bucket, fault):
    shaky = client_of(port_of(proxy)).bucket(bucket.name)
    proxy.on("PUT", fault)
    with pytest.raises(RiakUnavailable, match="is not known"):
        shaky.create("k", b"x", "a/b")
    with pytest.raises(RiakUnavailable, match="is not known"):
        shaky.put("k", b"x", "a/b", repeatable=False)
    assert proxy.requests.count("PUT") == 2


def test_a_repeated_write_leaves_one_value(proxy, bucket):
    shaky = client_of(port_of(proxy)).bucket(bucket.name)
    with proxy.fault("PUT", drop_after_upstream(), times=1):
        shaky.put("k", b"x", "a/b")
    assert bucket.get("k").data == b"x"


def test_a_node_that_always_answers_503_ends_the_batch_and_500_fails_the_item(proxy, bucket):
    shaky = client_of(port_of(proxy)).bucket(bucket.name)
    with proxy.fault("GET", status(503)), pytest.raises(RiakUnavailable, match="503 after 3 tries"):
        shaky.get("k")
    with proxy.fault("GET", status(500)), pytest.raises(RiakServerError) as caught:
        shaky.get("k")
    assert isinstance(caught.value, ItemFailed)


@pytest.mark.parametrize("code", [401, 403])
def test_a_user_who_is_refused_ends_the_batch(proxy, bucket, code):
    with proxy.fault("GET", status(code)), pytest.raises(RiakDenied, match="user and password"):
        client_of(port_of(proxy)).bucket(bucket.name).get("k")
    assert proxy.requests.count("GET") == 1


def test_a_body_that_is_cut_off_is_asked_for_again(proxy, bucket):
    bucket.put("k", bytes(5000), "a/b")
    shaky = client_of(port_of(proxy)).bucket(bucket.name)
    with proxy.fault("GET", truncate(100), times=1):
        assert shaky.get("k").size == 5000
    with proxy.fault("GET", truncate(100)), pytest.raises(RiakUnavailable):
        shaky.get("k")


def test_a_list_of_keys_that_is_cut_off_is_no_list(proxy, bucket):
    bucket.put("k", b"x", "a/b")
    shaky = client_of(port_of(proxy)).bucket(bucket.name)
    with proxy.fault("GET", truncate(5)), pytest.raises(RiakUnavailable):
        list(shaky.keys_by_reading_the_whole_cluster())


def test_a_slow_node_is_passed_over(server, proxy, bucket):
    bucket.put("k", b"x", "a/b")
    impatient = Limits(read=0.3, tries=2, backoff=0)
    both = client_of(port_of(proxy), server.port, limits=impatient).bucket(bucket.name)
    with proxy.fault("GET", delay(60)):
        assert [both.get("k").data for _ in range(3)] == [b"x"] * 3


@pytest.mark.parametrize("fault", [delay(60), drop(), status(503)], ids=["hangs", "drops", "503"])
def test_a_node_that_fails_at_a_first_look_is_left_in_peace(server, proxy, bucket, fault):
    bucket.put("k", b"x", "a/b")
    impatient = Limits(read=0.3, tries=2, backoff=0)
    both = client_of(port_of(proxy), server.port, limits=impatient).bucket(bucket.name)
    with proxy.fault("HEAD", fault):
        assert all(both.exists("k") for _ in range(10))
    assert proxy.requests.count("HEAD") == 1


def test_a_pool_that_is_in_use_is_waited_for_and_named(server, bucket):
    for number in range(1200):
        bucket.put(f"{number}", b"", "a/b")
    nodes = RiakNodes([Node("127.0.0.1", server.port)], pool=1, limits=Limits(request=0.5, tries=1))
    small = RiakClient(nodes).bucket(bucket.name)
    listed = small.keys_by_reading_the_whole_cluster()
    next(listed)
    with pytest.raises(RiakUnavailable, match="all connections of the pool") as caught:
        small.create("k", b"x", "a/b")
    assert "is not known" not in str(caught.value)
    listed.close()
    small.create("k", b"x", "a/b")


class Dribble:
    """A server that gives the rest of its answer a byte at a time; it would take a minute."""

    def __init__(self, answer: bytes, at_once: int) -> None:
        self._answer, self._at_once = answer, at_once
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.stop = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self.stop.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                client.recv(9999)
                client.sendall(self._answer[: self._at_once])
                for byte in self._answer[self._at_once :]:
                    if self.stop.wait(0.05):
                        return
                    client.sendall(bytes([byte]))
        except OSError:
            pass

    def __enter__(self) -> Dribble:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._listener.close()


class Answers:
    """A server that gives these answers, one a request, on whatever connections; an answer that is
    not a whole header ends its connection."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.requests = 0

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            while client.recv(9999):
                self.requests += 1
                answer = self._answers.pop(0)
                client.sendall(answer)
                if b"\r\n\r\n" not in answer or b"close" in answer:
                    return

    def __enter__(self) -> Answers:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nX-Riak-Meta-Long: %b\r\nContent-Length: 1200\r\n\r\n"
)


@pytest.mark.parametrize("at_once", [20, 1200], ids=["header", "body"])
def test_a_server_that_dribbles_cannot_hold_a_thread(at_once):
    answer = HEAD + b"y" * 1200
    short = Limits(read=30, request=0.4, tries=2, backoff=0)
    with Dribble(answer, at_once) as riak:
        bucket = client_of(riak.port, limits=short).bucket("ez")
        with pytest.raises(RiakUnavailable, match=r"in time \(30 s without a byte, or 0.4 s"):
            bucket.get("k")
        if at_once == 20:
            with pytest.raises(RiakUnavailable, match=r"in time \(30 s without a byte, or 0.4 s"):
                bucket.exists("k")


OBJECT = b"HTTP/1.1 200 OK\r\nX-Riak-Vclock: a85h\r\nContent-Length: 5\r\n"
AFTER_A_DOUBT = b"HTTP/1.1 404 Object Not Found\r\nContent-Length: 10\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Riak-Vclock: a85h\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 300 Multiple Choices\r\nX-Riak-Vclock: a85h\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\nX-Riak-Vclock: a85h\r\n\r\n",
        b"HTTP/1.1 4040\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
    ids=["nothing", "cut off", "no vclock", "siblings", "busy", "no code", "nonsense"],
)
def test_what_a_first_look_cannot_tell_is_asked_again(answer):
    with Answers(answer, AFTER_A_DOUBT) as riak:
        assert not client_of(riak.port).bucket("ez").exists("k")
    assert riak.requests == 2


@pytest.mark.parametrize(
    "answer",
    [OBJECT + b"\r\n", OBJECT + b"Connection: close\r\n\r\n", OBJECT + b"\r\nabcde"],
    ids=["kept", "closed", "a body nobody asked for"],
)
def test_what_follows_an_answer_is_not_taken_for_the_next(answer):
    with Answers(answer, AFTER_A_DOUBT, AFTER_A_DOUBT) as riak:
        bucket = client_of(riak.port).bucket("ez")
        assert bucket.exists("k")
        assert not bucket.exists("l")


@pytest.mark.parametrize("size", [7, 10_000])
def test_a_list_of_keys_may_come_in_any_pieces(size):
    body = read(response_bytes("150-list-keys-stream")).body
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Dribble(head + chunks + b"0\r\n\r\n", 10_000) as riak:
        keys = list(client_of(riak.port).bucket("ez").keys_by_reading_the_whole_cluster())
    assert len(keys) == 15
    assert {"meta", "cid", "WHoS39Jqjw6HUBf9pBX4kxiqcgN"} <= set(keys)


def test_a_server_that_does_not_read_cannot_hold_a_thread():
    short = Limits(read=30, request=0.4, tries=1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        bucket = client_of(deaf.getsockname()[1], limits=short).bucket("ez")
        with pytest.raises(RiakUnavailable):
            bucket.put("k", bytes(20 * 2**20), "a/b")


def test_what_is_no_riak_is_said_to_be_none():
    ssh = Dribble(b"SSH-2.0-OpenSSH_9.6\r\n", 99)
    with ssh, pytest.raises(RiakUnavailable, match=f"127.0.0.1:{ssh.port}: .*SSH-2.0"):
        client_of(ssh.port).ping()


def test_a_web_server_is_no_riak(proxy):
    with proxy.fault("GET", status(404)), pytest.raises(RiakUnavailable, match="no Riak"):
        client_of(port_of(proxy)).ping()


# -- TLS and passwords


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, which is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "ca.pem", folder / "key.pem"
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, private


class Guarded:
    """A TLS server that keeps what it was asked, and answers everything with a recording."""

    def __init__(self, certificate: Path, key: Path, recording: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._listener = context.wrap_socket(
            socket.create_server(("127.0.0.1", 0)), server_side=True
        )
        self.port = self._listener.getsockname()[1]
        self.asked: list[bytes] = []
        self._answer = response_bytes(recording)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                with client:
                    while asked := client.recv(9999):
                        self.asked.append(asked)
                        client.sendall(self._answer)
            except ssl.SSLError:
                continue
            except OSError:
                return

    def __enter__(self) -> Guarded:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


def _tls_client(port: int, ca: Path | None, password: str = "geheim") -> RiakClient:
    nodes = RiakNodes(
        [Node("127.0.0.1", port)],
        limits=QUICK,
        tls=ssl.create_default_context(cafile=ca),
        login=("anna", password),
    )
    return RiakClient(nodes)


def test_tls_with_the_right_authority_and_a_password(tmp_path):
    certificate, key = _certificate(tmp_path)
    with Guarded(certificate, key, "008-get-jpeg") as riak:
        found = _tls_client(riak.port, certificate).bucket("ez").get("k")
    assert found.size == 3022
    assert b"\r\nauthorization: Basic YW5uYTpnZWhlaW0=\r\n" in riak.asked[0]


def test_a_certificate_nobody_vouches_for_is_refused(tmp_path):
    certificate, key = _certificate(tmp_path)
    riak = Guarded(certificate, key, "001-ping")
    with riak, pytest.raises(RiakUnavailable, match=r"cannot be trusted.*CA file"):
        _tls_client(riak.port, None).ping()
    assert riak.asked == []


def test_a_server_without_tls_is_no_answer():
    plain = Dribble(b"HTTP/1.1 400 Bad Request\r\n\r\n", 99)
    with plain, pytest.raises(RiakUnavailable, match=r"after 3 tries.*SSL"):
        _tls_client(plain.port, None).ping()


def test_errors_survive_a_copy_between_processes(siblings):
    siblings.put("k", b"one", "a/b")
    siblings.put("k", b"two", "a/b")
    with pytest.raises(RiakSiblings) as caught:
        siblings.get("k")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.siblings) == (str(caught.value), caught.value.siblings)


def test_no_secret_is_shown(tmp_path, caplog):
    caplog.set_level("DEBUG")
    client = _tls_client(free_port(), None)
    with pytest.raises(RiakUnavailable) as caught:
        client.ping()
    shown = f"{caught.value!r} {client!r} {client.nodes!r} {caplog.text} {client.bucket('ez')!r}"
    assert "geheim" not in shown
    assert "YW5uYTpnZWhlaW0" not in shown


def test_a_node_that_was_started_again_is_not_noticed(tmp_path):
    with RiakServer(tmp_path) as riak:
        bucket = client_of(riak.port).bucket("ez")
        bucket.put("k", b"x", "a/b")
    with RiakServer(tmp_path, port=riak.port):
        assert bucket.get("k").data == b"x"
