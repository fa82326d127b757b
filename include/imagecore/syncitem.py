"""One planned change carried out: looked at again, done under conditions, verified, receipted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from imagecore.content import Content, FileContent, ObjectContent, glance, look, same_content
from imagecore.errors import InfrastructureError, ItemFailed, PlanRefused
from imagecore.manifest import Item
from imagecore.outcome import Result, State
from imagecore.s3 import Bucket, ObjectChanged, ObjectDamaged, ObjectMissing, ServerFault
from imagecore.sides import KEY_BYTES, LocalSide
from imagecore.sourcekind import content_type
from imagecore.target import Target, Written, headers_of
from imagecore.text import printable

Planned = dict[str, Any]
"""What a plan says of one object or file: `key`, `size`, `etag`, `modified`."""


class Source(Protocol):
    """Where planned items are read."""

    def content(self, planned: Planned) -> Content:
        """The thing that was planned; reading anything else in its place raises."""

    def write(self, planned: Planned, target: Target, key: str, expected: str | None) -> Written:
        """Bring it to `key` of the target."""

    def refuse_if_there(self, key: str) -> None:
        """Raise ObjectChanged when the source has this key (again)."""

    def check(self) -> None:
        """Raise InfrastructureError unless the source as such can be used."""


@dataclass(frozen=True)
class BucketSource:
    """Objects of a bucket. `server_side`: the target's server can read it and copies by itself."""

    bucket: Bucket
    server_side: bool

    def content(self, planned: Planned) -> ObjectContent:
        found = look(self.bucket, planned["key"])
        self._require(planned, found)
        return found

    def _require(self, planned: Planned, found: ObjectContent | None) -> None:
        if found is None:
            raise ObjectMissing(f"{self.bucket.url(planned['key'])} does not exist any more")
        if (found.version, found.size) != (planned["etag"], planned["size"]):
            raise ObjectChanged(f"{self.bucket.url(found.key)} changed since it was planned")

    def write(self, planned: Planned, target: Target, key: str, expected: str | None) -> Written:
        if self.server_side:
            return target.copy(self._to_copy(planned, target), key, expected)
        found = self.content(planned)
        return target.write(key, found.pieces(), found.size, headers_of(found), expected)

    def _to_copy(self, planned: Planned, target: Target) -> ObjectContent:
        """The planned object. Looked at only where the server does not bind copies to a version."""
        if not target.conditions.copy_source:
            self._require(planned, glance(self.bucket, planned["key"]))
        return ObjectContent(self.bucket, planned["key"], planned["size"], planned["etag"], "")

    def refuse_if_there(self, key: str) -> None:
        if glance(self.bucket, key) is not None:
            raise ObjectChanged(f"{self.bucket.url(key)} is in the source (again)")

    def check(self) -> None:
        self.bucket.check()


@dataclass(frozen=True)
class FolderSource:
    """Files below a folder; `identity` is the drive that was mounted there when it was listed."""

    side: LocalSide
    identity: list[int]

    def content(self, planned: Planned) -> FileContent:
        return FileContent(self.side.folder / planned["key"], planned["size"], planned["modified"])

    def write(self, planned: Planned, target: Target, key: str, expected: str | None) -> Written:
        content = self.content(planned)
        pieces = content.pieces()
        first = next(pieces, b"")
        headers = {"ContentType": content_type(first[:1024], planned["key"])}
        return target.write(key, _after(first, pieces), content.size, headers, expected)

    def refuse_if_there(self, key: str) -> None:
        self.check()
        if os.path.lexists(self.side.folder / key):
            raise ObjectChanged(f"{printable(self.side.folder / key)} is there (again)")

    def check(self) -> None:
        try:
            found = self.side.identity()
        except PlanRefused as error:  # it was there when it was planned
            raise InfrastructureError(str(error)) from error
        if found != self.identity:
            raise InfrastructureError(
                f"Another drive is mounted at {printable(self.side.folder)} than when it was "
                "listed: mount the right one, or clear the task `plan` to plan again."
            )


