"""Keys are copied between real Redis servers as they are, and what is then there is looked at."""

import json
import os
import signal
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecore import rediscopy
from imagecore.errors import InfrastructureError, PlanRefused
from imagecore.outcome import Result, State
from imagecore.rediscopy import CopyInPages, RedisCopy
from imagecore.rediskeys import Partials, count_existing, keys_to_copy, refuse_same
from tests.redistools import NewRedis, client_of, damaging, database

pytest_plugins = ("tests.redisfixtures",)

PREFIX = "content:v1:de:de:live:"


@pytest.fixture
def copy(source, target):
    """Copies keys, and gives their results."""

    def run(*keys: bytes, replace: bool = False, force: bool = False) -> list[Result]:
        way = RedisCopy(database(source), database(target), replace=replace, force=force)
        return way.copy(list(keys))

    return run


VALUES = {
    "string": lambda client: client.set("k", b"\x00\xff\r\n" * 100),
    "empty": lambda client: client.set("k", b""),
    "number": lambda client: client.set("k", 42),
    "50 MB": lambda client: client.set("k", b"x" * 50_000_000),
    "list": lambda client: client.rpush("k", *range(1_000)),
    "set of numbers": lambda client: client.sadd("k", *range(100)),
    "set": lambda client: client.sadd("k", *(f"member {n}" for n in range(2_000))),
    "hash": lambda client: client.hset("k", mapping={b"\xff": b"\x00", "b": "1"}),
    "large hash": lambda client: client.hset("k", mapping={f"f{n}": n for n in range(2_000)}),
    "zset": lambda client: client.zadd("k", {f"m{n}": n / 7 for n in range(2_000)}),
    "stream": lambda client: (client.xadd("k", {"a": 1}), client.xgroup_create("k", "group")),
    "hyperloglog": lambda client: client.pfadd("k", *range(5_000)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_every_type_are_copied_and_verified(source, target, copy, kind):
    VALUES[kind](source)
    [result] = copy(b"k")
    assert (result.state, result.reason) == (State.DONE, "")
    assert target.type("k") == source.type("k")
    assert rediscopy._READ[source.type("k")](target, b"k") == rediscopy._READ[source.type("k")](
        source, b"k"
    )
    assert target.pttl("k") == -1
    assert copy(b"k")[0] == Result(State.SKIPPED, "there already, the same")


@settings(max_examples=50)
@given(
    contents=st.dictionaries(st.binary(), st.tuples(st.binary(), st.sampled_from([None, 5_000]))),
)
def test_any_bytes_may_be_in_keys_and_values(redis_server, other_server, contents):
    source, target = client_of(redis_server), client_of(other_server)
    source.flushall()
    target.flushall()
    for key, (value, ttl) in contents.items():
        source.set(key, value, px=ttl)
    way = RedisCopy(database(source), database(target), replace=False)
    results = way.copy(list(contents))
    assert [result.state for result in results] == [State.DONE] * len(contents)
    for key, (value, ttl) in contents.items():
        assert target.get(key) == value
        assert (target.pttl(key) == -1) == (ttl is None)


def test_the_time_to_live_is_kept(source, target, copy):
    source.set("k", "v", px=100_000)
    assert copy(b"k")[0].state is State.DONE
    assert source.pttl("k") - 1_000 < target.pttl("k") <= source.pttl("k") + 5


def test_a_key_that_expired_since_it_was_planned_is_skipped(source, target, copy):
    source.set("k", "v", px=1)
    while source.exists("k"):
        pass
    assert copy(b"k") == [Result(State.SKIPPED, "expired or deleted since it was planned")]
    assert target.keys() == []


def test_a_key_that_expires_on_the_way_never_becomes_one_that_stays(source, target, copy):
    """RESTORE takes a time to live of 0 for none."""
    source.set("k", "v", px=200)
    target.execute_command("CLIENT", "PAUSE", 600)
    assert copy(b"k") == [Result(State.SKIPPED, "expired or deleted since it was planned")]
    assert not target.exists("k")


def test_a_key_that_is_there_with_another_value_is_skipped(source, target, copy):
    source.set("k", "new")
    target.set("k", "old")
    assert copy(b"k") == [
        Result(State.SKIPPED, "there already, with another value or time to live")
    ]
    assert target.get("k") == b"old"


def test_or_replaced_also_when_it_has_another_type_or_time_to_live(source, target, copy):
    source.mset({"a": "new", "b": "new", "c": "same"})
    target.set("a", "old")
    target.rpush("b", "old")
    target.set("c", "same", ex=100)
    results = copy(b"a", b"b", b"c", replace=True)
    assert [result.state for result in results] == [State.DONE] * 3
    assert target.mget("a", "b", "c") == [b"new", b"new", b"same"]
    assert target.pttl("c") == -1


def test_what_is_there_the_same_is_written_again_only_by_force(source, target, copy):
    source.set("k", "v")
    target.set("k", "v")
    assert copy(b"k", replace=True)[0].reason == "there already, the same"
    assert copy(b"k", replace=True, force=True)[0].state is State.DONE
    assert copy(b"k", force=True)[0].reason == "there already, the same"


def test_results_come_in_the_order_of_the_keys(source, copy):
    source.set("a", "1")
    source.set("c", "1")
    states = [result.state for result in copy(b"c", b"b", b"a")]
    assert states == [State.DONE, State.SKIPPED, State.DONE]


def test_one_key_that_cannot_be_restored_is_its_own_failure(redis_server, source, target):
    """As one of a newer Redis, or one damaged on the way."""
    source.mset({"good": "one", "bad": "DAMAGE ME", "also good": "two"})
    with damaging(redis_server.port, b"DAMAGE", b"damage") as port:
        wire = redis.Redis(host="127.0.0.1", port=port)
        way = RedisCopy(database(wire), database(target), replace=False)
        good, bad, also_good = way.copy([b"good", b"bad", b"also good"])
        wire.close()
    assert (good.state, also_good.state) == (State.DONE, State.DONE)
    assert bad.state is State.FAILED
    assert bad.reason == "not restored: DUMP payload version or checksum are wrong"
    assert sorted(target.keys()) == [b"also good", b"good"]


def test_a_copy_that_is_not_what_the_source_has_fails(other_server, source, target):
    source.set("k", "DAMAGE ME")
    with damaging(other_server.port, b"DAMAGE", b"damage") as port:
        wire = redis.Redis(host="127.0.0.1", port=port)
        [result] = RedisCopy(database(source), database(wire), replace=False).copy([b"k"])
        wire.close()
    assert result.state is State.FAILED
    assert "the copy is not what the source has" in result.reason


def test_a_full_destination_stops_the_copy(new_redis: NewRedis, source):
    source.set("k", "v")
    full = client_of(new_redis("--maxmemory", "100kb", "--maxmemory-policy", "noeviction"))
    with pytest.raises(InfrastructureError, match="used memory > 'maxmemory'"):
        RedisCopy(database(source), database(full), replace=False).copy([b"k"])


def test_a_destination_that_drops_keys_is_noticed(new_redis: NewRedis, source):
    names = [f"k{number}".encode() for number in range(40)]
    source.mset({name: b"v" * 100_000 for name in names})
    small = client_of(new_redis("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-random"))
    results = RedisCopy(database(source), database(small), replace=False).copy(names)
    there = {name for name in names if small.exists(name)}
    done = {n for n, result in zip(names, results, strict=True) if result.state is State.DONE}
    assert there <= done  # looking evicts as well
    lost = [result for result in results if result.state is State.FAILED]
    assert len(lost) == 40 - len(done) > 0
    assert "does that evict keys?" in lost[0].reason


def test_a_replica_is_not_written_to(new_redis: NewRedis, redis_server, source):
    source.set("k", "v")
    other = new_redis("--replicaof", "127.0.0.1", "1")
    with pytest.raises(InfrastructureError, match="read only replica"):
        RedisCopy(database(source), database(client_of(other)), replace=False).copy([b"k"])


def test_large_values_do_not_go_together(source, copy, monkeypatch):
    monkeypatch.setattr(rediscopy, "CHUNK_BYTES", 2 * 2**20)
    keys = [f"k{number}".encode() for number in range(20)]
    for key in keys:
        source.set(key, os.urandom(2**20))
    tracemalloc.start()
    assert {result.state for result in copy(*keys)} == {State.DONE}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20  # all of them, read from both servers, are 40 MB


def test_redis_going_away_is_an_infrastructure_error(new_redis: NewRedis, source):
    source.set("k", "v")
    server = new_redis()
    way = RedisCopy(database(source), database(client_of(server), "redis_dev"), replace=False)
    os.kill(server.process.pid, signal.SIGKILL)
    with pytest.raises(InfrastructureError, match="Redis redis_dev cannot be used"):
        way.copy([b"k"])


def test_from_a_server_into_a_cluster_and_back(source, target, redis_cluster):
    redis_cluster.flushall()
    names = [f"k{number}".encode() for number in range(200)]
    source.mset({name: name for name in names})
    there = RedisCopy(database(source), database(redis_cluster), replace=False).copy(names)
    back = RedisCopy(database(redis_cluster), database(target), replace=False).copy(names)
    assert {result.state for result in (*there, *back)} == {State.DONE}
    assert target.mget(names) == names


def test_the_same_database_is_refused_whatever_its_address(redis_server):
    one = database(client_of(redis_server), "redis_live")
    other = database(redis.Redis(host="localhost", port=redis_server.port), "redis_dev")
    with pytest.raises(PlanRefused, match="redis_live and redis_dev lead to the same"):
        refuse_same(one, other)


def test_another_database_of_the_same_server_is_not_the_same(redis_server, target):
    one, other = client_of(redis_server), client_of(redis_server, db=1)
    refuse_same(database(one), database(other))
    one.set("k", "v")
    assert RedisCopy(database(one), database(other), replace=False).copy([b"k"])[0].state == "done"
    assert other.get("k") == b"v"


def test_a_replica_of_the_same_server_is_refused(new_redis: NewRedis):
    primary = new_redis(folder="primary")
    replica = new_redis(
        *("--appendonly", "no", "--replicaof", "127.0.0.1", str(primary.port)), folder="replica"
    )
    client = client_of(replica)
    while client.info("replication")["master_link_status"] != "up":
        pass
    with pytest.raises(PlanRefused, match="replicas of one"):
        refuse_same(database(client_of(primary)), database(client))


def test_keys_are_listed_once_whatever_the_patterns(source, tmp_path):
    source.mset({"content:a": "1", "content:b": "1", "buzz:a": "1", "other": "1"})
    keys = keys_to_copy(database(source), ["content:*", "*:a"], tmp_path)
    assert list(keys) == [b"buzz:a", b"content:a", b"content:b"]


def test_existing_keys_are_counted(target):
    target.mset({"a": "1", "b": "1"})
    assert count_existing(database(target), [b"a", b"b", b"c"]) == 2
    assert count_existing(database(target), []) == 0


class Pages:
    """Documents that lead to each other, and the keys that are found from the pattern `page:*`."""

    def __init__(self, client: Any, folder: Any) -> None:
        self.client = client
        self.folder = folder
        self.remarks: list[tuple[str, str]] = []

    def put(self, key: str, *urls: Any) -> None:
        nested = [{"deep": [{"url": url}]} for url in urls]
        self.client.set(key, json.dumps({"title": "x", "parts": nested}))

    def found(self, max_bytes: int = 10**6) -> list[str]:
        partials = Partials(PREFIX, max_bytes, lambda key, why: self.remarks.append((key, why)))
        keys = keys_to_copy(database(self.client), ["page:*"], self.folder, partials)
        return [key.decode() for key in keys]


@pytest.fixture
def pages(source, tmp_path):
    return Pages(source, tmp_path)


def test_partials_are_followed_from_one_to_the_next(pages):
    pages.put("page:1", "/a_partial", "/no/part")
    pages.put(f"{PREFIX}/a_partial", "/b_partial?x=1")
    pages.put(f"{PREFIX}/b_partial?x=1")
    pages.put(f"{PREFIX}/no/part")
    assert pages.found() == [f"{PREFIX}/a_partial", f"{PREFIX}/b_partial?x=1", "page:1"]
    assert pages.remarks == []


def test_partials_in_a_circle_end(pages):
    pages.put("page:1", "/a_partial")
    pages.put(f"{PREFIX}/a_partial", "/b_partial", "/a_partial")
    pages.put(f"{PREFIX}/b_partial", "/a_partial")
    assert pages.found() == [f"{PREFIX}/a_partial", f"{PREFIX}/b_partial", "page:1"]


def test_a_partial_that_is_not_there_is_remarked(pages):
    pages.put("page:1", "/a_partial")
    assert pages.found() == ["page:1"]
    assert pages.remarks == [(f"{PREFIX}/a_partial", "a document leads to it, and it is not there")]


def test_only_texts_are_urls(pages):
    pages.put("page:1", None, 7, ["/a_partial"], {"url_partial": "/a_partial"})
    pages.put(f"{PREFIX}/a_partial")
    assert pages.found() == ["page:1"]


def test_what_is_no_document_is_copied_and_not_searched(pages, source):
    source.set("page:1", b"\xff no json")
    source.rpush("page:2", "x")
    source.set("page:3", b"x" * 100)
    assert pages.found(max_bytes=99) == ["page:1", "page:2", "page:3"]
    assert [key for key, _ in pages.remarks] == ["page:3", "page:1"]


def test_many_threads_get_each_key_s_own_result_of_pages_copied_together(source, target):
    keys = [f"k{number}".encode() for number in range(1_200)]
    source.mset(dict.fromkeys(keys[::2], "v"))
    source.config_resetstat()
    copy = CopyInPages(RedisCopy(database(source), database(target), replace=False), keys)
    with ThreadPoolExecutor(16) as pool:
        states = [result.state for result in pool.map(copy.result, keys)]
    assert states == [State.DONE, State.SKIPPED] * 600
    assert source.info("commandstats")["cmdstat_dump"]["calls"] == 1_200


def test_a_page_that_broke_off_can_be_asked_for_again(new_redis: NewRedis, source):
    source.set("k", "v")
    server = new_redis()
    way = RedisCopy(database(source), database(client_of(server)), replace=False)
    copy = CopyInPages(way, [b"k"])
    server.stop()
    with pytest.raises(InfrastructureError):
        copy.result(b"k")
    new_redis(port=server.port)
    assert copy.result(b"k").state is State.DONE
