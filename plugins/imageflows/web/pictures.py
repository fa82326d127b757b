"""Which pictures belong to an item, where each lies, and whether the page may read from there."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from imagecore.errors import ImageflowsError, ItemFailed, PlanRefused
from imagecore.manifest import Item
from imagecore.outcome import Outcome
from imagecore.text import printable
from imageflows.params import setting
from imageflows.renderparams import COMPOSITES_PREFIX, LAYERS_PREFIX, RENDER, renders_root
from imageflows.sides import Where, inside
from imageflows.syncparams import upload_root

if TYPE_CHECKING:
    from imagecore.renderitem import Rendering
    from imagecore.riak import RiakBucket
    from imagecore.s3 import Bucket, S3Object
    from imagecore.workstore import WorkStore

TIFF = (".tif", ".tiff")
_PIECE = 8 << 20
PERIOD = 300
"""Seconds after which a connection is read anew: somebody may have changed it."""
BUCKETS = {
    "pyramid_source_bucket": "imageflows-source",
    "pyramid_image_bucket": "imageflows-image",
    "store_sync_source_bucket": "imageflows-originals",
    "store_sync_destination_bucket": "imageflows-store",
    "store_sync_trash_bucket": "imageflows-trash",
    "photo_upload_destination_bucket": "imageflows-originals",
    "photo_upload_trash_bucket": "imageflows-trash",
    "renders_renders_bucket": "imageflows-renders",
}
"""The settings that name a bucket with pictures, and their defaults."""


class NotShown(ImageflowsError):
    """The page may not read from there."""


@dataclass(frozen=True)
class Picture:
    """A picture of an item: its `role` (source, result, replaced), and `key` at `where`; the
    `version` and the `sha256` that the run saw or wrote there, as far as it is on record."""

    role: str
    where: Where
    key: str
    version: str = ""
    sha256: str = ""

    def changed(self, seen: Seen) -> bool:
        """Whether what lies there now is another file than the run's."""
        found = seen.metadata.get("sha256", "")
        return bool(
            (self.version and self.version != seen.version)
            or (self.sha256 and found and self.sha256 != found)
        )


@dataclass(frozen=True)
class Seen:
    """A picture as it lies there now: `version` changes with its bytes, of which there are
    `size`."""

    version: str
    size: int
    modified: datetime | None
    metadata: dict[str, str]
    found: Any


class Place(Protocol):
    """Where a picture lies. Methods raise ItemFailed, or InfrastructureError."""

    def __hash__(self) -> int: ...

    @property
    def address(self) -> str:
        """Of the picture, for people and as its name in a cache."""

    def look(self) -> Seen:
        """What is known of the picture without reading it."""

    def read(self, seen: Seen, offset: int, length: int) -> bytes:
        """Bytes of the picture that was seen, fewer where it ends."""

    def fetch(self, seen: Seen, target: Path, seconds: float) -> None:
        """Write the picture that was seen to a file, if that takes no longer than so."""

    @property
    def by_ranges(self) -> bool:
        """Whether it may be a pyramid that is read in parts."""


def pictures(
    store: WorkStore, folder: str, plan: dict[str, Any], item: Item, outcome: Outcome | None
) -> list[Picture]:
    """The pictures of an item of the plan in `folder`, results as far as the outcome tells them."""
    params = plan["params"]
    detail = outcome.detail if outcome else {}
    if "sync" in plan:
        return list(_of_sync(plan["sync"], item, detail))
    if "image_bucket" in params:
        found = [Picture("source", _bucket(params, "source_bucket"), item["key"])]
        if "target" in detail:
            where = _bucket(params, "image_bucket")
            found.append(
                Picture("result", where, detail["target"], sha256=detail.get("sha256", ""))
            )
        return found
    if "riak_bucket" in params:
        where = {"url": f"riak://{params['riak_bucket']}", "conn_id": params["riak_conn_id"]}
        return [Picture("result", where, item["key"])]
    if "renders_bucket" in params:
        return list(_of_render(store, folder, params, item))
    if "source_bucket" in params:
        return [Picture("source", _bucket(params, "source_bucket"), item["key"])]
    return []


