"""Image references are found in a real Redis, whatever else is in there."""

import json
import os
import signal
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecore import extsort, redisdocs
from imagecore.errors import InfrastructureError, PlanRefused
from imagecore.redisdb import SCAN_COUNT
from imagecore.redisrefs import KEPT_KEYS, ReferenceScan
from imagecore.refrules import KEY_NAMES, RefRules
from tests.redistools import NewRedis, client_of, database

pytest_plugins = ("tests.redisfixtures",)

PAGE = "content:v1:de:de:live:/page"
REF = "11e60398-Wikipedia"


class Scanned:
    """A scan that is done: the items by key, and the findings."""

    def __init__(self, client: Any, folder: Path, **rules: Any) -> None:
        scan = ReferenceScan(database(client), RefRules(**rules), folder)
        self.items = list(scan.items())
        self.keys = [item["key"] for item in self.items]
        self.scan = scan
        lines = scan.findings_file.read_text().splitlines()
        self.findings = [json.loads(line) for line in lines]
        self.kinds = {finding["redis_key"]: finding["kind"] for finding in self.findings}

    def reason(self, redis_key: str) -> str:
        return next(each["reason"] for each in self.findings if each["redis_key"] == redis_key)


@pytest.fixture
def scanned(source, tmp_path):
    """Puts documents into Redis, by key, and scans it."""

    def run(documents: dict | None = None, **rules: Any) -> Scanned:
        for key, value in (documents or {}).items():
            source.set(key, value if isinstance(value, bytes) else json.dumps(value))
        return Scanned(source, tmp_path, **rules)

    return run


@pytest.mark.parametrize("name", KEY_NAMES)
def test_every_key_name_of_the_legacy_is_looked_for(scanned, name):
    assert scanned({PAGE: {name: f"ez/{REF}"}}).keys == [REF]


def test_both_patterns_are_listed_and_no_other_key(scanned):
    keys = ("content:v1:de:de:live:a", "buzz:v1:de:de:live:b", "content:v1:de:de:draft:c")
    found = scanned({key: {"src": f"ez/1-{key[-1]}.jpg"} for key in keys})
    assert found.keys == ["1-a.jpg", "1-b.jpg"]


def test_patterns_key_names_and_prefix_are_parameters(scanned):
    found = scanned(
        {"k:1": {"bild": "riak/1-a.jpg", "src": "riak/2-b.jpg"}},
        patterns=("k:*",),
        key_names=("bild",),
        prefix="riak/",
    )
    assert found.keys == ["1-a.jpg"]


def test_references_are_found_at_any_depth_in_objects_and_lists(scanned):
    document: Any = {"src": "ez/1-inner.jpg"}
    for _ in range(100):
        document = {"x": [document, {"y": 1}]}
    found = scanned({PAGE: [{"image": {"src": "ez/2-image.jpg"}}, document]})
    assert found.keys == ["1-inner.jpg", "2-image.jpg"]
    assert found.findings == []


def test_a_key_name_that_an_object_has_twice_counts_twice(scanned):
    assert scanned({PAGE: b'{"src": "ez/1-a.jpg", "src": "ez/2-b.jpg"}'}).keys == [
        "1-a.jpg",
        "2-b.jpg",
    ]


def test_an_escaped_key_name_is_the_same_name(scanned):
    assert scanned({PAGE: rb'{"\u0073rc": "ez\/1-a.jpg"}'}).keys == ["1-a.jpg"]


def test_a_reference_names_the_first_documents_that_have_it_and_counts_all(scanned):
    pages = {f"{PAGE}/{number:03d}": {"src": f"ez/{REF}", "x": 1} for number in range(30)}
    [item] = scanned(pages).items
    assert item == {"key": REF, "redis_keys": sorted(pages)[:KEPT_KEYS], "documents": 30}


def test_a_document_that_has_a_reference_often_counts_once(scanned):
    [item] = scanned({PAGE: [{"src": f"ez/{REF}"}, {"image": f"ez/{REF}"}]}).items
    assert (item["redis_keys"], item["documents"]) == ([PAGE], 1)


