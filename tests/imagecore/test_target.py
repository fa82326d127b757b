"""A bucket is written to, and nothing is replaced or deleted there but what was expected."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from devstack.samples import client
from imagecore.content import FileContent, look
from imagecore.errors import InfrastructureError, ItemFailed
from imagecore.s3 import Bucket, ObjectChanged, ObjectDamaged, ObjectMissing
from imagecore.target import Conditions, Target, abort_uploads, headers_of, probe
from imagecore.uploadlog import UploadLog
from tests.faults import (
    FaultProxy,
    call,
    corrupt_request,
    denied,
    drop,
    header,
    status,
)
from tests.objects import (
    honours,
    impatient,
    kept,
    new_bucket_of,
    put,
    snapshot,
    uploads,
    versions,
    with_shortcut,
)
from tests.objects import through as by_way_of

MIB = 2**20
LARGE = b"large " * (MIB + MIB // 8)
"""6.75 MiB: two parts."""
CONDITIONAL = ("CopyObject", "CompleteMultipartUpload")
DRESSED = {
    "ContentType": "image/png",
    "CacheControl": "max-age=60",
    "Metadata": {"Photographer": "Ann"},
}
MOTO, RCLONE = "s3_endpoint", "rclone_endpoint"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Parts as small as S3 takes them, and no pauses."""
    monkeypatch.setattr("imagecore.target.PART_BYTES", 5 * MIB)
    impatient(monkeypatch)


@pytest.fixture(params=[MOTO, RCLONE])
def endpoint(request) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=[False, True], ids=["boto3", "shortcut"])
def bucket(request, endpoint) -> Bucket:
    bucket = new_bucket_of(client(endpoint))
    return with_shortcut(bucket) if request.param else bucket


@pytest.fixture
def moto(s3_endpoint) -> Bucket:
    return new_bucket_of(client(s3_endpoint))


@pytest.fixture
def rclone(rclone_endpoint) -> Bucket:
    return new_bucket_of(client(rclone_endpoint))


@pytest.fixture
def through() -> Iterator[Callable[[Bucket], tuple[FaultProxy, Bucket]]]:
    """A fault proxy, and the same bucket through it."""
    proxies = []

    def make(bucket: Bucket) -> tuple[FaultProxy, Bucket]:
        proxy = FaultProxy(bucket.client.meta.endpoint_url)
        proxies.append(proxy)
        return proxy, by_way_of(bucket, proxy.url)

    yield make
    for proxy in proxies:
        proxy.__exit__(None)


@pytest.fixture
def strict(moto, through) -> tuple[FaultProxy, Bucket]:
    """A server that honours every condition."""
    proxy, bucket = through(moto)
    proxy.on(lambda request: request.operation in CONDITIONAL, honours(moto.client))
    return proxy, bucket


def target_of(bucket: Bucket, **options) -> Target:
    """A target whose server was asked what it honours."""
    return Target(bucket, probe(bucket, "probe"), **options)


def write(target: Target, key: str, data: bytes, expected: str | None, **headers) -> str:
    headers = {"ContentType": "image/jpeg"} | headers
    return target.write(key, [data], len(data), headers, expected).etag


# What a server honours is found out


def test_moto_honours_conditions_on_puts_and_deletes_alone(moto):
    assert probe(moto, "a/probe") == Conditions(put=True, delete=True)


def test_rclone_takes_every_condition_and_honours_none(rclone):
    assert probe(rclone, "a/probe") == Conditions()


def test_a_server_that_honours_everything_is_recognised(strict):
    assert probe(strict[1], "a/probe") == Conditions(True, True, True, True, True)


def test_probing_leaves_nothing_behind(bucket):
    probe(bucket, "a/probe")
    assert (versions(bucket), uploads(bucket)) == ({}, [])


@pytest.mark.parametrize("operation", ["CopyObject", "CompleteMultipartUpload", "UploadPart"])
def test_probing_a_server_that_breaks_leaves_nothing_behind(bucket, through, operation):
    proxy, behind = through(bucket)
    proxy.on(operation, drop())
    with pytest.raises(InfrastructureError):
        probe(behind, "a/probe")
    assert (versions(bucket), uploads(bucket)) == ({}, [])


# Nothing is replaced or deleted but what was expected


def operations(bucket: Bucket) -> dict[str, Callable[[Target, str | None], object]]:
    """Every way to change the object `a`."""
    put(bucket, "source", b"of the source")
    return {
        "write": lambda target, expected: write(target, "a", b"ours", expected),
        "write in parts": lambda target, expected: write(target, "a", LARGE, expected),
        "copy": lambda target, expected: target.copy(look(bucket, "source"), "a", expected),
        "delete": lambda target, expected: target.delete("a", expected or "0" * 32),
    }


