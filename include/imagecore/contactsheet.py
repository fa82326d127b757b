"""Contact sheets of a style: pages to look through, each one HTML file and one picture.

They need nothing but each other, so they work from a folder as from the work store.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import numpy as np

from imagecore.contactpage import Cell, IndexRow, index_page, sheet_page
from imagecore.errors import ImageflowsError
from imagecore.manifest import Item
from imagecore.renderitem import Output, Rendering
from imagecore.renderverify import EMPTY, PictureReader, length_of, too_large
from imagecore.s3 import Bucket
from imagecore.sandbox import PictureWorker
from imagecore.tempspace import disk_errors
from imagecore.viewing import checks

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE = 60
"""Composites of a side that a sample shows, and cells of a page."""
SIDE = 160
"""Of a cell, in pixels."""
COLUMNS = 10
_QUALITY = 88
_RED, _WHITE = (178, 24, 43), (255, 255, 255)


class Choice(NamedTuple):
    """A composite to show: its side and name."""

    side: str
    name: str


def choose(items: Iterable[Item], count: int | None = SAMPLE) -> Iterator[Choice]:
    """The composites to show, in the order of the items; at most `count` of each side, None: all.

    A sample is even over colours, then over lengths, then over combinations, and the same
    whenever it is taken of the same plan. Of the items no more is held than the sample needs.
    """
    if count is None:
        for item in items:
            yield from (Choice(item["side"], name) for name in item["names"])
        return
    samples: dict[str, _Sample] = {}
    for item in items:
        sample = samples.setdefault(item["side"], _Sample(count))
        for name in item["names"]:
            sample.add(item["colour"], name)
    for side, sample in samples.items():
        yield from (Choice(side, name) for name in sample.chosen())


class _Candidate(NamedTuple):
    """The most negative dice goes first out of a heap: it is the least wanted."""

    dice: int
    number: int
    colour: int
    name: str


class _Sample:
    """The composites of one side: of each colour and length some, by dice that their names cast,
    and some of them all, for where colours or lengths have too few."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._groups: dict[tuple[int, str], list[_Candidate]] = {}
        self._any: list[_Candidate] = []
        self._seen = 0

    def add(self, colour: int, name: str) -> None:
        """Consider one more."""
        dice = hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest()
        candidate = _Candidate(-int.from_bytes(dice, "big"), self._seen, colour, name)
        self._seen += 1
        group = self._groups.setdefault((colour, length_of(name)), [])
        _keep(group, candidate, ceil(self._count / len(self._groups)) + 2)
        _keep(self._any, candidate, self._count)

    def chosen(self) -> list[str]:
        """The sample, in the order in which they came."""
        picked: dict[int, _Candidate] = {}
        used: Counter[object] = Counter()
        left = {key: sorted(group, reverse=True) for key, group in self._groups.items()}
        while left and len(picked) < self._count:
            key = min(left, key=lambda key: (used[key[0]], used[key[1]], -left[key][0].dice))
            best = min(left[key], key=lambda each: used[None, _codes(each.name)])
            left[key].remove(best)
            if not left[key]:
                del left[key]
            picked[best.number] = best
            used.update((*key, (None, _codes(best.name))))
        for each in sorted(self._any, reverse=True):
            if len(picked) < self._count:
                picked[each.number] = each
        return [picked[number].name for number in sorted(picked)]


def _keep(heap: list[_Candidate], candidate: _Candidate, most: int) -> None:
    heapq.heappush(heap, candidate)
    while len(heap) > most:
        heapq.heappop(heap)


def _codes(name: str) -> str:
    return name.rsplit("-", 3)[0]


@dataclass
class _Series:
    """The pages of one side so far: how many, and by size how many pictures and bad ones."""

    waiting: list[str] = field(default_factory=list)
    pages: int = 0
    shown: int = 0
    bad: Counter[str] = field(default_factory=Counter)