def _after(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


@dataclass(frozen=True)
class Trash:
    """Where what is replaced or deleted is kept: a bucket of the target's server."""

    target: Target
    prefix: str

    def key(self, key: str) -> str:
        """Where an object of this key is kept; a name too long for S3 by its hash."""
        kept = f"{self.prefix}{key}"
        if len(kept.encode()) <= KEY_BYTES:
            return kept
        return f"{self.prefix}sha256-{hashlib.sha256(key.encode()).hexdigest()}"

    def keep(self, found: ObjectContent) -> dict[str, Any]:
        """Copy an object into the trash, unless an earlier try did; its entry in the receipt."""
        key = self.key(found.key)
        there = self.target.find(key)
        if there is None:
            kept = self.target.copy(found, key, None).etag
        elif same_content(look(found.bucket, found.key), look(there.bucket, key)):
            kept = there.version
        else:
            raise ItemFailed(
                f"{self.target.bucket.url(key)} holds another object than the one to be kept "
                "there: clear the task `plan` to plan again"
            )
        return {"etag": found.version, "size": found.size, "trash": key, "kept": kept}

    def kept(self, key: str) -> dict[str, Any] | None:
        """The receipt's entry of what an earlier try kept of this key."""
        found = self.target.find(self.key(key))
        if found is None:
            return None
        kept = found.version
        return {"etag": kept, "size": found.size, "trash": found.key, "kept": kept}


class SyncItems:
    """Carries out the items of a plan; many threads may call `process` at once.

    Parameters:
        source: where pictures come from.
        target: where they go.
        trash: where what is replaced or deleted is kept; None: nowhere.
    """

    def __init__(self, source: Source, target: Target, trash: Trash | None) -> None:
        self._source = source
        self._target = target
        self._trash = trash

    def process(self, item: Item) -> Result:
        """Do one item; its outcome's detail is the receipt."""
        try:
            return self._remove(item) if item["action"] == "duplicate" else self._transfer(item)
        except ServerFault as fault:
            self._source.check()
            self._target.bucket.check()
            raise ItemFailed(f"{fault}; the server answers for others") from fault

    def _transfer(self, item: Item) -> Result:
        key, before = item["target"], item["before"]
        replaced = None
        try:
            if before is not None:
                replaced = self._kept(key, before["etag"])
            expected = before and before["etag"]
            written = self._source.write(item["source"], self._target, key, expected)
        except ObjectDamaged:
            self._put_back(key, replaced)
            raise
        except (ItemFailed, ServerFault):
            # Done already, by a try that was killed or whose answer was lost?
            found = self._target.find(key)
            if found is None or not self._is_done(found, item):
                raise
            written = Written(key, found.version, found.size)
            if before is not None:
                replaced = self._trash.kept(key) if self._trash else _not_kept(before)
                if replaced is None:  # this sync keeps what it replaces, so it was someone else
                    return Result(State.SKIPPED, "it is there already", receipt(item))
        return Result(
            State.DONE, "", receipt(item, wrote=[{**asdict(written), "replaced": replaced}])
        )

    def _kept(self, key: str, etag: str) -> dict[str, Any]:
        """The version that was planned to be replaced, kept if there is a trash."""
        found = self._target.find(key)
        if found is None or found.version != etag:
            raise ObjectChanged(
                f"{self._target.bucket.url(key)} was to be replaced as {etag}, and now "
                f"{f'is {found.version}' if found else 'is gone'}: the next run looks again"
            )
        return self._keep(found)

    def _keep(self, found: ObjectContent) -> dict[str, Any]:
        """The receipt's entry of what is to go, kept if there is a trash."""
        if self._trash is None:
            return _not_kept({"etag": found.version, "size": found.size})
        return self._trash.keep(found)

    def _put_back(self, key: str, replaced: dict[str, Any] | None) -> None:
        """Restore what was replaced by something that proved damaged, and is gone again."""
        if self._trash and replaced and replaced["trash"] and self._target.find(key) is None:
            kept = look(self._trash.target.bucket, replaced["trash"])
            self._target.copy(kept, key, None)

    def _is_done(self, found: ObjectContent, item: Item) -> bool:
        before = item["before"]
        if before is not None and found.version == before["etag"]:
            return False
        return found.size == item["source"]["size"] and same_content(
            self._source.content(item["source"]), look(found.bucket, found.key)
        )

    def _remove(self, item: Item) -> Result:
        if item["absent"] is not None:
            self._source.refuse_if_there(item["absent"])
        removed: list[dict[str, Any]] = []
        for planned in item["remove"]:
            try:
                entry = self._remove_one(planned)
            except ItemFailed as error:
                error.detail = receipt(item, removed=removed)
                raise
            if entry is not None:
                removed.append({"key": planned["key"], **entry})
        state = State.DONE if removed else State.SKIPPED
        reason = "" if removed else "it was gone already"
        return Result(state, reason, receipt(item, removed=removed))

    def _remove_one(self, planned: Planned) -> dict[str, Any] | None:
        key, etag = planned["key"], planned["etag"]
        found = self._target.find(key)
        if found is None:
            return self._trash.kept(key) if self._trash else None
        if etag is not None and found.version != etag:
            raise ObjectChanged(
                f"{self._target.bucket.url(key)} was to be deleted as {etag}, and now is "
                f"{found.version}: the next run looks again"
            )
        entry = self._keep(found)
        with suppress(ObjectMissing):  # a delete whose answer was lost, asked again
            self._target.delete(key, found.version)
        return entry


def _not_kept(was: Planned) -> dict[str, Any]:
    return {"etag": was["etag"], "size": was["size"], "trash": None}


def receipt(
    item: Item, wrote: Sequence[dict[str, Any]] = (), removed: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """What was done, verified: enough to undo it."""
    return {
        "action": item["action"],
        "bytes": sum(entry["size"] for entry in wrote),
        "wrote": list(wrote),
        "removed": list(removed),
    }
