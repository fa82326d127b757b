"""Whether two contents are equal is told by ETags and checksums, and by bytes only where need be.

The server is moto's, which makes ETags of parts as Amazon does; a proxy counts what is read.
"""

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.samples import client
from imagecore.content import (
    Content,
    EtagHash,
    FileChanged,
    FileContent,
    ObjectContent,
    look,
    part_sizes,
    same_content,
)
from imagecore.s3 import Bucket, ObjectChanged, ObjectDamaged, ObjectMissing
from tests.faults import FaultProxy, corrupt_response, header, truncate
from tests.faultwire import Fault
from tests.imagecore.synctools import once

MIB = 2**20
BIG = random.Random(3).randbytes(11 * MIB)
OTHER = BIG[:-1] + bytes([BIG[-1] ^ 1])


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3_endpoint) as proxy:
        yield proxy


class Store(NamedTuple):
    """A bucket behind the proxy, and the same one reached directly, to put things there."""

    bucket: Bucket
    direct: Any

    def put(self, key: str, data: bytes, **options: Any) -> ObjectContent:
        self.direct.put_object(Bucket=self.bucket.name, Key=key, Body=data, **options)
        return look(self.bucket, key)

    def put_parts(self, key: str, data: bytes, part: int, **options: Any) -> ObjectContent:
        where = {"Bucket": self.bucket.name, "Key": key}
        upload = self.direct.create_multipart_upload(**where, **options)["UploadId"]
        parts = []
        for number, start in enumerate(range(0, max(1, len(data)), part), 1):
            answer = self.direct.upload_part(
                **where, UploadId=upload, PartNumber=number, Body=data[start : start + part]
            )
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self.direct.complete_multipart_upload(
            **where, UploadId=upload, MultipartUpload={"Parts": parts}
        )
        return look(self.bucket, key)


@pytest.fixture
def store(proxy: FaultProxy, s3_endpoint: str, new_bucket: Callable[[str], str]) -> Store:
    return Store(Bucket(new_bucket("content"), once(proxy.url)), once(s3_endpoint))


def file(folder: Path, data: bytes) -> FileContent:
    path = folder / f"{hashlib.md5(data).hexdigest()[:8]}.jpg"
    path.write_bytes(data)
    os.utime(path, ns=(0, 10**18))  # so that any change at all gives it another time
    status = path.stat()
    return FileContent(path, status.st_size, status.st_mtime_ns)


def reads(proxy: FaultProxy) -> int:
    return proxy.requests.count("GetObject")


# ETags


@pytest.mark.parametrize("part", [5 * MIB, 8 * MIB])
@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 8 * MIB, 10 * MIB, 11 * MIB])
def test_the_etag_of_parts_is_that_of_the_server(store: Store, part: int, size: int) -> None:
    stored = store.put_parts("a", BIG[:size], part)
    known = EtagHash(part)
    for start in range(0, size, 999_999):
        known.update(BIG[start : min(start + 999_999, size)])
    assert known.etag() == stored.etag
    assert part in part_sizes(stored.etag, size)


@given(st.binary(max_size=50), st.integers(1, 20), st.lists(st.integers(0, 50)))
def test_an_etag_does_not_depend_on_how_the_bytes_come(
    data: bytes, part: int, cuts: list[int]
) -> None:
    ends = sorted([0, len(data), *(min(cut, len(data)) for cut in cuts)])
    whole, parts = EtagHash(), EtagHash(part)
    for start, end in pairwise(ends):
        whole.update(data[start:end])
        parts.update(data[start:end])
    md5s = [hashlib.md5(data[at : at + part]) for at in range(0, max(1, len(data)), part)]
    joined = hashlib.md5(b"".join(md5.digest() for md5 in md5s)).hexdigest()
    assert parts.etag() == f"{joined}-{len(md5s)}"
    assert whole.etag() == hashlib.md5(data).hexdigest()


HASH = "0" * 32


@pytest.mark.parametrize(
    ("etag", "size", "some"),
    [
        (HASH, 10, [None]),
        (f"{HASH}-2", 16 * MIB, [8 * MIB, 10 * MIB, 15 * MIB, 8_388_608]),
        (f"{HASH}-2", 11 * MIB, [8 * MIB, 10 * MIB, 10 * 10**6]),
        (f"{HASH}-3", 20 * MIB, [8 * MIB, 10**7]),
        (f"{HASH}-7", 7 * 12_345, [12_345]),
        (f"{HASH}-10000", 10_000 * 50 * MIB, [50 * MIB]),
        (f"{HASH}-1", 0, [5 * MIB]),
    ],
)
def test_part_sizes_are_those_that_give_the_number_of_parts(
    etag: str, size: int, some: list[int | None]
) -> None:
    assert set(some) <= set(part_sizes(etag, size))


@pytest.mark.parametrize(
    "etag", ["", HASH[1:], f"{HASH}-", f"{HASH}-0", f"{HASH}-x", "A" * 32, "mtime-7", f"{HASH}-1-1"]
)
def test_an_etag_that_is_no_hash_tells_nothing(etag: str) -> None:
    assert part_sizes(etag, 10) == []