def test_a_document_that_both_patterns_list_counts_once(scanned):
    [item] = scanned({PAGE: {"src": f"ez/{REF}"}}, patterns=("content:*", "*page")).items
    assert item["documents"] == 1


def test_a_binary_key_is_named_without_loss(scanned, source):
    key = b"content:v1:de:de:live:\xff\x00\n"
    source.set(key, json.dumps({"src": f"ez/{REF}"}))
    [item] = scanned().items
    [named] = item["redis_keys"]
    assert named.encode("utf-8", "surrogateescape") == key
    assert json.loads(json.dumps(item)) == item


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        ("http://x/y.jpg", "foreign", "src is http://x/y.jpg"),
        (" ez/1-a.jpg", "foreign", "src is  ez/1-a.jpg"),
        ("", "empty", 'src is ""'),
        ("ez/", "empty", 'src is "ez/"'),
        (None, "empty", "src is null"),
        (7, "not_a_string", "src is a number"),
        (True, "not_a_string", "src is true or false"),
        (["ez/1-a.jpg"], "not_a_string", "src is a list"),
        ("ez/abc", "malformed", "src is ez/abc: it has no dash"),
        ("ez/xyz-a.jpg", "malformed", "src is ez/xyz-a.jpg: its hash is not 1 to 8"),
        ("ez/1-", "malformed", "it has no file name"),
        ("ez/1-a\0.jpg", "malformed", "a slash or a control character"),
        ("ez/1-\ud800.jpg", "malformed", "it cannot be written as UTF-8"),
        ("ez/1-" + "x" * 2_000, "malformed", "its 2,002 bytes are more than 1,024"),
    ],
)
def test_what_is_no_reference_is_a_finding_with_its_reason(scanned, value, kind, reason):
    found = scanned({PAGE: {"src": value}, f"{PAGE}/good": {"src": f"ez/{REF}"}})
    assert found.keys == [REF]
    assert found.kinds == {PAGE: kind}
    assert reason in found.reason(PAGE)
    assert found.scan.findings == {kind: 1}


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        (b"", "not_json", "Expecting value at character 0"),
        (b"{", "not_json", "at character 1"),
        (b'{"src": "ez/1-a.jpg"', "not_json", "at character 20"),
        (b'{"src": NaN}', "not_json", "NaN is no JSON"),
        (b'\xff{"src": 1}', "not_json", "not UTF-8 at byte 0"),
        (b'{"src": "ez/1-\xfc.jpg"}', "not_json", "not UTF-8 at byte 14"),
        (b"\x80\x04pickle", "not_json", "not UTF-8 at byte 0"),
        (b"[" * 200_000, "too_deep", "nested too deeply"),
        (b'{"a":' * 200_000, "too_deep", "nested too deeply"),
        (b'{"src": ' * 50_000 + b"1" + b"}" * 50_000, "too_deep", "nested too deeply"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_document_is_one_finding_and_never_the_end(scanned, value, kind, reason):
    found = scanned({PAGE: value, f"{PAGE}/good": {"src": f"ez/{REF}"}})
    assert found.keys == [REF]
    assert found.kinds == {PAGE: kind}
    assert reason in found.reason(PAGE)


def test_a_number_of_any_length_is_json(scanned):
    assert scanned({PAGE: b'{"n": ' + b"9" * 10_000 + b', "src": "ez/1-a.jpg"}'}).findings == []


@pytest.mark.parametrize("kind", ["list", "set", "hash", "zset", "stream"])
def test_a_key_of_another_redis_type_is_a_finding(scanned, source, kind):
    {
        "list": lambda: source.rpush(PAGE, "x"),
        "set": lambda: source.sadd(PAGE, "x"),
        "hash": lambda: source.hset(PAGE, "src", f"ez/{REF}"),
        "zset": lambda: source.zadd(PAGE, {"x": 1}),
        "stream": lambda: source.xadd(PAGE, {"x": "1"}),
    }[kind]()
    found = scanned({f"{PAGE}/good": {"src": f"ez/{REF}"}})
    assert found.keys == [REF]
    assert found.kinds == {PAGE: "not_a_string"}
    assert found.reason(PAGE) == f"its Redis type is {kind}"


def test_a_key_that_is_gone_since_it_was_listed_is_a_finding(source):
    source.set("there", "{}")
    read = redisdocs.read_documents(database(source), [b"gone", b"there"], max_bytes=100)
    assert [(each[0], each[1]) for each in read] == [
        ("gone", redisdocs.Kind.VANISHED),
        (b"there", b"{}"),
    ]


def test_a_document_of_50_mb_is_read(scanned):
    found = scanned({PAGE: {"text": "x" * 50_000_000, "src": f"ez/{REF}"}})
    assert (found.keys, found.findings) == ([REF], [])


def test_a_document_of_50_mb_takes_a_few_times_its_size(scanned, source):
    rows = [{"teaser": {"text": "x" * 500, "image": f"ez/{n}-a.jpg"}} for n in range(80)]
    source.set(PAGE, document := json.dumps(rows * 1_100))
    assert len(document) > 48_000_000
    tracemalloc.start()
    found = scanned()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.keys) == 80
    assert peak < 4 * len(document)


