"""Sorting more than fits in memory: sorted runs on disk, merged while they are read."""

from __future__ import annotations

import heapq
import marshal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

Row = TypeVar("Row")

SORT_BYTES = 32 * 2**20
BLOCK = 256
"""Rows are written and read in blocks of so many: a call for each would cost more than the row."""


def external_sort(
    rows: Iterable[Row], folder: Path, size_of: Callable[[Row], int]
) -> Iterator[Row]:
    """`rows` in ascending order. What is held of them is bounded by SORT_BYTES, however many.

    Rows are compared as they are, and may be bytes, text, numbers, None, and plain tuples of
    these. `size_of(row)` gives about the bytes it takes; runs are written below `folder`, and
    gone when the iterator is.
    """
    with ExitStack() as files:
        runs: list[IO[bytes]] = []
        chunk: list[Row] = []
        size = 0
        for row in rows:
            chunk.append(row)
            size += size_of(row)
            if size >= SORT_BYTES:
                runs.append(files.enter_context(_written(chunk, folder)))
                chunk, size = [], 0
        chunk.sort()
        yield from heapq.merge(*(_read(run) for run in runs), chunk) if runs else chunk


def _written(chunk: list[Any], folder: Path) -> IO[bytes]:
    """A run: the chunk sorted, in an unnamed file."""
    chunk.sort()
    run = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- the caller closes it
    rows = iter(chunk)
    while block := list(islice(rows, BLOCK)):
        marshal.dump(block, run)
    run.seek(0)
    return run


def _read(run: IO[bytes]) -> Iterator[Any]:
    while True:
        try:
            block = marshal.load(run)  # noqa: S302 -- our own unnamed file, written just before
        except EOFError:
            return
        yield from block
