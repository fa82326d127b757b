"""What an object or a file holds: ETags understood, checksums compared, bytes read if need be."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, Protocol

from imagecore import shortcut
from imagecore.errors import ItemFailed
from imagecore.s3 import (
    Bucket,
    ObjectChanged,
    ObjectDamaged,
    ObjectMissing,
    is_hash,
    reaching,
)
from imagecore.text import printable

PIECE_BYTES = 2**20
_WHOLE = re.compile(r"[0-9a-f]{32}")
_PARTS = re.compile(r"[0-9a-f]{32}-([0-9]{1,5})")
_MIB = 2**20
# What aws-cli, boto3, rclone, s5cmd, s3cmd, the Java and Go SDKs and this project cut objects into.
_PART_MIB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512, 1_024)
_CHECKSUMS = ("CRC64NVME", "SHA256", "SHA1", "CRC32C", "CRC32")


class FileChanged(ItemFailed):
    """A local file is not, or no longer, the one that was looked at."""


class EtagHash:
    """The ETag that S3 gives bytes: their MD5, or of an upload in parts the MD5 of the parts'
    MD5s, and their number. `part_bytes` None: uploaded whole.

    Source: "Checking object integrity", Amazon S3 User Guide.
    """

    def __init__(self, part_bytes: int | None = None) -> None:
        self._part_bytes = part_bytes
        self._part = hashlib.md5(usedforsecurity=False)
        self._in_part = 0
        self._parts: list[bytes] = []

    def update(self, data: bytes) -> None:
        """Take more bytes."""
        view = memoryview(data)
        while self._part_bytes is not None and self._in_part + len(view) >= self._part_bytes:
            here = self._part_bytes - self._in_part
            self._part.update(view[:here])
            self._parts.append(self._part.digest())
            self._part, self._in_part = hashlib.md5(usedforsecurity=False), 0
            view = view[here:]
        self._part.update(view)
        self._in_part += len(view)

    def etag(self) -> str:
        """The ETag of what was taken so far."""
        if self._part_bytes is None:
            return self._part.hexdigest()
        parts = self._parts
        if self._in_part or not parts:  # nothing at all is one empty part
            parts = [*parts, self._part.digest()]
        return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def part_sizes(etag: str, size: int) -> list[int | None]:
    """The part sizes with which an object of `size` bytes may have got this ETag.

    [None]: it was uploaded whole; []: the ETag is no hash of the content. Parts may have any
    size; these are the ones that common tools use.
    """
    if _WHOLE.fullmatch(etag):
        return [None]
    found = _PARTS.fullmatch(etag)
    if not found or not int(found.group(1)):
        return []
    count = int(found.group(1))
    even = ceil(size / count)
    sizes = {mib * _MIB for mib in _PART_MIB} | {mib * 10**6 for mib in _PART_MIB}
    sizes |= {even, ceil(even / _MIB) * _MIB}
    return [part for part in sorted(sizes) if part and max(1, ceil(size / part)) == count]


class Content(Protocol):
    """Something that can be read whole, and what is known of it unread."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def etag(self) -> str:
        """The ETag, where it is made of the content; empty where not."""

    @property
    def checksums(self) -> dict[str, str]:
        """Checksums of the whole content by algorithm, as the server keeps them."""

    def pieces(self) -> Iterator[bytes]:
        """The bytes. What is not exactly the thing that was looked at raises."""


@dataclass(frozen=True)
class ObjectContent:
    """An object, as `look` or `glance` saw it."""

    bucket: Bucket
    key: str
    size: int
    version: str
    """Its ETag, whatever that is made of: reading is bound to it."""
    etag: str
    """Empty when only glanced at."""
    checksums: dict[str, str] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    """What HeadObject answered."""

    def pieces(self) -> Iterator[bytes]:
        """The bytes, compared with the length, with the ETag where that is an MD5 of all of
        them, and (by botocore) with the checksum that the server keeps.

        Raises:
            ObjectChanged, ObjectMissing: it is no longer what was looked at.
            ObjectDamaged: other bytes arrived than the server says there are.
        """
        url = self.bucket.url(self.key)
        md5 = EtagHash() if _WHOLE.fullmatch(self.etag) else None
        arrived = 0
        with reaching(url):
            answer = self.bucket.client.get_object(
                Bucket=self.bucket.name,
                Key=self.key,
                IfMatch=f'"{self.version}"',
                ChecksumMode="ENABLED",
            )
            if answer["ETag"].strip('"') != self.version:  # not every server honours IfMatch
                raise ObjectChanged(f"{url} changed since it was looked at")
            for piece in answer["Body"].iter_chunks(PIECE_BYTES):
                arrived += len(piece)
                if md5 is not None:
                    md5.update(piece)
                yield piece
        if arrived != self.size:
            raise ObjectDamaged(f"{url}: {arrived:,} bytes arrived of {self.size:,}")
        if md5 is not None and md5.etag() != self.etag:
            raise ObjectDamaged(f"{url}: the MD5 of what arrived differs from its ETag")