@pytest.mark.parametrize("how", ["write", "write in parts", "copy", "delete"])
@pytest.mark.parametrize("expected", [None, "0" * 32], ids=["nothing", "another"])
def test_an_object_that_was_not_expected_stays_as_it_is(bucket, how, expected):
    put(bucket, "a", b"theirs", **DRESSED)
    change = operations(bucket)[how]
    before = snapshot(bucket)
    with pytest.raises(ObjectChanged):
        change(target_of(bucket), expected)
    assert (snapshot(bucket), uploads(bucket)) == (before, [])


@pytest.mark.parametrize("how", ["write", "write in parts", "copy", "delete"])
def test_what_was_to_be_replaced_and_is_gone_does_not_come_back(bucket, how):
    change = operations(bucket)[how]
    with pytest.raises((ObjectChanged, ObjectMissing)):
        change(target_of(bucket), "0" * 32)
    assert (set(versions(bucket)), uploads(bucket)) == ({"source"}, [])


@pytest.mark.parametrize("how", ["write", "write in parts", "copy"])
@pytest.mark.parametrize("there", [False, True], ids=["new", "replacing"])
def test_what_was_expected_is_written(bucket, how, there):
    expected = put(bucket, "a", b"theirs") if there else None
    wrote = operations(bucket)[how](target_of(bucket), expected)
    assert versions(bucket)["a"] == getattr(wrote, "etag", wrote)
    assert kept(bucket, "a").data in {b"ours", LARGE, b"of the source"}


def test_what_was_expected_is_deleted(bucket):
    target_of(bucket).delete("a", put(bucket, "a"))
    assert versions(bucket) == {}


# A foreign write in the window between our look and our request


REQUESTS = {
    "write": "PutObject",
    "write in parts": "CompleteMultipartUpload",
    "copy": "CopyObject",
    "delete": "DeleteObject",
}


@pytest.mark.parametrize("how", REQUESTS)
@pytest.mark.parametrize("there", [False, True], ids=["new", "replacing"])
def test_conditions_protect_what_is_written_in_the_last_moment(moto, through, how, there):
    if how == "delete" and not there:
        return
    expected = put(moto, "a", b"old") if there else None
    change, foreign = operations(moto)[how], call(lambda _: put(moto, "a", b"foreign"))
    proxy, behind = through(moto)
    probing = proxy.on(lambda r: r.operation in CONDITIONAL, honours(moto.client))
    target = target_of(behind)
    proxy.rules.remove(probing)
    both = (foreign, honours(moto.client)) if REQUESTS[how] in CONDITIONAL else (foreign,)
    proxy.on(REQUESTS[how], *both, key="a")
    with pytest.raises(ObjectChanged):
        change(target, expected)
    assert kept(moto, "a").data == b"foreign"
    assert uploads(moto) == []


@pytest.mark.parametrize("how", ["write", "write in parts", "copy"])
def test_what_is_written_right_after_ours_stays_and_is_reported(bucket, through, how):
    change = operations(bucket)[how]
    target = target_of(through(bucket)[1])
    proxy, target.bucket = through(bucket)
    foreign = call(lambda _: put(bucket, "a", b"foreign"), after_upstream=True)
    proxy.on(REQUESTS[how], foreign, key="a", times=1)
    with pytest.raises(ObjectChanged, match="someone else wrote it"):
        change(target, None)
    assert kept(bucket, "a").data == b"foreign"


# Damage


def test_a_put_that_arrives_damaged_is_noticed_and_deleted_again(bucket, through):
    proxy, behind = through(bucket)
    target = target_of(behind)
    proxy.on("PutObject", corrupt_request(1), times=1)
    with pytest.raises(ObjectDamaged, match="deleted again"):
        write(target, "a", b"ours", None)
    assert versions(bucket) == {}


def test_a_part_that_arrives_damaged_never_becomes_visible(bucket, through):
    put(bucket, "a", b"theirs")
    before = versions(bucket)
    proxy, behind = through(bucket)
    target = target_of(behind)
    proxy.on("UploadPart", corrupt_request(1), after=1, times=1)
    with pytest.raises(ObjectDamaged, match="part 2 arrived damaged"):
        write(target, "a", LARGE, before["a"])
    assert (versions(bucket), uploads(bucket)) == (before, [])


