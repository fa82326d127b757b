"""Whole buckets to compare, and a server that honours every condition, as Amazon's does."""

from __future__ import annotations

import uuid
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from botocore.exceptions import ClientError
from obstore.store import S3Store

from devstack.samples import client
from imagecore.s3 import Bucket
from tests.faults import status
from tests.faultwire import Fault, Request, Response


class Kept(NamedTuple):
    """An object: its bytes, and all that a copy of it must have as well."""

    data: bytes
    content_type: str
    cache_control: str
    metadata: dict[str, str]
    tags: dict[str, str]


def new_bucket_of(s3: Any, role: str = "sync") -> Bucket:
    """An empty bucket with a name of its own."""
    name = f"{role}-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return Bucket(name, s3)


def through(bucket: Bucket, endpoint: str) -> Bucket:
    """The same bucket by another address; with a shortcut if it has one."""
    found = Bucket(bucket.name, client(endpoint))
    return with_shortcut(found) if bucket.shortcut else found


def with_shortcut(bucket: Bucket) -> Bucket:
    """The same bucket, reached through obstore as well."""
    store = S3Store(
        bucket.name,
        endpoint=bucket.client.meta.endpoint_url,
        region="us-east-1",
        access_key_id="test",
        secret_access_key="test",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    return Bucket(bucket.name, bucket.client, store)


def put(bucket: Bucket, key: str, data: bytes = b"picture", **headers: Any) -> str:
    """Write an object, as anybody may; its ETag."""
    answer = bucket.client.put_object(Bucket=bucket.name, Key=key, Body=data, **headers)
    return answer["ETag"].strip('"')


def versions(bucket: Bucket, prefix: str = "") -> dict[str, str]:
    """The ETag of each object."""
    own = _lister(bucket.client.meta.endpoint_url)  # imagecore.listing makes a client its own
    pages = own.get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix=prefix)
    return {
        entry["Key"]: entry["ETag"].strip('"')
        for page in pages
        for entry in page.get("Contents", ())
    }


_lister = cache(client)


def snapshot(bucket: Bucket, prefix: str = "") -> dict[str, Kept]:
    """Everything that lies in a bucket, below the prefix."""
    return {key[len(prefix) :]: kept(bucket, key) for key in versions(bucket, prefix)}


def kept(bucket: Bucket, key: str) -> Kept:
    """One object."""
    found: Any = bucket.client.get_object(Bucket=bucket.name, Key=key)
    # rclone adds the time of a copy to its metadata, and writes names of metadata with a capital
    metadata = {name.lower(): value for name, value in found["Metadata"].items()}
    metadata.pop("mtime", None)
    tags: Any = {"TagSet": ()}
    if found.get("TagCount"):
        tags = bucket.client.get_object_tagging(Bucket=bucket.name, Key=key)
    return Kept(
        found["Body"].read(),
        found["ContentType"],
        found.get("CacheControl", ""),
        metadata,
        {tag["Key"]: tag["Value"] for tag in tags["TagSet"]},
    )


def uploads(bucket: Bucket) -> list[str]:
    """The keys of uploads in parts that nobody has ended."""
    found = bucket.client.list_multipart_uploads(Bucket=bucket.name)
    return [upload["Key"] for upload in found.get("Uploads", ())]


def honours(server: Any) -> Fault:
    """Conditions on copies and joined uploads hold, which moto ignores. `server`: moto's client."""

    def before(request: Request) -> Response | None:
        sent, here = request.headers, _etag(server, request.bucket, request.key)
        wrong = [
            "if-none-match" in sent and here is not None,
            sent.get("if-match", here) != here,
        ]
        if "x-amz-copy-source" in sent:
            bucket, _, key = sent["x-amz-copy-source"].lstrip("/").partition("/")
            there = _etag(server, bucket, key)
            wrong.append(sent.get("x-amz-copy-source-if-match", there) != there)
        return status(412).before(request) if any(wrong) else None

    return Fault("honours", before=before)


def _etag(server: Any, bucket: str, key: str) -> str | None:
    with suppress(ClientError):
        return server.head_object(Bucket=bucket, Key=key)["ETag"]
    return None


def impatient(monkeypatch: Any) -> None:
    """botocore repeats what failed at once."""
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
