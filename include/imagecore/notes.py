"""Notes: small JSON objects that say a picture was uploaded and waits for its pyramid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timezone
from posixpath import basename
from typing import Any

from imagecore.errors import ItemFailed, ItemRefused
from imagecore.manifest import Item
from imagecore.s3 import Bucket, ObjectMissing, S3Object
from imagecore.text import printable

NOTES = "rbsc/"
QUARANTINE = "quarantine/"
ELSEWHERE = "elsewhere/"
"""Where it is kept to which folder a picture's pyramid went, when that is not the picture's own."""
NOTE_BYTES = 64 * 2**10
READERS = 16
KEY_BYTES = 1_024
EXTENSIONS = frozenset(
    {"jpg", "jpeg", "png", "tif", "tiff", "webp", "gif", "avif", "heic", "bmp", "eps", "pdf", "svg"}
)
"""File name extensions taken for pictures when a bucket is listed, without regard to case."""


@dataclass(frozen=True)
class Note:
    """Where a note lies and which version of it was read: only that one may be deleted."""

    key: str
    etag: str
    modified: str

    @classmethod
    def of(cls, found: S3Object) -> Note:
        """The note that a listing or HEAD shows."""
        seconds = found.modified.astimezone(timezone.utc).replace(microsecond=0)
        return cls(found.key, found.etag, seconds.isoformat())


def target_key(item: Item) -> str:
    """Where the pyramid of a picture goes: `<path><stem>.tif`."""
    name = basename(item["key"])
    stem, dot, _ = name.rpartition(".")
    return f"{item['path']}{stem if dot and stem else name}.tif"


def picture(key: str, path: str | None = None, copyright: bool | None = None) -> Item:
    """The item of a source picture. `copyright` None: not known, as no note speaks of it.

    Raises:
        ItemRefused: key or path cannot be one of an object that makes a pyramid.
    """
    path = _folder(key) if path is None else path
    try:
        f"{key}{path}".encode()
    except UnicodeEncodeError as error:
        raise ItemRefused("the key is not valid Unicode, which S3 keys are") from error
    if not basename(key):
        raise ItemRefused("the key names a folder, not a picture")
    if path and not path.endswith("/"):
        raise ItemRefused('"path" must end with a slash: it is the folder the result goes to')
    if {".", ".."} & {*key.split("/"), *path.split("/")}:
        raise ItemRefused('"." and ".." as part of a key are refused: servers disagree on them')
    if len(key.encode()) > KEY_BYTES:
        raise ItemRefused("the key is longer than the 1,024 bytes S3 allows")
    item: Item = {"key": key, "path": path, "copyright": copyright, "notes": []}
    if len(target_key(item).encode()) > KEY_BYTES:
        raise ItemRefused("the result's key would be longer than the 1,024 bytes S3 allows")
    return item


def picture_or_refusal(
    key: str, path: str | None = None, copyright: bool | None = None, notes: Any = ()
) -> Item:
    """The item of a source picture; where it is refused, an item that carries the refusal."""
    try:
        item = picture(key, path, copyright)
    except ItemRefused as error:
        folder = _folder(key) if path is None else path
        item = {"key": key, "path": folder, "copyright": copyright, "refused": str(error)}
    return {**item, "notes": [note for note in notes if _is_note(note)]}


def _folder(key: str) -> str:
    return key[: key.rfind("/") + 1]


def _is_note(note: Any) -> bool:
    """A manifest may come from anywhere, and notes are deleted: take nothing else for one."""
    return (
        isinstance(note, dict)
        and set(note) == {"key", "etag", "modified"}
        and all(isinstance(value, str) for value in note.values())
        and note["key"].startswith(NOTES)
    )


def planned_before(items: Iterable[Item], bucket: Bucket) -> Iterator[tuple[Item | None, str, str]]:
    """The items of a manifest, looked at anew; results as of `read_notes`.

    An item without a path below `rbsc/` is a note that could not be read: it is read again, if it
    still lies there and not in quarantine. Of any other item only the key need be given.
    """
    for item in items:
        key, path, copyright = item["key"], item.get("path"), item.get("copyright")
        if path is None and key.startswith(NOTES):
            found = bucket.find(key)
            yield _read_note(bucket, found) if found else (None, key, "a note that is gone")
            continue
        notes = item["notes"] if isinstance(item.get("notes"), list) else ()
        path = path if isinstance(path, str) else None
        copyright = copyright if isinstance(copyright, bool) else None
        again = picture_or_refusal(key, path, copyright, notes)
        yield _forced(again) if item.get("force") is True else again, "", ""


def parse_note(data: bytes) -> Item:
    """The item a note asks for.

    A note is a JSON object with `key` and `path`, maybe `eTag` (not needed: the source is looked
    at when its turn comes) and `copyrightStatus`; `copyright_status` is read too. `force` true
    asks to make the pyramid even when it is up to date.

    Raises:
        ItemRefused: it is not such an object.
    """
    if len(data) > NOTE_BYTES:
        raise ItemRefused(f"the note has {len(data):,} bytes; a note has a few hundred")
    try:
        note = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ItemRefused("the note is not JSON") from error
    if not isinstance(note, dict) or not isinstance(note.get("key"), str) or not note["key"]:
        raise ItemRefused('the note is not an object with a text "key"')
    path = note.get("path")
    if path is not None and not isinstance(path, str):
        raise ItemRefused('the note\'s "path" is not a text')
    item = picture(note["key"], path, _copyright(note))
    return _forced(item) if note.get("force") is True else item


def _forced(item: Item) -> Item:
    return {**item, "force": True}


def _copyright(note: dict[str, Any]) -> bool | None:
    """What a note says of copyright; None when it says nothing."""
    status = note.get("copyrightStatus", note.get("copyright_status"))
    if not isinstance(status, str) or not status.strip():
        return None
    return status.strip().lower() == "copyright"


def quarantined_copyright(bucket: Bucket, item: Item) -> bool | None:
    """What the note of a picture in quarantine says of copyright."""
    try:
        note = json.loads(bucket.read(quarantine_key(item)))
    except ValueError:
        return None
    return _copyright(note) if isinstance(note, dict) else None


def read_notes(bucket: Bucket) -> Iterator[tuple[Item | None, str, str]]:
    """Every object below `rbsc/`, as (item, key, remark).

    The item is None where the object is no note at all (a folder marker, another file): the
    remark says what it is. A bad note gives an item that carries its refusal, so that it ends in
    quarantine with the reason; one that cannot be fetched an item that carries its failure.
    """
    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(lambda found: _read_note(bucket, found), bucket.walk(NOTES))


def _read_note(bucket: Bucket, found: S3Object) -> tuple[Item | None, str, str]:
    if found.key.endswith("/"):
        return None, found.key, "a folder marker"
    if not found.key.endswith(".json"):
        return None, found.key, "not a note: its name does not end in .json"
    note = asdict(Note.of(found))
    try:
        if found.size > NOTE_BYTES:
            raise ItemRefused(f"the note has {found.size:,} bytes; a note has a few hundred")
        item = parse_note(bucket.read(found.key))
    except ObjectMissing:
        return None, found.key, "gone while the notes were being read"
    except ItemRefused as error:
        return {"key": found.key, "refused": f"unreadable note: {error}", "notes": [note]}, "", ""
    except ItemFailed as error:
        return {"key": found.key, "failed": f"unreadable note: {error}", "notes": [note]}, "", ""
    return {**item, "notes": [note]}, "", ""


def merge_pictures(items: Iterable[Item]) -> list[Item]:
    """One item a source, and no two of one result.

    Several notes of one source become one item that carries them all; copyright in any of them
    counts, and so does a folder that is not the source's own; where they ask for two of those, it
    is refused. Sources that would write the same result are all refused, naming each other.
    """
    sources: dict[str, Item] = {}
    for item in items:
        known = sources.setdefault(item["key"], item)
        if known is not item:
            _add(known, item)
    targets: dict[str, list[Item]] = {}
    for item in sources.values():
        if "path" in item and "refused" not in item:
            targets.setdefault(target_key(item), []).append(item)
    for target, rivals in targets.items():
        if len(rivals) > 1:
            names = ", ".join(sorted(printable(rival["key"]) for rival in rivals))
            for rival in rivals:
                rival["refused"] = (
                    f"{names} would all become {printable(target)}: rename all but one"
                )
    return [sources[key] for key in sorted(sources)]


def _add(known: Item, item: Item) -> None:
    """Make one item of two of the same source."""
    names, more = ({note["key"] for note in each["notes"]} for each in (known, item))
    if names and more and not names & more and {"path"} <= known.keys() & item.keys():
        own = _folder(item["key"])  # what an upload's note says: nobody has chosen it
        chosen = sorted({known["path"], item["path"]} - {own})
        if len(chosen) > 1:
            both = " and ".join(map(printable, chosen))
            known["refused"] = f"its notes ask for two folders, {both}: correct one"
        elif chosen:
            known["path"] = chosen[0]
    known["notes"] = known["notes"] + item["notes"]
    known["copyright"] = _either(known.get("copyright"), item.get("copyright"))
    if "force" in item:
        known["force"] = True


def _either(one: bool | None, other: bool | None) -> bool | None:
    return True if one or other else (one if other is None else other)


def note_key(source: str) -> str:
    """Where the note of a source picture lies: one place a source, whatever its stem."""
    return _key_below(NOTES, source)


def note_names(source: str) -> tuple[str, str]:
    """Where the note of a source picture may lie: named by its key, or by its stem as once."""
    name = basename(source)
    return note_key(source), f"{NOTES}{name.rpartition('.')[0] or name}.json"


def quarantine_key(item: Item) -> str:
    """Where an item's note lies while the item is in quarantine: one place a source, no stems."""
    return _key_below(QUARANTINE, item["key"])