# Comparing


def test_other_sizes_are_other_contents_and_nothing_is_read(store: Store, proxy: Any) -> None:
    assert not same_content(store.put("a", b"picture"), store.put("b", b"pictures"))
    assert reads(proxy) == 0


@pytest.mark.parametrize(("data", "same"), [(b"picture", True), (b"PICTURE", False)])
def test_whole_uploads_are_compared_by_etag(
    store: Store, proxy: FaultProxy, data: bytes, same: bool
) -> None:
    assert same_content(store.put("a", b"picture"), store.put("b", data)) is same
    assert reads(proxy) == 0


@pytest.mark.parametrize(("data", "same"), [(b"picture", True), (b"PICTURE", False)])
def test_a_file_is_compared_with_an_etag_and_the_object_is_not_read(
    store: Store, proxy: FaultProxy, tmp_path: Path, data: bytes, same: bool
) -> None:
    here, there = file(tmp_path, data), store.put("a", b"picture")
    assert same_content(here, there) is same
    assert same_content(there, here) is same
    assert reads(proxy) == 0


def test_uploads_in_equal_parts_are_compared_by_etag(store: Store, proxy: FaultProxy) -> None:
    one = store.put_parts("a", BIG, 8 * MIB)
    assert same_content(one, store.put_parts("b", BIG, 8 * MIB))
    assert reads(proxy) == 0
    assert not same_content(one, store.put_parts("b", OTHER, 8 * MIB))


@pytest.mark.parametrize(("data", "same"), [(BIG, True), (OTHER, False)])
def test_uploads_in_other_parts_are_read(
    store: Store, proxy: FaultProxy, data: bytes, same: bool
) -> None:
    one, other = store.put_parts("a", BIG, 8 * MIB), store.put_parts("b", data, 5 * MIB)
    assert same_content(one, other) is same
    assert not same or reads(proxy) == 1


@pytest.mark.parametrize(("data", "same"), [(BIG, True), (OTHER, False)])
def test_an_upload_in_parts_is_read_for_the_etag_of_a_whole_one(
    store: Store, proxy: FaultProxy, data: bytes, same: bool
) -> None:
    whole, parts = store.put("a", BIG), store.put_parts("b", data, 5 * MIB)
    assert same_content(whole, parts) is same
    assert same_content(parts, whole) is same
    assert proxy.requests.count("GetObject", key="a") == 0
    assert proxy.requests.count("GetObject", key="b") == 2


def test_a_file_is_compared_with_an_upload_in_parts(
    store: Store, proxy: FaultProxy, tmp_path: Path
) -> None:
    there = store.put_parts("a", BIG, 5 * MIB)
    assert same_content(file(tmp_path, BIG), there)
    assert reads(proxy) == 0
    assert not same_content(file(tmp_path, OTHER), there)


@pytest.mark.parametrize("part", [5 * MIB + 1, 5_500_000, 7 * MIB])
def test_parts_of_an_unusual_size_make_no_equal_contents_differ(
    store: Store, tmp_path: Path, part: int
) -> None:
    there = store.put_parts("a", BIG, part)
    assert same_content(file(tmp_path, BIG), there)
    assert same_content(store.put("b", BIG), there)
    assert not same_content(file(tmp_path, OTHER), there)


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA1", "CRC32"])
@pytest.mark.parametrize(("data", "same"), [(b"picture", True), (b"PICTURE", False)])
def test_where_etags_tell_nothing_the_server_s_checksums_do(
    store: Store, proxy: FaultProxy, algorithm: str, data: bytes, same: bool
) -> None:
    sealed = {"ServerSideEncryption": "aws:kms", "ChecksumAlgorithm": algorithm}
    one, other = store.put("a", b"picture", **sealed), store.put("b", data, **sealed)
    assert one.etag == other.etag == ""
    assert list(one.checksums) == [algorithm]
    assert same_content(one, other) is same
    assert reads(proxy) == 0


def test_checksums_of_parts_are_not_taken_for_those_of_the_whole(store: Store) -> None:
    one = store.put_parts("a", BIG, 8 * MIB, ChecksumAlgorithm="SHA256")
    other = store.put_parts("b", BIG, 5 * MIB, ChecksumAlgorithm="SHA256")
    assert "ChecksumSHA256" in one.head
    assert one.checksums == {}
    assert same_content(one, other)


def test_a_checksum_that_is_said_to_be_of_the_whole_counts_with_parts_too(
    store: Store, proxy: FaultProxy
) -> None:
    store.put_parts("a", BIG, 8 * MIB, ChecksumAlgorithm="SHA256")
    for kind, known in [("FULL_OBJECT", ["SHA256"]), ("COMPOSITE", [])]:
        with proxy.fault("HeadObject", header("x-amz-checksum-type", kind)):
            assert list(look(store.bucket, "a").checksums) == known


@pytest.mark.parametrize(("data", "same"), [(b"picture", True), (b"PICTURE", False)])
def test_where_nothing_is_known_both_are_read(
    store: Store, proxy: FaultProxy, data: bytes, same: bool
) -> None:
    one = store.put("a", b"picture", ServerSideEncryption="aws:kms")
    other = store.put("b", data, ServerSideEncryption="aws:kms")
    assert (one.etag, one.checksums) == ("", {})
    assert same_content(one, other) is same
    assert reads(proxy) == 2


