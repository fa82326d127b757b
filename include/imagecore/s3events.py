"""Event messages of S3, read into uploads. Whatever a message holds, it stops no other one.

Source: "Event message structure", Amazon S3 User Guide.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from imagecore.notes import KEY_BYTES, looks_like_picture, order_of

CREATED = frozenset(f"ObjectCreated:{how}" for how in ("Put", "Post", "CompleteMultipartUpload"))
"""What an upload does; a copy is none."""

NOT_JSON = "message: not JSON"
TEST_EVENT = "message: test event"
NO_RECORDS = "message: no records"
INCOMPLETE = "record: incomplete"
OTHER_EVENT = "record: another event"
OTHER_BUCKET = "record: another bucket"
OTHER_PREFIX = "record: outside the prefixes"
FOLDER = "record: a folder marker"
NO_PICTURE = "record: not a picture by its name"

_SEQUENCER = re.compile(r"[0-9A-Fa-f]{1,128}")
_ETAG = re.compile(r"[!-~]{1,256}")


@dataclass(frozen=True)
class Upload:
    """A picture that was uploaded, as its event tells it.

    `sequencer` orders the events of one key; None, as `etag`, where the server sends none.
    """

    key: str
    etag: str | None = None
    sequencer: str | None = None

    @property
    def order(self) -> str:
        """What to compare of two uploads of one key."""
        return order_of(self.sequencer or "")


@dataclass
class Events:
    """What messages held: `messages` and `records` count all of them, `ignored` those that are no
    upload of a picture, by the reason, which says whether it is of messages or of records."""

    messages: int = 0
    records: int = 0
    uploads: list[Upload] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def newest(self) -> list[Upload]:
        """The last upload of each key, whatever the order in which they came."""
        newest: dict[str, Upload] = {}
        for upload in self.uploads:
            known = newest.setdefault(upload.key, upload)
            if upload.order >= known.order:
                newest[upload.key] = upload
        return list(newest.values())


def read_events(bodies: Iterable[Any], bucket: str, prefixes: Sequence[str]) -> Events:
    """The uploads of pictures into a bucket, below the prefixes, that messages tell of.

    Args:
        bodies: each the text of a message; anything else is ignored, with a count.
        bucket: the source bucket's name.
        prefixes: what a picture's key begins with, one or another.
    """
    events = Events()
    for body in bodies:
        events.messages += 1
        for record in _records(body, events.ignored):
            events.records += 1
            found = _upload(record, bucket, prefixes)
            if isinstance(found, Upload):
                events.uploads.append(found)
            else:
                events.ignored[found] += 1
    return events


def _records(body: Any, ignored: Counter[str]) -> Iterator[Any]:
    try:
        message = json.loads(body)
    except (TypeError, ValueError, RecursionError):
        ignored[NOT_JSON] += 1
        return
    message = message if isinstance(message, dict) else {}
    records = message.get("Records")
    if isinstance(records, list) and records:
        yield from records
    else:
        ignored[TEST_EVENT if message.get("Event") == "s3:TestEvent" else NO_RECORDS] += 1


def _upload(record: Any, bucket: str, prefixes: Sequence[str]) -> Upload | str:
    """The upload a record tells of, or why it is ignored."""
    event, name = _text(record, "eventName"), _text(record, "s3", "bucket", "name")
    key = _key(_text(record, "s3", "object", "key"))
    if event is not None and event.removeprefix("s3:") not in CREATED:
        return OTHER_EVENT
    if event is None or name is None or key is None:
        return INCOMPLETE
    if name != bucket:
        return OTHER_BUCKET
    if not key.startswith(tuple(prefixes)):
        return OTHER_PREFIX
    if key.endswith("/"):
        return FOLDER
    if not looks_like_picture(key):
        return NO_PICTURE
    etag, sequencer = (_text(record, "s3", "object", each) or "" for each in ("eTag", "sequencer"))
    return Upload(
        key,
        etag if _ETAG.fullmatch(etag) else None,
        sequencer if _SEQUENCER.fullmatch(sequencer) else None,
    )


def _text(record: Any, *path: str) -> str | None:
    """A text in a record; None where there is none, or something else, or an empty one."""
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record if isinstance(record, str) and record else None


def _key(quoted: str | None) -> str | None:
    """The key itself: events have it as a form would send it. None when S3 can have no such key."""
    try:
        key = unquote_plus(quoted or "", errors="strict")
        return key if 0 < len(key.encode()) <= KEY_BYTES else None
    except UnicodeError:
        return None
