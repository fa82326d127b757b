"""Writing to a bucket, and never over anything but what was expected there.

Conditional requests (`If-Match`, `If-None-Match`) make that certain where a server honours them;
many take them and ignore them, so `probe` tries. Where a server does not, the object is looked at
immediately before, which leaves a window as long as one request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from botocore.exceptions import ClientError

from imagecore import shortcut
from imagecore.content import EtagHash, ObjectContent, glance, look, part_sizes, same_content
from imagecore.errors import ItemFailed
from imagecore.s3 import (
    CONDITION_CODES,
    Bucket,
    ObjectChanged,
    ObjectDamaged,
    ObjectMissing,
    is_hash,
    reaching,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART_BYTES = 8 * 2**20
"""What is larger goes up in parts, each held in memory once."""

COPY_BYTES = 5 * 2**30
"""What is larger is copied inside the server in parts of this: CopyObject's limit."""

MAX_PARTS = 10_000
ALWAYS = datetime.min.replace(tzinfo=timezone.utc)
NOTHING = '"00000000000000000000000000000000"'
_HEADERS = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Metadata",
    "WebsiteRedirectLocation",
)


@dataclass(frozen=True)
class Conditions:
    """Which requests a server makes depend on a condition: both that a certain version is there
    and that nothing is; for `copy_source`, that the source is a certain version."""

    put: bool = False
    complete: bool = False
    copy: bool = False
    copy_source: bool = False
    delete: bool = False


def probe(bucket: Bucket, key: str) -> Conditions:
    """Find out what the server honours, with small objects at `key` that are deleted again.

    What an earlier probe at the same key left when it was killed is removed as well.
    """
    abort_uploads(bucket, key)
    client, name, copy = bucket.client, bucket.name, f"{key}-copy"
    source: Any = {"Bucket": name, "Key": key}
    here: Any = {"Bucket": name, "Key": key}
    there: Any = {"Bucket": name, "Key": copy}
    with reaching(bucket.url(key)):
        try:
            client.put_object(**here, Body=b"imageflows")
            client.put_object(**there, Body=b"imageflows")
            return Conditions(
                put=_both_refused(lambda when: client.put_object(**here, **when, Body=b"x")),
                complete=_both_refused(lambda when: _upload_small(client, here, when)),
                copy=_both_refused(
                    lambda when: client.copy_object(**there, CopySource=source, **when)
                ),
                copy_source=_refused(
                    lambda: client.copy_object(
                        **there, CopySource=source, CopySourceIfMatch=NOTHING
                    )
                ),
                delete=_refused(lambda: client.delete_object(**here, IfMatch=NOTHING)),
            )
        finally:
            client.delete_object(**here)
            client.delete_object(**there)


def _both_refused(request: Callable[[Any], object]) -> bool:
    return all(
        _refused(lambda when=when: request(when))  # type: ignore[misc]
        for when in ({"IfNoneMatch": "*"}, {"IfMatch": NOTHING})
    )


def _refused(request: Callable[[], object]) -> bool:
    """Whether a request whose condition does not hold is refused for that."""
    try:
        request()
    except ClientError as error:
        return error.response["Error"]["Code"] in CONDITION_CODES
    return False


def _upload_small(client: S3Client, where: Any, when: Any) -> None:
    upload: Any = where | {"UploadId": client.create_multipart_upload(**where)["UploadId"]}
    done = False
    try:
        part = client.upload_part(**upload, PartNumber=1, Body=b"imageflows")
        parts: Any = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        client.complete_multipart_upload(**upload, MultipartUpload=parts, **when)
        done = True
    finally:
        if not done:
            client.abort_multipart_upload(**upload)


def abort_uploads(bucket: Bucket, key: str, since: datetime = ALWAYS) -> None:
    """End every upload in parts of exactly this key that was begun after `since`."""
    client, name = bucket.client, bucket.name
    with reaching(bucket.url(key)), suppress(client.exceptions.NoSuchUpload):  # rclone's for none
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=name, Prefix=key)
        for upload in [found for page in pages for found in page.get("Uploads", ())]:
            if upload["Key"] == key and upload["Initiated"] >= since:
                with suppress(client.exceptions.NoSuchUpload):
                    client.abort_multipart_upload(Bucket=name, Key=key, UploadId=upload["UploadId"])


@dataclass(frozen=True)
class Written:
    """What is in the bucket now, as it was verified."""

    key: str
    etag: str
    size: int


