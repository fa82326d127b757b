"""What Riak answers, read: objects, siblings, and what is wrong.

Sources: as in `imagecore.riak`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from imagecore.errors import InfrastructureError, ItemFailed
from imagecore.riakhttp import BUSY, Answer, RiakTooLarge, RiakUnavailable
from imagecore.text import printable

VCLOCK = "X-Riak-Vclock"
_META = "x-riak-meta-"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BOUNDARY = re.compile(r'multipart/mixed;.*\bboundary="?([^";]+)', re.IGNORECASE)


class RiakDenied(InfrastructureError):
    """Riak refuses the user, or what the user asks for."""


class RiakRefused(ItemFailed):
    """Riak, or this client before it, refuses the request as it is."""


class RiakServerError(ItemFailed):
    """A node broke at this request; it may be alive for others."""


class RiakPreconditionFailed(ItemFailed):
    """The object is not as the request said it must be."""


class RiakNotFound(ItemFailed):
    """There is no such object.

    `vclock` is that of its tombstone, where it was deleted a moment ago, else empty.
    """

    def __init__(self, message: str, vclock: str = "") -> None:
        super().__init__(message)
        self.vclock = vclock


@dataclass(frozen=True)
class RiakObject:
    """One value of a key.

    `size` is in bytes; `data` is empty when only the head was asked for. Names in `metadata` are
    in lower case, as Riak changes their spelling. `vclock` goes back with the next write, and
    shows what was seen. `deleted` marks a tombstone, which only `RiakSiblings` shows.
    """

    data: bytes = field(repr=False)
    size: int
    content_type: str
    vclock: str = field(repr=False)
    etag: str
    modified: datetime | None
    metadata: dict[str, str]
    deleted: bool = False


class RiakSiblings(ItemFailed):
    """The key has several values at the same time, and somebody has to decide.

    Write the right value with `vclock` to end it. `siblings` are the values, tombstones included;
    a HEAD does not tell them, and then it is empty.
    """

    def __init__(
        self, message: str, vclock: str = "", siblings: tuple[RiakObject, ...] = ()
    ) -> None:
        super().__init__(message)
        self.vclock = vclock
        self.siblings = siblings


def metadata_headers(metadata: Mapping[str, str], what: str) -> dict[str, str]:
    headers = {}
    for name, value in metadata.items():
        # Control characters would end the header; Riak drops blanks around a value.
        if not _TOKEN.fullmatch(name) or _CONTROL.search(value) or value != value.strip(" \t"):
            raise RiakRefused(
                f"{what}: the metadata {printable(name)} = {printable(value)!r} cannot be sent in "
                "a header: names are letters, digits and dashes; values are text without line "
                "breaks, and without blanks at either end."
            )
        headers[_META + name] = value.encode("utf-8").decode("latin-1")
    return headers


def read_object(headers: Mapping[str, str], data: bytes, size: str | None) -> RiakObject:
    fields = {name.lower(): value for name, value in headers.items()}
    modified = fields.get("last-modified")
    metadata = {
        name[len(_META) :]: value.encode("latin-1").decode("utf-8", "surrogateescape")
        for name, value in fields.items()
        if name.startswith(_META)
    }
    return RiakObject(
        data=data,
        size=int(size) if size and size.isdecimal() else len(data),
        content_type=fields.get("content-type", ""),
        vclock=fields.get("x-riak-vclock", ""),
        etag=fields.get("etag", "").strip('"'),
        modified=_date(modified),
        metadata=metadata,
        deleted=fields.get("x-riak-deleted") == "true",
    )


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def read_siblings(answer: Answer, what: str) -> tuple[RiakObject, ...]:
    """The values in a multipart answer, whose bodies are bytes as they are (RFC 2046, 5.1)."""
    found = _BOUNDARY.match(answer.headers.get("Content-Type", ""))
    if not found:
        raise RiakServerError(f"{what}: Riak's list of siblings cannot be read: {answer.text()}")
    boundary = b"\r\n--" + found[1].encode("latin-1")
    first, *parts, end = answer.body.split(boundary)
    if first or not parts or not end.startswith(b"--"):
        raise RiakServerError(f"{what}: Riak's list of siblings is damaged")
    siblings = []
    for part in parts:
        head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = (line.partition(": ") for line in head.decode("latin-1").split("\r\n"))
        siblings.append(read_object({name: value for name, _, value in lines}, data, None))
    return tuple(siblings)


def siblings_error(what: str, vclock: str, siblings: tuple[RiakObject, ...]) -> RiakSiblings:
    number = f"{len(siblings)} values" if siblings else "several values"
    return RiakSiblings(
        f"{what} has {number} at the same time (siblings): write the right one with their vector "
        "clock, or set the bucket's allow_mult to false.",
        vclock,
        siblings,
    )


def expect(answer: Answer, what: str, *statuses: int) -> None:
    if answer.status not in statuses:
        raise error_of(answer, what)


def is_absent(answer: Answer) -> bool:
    """Whether a 404 is about the object: it may be about its bucket type."""
    return not answer.body.startswith(b"Unknown bucket type")


def error_of(answer: Answer, what: str) -> Exception:
    status, said = answer.status, answer.text() or "nothing"
    if status == 404 and is_absent(answer):
        return RiakNotFound(f"{what} does not exist", answer.headers.get(VCLOCK, ""))
    if status in (401, 403):
        return RiakDenied(
            f"{what}: access denied ({status}): check the connection's user and password, and "
            "what Riak grants that user."
        )
    if status in (409, 412):
        return RiakPreconditionFailed(
            f"{what} is not as expected: it exists already, or was changed meanwhile"
        )
    if status == 413 or (status == 500 and "too_large" in said):
        return RiakTooLarge(f"{what} is larger than Riak takes: {said}. Store a smaller picture.")
    if status in BUSY:
        return RiakUnavailable(
            f"{what}: Riak is overloaded or away ({status} after {answer.tries} tries): {said}. "
            "Check the cluster."
        )
    if status >= 500:
        return RiakServerError(f"{what}: Riak broke at it ({status}): {said}. See Riak's own log.")
    return RiakRefused(f"{what}: Riak refuses it ({status}): {said}.")


def json_object(answer: Answer, what: str) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RiakServerError(f"{what}: the answer is not the JSON of Riak: {answer.text()}")
    return found
