"""Manifests: JSON Lines files of items, sorted, written once, cut into batches."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from imagecore.errors import PlanRefused
from imagecore.extsort import external_sort
from imagecore.tempspace import disk_errors
from imagecore.text import printable
from imagecore.workstore import WorkStore

Item = dict[str, Any]
"""One unit of work. `key` names it, and is unique within a manifest."""

_KEY = re.compile(rb'\{"key":("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True)
class Batch:
    """A slice of a manifest, as XCom carries it: small, because every mapped task gets them all.

    `offset` and `length` are bytes; `sha256` is of the slice, so that a batch is done on exactly
    what was planned. A slice of one file beats a file a batch: 1,000 fewer objects to write.
    """

    batch_id: str
    uri: str
    offset: int
    length: int
    count: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A written manifest: its address, number of items, and SHA-256 of the whole file."""

    uri: str
    count: int
    sha256: str


def encode(item: Item) -> bytes:
    """An item as its line: the key first, plain ASCII, so that lines sort and any name fits."""
    rest = {name: item[name] for name in sorted(item) if name != "key"}
    return json.dumps({"key": item["key"], **rest}, separators=(",", ":")).encode() + b"\n"


def decode(lines: bytes, source: str) -> list[Item]:
    """Items of JSON Lines.

    Raises:
        PlanRefused: a line is not a JSON object with a text `key`. The message gives its number
            and never its content, which may be anything.
    """
    return list(decode_lines(lines.splitlines(), source))


def decode_lines(lines: Iterable[bytes], source: str) -> Iterator[Item]:
    """As `decode`, one by one."""
    for number, line in enumerate(lines, 1):
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PlanRefused(
                f"{source}, line {number}: not JSON. A manifest has one item a line."
            ) from error
        if not isinstance(item, dict) or not isinstance(item.get("key"), str) or not item["key"]:
            raise PlanRefused(
                f'{source}, line {number}: not an item. An item is an object with a text "key".'
            )
        yield item


def batch_size(
    count: int,
    *,
    max_fanout: int,
    max_tasks: int,
    min_batch: int,
    images_per_task: int | None = None,
) -> int:
    """How many items a batch holds.

    Up to `max_fanout` items, one each. Beyond, batches grow so that there are at most
    `max_fanout` of them and each has at least `min_batch` items (some seconds of work: a mapped
    task costs 0.15 to 0.20 CPU-seconds by itself). `images_per_task` overrides all of this but
    `max_tasks`, Airflow's own limit (`core.max_map_length`).

    Raises:
        PlanRefused: `images_per_task` would make more than `max_tasks` tasks.
    """
    if images_per_task is not None:
        tasks = ceil(count / images_per_task)
        if tasks > max_tasks:
            raise PlanRefused(
                f"images_per_task={images_per_task} would make {tasks:,} tasks of {count:,} "
                f"images, and Airflow maps at most {max_tasks:,} (core.max_map_length). "
                f"Set images_per_task to {ceil(count / max_tasks)} or more, or leave it empty."
            )
        return images_per_task
    most = min(max_fanout, max_tasks)
    return 1 if count <= most else max(min_batch, ceil(count / most))


def write_manifest(
    items: Iterable[Item],
    store: WorkStore,
    path: str,
    size_of: Callable[[int], int],
    prefix: str = "",
    shared: Callable[[str, str], int] | None = None,
) -> tuple[Manifest, list[Batch]]:
    """Sort `items` into the file `path` of `store` and cut it into batches.

    `size_of(count)` gives the number of items a batch holds, and `prefix` begins the batches'
    names. Where `shared` says how much neighbouring keys have in common, a batch has up to a
    quarter more items and ends where that is least. Items may stream: what this function holds of
    them is bounded by SORT_BYTES, whatever their number.

    Raises:
        PlanRefused: two items have the same key.
        DiskFull: the temporary folder has no space left.
    """
    with (
        tempfile.TemporaryDirectory(prefix="imageflows-plan-") as folder,
        disk_errors(Path(folder)),
    ):
        file = Path(folder, "manifest.jsonl")
        count, sha256 = _sort_to(file, (encode(item) for item in items), folder)
        batches = list(_cut(file, size_of(count), store.uri(path), prefix, shared))
        uri = store.put(path, file)
    return Manifest(uri, count, sha256), batches


def read_batch(store: WorkStore, path: str, batch: Batch) -> list[Item]:
    """The items of a batch.

    Raises:
        PlanRefused: the manifest is gone, or no longer what was planned.
    """
    try:
        lines = store.get(path, batch.offset, batch.length)
    except FileNotFoundError as error:
        raise PlanRefused(
            f"The manifest {batch.uri} is gone: clear the task `plan` to plan again."
        ) from error
    if hashlib.sha256(lines).hexdigest() != batch.sha256:
        raise PlanRefused(
            f"Batch {batch.batch_id} of {batch.uri} is not what was planned (its SHA-256 differs): "
            "clear the task `plan` to plan again."
        )
    return decode(lines, batch.uri)


def _sort_to(target: Path, lines: Iterable[bytes], folder: str) -> tuple[int, str]:
    """Write `lines` sorted to `target`; returns their number and the file's SHA-256."""
    count, digest, last = 0, hashlib.sha256(), None
    with target.open("wb") as file:
        for line in external_sort(lines, Path(folder), len):
            key = _KEY.match(line).group(1)  # type: ignore[union-attr]
            if key == last:
                raise PlanRefused(
                    f"The key {printable(json.loads(key))} was planned twice: "
                    "a run has each item once."
                )
            last = key
            count += 1
            digest.update(line)
            file.write(line)
    return count, digest.hexdigest()


def _key(line: bytes) -> str:
    key: str = json.loads(_KEY.match(line).group(1))  # type: ignore[union-attr]
    return key


def _cut(
    file: Path, size: int, uri: str, prefix: str, shared: Callable[[str, str], int] | None
) -> Iterator[Batch]:
    offset = 0
    more = size // 4 if shared else 0
    with file.open("rb") as lines:
        read: list[bytes] = []
        for number in itertools.count():
            read += islice(lines, size + more + 1 - len(read))
            if not read:
                return
            end = size
            if shared and len(read) > size:
                keys = [_key(line) for line in read[size - 1 :]]
                apart = [shared(*pair) for pair in itertools.pairwise(keys)]
                end = size + apart.index(min(apart))
            slice_, read = read[:end], read[end:]
            data = b"".join(slice_)
            yield Batch(
                f"{prefix}{number:04d}",
                uri,
                offset,
                len(data),
                len(slice_),
                hashlib.sha256(data).hexdigest(),
            )
            offset += len(data)
