"""One image reference brought to Riak: looked for there, found in the assets, stored, compared."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from imagecore.adler import parse_reference
from imagecore.assets import AssetIndex, Found
from imagecore.content import FileContent
from imagecore.errors import ItemFailed, UnreadableImage
from imagecore.imagedocument import (
    CONTENT_TYPE,
    ImageDocument,
    NoDocument,
    decode,
    encoded_bytes,
)
from imagecore.manifest import Item
from imagecore.outcome import Result, State
from imagecore.riak import OBJECT_BYTES, RiakBucket
from imagecore.riakanswer import RiakNotFound, RiakSiblings
from imagecore.sandbox import PictureWorker
from imagecore.tempspace import disk_errors, temp_file
from imagecore.text import printable

PRESENT, SIBLINGS, UPLOADED = "present", "siblings", "uploaded"
BAD_REFERENCE, UNREADABLE, TOO_LARGE = "bad_reference", "unreadable", "too_large"
MISSING, HASH_MISMATCH, AMBIGUOUS = "missing", "hash_mismatch", "ambiguous"
_UNMATCHED = {
    Found.NO_FILE: MISSING,
    Found.OTHER_HASH: HASH_MISMATCH,
    Found.AMBIGUOUS: AMBIGUOUS,
}
PAYLOADS = ("original", "reencode")


class RiakImages:
    """Brings references to a bucket of Riak; many threads may call `process` at once.

    Each outcome's detail has its `result`: `present`, `siblings` (present, with several values),
    `uploaded`, `missing`, `hash_mismatch`, `ambiguous`, `bad_reference`, `unreadable` or
    `too_large`; what failed has none.

    Parameters:
        bucket: where to.
        assets: the folder of the files, and `index` the index of it.
        workers: what decodes them, with limits.
        temp: a folder for copies while they are decoded.
        payload: `original`, the file's own bytes, or `reencode`, as the legacy script did.
        keeps_siblings: the bucket's `allow_mult`, for which a write must not be repeated.
        force: store also what is there; siblings become one value.
    """

    def __init__(
        self,
        bucket: RiakBucket,
        assets: Path,
        index: AssetIndex,
        workers: SimpleQueue[PictureWorker],
        temp: Path,
        *,
        payload: str = PAYLOADS[0],
        keeps_siblings: bool = False,
        force: bool = False,
    ) -> None:
        self._bucket = bucket
        self._assets = os.fsencode(assets)
        self._index = index
        self._workers = workers
        self._temp = temp
        self._payload = payload
        self._keeps_siblings = keeps_siblings
        self._force = force

    def process(self, item: Item) -> Result:
        """Do one item."""
        key = item["key"]
        try:
            reference = parse_reference(key)
        except ValueError as error:
            return _refused(BAD_REFERENCE, str(error))
        try:
            if not self._force and self._bucket.exists(key):
                return Result(State.SKIPPED, "it is there", {"result": PRESENT})
        except RiakSiblings:
            reason = "it is there with several values: `force` stores one in their place"
            return Result(State.SKIPPED, reason, {"result": SIBLINGS})
        match = self._index.match(reference)
        if match.found is not Found.FILE:
            paths = [path.decode("utf-8", "backslashreplace") for path in match.paths]
            return _refused(_UNMATCHED[match.found], match.reason, candidates=paths)
        try:
            document = self._document(key, self._content(match.paths[0]))
        except UnreadableImage as error:
            return _refused(UNREADABLE, str(error))
        except _TooLarge as error:
            return _refused(TOO_LARGE, str(error))
        self._store(key, document)
        sha256 = hashlib.sha256(document.picture).hexdigest()
        about: dict[str, Any] = {
            name: value for name, value in asdict(document).items() if name != "picture"
        }
        path = match.paths[0].decode("utf-8", "backslashreplace")
        detail = {"result": UPLOADED, "path": path, "sha256": sha256, "bytes": document.size}
        return Result(State.DONE, "", about | detail)

    def _content(self, path: bytes) -> FileContent:
        file = Path(os.fsdecode(self._assets + path))
        try:
            status = os.stat(file, follow_symlinks=False)
        except OSError as error:
            raise ItemFailed(
                f"{printable(file)} cannot be read ({error.strerror}), and was there when the "
                "assets were indexed"
            ) from error
        if self._payload == "original":
            _refuse_too_large(status.st_size)
        return FileContent(file, status.st_size, status.st_mtime_ns)

    def _document(self, key: str, content: FileContent) -> ImageDocument:
        picture = b"".join(content.pieces())
        name = hashlib.sha256(key.encode()).hexdigest()
        again = self._payload == "reencode"
        with (
            disk_errors(self._temp),
            temp_file(self._temp, name) as source,
            temp_file(self._temp, f"{name}.saved") as saved,
        ):
            source.write_bytes(picture)
            worker = self._workers.get()
            try:
                examined = worker.examine(source, saved if again else None)
            finally:
                self._workers.put(worker)
            if again:
                _refuse_too_large(saved.stat().st_size)
                picture = saved.read_bytes()
        return ImageDocument(
            key=key,
            title=content.path.name,
            size=content.size,
            width=examined.width,
            height=examined.height,
            media_type=f"image/{examined.kind}",
            picture=picture,
            created=int(time.time()),
        )

    def _store(self, key: str, document: ImageDocument) -> None:
        """Write a document, and compare what Riak then gives back.

        Raises:
            ItemFailed: it is another. What is no picture at all was deleted again.
        """
        self._bucket.put(
            key,
            document.encode(),
            CONTENT_TYPE,
            vclock=self._seen(key) if self._keeps_siblings else "",
            repeatable=not self._keeps_siblings,
        )
        stored = self._bucket.get(key)
        url = self._bucket.url(key)
        try:
            if decode(stored.data).picture == document.picture:
                return
        except NoDocument as error:
            with suppress(RiakNotFound):
                self._bucket.delete(key, vclock=stored.vclock)
            raise ItemFailed(f"{url} came back damaged ({error}) and was deleted again") from error
        raise ItemFailed(
            f"{url} holds another picture than the one that was stored: someone else wrote it at "
            "the same time, or it was damaged on the way. Compare the two; a run with `force` "
            "stores it again."
        )

    def _seen(self, key: str) -> str:
        """The vclock of what is there, were it a tombstone: a write without it is a sibling."""
        try:
            return self._bucket.head(key).vclock
        except (RiakNotFound, RiakSiblings) as there:
            return there.vclock


class _TooLarge(Exception):
    """The document would be larger than Riak takes."""


def _refuse_too_large(picture: int) -> None:
    if encoded_bytes(picture) > OBJECT_BYTES:
        raise _TooLarge(
            f"a document of its {picture:,} bytes is larger than Riak takes ({OBJECT_BYTES:,})"
        )


def _refused(result: str, reason: str, **more: Any) -> Result:
    return Result(
        State.QUARANTINED, f"{result.replace('_', ' ')}: {reason}", {"result": result, **more}
    )