class Target:
    """One bucket, written to with conditions. For many threads.

    `expected`, everywhere: the ETag of the object that is to be replaced, or None where there
    must be nothing. Methods raise as `reaching` says, and ObjectChanged where something else is
    there, which then stays as it is.

    Parameters:
        bucket: where to write.
        conditions: what its server honours.
        acl: a canned ACL for what is written, or None for the bucket's default.
        begun: called with a key before an upload in parts begins, and `ended` after it ended, so
            that what a killed process left of it can be found.
    """

    def __init__(
        self,
        bucket: Bucket,
        conditions: Conditions,
        *,
        acl: str | None = None,
        begun: Callable[[str], None] = lambda key: None,
        ended: Callable[[str], None] = lambda key: None,
    ) -> None:
        self.bucket = bucket
        self.conditions = conditions
        self._acl: dict[str, Any] = {"ACL": acl} if acl else {}
        self._begun = begun
        self._ended = ended

    def find(self, key: str) -> ObjectContent | None:
        """The version and size of what is there now, if anything."""
        return glance(self.bucket, key)

    def require(self, key: str, expected: str | None) -> None:
        """Raise ObjectChanged unless exactly `expected` is there."""
        found = self.find(key)
        if (found.version if found else None) != expected:
            raise ObjectChanged(f"{self.bucket.url(key)} {_was(expected)}, and now {_is(found)}")

    def write(
        self,
        key: str,
        pieces: Iterable[bytes],
        size: int,
        headers: dict[str, Any],
        expected: str | None,
    ) -> Written:
        """Write an object, and compare what the bucket then holds.

        Nothing becomes visible before `pieces` has ended without an error: what is small is sent
        in one request, the rest in parts that are joined at the end.

        Raises:
            ObjectDamaged: the bucket holds other bytes than were sent. They were deleted again.
        """
        part_bytes = None if size <= PART_BYTES else max(PART_BYTES, -(-size // MAX_PARTS))
        headers = headers | self._acl
        if part_bytes is None:
            data = b"".join(pieces)
            sent = _md5(data).hexdigest()
            version = self._put(key, data, headers, expected)
        else:
            digests: list[bytes] = []
            send = self._send_parts(key, _cut(pieces, part_bytes), digests)
            version = self._upload(key, headers, expected, send)
            sent = f"{_md5(b''.join(digests)).hexdigest()}-{len(digests)}"
        stored = self._stored(key)

        def same() -> bool:
            return stored.size == size and (
                stored.version == sent or _etag_of(stored, part_bytes) == sent
            )

        return self._verified(stored, version, same, "the bytes that were sent")

    def copy(self, source: ObjectContent, key: str, expected: str | None) -> Written:
        """Copy an object inside the server, with its metadata, tags and content type.

        Raises:
            ObjectChanged: also when the source is no longer what was looked at.
            ObjectDamaged: the copy differs from the source. It was deleted again.
        """
        if source.size > COPY_BYTES:
            headers = headers_of(look(source.bucket, source.key)) | self._acl
            version = self._upload(key, headers, expected, self._copy_parts(source, key))
        else:
            version = self._copy_whole(source, key, expected)
        stored = self._stored(key)

        def same() -> bool:
            if (stored.size, stored.version) == (source.size, source.version):
                return True
            now, copied = look(source.bucket, source.key), look(self.bucket, key)
            return (now.version, copied.version) == (
                source.version,
                stored.version,
            ) and same_content(now, copied)

        return self._verified(stored, version, same, source.bucket.url(source.key))

    def delete(self, key: str, expected: str) -> None:
        """Delete exactly this version of an object."""
        when: Any = {"IfMatch": f'"{expected}"'} if self.conditions.delete else {}
        if not when:
            self.require(key, expected)
        with reaching(self.bucket.url(key)):
            self.bucket.client.delete_object(**self._where(key), **when)

    def _when(self, honoured: bool, key: str, expected: str | None) -> dict[str, Any]:
        """The condition to send, or none where looking beforehand has to do."""
        if honoured:
            return {"IfMatch": f'"{expected}"'} if expected else {"IfNoneMatch": "*"}
        self.require(key, expected)
        return {}

    def _stored(self, key: str) -> ObjectContent:
        """What is there after it was written."""
        found = self.find(key)
        if found is None:
            raise ObjectMissing(f"{self.bucket.url(key)} does not exist, though it was written")
        return found

    def _verified(
        self, stored: ObjectContent, version: str, same: Callable[[], bool], what: str
    ) -> Written:
        """What was written, when it is right. What is wrong and still ours is deleted again."""
        with suppress(ObjectDamaged, ObjectMissing):  # it cannot be read as what it says it is
            if same():
                return Written(stored.key, stored.version, stored.size)
        url = self.bucket.url(stored.key)
        if stored.version != version:
            raise ObjectChanged(f"{url}: someone else wrote it at the same time")
        with suppress(ObjectChanged, ObjectMissing):
            self.delete(stored.key, version)
        raise ObjectDamaged(f"{url} differed from {what}; it was deleted again")

    def _where(self, key: str) -> dict[str, Any]:
        return {"Bucket": self.bucket.name, "Key": key}

    def _put(self, key: str, data: bytes, headers: dict[str, Any], expected: str | None) -> str:
        when: Any = self._when(self.conditions.put, key, expected)
        if headers.keys() == {"ContentType"}:
            try:
                return shortcut.put(
                    self.bucket.shortcut, key, data, headers["ContentType"], expected, bool(when)
                )
            except shortcut.Refused as error:
                raise ObjectChanged(
                    f"{self.bucket.url(key)} {_was(expected)}, and now is another"
                ) from error
            except shortcut.NotSure:
                pass  # and asked again, as boto3 repeats what failed
        with reaching(self.bucket.url(key)):
            answer = self.bucket.client.put_object(**self._where(key), Body=data, **headers, **when)
        return answer["ETag"].strip('"')

    def _copy_whole(self, source: ObjectContent, key: str, expected: str | None) -> str:
        when: Any = self._when(self.conditions.copy, key, expected)
        with reaching(self.bucket.url(key)):
            answer = self.bucket.client.copy_object(
                **self._where(key),
                CopySource={"Bucket": source.bucket.name, "Key": source.key},
                CopySourceIfMatch=f'"{source.version}"',
                **when,
                **self._acl,
            )
        return answer["CopyObjectResult"]["ETag"].strip('"')

    def _upload(
        self,
        key: str,
        headers: dict[str, Any],
        expected: str | None,
        send: Callable[[str], list[Any]],
    ) -> str:
        """An upload in parts: begun, sent, joined; or ended without a trace."""
        client, where = self.bucket.client, self._where(key)
        self._begun(key)
        with reaching(self.bucket.url(key)):
            upload: Any = client.create_multipart_upload(**where, **headers)["UploadId"]
            joined = None
            try:
                parts: Any = {"Parts": send(upload)}
                when: Any = self._when(self.conditions.complete, key, expected)
                joined = client.complete_multipart_upload(
                    **where, UploadId=upload, MultipartUpload=parts, **when
                )
            finally:
                if joined is None:
                    with suppress(client.exceptions.NoSuchUpload):  # joined, and nobody told us
                        client.abort_multipart_upload(**where, UploadId=upload)
        self._ended(key)
        return joined["ETag"].strip('"')

    def _send_parts(
        self, key: str, parts: Iterator[bytes], digests: list[bytes]
    ) -> Callable[[str], list[Any]]:
        def send(upload: str) -> list[Any]:
            sent = []
            for number, part in enumerate(parts, 1):
                md5 = _md5(part)
                digests.append(md5.digest())
                answer = self.bucket.client.upload_part(
                    **self._where(key), UploadId=upload, PartNumber=number, Body=part
                )
                if _differs(answer, md5.hexdigest()):  # before anything is replaced by it
                    raise ObjectDamaged(f"{self.bucket.url(key)}: part {number} arrived damaged")
                sent.append({"PartNumber": number, "ETag": answer["ETag"]})
            return sent

        return send

    def _copy_parts(self, source: ObjectContent, key: str) -> Callable[[str], list[Any]]:
        def send(upload: str) -> list[Any]:
            sent = []
            for number, start in enumerate(range(0, source.size, COPY_BYTES), 1):
                end = min(start + COPY_BYTES, source.size) - 1
                answer = self.bucket.client.upload_part_copy(
                    **self._where(key),
                    UploadId=upload,
                    PartNumber=number,
                    CopySource={"Bucket": source.bucket.name, "Key": source.key},
                    CopySourceRange=f"bytes={start}-{end}",
                    CopySourceIfMatch=f'"{source.version}"',
                )
                if "ETag" not in answer["CopyPartResult"]:  # rclone takes it for an empty part
                    raise ItemFailed(f"{self.bucket.url(key)}: the server cannot copy in parts")
                sent.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
            return sent

        return send


def headers_of(source: ObjectContent) -> dict[str, Any]:
    """What `Target.write` is to keep of an object: its content type, metadata and tags."""
    return {name: source.head[name] for name in _HEADERS if name in source.head} | tags_of(source)


def tags_of(source: ObjectContent) -> dict[str, Any]:
    """An object's tags as a request takes them."""
    if not source.head.get("TagCount"):  # servers without tags answer with an error, or the object
        return {}
    with reaching(source.bucket.url(source.key)):
        found = source.bucket.client.get_object_tagging(Bucket=source.bucket.name, Key=source.key)
    tags = {tag["Key"]: tag["Value"] for tag in found["TagSet"]}
    return {"Tagging": urlencode(tags)}


def _cut(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in parts of exactly `size`, but for the last."""
    part = bytearray()
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            taken = rest[: size - len(part)]
            part += taken
            rest = rest[len(taken) :]
            if len(part) == size:
                whole, part = bytes(part), bytearray()
                yield whole
    if part:
        yield bytes(part)


def _md5(data: bytes) -> Any:
    return hashlib.md5(data, usedforsecurity=False)


def _differs(answer: Any, md5: str) -> bool:
    """Whether the server's MD5 of a part, where its ETag is one, is not this."""
    etag = answer["ETag"].strip('"')
    return is_hash(answer) and part_sizes(etag, 1) == [None] and etag != md5


def _etag_of(stored: ObjectContent, part_bytes: int | None) -> str:
    digest = EtagHash(part_bytes)
    for piece in stored.pieces():
        digest.update(piece)
    return digest.etag()


def _was(expected: str | None) -> str:
    return f"was to be replaced as {expected}" if expected else "was not there when it was planned"


def _is(found: ObjectContent | None) -> str:
    return f"is {found.version}" if found else "is gone"