def test_the_parts_of_a_server_that_encrypts_have_other_etags(moto, through):
    proxy, behind = through(moto)
    target = target_of(behind)
    proxy.on(
        "UploadPart",
        header("x-amz-server-side-encryption", "aws:kms"),
        header("ETag", '"' + "0" * 32 + '"'),
    )
    with pytest.raises(ItemFailed) as error:  # joining them under these ETags is moto's to refuse
        write(target, "a", LARGE, None)
    assert not isinstance(error.value, ObjectDamaged)


@pytest.mark.parametrize("operation", ["PutObject", "HeadObject"])
def test_an_answer_with_a_wrong_etag_misleads_nobody(bucket, through, operation):
    proxy, behind = through(bucket)
    target = target_of(behind)
    proxy.on(operation, header("ETag", '"' + "0" * 32 + '"'), key="a", times=1)
    try:
        assert write(target, "a", b"ours", None) == versions(bucket)["a"]
    except ObjectChanged:
        assert operation == "HeadObject"
    assert kept(bucket, "a").data == b"ours"


@pytest.mark.parametrize(("code", "error"), [(503, "SlowDown"), (500, "InternalError")])
@pytest.mark.parametrize("how", REQUESTS)
def test_a_server_that_is_busy_is_asked_again(bucket, through, how, code, error):
    expected = put(bucket, "a", b"old")
    change = operations(bucket)[how]
    proxy, behind = through(bucket)
    target = target_of(behind)
    rule = proxy.on(REQUESTS[how], status(code, error), key="a", times=2)
    change(target, expected)
    assert rule.acted == 2
    assert (
        kept(bucket, "a").data != b"old"
        if how != "delete"
        else versions(bucket).keys() == {"source"}
    )


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
@pytest.mark.parametrize("fault", [drop(), denied()], ids=["away", "denied"])
def test_an_upload_that_fails_is_ended(bucket, through, operation, fault):
    proxy, behind = through(bucket)
    target = target_of(behind)
    proxy.on(operation, fault)
    with pytest.raises((InfrastructureError, ItemFailed)):
        write(target, "a", LARGE, None)
    assert (versions(bucket), uploads(bucket)) == ({}, [])


# What belongs to an object goes with it


def test_a_copy_inside_the_server_has_all_that_its_source_has(bucket):
    put(bucket, "a", b"picture", **DRESSED)
    target_of(bucket).copy(look(bucket, "a"), "b", None)
    assert kept(bucket, "b") == kept(bucket, "a")
    assert kept(bucket, "b")[1:4] == ("image/png", "max-age=60", {"photographer": "Ann"})


def test_a_copy_inside_the_server_has_the_tags_as_well(moto):
    put(moto, "a", **DRESSED, Tagging="rights=free&of=the%20sea")
    target_of(moto).copy(look(moto, "a"), "b", None)
    assert kept(moto, "b").tags == {"rights": "free", "of": "the sea"}


def test_what_is_too_large_for_one_copy_is_copied_in_parts(moto, monkeypatch):
    monkeypatch.setattr("imagecore.target.COPY_BYTES", 5 * MIB)
    put(moto, "a", LARGE, **DRESSED, Tagging="rights=free")
    wrote = target_of(moto).copy(look(moto, "a"), "b", None)
    assert kept(moto, "b") == kept(moto, "a")
    assert (wrote.etag, wrote.size) == (versions(moto)["b"], len(LARGE))
    assert wrote.etag.endswith("-2")


def test_a_source_that_changes_between_its_parts_is_not_copied(moto, through, monkeypatch):
    monkeypatch.setattr("imagecore.target.COPY_BYTES", 5 * MIB)
    put(moto, "a", LARGE)
    found = look(moto, "a")
    proxy, behind = through(moto)
    target = target_of(behind)
    proxy.on("UploadPartCopy", call(lambda _: put(moto, "a", LARGE[::-1])), after=1, times=1)
    with pytest.raises(ItemFailed):
        target.copy(found, "b", None)
    assert (set(versions(moto)), uploads(moto)) == ({"a"}, [])


def test_a_server_that_cannot_copy_in_parts_is_named(rclone, monkeypatch):
    monkeypatch.setattr("imagecore.target.COPY_BYTES", 5 * MIB)
    put(rclone, "a", LARGE)
    with pytest.raises(ItemFailed, match="cannot copy in parts"):
        target_of(rclone).copy(look(rclone, "a"), "b", None)
    assert (set(versions(rclone)), uploads(rclone)) == ({"a"}, [])