def test_a_document_over_the_limit_is_a_finding_and_is_not_read(scanned, source):
    found = scanned({PAGE: {"src": "x" * 1_000_000}}, max_document_bytes=999_999)
    assert found.kinds == {PAGE: "too_large"}
    assert found.reason(PAGE) == "its 1,000,011 bytes are more than the 999,999 allowed"
    assert found.scan.documents == 0


def test_large_documents_do_not_come_together(source):
    keys = [f"k{number}".encode() for number in range(40)]
    for key in keys:
        source.set(key, b"x" * 500_000)
    redis = database(source)
    list(redisdocs.read_documents(redis, keys[:1], max_bytes=10**7))  # what a client keeps
    tracemalloc.start()
    for _ in redisdocs.read_documents(redis, keys, max_bytes=10**7):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * redisdocs.CHUNK_BYTES  # all of them are 20 MB


def test_keys_command_is_never_used(scanned, source):
    source.config_resetstat()
    scanned({f"{PAGE}/{number}": {"src": f"ez/{REF}"} for number in range(10)})
    used = set(source.info("commandstats"))
    assert "cmdstat_keys" not in used
    assert {"cmdstat_scan", "cmdstat_mget"} <= used


def test_items_come_in_ascending_order_and_memory_is_bounded(source, tmp_path, monkeypatch):
    pipeline = source.pipeline(transaction=False)
    for number in range(3_000):
        images = [{"src": f"ez/{number * 7_919 + n:08x}-picture.jpg"} for n in range(10)]
        pipeline.set(f"{PAGE}/{number}", json.dumps(images))
    pipeline.execute()
    monkeypatch.setattr(extsort, "SORT_BYTES", 1_000_000)
    tracemalloc.start()
    last, count = "", 0
    for item in ReferenceScan(database(source), RefRules(), tmp_path).items():
        assert item["key"] > last
        last, count = item["key"], count + 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 30_000
    assert peak < 6_000_000  # all of the rows are more than 10 MB


TEXTS = st.sampled_from(["ez/1-a.jpg", "ez/2-b.jpg", "http://x", "", "ez/"])
TREES = st.recursive(
    TEXTS | st.none() | st.integers() | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["src", "image", "x", "url"]), inner, max_size=3)
    ),
    max_leaves=20,
)


def walk(tree: Any) -> set[str]:
    """The references of a tree, found the plain way."""
    if isinstance(tree, list):
        return {found for each in tree for found in walk(each)}
    if not isinstance(tree, dict):
        return set()
    own = {
        value[3:]
        for name, value in tree.items()
        if name in KEY_NAMES and isinstance(value, str) and value[:3] == "ez/" and value[3:]
    }
    return own | {found for each in tree.values() for found in walk(each)}