def glance(bucket: Bucket, key: str) -> ObjectContent | None:
    """Look at an object that may not be there, for its version and size alone."""
    try:
        seen = shortcut.head(bucket.shortcut, key)
    except shortcut.NotSure:
        try:
            return look(bucket, key)
        except ObjectMissing:
            return None
    return seen and ObjectContent(bucket, key, seen.size, seen.version, "")


def look(bucket: Bucket, key: str) -> ObjectContent:
    """Look at an object, with what the server knows of its content."""
    with reaching(bucket.url(key)):
        head: Any = bucket.client.head_object(Bucket=bucket.name, Key=key, ChecksumMode="ENABLED")
    version = head["ETag"].strip('"')
    checksums = {}
    kind = "COMPOSITE" if _PARTS.fullmatch(version) else "FULL_OBJECT"
    if head.get("ChecksumType", kind) == "FULL_OBJECT":
        checksums = {
            name: head[f"Checksum{name}"] for name in _CHECKSUMS if f"Checksum{name}" in head
        }
    size = head["ContentLength"]
    return ObjectContent(
        bucket, key, size, version, version if is_hash(head) else "", checksums, head
    )


@dataclass(frozen=True)
class FileContent:
    """A local file, as the listing saw it: `size` in bytes, `modified` in nanoseconds."""

    path: Path
    size: int
    modified: int
    etag: str = ""
    checksums: dict[str, str] = field(default_factory=dict)

    def pieces(self) -> Iterator[bytes]:
        """The bytes.

        Raises:
            FileChanged: it is gone, is another file, or changed while it was read.
        """
        shown = printable(self.path)
        try:
            data = open(self.path, "rb", buffering=0, opener=_open_itself)  # noqa: SIM115
        except OSError as error:
            raise FileChanged(f"{shown} cannot be read ({error.strerror})") from error
        with data:
            self._compare(data.fileno(), shown)
            while piece := _read(data, shown):
                yield piece
            self._compare(data.fileno(), shown)

    def _compare(self, file: int, shown: str) -> None:
        status = os.fstat(file)
        if (status.st_size, status.st_mtime_ns) != (self.size, self.modified):
            raise FileChanged(
                f"{shown} changed since it was listed; the next run takes the new one"
            )


def _open_itself(path: str, flags: int) -> int:
    """Open the file of this very name: a link is not followed, a pipe not waited for."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _read(data: Any, shown: str) -> bytes:
    try:
        piece: bytes = data.read(PIECE_BYTES)
    except OSError as error:
        raise FileChanged(f"{shown} cannot be read ({error.strerror})") from error
    return piece


def same_content(one: Content, other: Content) -> bool:
    """Whether two contents are equal, reading as little as can tell.

    In this order: sizes, ETags, checksums that the servers keep, the bytes of one against the
    ETag of the other, the SHA-256 of both.
    """
    if one.size != other.size:
        return False
    if one.etag and one.etag == other.etag:
        return True
    if _WHOLE.fullmatch(one.etag) and _WHOLE.fullmatch(other.etag):
        return False
    for name in _CHECKSUMS:
        if name in one.checksums and name in other.checksums:
            return one.checksums[name] == other.checksums[name]
    for known, read in ((one, other), (other, one)):
        if _WHOLE.fullmatch(known.etag):
            return _has_etag(read, known.etag)
    for known, read in ((one, other), (other, one)):
        if known.etag and _has_etag(read, known.etag):
            return True
    return _sha256(one) == _sha256(other)


def _has_etag(content: Content, etag: str) -> bool:
    """Whether the bytes give this ETag, with any of the usual part sizes. Reads them."""
    hashes = [EtagHash(part) for part in part_sizes(etag, content.size)]
    if not hashes:
        return False
    for piece in content.pieces():
        for each in hashes:
            each.update(piece)
    return etag in {each.etag() for each in hashes}


def _sha256(content: Content) -> str:
    digest = hashlib.sha256()
    for piece in content.pieces():
        digest.update(piece)
    return digest.hexdigest()