def roles(plan: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Which of them a list shows of an outcome, or of an item: told by the row alone."""
    params, detail = plan["params"], row.get("detail", {})
    ended_well = row.get("state") in {"done", "skipped"}
    if "sync" in plan:
        if "state" not in row:
            there = {"source": row.get("source"), "result": row.get("before") or row.get("remove")}
            return [role for role, found in there.items() if found]
        if detail.get("action") == "duplicate":
            kept = any(each["trash"] for each in detail["removed"])
            return ["replaced"] if kept else []
        return ["source", "result"] if ended_well else ["source"]
    if "image_bucket" in params:
        return ["source", "result"] if "target" in detail else ["source"]
    if "riak_bucket" in params:
        return ["result"] if ended_well else []
    if "style" in params:
        return ["source", "result"] if ended_well else ["source"]
    return ["source"] if "source_bucket" in params else []


def _of_sync(sync: dict[str, Any], item: Item, detail: dict[str, Any]) -> Iterator[Picture]:
    if source := item.get("source"):
        version = source["etag"] or file_version(source["size"], source["modified"])
        yield Picture("source", sync["source"], source["key"], version)
    wrote, removed = detail.get("wrote", []), detail.get("removed", [])
    before = [item["before"]] if item.get("before") else item.get("remove", [])
    for each in wrote or ([] if removed else before):
        yield Picture("result", sync["destination"], each["key"], each["etag"] or "")
    for kept in (*(each["replaced"] for each in wrote), *removed):
        if kept and kept["trash"] and sync["trash"]:
            yield Picture("replaced", sync["trash"], kept["trash"], kept["kept"])


def _of_render(
    store: WorkStore, folder: str, params: dict[str, Any], item: Item
) -> Iterator[Picture]:
    source, style, rendering = _render(store, f"{folder}/{RENDER}")
    where = _bucket(params, "renders_bucket")
    if rendering is None:
        yield Picture("source", source, item["source"]["key"])
        yield Picture("result", where, f"{LAYERS_PREFIX}/{style}/{item['key']}")
        return
    for name in item["names"]:
        for output in rendering.outputs:
            yield Picture("result", where, f"{COMPOSITES_PREFIX}/{style}/{output.key(name)}")
    for file in rendering.files(item):
        if file in rendering.layers:
            yield Picture("source", source, rendering.layers[file]["key"])


@lru_cache(maxsize=8)
def _render(store: WorkStore, path: str) -> tuple[Where, str, Rendering | None]:
    """What a plan of renders keeps; it is written once."""
    from imagecore.renderitem import Rendering

    kept = json.loads(store.get(path))
    if "rendering" not in kept:
        return kept["source"], kept["style"], None
    rendering = Rendering.from_json(kept["rendering"])
    return kept["source"], rendering.style, rendering


def _bucket(params: dict[str, Any], name: str) -> Where:
    return {"url": f"s3://{params[name]}/", "conn_id": params["aws_conn_id"]}


def open_place(picture: Picture) -> Place:
    """Where a picture lies, for reading.

    Raises:
        NotShown: that is no place of this installation's settings.
    """
    where, key = picture.where, picture.key
    parts = urlsplit(where["url"])
    if parts.scheme == "file":
        return FilePlace(_allowed_file(Path(where["url"].removeprefix("file://")) / key))
    if parts.scheme == "riak":
        _allow(("riak", where["conn_id"], parts.netloc))
        return RiakPlace(_open_riak(where["conn_id"], parts.netloc, period()), key)
    _allow(("s3", where["conn_id"], parts.netloc))
    return BucketPlace(_open_bucket(where["conn_id"], parts.netloc, period()), key)


def period() -> int:
    """A number that is another one every PERIOD seconds."""
    return int(time.monotonic() // PERIOD)


@lru_cache(maxsize=32)
def _open_bucket(conn_id: str, name: str, period: int) -> Bucket:
    from imagecore.s3 import Bucket
    from imageflows.hooks.s3 import s3_client

    return Bucket(name, s3_client(conn_id, connections=8))


@lru_cache(maxsize=8)
def _open_riak(conn_id: str, name: str, period: int) -> RiakBucket:
    from imageflows.hooks.riak_hook import RiakHook

    return RiakHook(conn_id).bucket(name)


def readable() -> set[tuple[str, str, str]]:
    """Kind, connection and bucket of every place that the settings name, and of those that
    `[imageflows] page_buckets` adds: `s3://conn_id@bucket, riak://conn_id@bucket`."""
    s3, riak = setting("aws_conn_id", "imageflows_s3"), setting("riak_conn_id", "imageflows_riak")
    places = {("s3", s3, setting(name, default)) for name, default in BUCKETS.items()}
    places.add(("riak", riak, setting("riak_bucket", "ez")))
    for address in filter(None, map(str.strip, setting("page_buckets", "").split(","))):
        parts = urlsplit(address)
        if parts.scheme not in {"s3", "riak"} or not parts.username or not parts.netloc:
            raise PlanRefused(
                f"{address!r} in [imageflows] page_buckets is no address such as "
                "s3://conn_id@bucket: correct the setting."
            )
        conn_id, _, bucket = parts.netloc.partition("@")
        places.add((parts.scheme, conn_id, bucket))
    return places


def _allow(place: tuple[str, str, str]) -> None:
    if place not in readable():
        kind, conn_id, bucket = place
        raise NotShown(
            f"The page does not read from {kind}://{printable(bucket)} by the connection "
            f"{printable(conn_id)}, which is no default of this installation. To allow it, add "
            f"{kind}://{printable(conn_id)}@{printable(bucket)} to [imageflows] page_buckets."
        )


def _allowed_file(path: Path) -> Path:
    for root in (upload_root(), renders_root()):
        try:
            return inside(path, root)
        except (PlanRefused, ValueError, RuntimeError):  # also a NUL, and links in a circle
            continue
    raise NotShown(
        f"The page does not read {printable(path)}: it lies neither in [imageflows] upload_root "
        "nor in renders_root."
    )


@dataclass(frozen=True)
class BucketPlace:
    """An object in S3."""

    bucket: Bucket
    key: str

    @property
    def address(self) -> str:
        return self.bucket.url(self.key)

    def look(self) -> Seen:
        found = self.bucket.head(self.key)
        return Seen(found.etag, found.size, found.modified, found.metadata, found)

    def read(self, seen: Seen, offset: int, length: int) -> bytes:
        found: S3Object = seen.found
        return self.bucket.read_range(found, offset, length)

    def fetch(self, seen: Seen, target: Path, seconds: float) -> None:
        _fetch(self, seen, target, seconds)

    @property
    def by_ranges(self) -> bool:
        return self.key.lower().endswith(TIFF)


def file_version(size: int, modified: int) -> str:
    """Of a file that is no object: its size in bytes, and when it was modified in nanoseconds."""
    return f"{size:x}-{modified:x}"


@dataclass(frozen=True)
class FilePlace:
    """A file that this machine can see, too."""

    path: Path

    @property
    def address(self) -> str:
        return f"file://{printable(self.path)}"

    def look(self) -> Seen:
        try:
            found = self.path.stat()
        except OSError as error:
            raise ItemFailed(
                f"{self.address} cannot be read on the machine of the API server "
                f"({error.strerror}): only workers see it, or it is gone."
            ) from error
        if not stat.S_ISREG(found.st_mode):  # to open a pipe could take for ever
            raise ItemFailed(f"{self.address} is no file.")
        version = file_version(found.st_size, found.st_mtime_ns)
        modified = datetime.fromtimestamp(found.st_mtime).astimezone()
        return Seen(version, found.st_size, modified, {}, None)

    def read(self, seen: Seen, offset: int, length: int) -> bytes:
        with self._open() as file:
            file.seek(offset)
            return file.read(length)

    def fetch(self, seen: Seen, target: Path, seconds: float) -> None:
        _fetch(self, seen, target, seconds)

    @property
    def by_ranges(self) -> bool:
        return self.path.name.lower().endswith(TIFF)

    def _open(self) -> Any:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise ItemFailed(f"{self.address} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class RiakPlace:
    """A picture's document in Riak, which is read whole: Riak has no ranges."""

    bucket: RiakBucket
    key: str

    @property
    def address(self) -> str:
        return printable(self.bucket.url(self.key))

    def look(self) -> Seen:
        found = self.bucket.head(self.key)
        return Seen(found.etag, found.size, found.modified, found.metadata, None)

    by_ranges = False

    def read(self, seen: Seen, offset: int, length: int) -> bytes:
        return self._picture(seen)[offset : offset + length]

    def fetch(self, seen: Seen, target: Path, seconds: float) -> None:
        target.write_bytes(self._picture(seen))

    def _picture(self, seen: Seen) -> bytes:
        from imagecore.imagedocument import NoDocument, decode

        found = self.bucket.get(self.key)
        if found.etag != seen.version:
            raise ItemFailed(f"{self.address} changed just now: reload.")
        try:
            return decode(found.data).picture
        except NoDocument as error:
            raise ItemFailed(f"{self.address}: {error}") from error


def _fetch(place: Place, seen: Seen, target: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with target.open("wb") as file:
        for offset in range(0, seen.size, _PIECE):
            if time.monotonic() >= deadline:
                raise ItemFailed(f"{place.address} could not be fetched in {seconds:g} s.")
            file.write(place.read(seen, offset, _PIECE))