class ContactSheets:
    """Writes contact sheets of composites, as they lie in the bucket.

    Of several formats the style's first is shown. What is missing or broken is a red cell with
    the reason beside it.

    Parameters:
        rendering: what the plan fixed.
        bucket: where composites are, below `prefix`.
        workers: what decodes them.
        temp: a folder for files while they are looked at.
        threads: pictures fetched at the same time.
        cells: pictures on a page, in rows of COLUMNS.
    """

    def __init__(
        self,
        rendering: Rendering,
        bucket: Bucket,
        prefix: str,
        workers: SimpleQueue[PictureWorker],
        temp: Path,
        *,
        threads: int = 4,
        cells: int = SAMPLE,
    ) -> None:
        self._rendering = rendering
        self._prefix = prefix
        self._reader = PictureReader(bucket, workers, temp)
        self._threads = threads
        self._cells = cells
        self._outputs = [Output(cut, rendering.formats[0]) for cut in rendering.sizes]

    def write(
        self, choices: Iterable[Choice], folder: Path, counts: Mapping[str, object]
    ) -> list[Path]:
        """Write `index.html` and, for each side and size, its pages; returns all files.

        Memory holds one page, however many there are.

        Parameters:
            choices: what is shown, as `choose` gives it.
            folder: where the files go; their names are of this module's making.
            counts: what the index says of the plan, by label.

        Raises:
            InfrastructureError: the bucket cannot be read, or the disk is full.
        """
        files: list[Path] = []
        series: dict[str, _Series] = {}
        with disk_errors(folder):
            for side, name in choices:
                of_side = series.setdefault(side, _Series())
                if len(of_side.waiting) == self._cells:
                    files += self._pages(side, of_side, folder, last=False)
                of_side.waiting.append(name)
            for side, of_side in series.items():
                files += self._pages(side, of_side, folder, last=True)
            index = folder / "index.html"
            index.write_text(self._index(series, counts), encoding="utf-8")
        return [index, *files]

    def _pages(self, side: str, series: _Series, folder: Path, *, last: bool) -> Iterator[Path]:
        """One page in every size."""
        names, series.waiting = series.waiting, []
        series.pages += 1
        series.shown += len(names)
        for output in self._outputs:
            cut = output.cut.name
            cells, sheet = self._drawn(names, output)
            series.bad[cut] += sum(1 for cell in cells if cell.why)
            picture = folder / _file(side, cut, series.pages, "jpg")
            picture.write_bytes(_jpeg(sheet))
            before = _file(side, cut, series.pages - 1) if series.pages > 1 else ""
            after = "" if last else _file(side, cut, series.pages + 1)
            heading = f"{self._rendering.style}, {side}, {cut}"
            text = sheet_page(heading, series.pages, cells, picture.name, SIDE, before, after)
            page = folder / _file(side, cut, series.pages)
            page.write_text(text, encoding="utf-8")
            yield from (page, picture)

    def _drawn(self, names: Sequence[str], output: Output) -> tuple[list[Cell], NDArray[np.uint8]]:
        """The cells of a page, and the picture of them all."""
        columns, rows = min(COLUMNS, len(names)), ceil(len(names) / COLUMNS)
        sheet = checks(rows * SIDE, columns * SIDE)
        cells = []
        with ThreadPoolExecutor(self._threads, thread_name_prefix="sheet") as pool:
            pictures = pool.map(lambda name: self._picture(output, name), names)
            for number, (name, picture) in enumerate(zip(names, pictures, strict=True)):
                top, left = (each * SIDE for each in divmod(number, COLUMNS))
                why = picture if isinstance(picture, str) else ""
                pixels = _crossed_out() if isinstance(picture, str) else picture
                sheet[top : top + SIDE, left : left + SIDE] = pixels
                key = self._prefix + output.key(name)
                cells.append(Cell(name, key, self._address(key), why, left, top))
        return cells, sheet

    def _picture(self, output: Output, name: str) -> NDArray[np.uint8] | str:
        """The picture in small, or why there is none."""
        try:
            found = self._reader.bucket.head(self._prefix + output.key(name))
            if why := EMPTY if not found.size else too_large(found, output.cut):
                return why
            with self._reader.fetched(found) as path:
                small = path.with_name("small")
                seen = self._reader.view(path, small, SIDE)
                if isinstance(seen, str):
                    return seen
                # Bare samples: what a decoder that was led astray wrote can mislead no other one.
                pixels = np.fromfile(small, np.uint8, SIDE * SIDE * 3)
                return np.resize(pixels, (SIDE, SIDE, 3))
        except UnicodeEncodeError:
            return "no object can have such a name"
        except ImageflowsError as error:
            return self._reader.why_unread(error)

    def _address(self, key: str) -> str:
        bucket = self._reader.bucket
        return f"{bucket.client.meta.endpoint_url}/{bucket.name}/{_quoted(key)}"

    def _index(self, series: Mapping[str, _Series], counts: Mapping[str, object]) -> str:
        rows = [
            IndexRow(
                side,
                output.cut.name,
                of_side.shown,
                of_side.bad[output.cut.name],
                [_file(side, output.cut.name, page + 1) for page in range(of_side.pages)],
            )
            for side, of_side in series.items()
            for output in self._outputs
        ]
        return index_page(self._rendering.style, counts, rows)


def _file(side: str, cut: str, page: int, extension: str = "html") -> str:
    """The name of a page's file: whatever side and size are called, it stays in its folder."""
    return f"{_quoted(side, '')}-{_quoted(cut, '')}-{page}.{extension}"


def _quoted(text: str, safe: str = "/") -> str:
    return quote(text, safe=safe, errors="replace")


def _jpeg(sheet: NDArray[np.uint8]) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpeg8_encode(sheet, level=_QUALITY, subsampling="444"))


def _crossed_out() -> NDArray[np.uint8]:
    """Red, with a cross for those who do not see red."""
    rows, columns = np.ogrid[:SIDE, :SIDE]
    edge, thick = SIDE // 4, SIDE // 32
    cross = (abs(rows - columns) < thick) | (abs(rows + columns - SIDE + 1) < thick)
    inside = (abs(rows - SIDE / 2) < edge) & (abs(columns - SIDE / 2) < edge)
    return np.where((cross & inside)[..., None], _WHITE, _RED).astype(np.uint8)