@pytest.mark.parametrize("data", [b"", b"small", LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("servers", [(MOTO, RCLONE), (RCLONE, MOTO), (MOTO, MOTO)])
def test_a_copy_between_servers_has_all_that_its_source_has(request, servers, data):
    one, other = (new_bucket_of(client(request.getfixturevalue(name))) for name in servers)
    put(one, "a", data, **DRESSED)
    found = look(one, "a")
    target_of(other).write("b", found.pieces(), found.size, headers_of(found), None)
    assert kept(other, "b") == kept(one, "a")
    assert kept(other, "b")[1:4] == ("image/png", "max-age=60", {"photographer": "Ann"})


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
def test_a_copy_between_servers_has_the_tags_as_well(moto, s3_endpoint, data):
    put(moto, "a", data, Tagging="rights=free&of=the%20sea")
    found, other = look(moto, "a"), new_bucket_of(client(s3_endpoint))
    target_of(other).write("b", found.pieces(), found.size, headers_of(found), None)
    assert kept(other, "b").tags == {"rights": "free", "of": "the sea"}


def test_a_server_without_tags_is_not_asked_for_them(rclone, through):
    """rclone answers that question with the whole object."""
    put(rclone, "a", **DRESSED)
    proxy, behind = through(rclone)
    headers_of(look(behind, "a"))
    assert [request.operation for request in proxy.requests] == ["HeadObject"]


def test_an_acl_goes_with_every_way_to_write(moto, through, monkeypatch):
    proxy, behind = through(moto)
    target = target_of(behind, acl="public-read")
    monkeypatch.setattr("imagecore.target.COPY_BYTES", 5 * MIB)
    proxy.requests.clear()
    write(target, "small", b"ours", None)
    write(target, "large", LARGE, None)
    target.copy(look(moto, "small"), "small copy", None)
    target.copy(look(moto, "large"), "large copy", None)
    written = {"PutObject", "CopyObject", "CreateMultipartUpload"}
    sent = [r.headers.get("x-amz-acl") for r in proxy.requests if r.operation in written]
    assert sent == ["public-read"] * 4


# Memory, and what a killed process leaves


def test_a_large_file_goes_up_with_a_few_parts_in_memory(rclone, tmp_path: Path):
    file = tmp_path / "large.tif"
    with file.open("wb") as data:
        data.truncate(60 * MIB)
    status = file.stat()
    content = FileContent(file, status.st_size, status.st_mtime_ns)
    target = target_of(rclone)
    tracemalloc.start()
    try:
        target.write("large.tif", content.pieces(), content.size, {}, None)
        assert tracemalloc.get_traced_memory()[1] < 5 * 5 * MIB
    finally:
        tracemalloc.stop()
    assert look(rclone, "large.tif").size == 60 * MIB


def begin(bucket: Bucket, key: str) -> None:
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)


def test_uploads_that_were_left_open_are_ended_and_no_others(rclone):
    """Not shown with moto, which says that every upload was begun in 2010."""
    for key in ("a", "a", "ab", "b/a"):
        begin(rclone, key)
    abort_uploads(rclone, "a", datetime.now(timezone.utc) + timedelta(seconds=5))
    assert len(uploads(rclone)) == 4
    abort_uploads(rclone, "a", datetime.now(timezone.utc) - timedelta(minutes=1))
    assert sorted(uploads(rclone)) == ["ab", "b/a"]


def test_there_may_have_been_no_upload_at_all(bucket):
    abort_uploads(bucket, "a")


def test_an_upload_is_on_record_from_before_it_begins_until_it_ended(bucket, through, work_store):
    log = UploadLog(work_store, "run/uploads/0000/destination")
    proxy, behind = through(bucket)
    target = target_of(behind, begun=log.begun, ended=log.ended)
    recorded = []
    proxy.on("CreateMultipartUpload", call(lambda _: recorded.extend(log.left())))
    write(target, "a", LARGE, None)
    [(key, since)] = recorded
    assert key == "a"
    assert timedelta(minutes=10) < datetime.now(timezone.utc) - since < timedelta(hours=1)
    assert log.left() == []


def test_an_upload_that_could_not_be_ended_stays_on_record(bucket, through, work_store):
    log = UploadLog(work_store, "run/uploads/0000/destination")
    proxy, behind = through(bucket)
    target = target_of(behind, begun=log.begun, ended=log.ended)
    proxy.on(lambda request: "uploadId" in request.query, drop())
    with pytest.raises(InfrastructureError):
        write(target, "ä b", LARGE, None)
    assert [key for key, _ in log.left()] == ["ä b"]
    assert json.loads(work_store.get(work_store.paths("run/uploads")[0]))["key"] == "ä b"