def elsewhere_key(item: Item) -> str:
    """Where it is kept to which folder an item's pyramid went."""
    return _key_below(ELSEWHERE, item["key"])


def remember_folder(bucket: Bucket, item: Item) -> None:
    """Keep to which folder an item's pyramid went: an upload's event does not say it again."""
    if item["path"] != _folder(item["key"]):
        note = {"key": item["key"], "path": item["path"]}
        bucket.write(elsewhere_key(item), json.dumps(note).encode() + b"\n", "application/json")


def with_folders(bucket: Bucket, items: Iterable[Item]) -> Iterator[Item]:
    """Items that a listing found, each with the folder its pyramid went to before."""
    elsewhere = {found.key for found in bucket.walk(ELSEWHERE)}
    for item in items:
        if "refused" not in item and elsewhere_key(item) in elsewhere:
            item = {**item, "path": _remembered_folder(bucket, item)}
        yield item


def _remembered_folder(bucket: Bucket, item: Item) -> str:
    path = _known_note(bucket, elsewhere_key(item)).get("path")
    return path if isinstance(path, str) else _folder(item["key"])


def _key_below(folder: str, name: str) -> str:
    """A name that is too long, or that servers may disagree on, is replaced by its hash."""
    key = name.encode(errors="surrogatepass")
    if len(key) > 900 or key != name.encode(errors="replace") or {".", ".."} & {*name.split("/")}:
        name = f"hashed/{hashlib.sha256(key).hexdigest()}"
    return f"{folder}{name}.json"