def test_an_opaque_etag_is_not_taken_for_a_hash(store: Store, proxy: FaultProxy) -> None:
    sealed = store.put("sealed", b"picture", ServerSideEncryption="aws:kms")
    assert (sealed.version != "", sealed.etag) == (True, "")
    plain, other = store.put("plain", b"picture"), store.put("other", b"PICTURE")
    assert same_content(plain, sealed)
    assert same_content(sealed, plain)
    assert not same_content(other, sealed)
    assert proxy.requests.count("GetObject", key="sealed") == reads(proxy) == 3


def test_two_files_are_compared_by_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    here = file(tmp_path, b"picture")
    assert same_content(here, file(tmp_path / "there", b"picture"))
    assert not same_content(here, file(tmp_path / "there", b"PICTURE"))


# Reading


def change_mtime(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def become(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


CHANGES = {
    "longer": lambda path: path.write_bytes(b"pictures"),
    "shorter": lambda path: path.write_bytes(b""),
    "other time": change_mtime,
    "gone": Path.unlink,
    "a pipe": become(os.mkfifo),
    "a link": become(lambda path: path.symlink_to("/etc/passwd")),
    "a folder": become(Path.mkdir),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_changed_since_it_was_listed_is_not_read(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    listed = file(tmp_path, b"picture")
    change(listed.path)
    with pytest.raises(FileChanged, match=listed.path.name):
        list(listed.pieces())


@pytest.mark.parametrize("change", [b"longer", b"x"])
def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, change: bytes) -> None:
    listed = file(tmp_path, BIG[: 3 * MIB])
    pieces = listed.pieces()
    next(pieces)
    with listed.path.open("r+b") as data:
        data.seek(0, os.SEEK_END if change == b"longer" else os.SEEK_SET)
        data.write(change)
    with pytest.raises(FileChanged, match="changed since it was listed"):
        list(pieces)


def test_content_is_read_whole_and_in_pieces(store: Store, tmp_path: Path) -> None:
    contents: list[Content] = [
        file(tmp_path, BIG),
        store.put("a", BIG),
        store.put_parts("b", BIG, 5 * MIB),
        store.put("c", b""),
    ]
    for content in contents:
        pieces = list(content.pieces())
        assert b"".join(pieces) == BIG[: content.size]
        assert all(len(piece) <= MIB for piece in pieces)


def test_an_object_replaced_between_look_and_read_is_not_read(store: Store) -> None:
    looked = store.put("a", b"picture")
    store.put("a", b"PICTURE")
    with pytest.raises(ObjectChanged, match="a changed"):
        list(looked.pieces())


def test_an_object_replaced_is_not_read_either_where_conditions_are_ignored(
    rclone_endpoint: str,
) -> None:
    bucket = Bucket("replaced", client(rclone_endpoint))
    bucket.client.create_bucket(Bucket=bucket.name)
    bucket.write("a", b"picture", "image/jpeg")
    looked = look(bucket, "a")
    bucket.write("a", b"PICTURE", "image/jpeg")
    with pytest.raises(ObjectChanged, match="a changed since it was looked at"):
        list(looked.pieces())


def test_an_object_gone_between_look_and_read_is_missing(store: Store) -> None:
    looked = store.put("a", b"picture")
    store.direct.delete_object(Bucket=store.bucket.name, Key="a")
    with pytest.raises(ObjectMissing, match="a does not exist"):
        list(looked.pieces())
    with pytest.raises(ObjectMissing, match="a does not exist"):
        look(store.bucket, "a")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (truncate(1_000), "arrived damaged"),
        (corrupt_response(2 * MIB), "the MD5 of what arrived differs from its ETag"),
    ],
)
def test_an_object_that_arrives_damaged_is_noticed(
    store: Store, proxy: FaultProxy, fault: Fault, words: str
) -> None:
    looked = store.put("a", BIG)
    with (
        proxy.fault("GetObject", fault),
        pytest.raises(ObjectDamaged, match=words) as caught,
    ):
        list(looked.pieces())
    assert f"s3://{store.bucket.name}/a" in str(caught.value)


def test_damage_to_an_object_whose_etag_tells_nothing_is_noticed_by_its_checksum(
    store: Store, proxy: FaultProxy
) -> None:
    sealed = {"ServerSideEncryption": "aws:kms", "ChecksumAlgorithm": "SHA256"}
    looked = store.put("a", b"picture", **sealed)
    with (
        proxy.fault("GetObject", corrupt_response(3)),
        pytest.raises(ObjectDamaged, match=r"arrived damaged.*checksum"),
    ):
        list(looked.pieces())


def test_an_object_shorter_than_it_was_said_to_be_is_noticed(store: Store) -> None:
    looked = store.put("a", b"picture", ServerSideEncryption="aws:kms")
    with pytest.raises(ObjectDamaged, match="7 bytes arrived of 8"):
        list(replace(looked, size=8).pieces())
