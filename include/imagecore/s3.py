"""Objects in S3, read and written so that damage and change are noticed.

boto3 and not obstore: users' keys may hold empty, `.` and `..` segments, a leading slash or
control characters. obstore refuses some, fails a whole listing for one of them, and reads
`/x.jpg` as `x.jpg`. For plain keys alone it is a shortcut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    ParamValidationError,
    ResponseStreamingError,
)

from imagecore.digest import sha256_of
from imagecore.errors import ImageflowsError, InfrastructureError, ItemFailed
from imagecore.listing import BadListing, list_pages
from imagecore.text import printable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import S3Store

PART_BYTES = 100 * 2**20
"""Objects of this size or more go up in parts of it; Amazon's advice is 100 MB."""

_MISSING = {"NoSuchKey", "NotFound", "404"}
CONDITION_CODES = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_DENIED = {"AccessDenied", "Forbidden", "403"}
_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "AuthorizationHeaderMalformed",
}
_BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"}


class BucketUnusable(InfrastructureError):
    """The bucket does not exist, or may not be used."""


class ServerFault(InfrastructureError):
    """The server broke at this request; it may be alive for others."""


class ObjectMissing(ItemFailed):
    """There is no such object."""


class ObjectDenied(ItemFailed):
    """The object may not be used with these credentials."""


class ObjectChanged(ItemFailed):
    """The object is not the one that was looked at before."""


class ObjectDamaged(ItemFailed):
    """What arrived is not what the other side says it is."""


@dataclass(frozen=True)
class S3Object:
    """An object as HEAD or a listing shows it. `etag` is without quotes; `size` in bytes.

    `metadata`, its names in lower case, and `etag_is_hash` are only known from HEAD; the latter
    says that the ETag is made of the content (which a key service or a customer's key prevents).
    """

    key: str
    etag: str
    size: int
    modified: datetime
    metadata: dict[str, str]
    etag_is_hash: bool = False


