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
from imagecore.tempspace import temp_file
from imagecore.text import printable

PRESENT, UPLOADED, BAD_REFERENCE, UNREADABLE = "present", "uploaded", "bad_reference", "unreadable"
MISSING, HASH_MISMATCH, AMBIGUOUS = "missing", "hash_mismatch", "ambiguous"
_UNMATCHED = {
    Found.NO_FILE: MISSING,
    Found.OTHER_HASH: HASH_MISMATCH,
    Found.AMBIGUOUS: AMBIGUOUS,
}
PAYLOADS = ("original", "reencode")


class RiakImages:
    """Brings references to a bucket of Riak; many threads may call `process` at once.

    Each outcome's detail has its `result`: `present`, `uploaded`, `missing`, `hash_mismatch`,
    `ambiguous`, `bad_reference` or `unreadable`; what failed has none.

    Parameters:
        bucket: where to.
        assets: the folder of the files, and `index` the index of it.
        workers: what decodes them, with limits.
        temp: a folder for copies while they are decoded.
        payload: `original`, the file's own bytes, or `reencode`, as the legacy script did.
        keeps_siblings: the bucket's `allow_mult`, for which a write must not be repeated.
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
    ) -> None:
        self._bucket = bucket
        self._assets = os.fsencode(assets)
        self._index = index
        self._workers = workers
        self._temp = temp
        self._payload = payload
        self._repeatable = not keeps_siblings

    def process(self, item: Item) -> Result:
        """Do one item."""
        key = item["key"]
        try:
            reference = parse_reference(key)
        except ValueError as error:
            return _refused(BAD_REFERENCE, str(error))
        try:
            if self._bucket.exists(key):
                return Result(State.SKIPPED, "it is there", {"result": PRESENT})
        except RiakSiblings:
            return Result(State.SKIPPED, "it is there, with siblings", {"result": PRESENT})
        match = self._index.match(reference)
        if match.found is not Found.FILE:
            paths = [path.decode("utf-8", "backslashreplace") for path in match.paths]
            return _refused(_UNMATCHED[match.found], match.reason, candidates=paths)
        try:
            document = self._document(key, self._content(match.paths[0]))
        except UnreadableImage as error:
            return _refused(UNREADABLE, str(error))
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
        if encoded_bytes(status.st_size) > OBJECT_BYTES:
            raise UnreadableImage(
                f"its {status.st_size:,} bytes are more than Riak takes: a document of more than "
                f"{OBJECT_BYTES:,} bytes"
            )
        return FileContent(file, status.st_size, status.st_mtime_ns)

    def _document(self, key: str, content: FileContent) -> ImageDocument:
        picture = b"".join(content.pieces())
        name = hashlib.sha256(key.encode()).hexdigest()
        again = self._payload == "reencode"
        with temp_file(self._temp, name) as source, temp_file(self._temp, f"{name}.saved") as saved:
            source.write_bytes(picture)
            worker = self._workers.get()
            try:
                examined = worker.examine(source, saved if again else None)
            finally:
                self._workers.put(worker)
            if again:
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
        self._bucket.put(key, document.encode(), CONTENT_TYPE, repeatable=self._repeatable)
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
            "the same time, or it was damaged on the way. Compare the two."
        )


def _refused(result: str, reason: str, **more: Any) -> Result:
    return Result(
        State.QUARANTINED, f"{result.replace('_', ' ')}: {reason}", {"result": result, **more}
    )