@settings(max_examples=60)
@given(trees=st.lists(TREES, min_size=1, max_size=4))
def test_what_is_found_is_what_a_plain_walk_of_the_documents_finds(
    redis_server, tmp_path_factory, trees
):
    client = client_of(redis_server)
    client.flushall()
    for number, tree in enumerate(trees):
        client.set(f"{PAGE}/{number}", json.dumps(tree))
    found = Scanned(client, tmp_path_factory.mktemp("scan"))
    assert found.keys == sorted(set().union(*map(walk, trees)))
    for item in found.items:
        pages = [f"{PAGE}/{n}" for n, tree in enumerate(trees) if item["key"] in walk(tree)]
        assert (item["redis_keys"], item["documents"]) == (pages, len(pages))


def test_a_cluster_is_listed_on_all_its_servers(redis_cluster, tmp_path):
    for number in range(300):
        redis_cluster.set(f"{PAGE}/{number}", json.dumps({"src": f"ez/{number:x}-a.jpg"}))
    redis_cluster.rpush(f"{PAGE}/list", 1)
    redis_cluster.set(f"{PAGE}/bad", "{")
    found = Scanned(redis_cluster, tmp_path)
    assert len(found.keys) == 300
    assert found.kinds == {f"{PAGE}/list": "not_a_string", f"{PAGE}/bad": "not_json"}


def test_one_node_of_a_cluster_by_itself_is_refused(redis_cluster):
    node = redis_cluster.get_primaries()[0]
    with pytest.raises(PlanRefused, match=r'add {"cluster": true} to its extra'):
        database(redis_cluster.get_redis_connection(node)).check()


def filled(server: Any, count: int = 5 * SCAN_COUNT) -> Any:
    client = client_of(server)
    client.mset({f"{PAGE}/{number}": '{"src": "ez/1-a.jpg"}' for number in range(count)})
    return client


def test_connections_that_break_in_mid_scan_are_made_anew(new_redis: NewRedis):
    server = new_redis()
    keys = database(filled(server)).scan("content:*")
    found = {next(keys)}
    client_of(server).execute_command("CLIENT", "KILL", "TYPE", "normal")
    assert len(found | set(keys)) == 5 * SCAN_COUNT


def test_redis_killed_in_mid_scan_is_an_infrastructure_error(new_redis: NewRedis):
    server = new_redis()
    keys = database(filled(server), "redis_live").scan("content:*")
    next(keys)
    os.kill(server.process.pid, signal.SIGKILL)
    with pytest.raises(InfrastructureError, match="Redis redis_live cannot be used"):
        list(keys)


def test_redis_started_again_in_mid_scan_is_an_infrastructure_error(new_redis: NewRedis):
    """Its hash tables are in another order then: going on would pass keys by."""
    server = new_redis()
    keys = database(filled(server)).scan("content:*")
    next(keys)
    server.stop()
    new_redis(port=server.port)
    with pytest.raises(InfrastructureError, match=r"started again .* The next try begins anew"):
        list(keys)


def test_nothing_comes_of_a_scan_that_breaks_off(new_redis: NewRedis, tmp_path):
    server = new_redis()
    client = filled(server)
    client_of(server).execute_command("CLIENT", "PAUSE", 60_000)
    killer = threading.Timer(0.5, os.kill, (server.process.pid, signal.SIGKILL))
    killer.start()
    items = ReferenceScan(database(client), RefRules(), tmp_path).items()
    with pytest.raises(InfrastructureError):
        next(items)
    killer.join()


def test_a_wrong_password_is_refused_and_not_told(new_redis: NewRedis):
    server = new_redis("--requirepass", "s3cret")
    with pytest.raises(PlanRefused, match="does not let us in") as refused:
        list(database(client_of(server, password="gue55")).scan("*"))
    assert "gue55" not in str(refused.value)
