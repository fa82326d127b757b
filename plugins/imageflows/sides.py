"""The two sides of a sync as a run names them, opened and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from imagecore.errors import PlanRefused

if TYPE_CHECKING:
    from imagecore.s3 import Bucket
    from imagecore.sides import LocalSide, S3Side
    from imagecore.syncitem import BucketSource, FolderSource

Where = dict[str, Any]
"""A side as plan.json holds it: its `url`; `conn_id` of a bucket, `identity` of a local folder,
`folder` of the plan in a trash."""

CONNECTIONS = 32


def where_s3(url: str, conn_id: str) -> Where:
    """A side in S3, of `s3://bucket/prefix`. The prefix is taken as a folder.

    Raises:
        PlanRefused: it is no such address, or the bucket or connection cannot be used.
    """
    from imagecore.s3 import Bucket
    from imageflows.hooks.s3 import refused_when_unusable, s3_client

    name, _, prefix = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not name:
        raise PlanRefused(f"{url!r} is no address such as s3://bucket/prefix")
    with refused_when_unusable(conn_id):
        Bucket(name, s3_client(conn_id, connections=1)).check()
    slash = "" if not prefix or prefix.endswith("/") else "/"
    return {"url": f"s3://{name}/{prefix}{slash}", "conn_id": conn_id}


def where_local(url: str, root: str) -> Where:
    """A local folder, of `file:///folder`, with what tells that its drive is still mounted.

    Raises:
        PlanRefused: there is none, or it does not lie in `root`.
    """
    from imagecore.sides import LocalSide

    folder = inside(Path(url.removeprefix("file://")), root)
    return {"url": f"file://{folder}", "identity": LocalSide(folder).identity()}


def inside(path: Path, root: str) -> Path:
    """The path, its links followed.

    Raises:
        PlanRefused: it does not lie in `root`, or there is no root.
    """
    folder, allowed = path.resolve(), Path(root).resolve()
    if not root or not folder.is_relative_to(allowed):
        raise PlanRefused(
            f"The folder {str(folder)!r} does not lie in {str(allowed)!r}, which is all that a run "
            "may read: correct the parameter, or the setting that names the root."
        )
    return folder


def open_s3(where: Where, connections: int = CONNECTIONS) -> S3Side:
    """The side in S3."""
    from imagecore.sides import S3Side
    from imageflows.hooks.s3 import s3_bucket

    name, _, prefix = where["url"].removeprefix("s3://").partition("/")
    return S3Side(s3_bucket(where["conn_id"], name, connections=connections), prefix)


def open_side(where: Where, connections: int = CONNECTIONS) -> S3Side | LocalSide:
    """The side, of either kind."""
    from imagecore.sides import LocalSide

    if "identity" in where:
        return LocalSide(Path(where["url"].removeprefix("file://")))
    return open_s3(where, connections)


def open_planned(
    where: Where, connections: int, *, server_side: bool = False
) -> BucketSource | FolderSource:
    """The side as what was planned of it is read; `server_side` as for BucketSource."""
    from imagecore.sides import LocalSide
    from imagecore.syncitem import BucketSource, FolderSource

    side = open_side(where, connections)
    if isinstance(side, LocalSide):
        return FolderSource(side, where["identity"])
    return BucketSource(side.bucket, server_side)


def refuse_overlap(sides: dict[str, S3Side]) -> None:
    """Sides of one server must not be the same, nor one inside the other.

    Raises:
        PlanRefused: naming both.
    """
    names = list(sides)
    for position, name in enumerate(names):
        for other_name in names[position + 1 :]:
            one, other = sides[name], sides[other_name]
            if _server(one.bucket) == _server(other.bucket) and (
                one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)
            ):
                raise PlanRefused(
                    f"The {name} {one.url} and the {other_name} {other.url} overlap: give them "
                    "prefixes of their own, or another bucket."
                )


def _server(bucket: Bucket) -> tuple[str, str]:
    """Amazon's regions are one server: a bucket's name is there only once."""
    address = urlsplit(bucket.client.meta.endpoint_url)
    host = address.hostname or ""
    amazon = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return "amazon" if amazon else f"{host}:{address.port or address.scheme}", bucket.name