def write_note(
    bucket: Bucket,
    key: str,
    *,
    etag: str | None = None,
    sequencer: str | None = None,
    force: bool = False,
) -> bool:
    """Ask for the pyramid of a picture, unless its note speaks of an upload as new or newer.

    What else its note says, such as copyright, stays. It is written even where nothing in it
    changes, so that a run that has read the old one does not delete it.

    Args:
        bucket: the process bucket.
        key: the picture in the source bucket; one that is refused ends in quarantine by its note.
        etag: the upload's, as its event gives it.
        sequencer: orders the events of one key (`order_of`). None: written anew whatever is there.
        force: the pyramid is to be made even when it is up to date.

    Returns:
        Whether it was written.
    """
    try:
        known = _known_note(bucket, note_key(key))
    except ItemRefused:  # what it says is kept, as in quarantine
        bucket.copy(note_key(key), quarantine_key({"key": key}).removesuffix(".json"))
        known = {}
    there = known.get("sequencer")
    if sequencer and isinstance(there, str) and order_of(sequencer) <= order_of(there):
        return False
    told = {"eTag": etag, "sequencer": sequencer, "force": force or None}
    note = {"path": _remembered_folder(bucket, {"key": key}), **known, "key": key}
    note |= {name: value for name, value in told.items() if value is not None}
    bucket.write(note_key(key), json.dumps(note, indent=2).encode() + b"\n", "application/json")
    return True


def _known_note(bucket: Bucket, key: str) -> dict[str, Any]:
    """What a note says; nothing when there is none.

    Raises:
        ItemRefused: it cannot be read.
    """
    try:
        note = json.loads(bucket.read(key))
    except ObjectMissing:
        return {}
    except (ValueError, RecursionError) as error:
        raise ItemRefused("the note is not JSON") from error
    if not isinstance(note, dict):
        raise ItemRefused("the note is not an object")
    return note


def order_of(sequencer: str) -> str:
    """What to compare of S3's sequencers: hexadecimal digits, of which the shorter counts as
    filled with zeros on its right (Amazon S3 User Guide, "Event message structure")."""
    return sequencer.upper().rstrip("0")


def quarantine(bucket: Bucket, item: Item, reason: str, run: str, at: str) -> None:
    """Move an item's notes to quarantine: still a note there, with the reason added.

    An unreadable note is kept as it is, beside the reason. A note that was written anew since it
    was read stays: it asks for another look.
    """
    note: dict[str, Any] = {"key": item["key"], "reason": reason, "at": at, "run": run}
    if "path" in item:
        note["path"] = item["path"]
    else:
        with suppress(ObjectMissing):  # moved already, by a try that was killed after it
            bucket.copy(item["key"], quarantine_key(item).removesuffix(".json"))
    if item.get("copyright"):
        note["copyrightStatus"] = "copyright"
    bucket.write(
        quarantine_key(item), json.dumps(note, indent=2).encode() + b"\n", "application/json"
    )
    delete_notes(bucket, item)


def delete_notes(bucket: Bucket, item: Item) -> None:
    """Delete an item's notes, each only while it is the version that was read."""
    for note in item["notes"]:
        if is_unchanged(bucket, note):
            bucket.delete(note["key"])


def is_unchanged(bucket: Bucket, note: dict[str, str]) -> bool:
    """Whether a note is still the version that was read: a newer one asks for more work."""
    found = bucket.find(note["key"])
    return found is not None and asdict(Note.of(found)) == note


def looks_like_picture(key: str) -> bool:
    """By its name: a picture's extension, and not hidden."""
    stem, _, extension = basename(key).rpartition(".")
    return stem != "" and not stem.startswith(".") and extension.lower() in EXTENSIONS
