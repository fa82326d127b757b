"""One picture from bucket to bucket: looked at, fetched, made, verified, delivered, noted."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import quote, unquote

from imagecore.errors import DiskFull, ItemFailed, ItemRefused
from imagecore.manifest import Item
from imagecore.notes import (
    delete_notes,
    quarantine,
    quarantine_key,
    quarantined_copyright,
    remember_folder,
    target_key,
    write_note,
)
from imagecore.outcome import Result, State, now
from imagecore.recipe import Recipe
from imagecore.reconcile import current_key
from imagecore.s3 import (
    Bucket,
    ObjectChanged,
    ObjectDamaged,
    ObjectDenied,
    ObjectMissing,
    S3Object,
    ServerFault,
)
from imagecore.sandbox import PictureWorker
from imagecore.tempspace import disk_errors, temp_file
from imagecore.text import printable

SOURCE_KEY_CHARACTERS = 1_000
"""S3 takes 2 KB of metadata in all; a longer name is kept as its hash."""

ROOM_BYTES = 2**30
"""A disk that has so much room again when a picture's files are gone was filled by that picture."""


@dataclass(frozen=True)
class Buckets:
    """The three buckets: uploads, notes, and finished pyramids."""

    source: Bucket
    process: Bucket
    image: Bucket


class PyramidItems:
    """Processes the items of a batch; many threads may call `process` at once.

    Parameters:
        buckets: where pictures come from and go to.
        recipe: what is made of them.
        temp: a folder for the file fetched and the file made.
        workers: one worker for each thread.
        run: the run's name, for notes in quarantine.
        force: make pyramids that are up to date again.
        max_source_bytes: a larger source is quarantined unread.
    """

    def __init__(
        self,
        buckets: Buckets,
        recipe: Recipe,
        temp: Path,
        workers: SimpleQueue[PictureWorker],
        *,
        run: str,
        force: bool,
        max_source_bytes: int,
    ) -> None:
        self._buckets = buckets
        self._recipe = recipe
        self._temp = temp
        self._workers = workers
        self._run = run
        self._force = force
        self._max_source_bytes = max_source_bytes

    def process(self, item: Item) -> Result:
        """Bring one picture's pyramid up to date, and answer for its notes.

        A note goes only after the pyramid was verified in the bucket; a refused picture goes to
        quarantine, and its note with it; whatever else happens, it stays.

        Raises:
            ItemRefused: the picture, its note or its name is bad.
            ItemFailed: it could not be made or delivered this time.
            InfrastructureError: nor could any other.
        """
        process = self._buckets.process
        quarantined = None
        try:
            quarantined = process.find(quarantine_key(item))
            result = self._bring_up_to_date(item, quarantined is not None)
        except ItemRefused as refusal:
            if quarantined and item.get("copyright") is None:
                item = {**item, "copyright": quarantined_copyright(process, item)}
            quarantine(process, item, printable(refusal), self._run, now())
            raise
        except ObjectChanged:
            if not item["notes"]:  # what is newer than the source now was made of the older one
                write_note(process, item["key"])
            raise
        except ServerFault as fault:
            for bucket in (self._buckets.source, process, self._buckets.image):
                bucket.check()
            raise ItemFailed(f"{fault}; the server answers for others") from fault
        remember_folder(process, item)
        delete_notes(process, item)
        if quarantined:
            process.delete(quarantined.key)
        return result

    def _bring_up_to_date(self, item: Item, quarantined: bool) -> Result:
        if "refused" in item:
            raise ItemRefused(item["refused"])
        if "failed" in item:
            raise ItemFailed(item["failed"])
        source = self._source(item)
        if (
            self._buckets.source.name == self._buckets.image.name
            and "source-key" in source.metadata
        ):
            return Result(State.SKIPPED, "it is a pyramid, not a picture that was uploaded")
        target = target_key(item)
        existing = self._buckets.image.find(target)
        self._refuse_taken(item, target, existing)
        copyright = self._copyright(item, existing, quarantined)
        origin = {
            "source-key": _source_name(item["key"]),
            "source-etag": source.etag,
            "recipe": self._recipe.fingerprint(copyright),
        }
        force = self._force or item.get("force", False)
        if existing and not force and self._buckets.image.is_current(existing, origin):
            if existing.modified < source.modified:
                self._buckets.process.write(current_key(item), b"{}\n", "application/json")
                self._refuse_changed(source)
            return Result(State.SKIPPED, "up to date", {"target": target})
        metadata = {**origin, "copyright": "yes" if copyright else "no"}
        try:
            result = self._make(source, target, metadata)
        except ItemRefused:
            self._refuse_changed(source)
            raise
        self._refuse_changed(source)
        return result

    def _refuse_changed(self, source: S3Object) -> None:
        """Whatever was found out is of a version that may be gone: the next one asks anew."""
        if self._buckets.source.head(source.key).etag != source.etag:
            raise ObjectChanged(
                f"{self._buckets.source.url(source.key)} changed meanwhile: "
                "the next run takes the new one"
            )

    def _copyright(self, item: Item, existing: S3Object | None, quarantined: bool) -> bool:
        """Of a picture whose note does not say, what was known when it was last looked at."""
        if item["copyright"] is not None:
            return bool(item["copyright"])
        if quarantined and quarantined_copyright(self._buckets.process, item):
            return True
        return existing is not None and existing.metadata.get("copyright") == "yes"

    def _source(self, item: Item) -> S3Object:
        try:
            source = self._buckets.source.head(item["key"])
        except ObjectDenied:
            self._buckets.source.check()
            raise
        except ObjectMissing as error:
            self._buckets.source.check()  # a bucket that is gone is nobody's bad picture
            raise ItemRefused(
                f"{error}: it was deleted or renamed after its note was written"
            ) from error
        if source.size == 0:
            raise ItemRefused("the file is empty (0 bytes)")
        if source.size > self._max_source_bytes:
            raise ItemRefused(
                f"the file has {source.size:,} bytes, "
                f"and max_source_mb allows {self._max_source_bytes:,}"
            )
        return source

    def _refuse_taken(self, item: Item, target: str, existing: S3Object | None) -> None:
        """Refuse to write over an uploaded picture, or over another living picture's pyramid."""
        source, image = self._buckets.source, self._buckets.image
        maker = existing.metadata.get("source-key", "") if existing else ""
        if source.name == image.name and existing and not maker:
            raise ItemRefused(f"its pyramid would overwrite a picture, {image.url(target)}")
        if not maker or maker == _source_name(item["key"]):
            return
        if maker.startswith("sha256:") or source.find(unquote(maker)):
            raise ItemRefused(
                f"{image.url(target)} is the pyramid of another picture, {maker}: "
                "rename one of them"
            )

    def _make(self, source: S3Object, target: str, metadata: dict[str, str]) -> Result:
        try:
            return self._make_once(source, target, metadata)
        except DiskFull as full:
            free = shutil.disk_usage(self._temp).free
            if free < ROOM_BYTES:
                raise
            raise ItemFailed(
                f"{full} It was this picture alone: without it {free:,} bytes are free."
            ) from full

    def _make_once(self, source: S3Object, target: str, metadata: dict[str, str]) -> Result:
        name = uuid.uuid4().hex
        worker = self._workers.get()
        try:
            with (
                disk_errors(self._temp),
                temp_file(self._temp, name) as fetched,
                temp_file(self._temp, f"{name}.tif") as made,
            ):
                try:
                    self._buckets.source.fetch(source, fetched)
                except ObjectDamaged:  # a connection that broke looks the same
                    self._buckets.source.fetch(source, fetched)
                info = worker.make_pyramid(
                    fetched, made, self._recipe, copyright=metadata["copyright"] == "yes"
                )
                described = {
                    "width": info.width,
                    "height": info.height,
                    "pages": info.pages,
                    "tilesize": info.tile,
                    "bytes": info.bytes,
                    "sha256": info.sha256,
                }
                metadata |= {name: str(value) for name, value in described.items()}
                self._buckets.image.deliver(made, target, "image/tiff", metadata)
        finally:
            self._workers.put(worker)
        return Result(State.DONE, "; ".join(info.notes), {"target": target, **described})


def is_pyramid_of(image: Bucket, target: str, key: str) -> bool:
    """Whether the pyramid `target` was made of the picture `key`."""
    made = image.find(target)
    return made is not None and made.metadata.get("source-key") == _source_name(key)


def _source_name(key: str) -> str:
    name = quote(key)
    if len(name) <= SOURCE_KEY_CHARACTERS:
        return name
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