@dataclass(frozen=True)
class Bucket:
    """One bucket, and the client that reaches it. Methods raise as `reaching` says.

    `shortcut`: the same bucket through obstore, for what `glance` and `Target` may ask there.
    """

    name: str
    client: S3Client
    shortcut: S3Store | None = None

    def url(self, key: str) -> str:
        """The object's address, for messages."""
        return f"s3://{self.name}/{printable(key)}"

    def check(self) -> None:
        """Raise BucketUnusable, or what `reaching` says, unless the bucket may be used."""
        with reaching(f"s3://{self.name}"):
            try:
                self.client.head_bucket(Bucket=self.name)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in _MISSING:
                    raise BucketUnusable(
                        f"The bucket {self.name} does not exist: create it, or correct the "
                        "parameter that names it."
                    ) from error
                if code in _DENIED:
                    raise BucketUnusable(
                        f"The bucket {self.name} may not be used with these credentials: check the "
                        "connection and the bucket's policy."
                    ) from error
                raise InfrastructureError(
                    f"The bucket {self.name} cannot be used: {error}. Check the connection."
                ) from error
            except ParamValidationError as error:
                raise BucketUnusable(
                    f"{self.name!r} cannot be the name of a bucket: correct the parameter that "
                    "names it."
                ) from error

    def head(self, key: str) -> S3Object:
        """Look at an object."""
        with reaching(self.url(key)):
            found = self.client.head_object(Bucket=self.name, Key=key)
        etag = found["ETag"].strip('"')
        return S3Object(
            key,
            etag,
            found["ContentLength"],
            found["LastModified"],
            {name.lower(): value for name, value in found["Metadata"].items()},
            etag_is_hash=is_hash(found),
        )

    def find(self, key: str) -> S3Object | None:
        """Look at an object that may not be there."""
        try:
            return self.head(key)
        except ObjectMissing:
            return None

    def walk(self, prefix: str) -> Iterator[S3Object]:
        """Every object below `prefix`, in the order of the listing."""
        with reaching(self.url(prefix)):
            for page in list_pages(self.client, self.name, prefix):
                for key, size, modified, etag in page.entries:
                    when = datetime.fromtimestamp(modified / 10**9, timezone.utc)
                    yield S3Object(key, etag, size, when, {})

    def read(self, key: str) -> bytes:
        """A small object's bytes."""
        with reaching(self.url(key)):
            return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def read_range(self, found: S3Object, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`, of exactly the object that `head` showed."""
        end = min(offset + length, found.size)
        if offset >= end:
            return b""
        with reaching(self.url(found.key)):
            return self.client.get_object(
                Bucket=self.name,
                Key=found.key,
                IfMatch=f'"{found.etag}"',
                Range=f"bytes={offset}-{end - 1}",
            )["Body"].read()

    def write(self, key: str, data: bytes, content_type: str) -> None:
        """Write a small object."""
        with reaching(self.url(key)):
            self.client.put_object(Bucket=self.name, Key=key, Body=data, ContentType=content_type)

    def copy(self, key: str, target: str) -> None:
        """Copy an object of up to 5 GB within the bucket, inside the server."""
        with reaching(self.url(key)):
            self.client.copy_object(
                Bucket=self.name, Key=target, CopySource={"Bucket": self.name, "Key": key}
            )

    def delete(self, key: str) -> None:
        """Delete an object; one that is gone already is no error."""
        with reaching(self.url(key)):
            self.client.delete_object(Bucket=self.name, Key=key)

    def fetch(self, found: S3Object, target: Path) -> None:
        """Download exactly the object that `head` showed.

        Compared: the length, the MD5 where the ETag is one, and (by botocore) the checksum that
        the server keeps, where it keeps one.
        """
        url = self.url(found.key)
        md5 = hashlib.md5(usedforsecurity=False)
        size = 0
        with reaching(url), target.open("wb") as file:
            body = self.client.get_object(
                Bucket=self.name, Key=found.key, IfMatch=f'"{found.etag}"', ChecksumMode="ENABLED"
            )["Body"]
            for chunk in body.iter_chunks(2**20):
                size += len(chunk)
                md5.update(chunk)
                file.write(chunk)
        if size != found.size:
            raise ObjectDamaged(f"{url}: {size:,} bytes arrived of {found.size:,}")
        of_one_part = found.etag_is_hash and len(found.etag) == 32
        if of_one_part and md5.hexdigest() != found.etag:
            raise ObjectDamaged(
                f"{url}: the MD5 of what arrived differs from the ETag {found.etag}"
            )

    def deliver(self, source: Path, key: str, content_type: str, metadata: dict[str, str]) -> None:
        """Upload a file, and compare what the bucket then holds with it.

        The ETag it must have is kept in its metadata as `etag`, so that it can be compared later.

        Size and metadata are read back by HEAD; the content is compared by ETag where that is a
        hash of the content, and by reading it back where not. What differs is deleted again, so
        that nothing wrong stays visible; but not what someone else has delivered meanwhile, which
        its metadata tell.
        """
        url = self.url(key)
        metadata = {**metadata, "etag": etag_of(source)}
        with reaching(url):
            self.client.upload_file(
                str(source),
                self.name,
                key,
                ExtraArgs={"ContentType": content_type, "Metadata": metadata},
                Config=TransferConfig(
                    multipart_threshold=PART_BYTES,
                    multipart_chunksize=PART_BYTES,
                    use_threads=False,
                ),
            )
        stored = self.head(key)
        theirs = {name: stored.metadata.get(name) for name in metadata}
        if theirs != metadata and None not in theirs.values():
            raise ObjectChanged(f"{url}: someone else delivered it at the same time")
        wrong = self._difference(source, stored, metadata)
        if wrong:
            self.delete(key)
            raise ObjectDamaged(f"{url}: {wrong}; it was deleted again")

    def _difference(self, source: Path, stored: S3Object, metadata: dict[str, str]) -> str:
        size = source.stat().st_size
        if stored.size != size:
            return f"{stored.size:,} bytes were stored of {size:,}"
        if {**stored.metadata, **metadata} != stored.metadata:
            return "the metadata was not stored"
        if stored.etag == metadata["etag"]:
            return ""
        try:
            same = self.sha256(stored) == sha256_of(source)
        except ObjectDamaged:
            same = False
        return "" if same else "the stored bytes differ"

    def is_current(self, existing: S3Object, origin: dict[str, str]) -> bool:
        """Whether an object that `deliver` wrote is of this `origin` (metadata that say what it
        was made of, and how), and whole: also where a try was killed before it could compare what
        it had delivered, unless a key service hides the content's hash. For that its metadata must
        have `bytes`, and should have `sha256`."""
        made = existing.metadata
        expected = {**origin, "bytes": str(existing.size)}
        if any(made.get(name) != value for name, value in expected.items()):
            return False
        if made.get("etag") == existing.etag or not existing.etag_is_hash:
            return True
        return made.get("sha256") == self.sha256(existing)

    def sha256(self, stored: S3Object) -> str:
        """The SHA-256 of an object's bytes, all of which are read."""
        digest = hashlib.sha256()
        with reaching(self.url(stored.key)):
            body = self.client.get_object(Bucket=self.name, Key=stored.key)["Body"]
            for chunk in body.iter_chunks(2**20):
                digest.update(chunk)
        return digest.hexdigest()


def is_hash(answer: Any) -> bool:
    """Whether the ETag in a server's answer is made of the content, which a key service or a
    customer's key prevents."""
    plain = answer.get("ServerSideEncryption", "AES256") == "AES256"
    return plain and "SSECustomerAlgorithm" not in answer


def etag_of(file: Path) -> str:
    """The ETag that `deliver` gives this file: MD5, or MD5 of the parts' MD5s and their number.

    Source: "Checking object integrity", Amazon S3 User Guide.
    """
    parts = []
    with file.open("rb") as data:
        while chunk := data.read(PART_BYTES):
            parts.append(hashlib.md5(chunk, usedforsecurity=False).digest())
    if file.stat().st_size < PART_BYTES:
        return parts[0].hex() if parts else hashlib.md5(b"", usedforsecurity=False).hexdigest()
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


@contextmanager
def reaching(what: str) -> Iterator[None]:
    """Turn botocore's errors into ours, naming `what`.

    Raises:
        InfrastructureError: nothing can be done there now: no connection, no valid credentials,
            throttled, no such bucket, or an error inside the server.
        ObjectMissing, ObjectDenied, ObjectChanged, ObjectDamaged, ItemFailed: this object only.
    """
    try:
        yield
    except ClientError as error:
        raise _translated(error, what) from error
    except S3UploadFailedError as error:  # upload_file hides the ClientError behind it
        if isinstance(error.__context__, ClientError):
            raise _translated(error.__context__, what) from error
        raise ItemFailed(f"{what}: {error}") from error
    except (FlexibleChecksumError, IncompleteReadError, ResponseStreamingError) as error:
        raise ObjectDamaged(f"{what}: it arrived damaged: {error}") from error
    except ParamValidationError as error:
        raise ItemFailed(f"{what}: {error}") from error
    except BadListing as error:
        raise BadListing(f"{what}: {error}. Check the connection's endpoint.") from error
    except BotoCoreError as error:
        raise InfrastructureError(
            f"{what} cannot be reached: {error}. Check the connection's endpoint and credentials."
        ) from error


def _translated(error: ClientError, what: str) -> ImageflowsError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return InfrastructureError(
            f"{what}: the bucket does not exist: create it, or correct the parameter."
        )
    if code in _CREDENTIALS:
        return InfrastructureError(
            f"{what}: the credentials are refused ({code}): check the connection."
        )
    if code in _BUSY or status == 429 or status > 500:
        return InfrastructureError(f"{what}: the server is overloaded or away: {error}")
    if status == 500:
        return ServerFault(f"{what}: the server broke: {error}")
    if code in _MISSING:
        return ObjectMissing(f"{what} does not exist")
    if code in CONDITION_CODES:
        return ObjectChanged(f"{what} changed meanwhile; the next run takes the new one")
    if code in _DENIED:
        return ObjectDenied(f"{what}: access denied: the connection's policy must allow it")
    return ItemFailed(f"{what}: {error}")
