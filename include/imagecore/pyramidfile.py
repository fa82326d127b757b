"""A pyramid TIFF that may be anybody's, read piece by piece: its levels, its tiles as they are
stored, what it says of itself and what is wrong with it. Nothing is decoded here."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from imagecore.errors import UnreadableImage
from imagecore.layout import expected_levels
from imagecore.tiffdirectory import Bytes, Directory, Read, Tag, read_header, small_tiff
from imagecore.tifffacts import COMPRESSIONS, MAX_BANDS, bits_of, page_facts

MAX_DIRECTORIES = 40
MAX_SIDE = 10_000_000
MAX_TILE_BYTES = 64 << 20
"""Of one tile, both as it is stored and as it is decoded."""
MAX_TABLE = 200_000
"""Tiles of all levels that `faults` looks at."""
_TABLE_PIECE = 8192

_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _COUNTS = 256, 257, 322, 323, 324, 325
_COMPRESSION, _PHOTOMETRIC, _BANDS, _PLANES, _SAMPLE_FORMAT = 259, 262, 277, 284, 339
_SUBFILE, _SUBDIRECTORIES, _PROFILE = 254, 330, 34675
_REDUCED, _MASK = 1, 4
_COPIED: tuple[int, ...] = (258, _COMPRESSION, _PHOTOMETRIC, _BANDS, _PLANES, _SAMPLE_FORMAT)
# Fill order, predictor, colour map, ink set, extra samples, JPEG tables, four of YCbCr.
_COPIED += (266, 317, 320, 332, 338, 347, 529, 530, 531, 532, _PROFILE)
_LONG, _COPIED_TYPES = 4, {1, 3, 4, 5, 7}


@dataclass(frozen=True)
class PyramidLevel:
    """One level's size and that of its tiles, in pixels."""

    width: int
    height: int
    tile_width: int
    tile_height: int

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile_height)

    def inside(self, column: int, row: int) -> tuple[int, int]:
        """Width and height in pixels of what of a tile lies inside the level."""
        return (
            min(self.tile_width, self.width - column * self.tile_width),
            min(self.tile_height, self.height - row * self.tile_height),
        )


class PyramidFile:
    """A pyramid TIFF: classic or BigTIFF, of either byte order, its levels in the chain of pages or
    in sub-directories. Opened with `open`; safe to use by several threads if its `read` is."""

    levels: tuple[PyramidLevel, ...]
    """The largest first."""

    def __init__(self, data: Bytes) -> None:
        self._data = data
        self._header = read_header(data)
        self._left_out: list[str] = []
        pages = list(self._pages())
        self._directories = tuple(page for page, _ in pages)
        self.levels = tuple(level for _, level in pages)
        self._profiles: dict[int, bytes] = {}

    @classmethod
    def open(cls, read: Read, size: int) -> PyramidFile:
        """Read the directories of a file of `size` bytes.

        `read` is called for the first 64 KB, and for 64 KB behind each directory that does not
        lie in what was read. A pyramid of this project takes one read and at most one a level:
        4 to 6 for pictures of 600 to 4,000 pixels.

        Raises:
            UnreadableImage: it is no TIFF, not tiled, or damaged.
        """
        data = Bytes(read, size)
        opened = cls(data)
        data.freeze()
        return opened

    def tile(self, level: int, column: int, row: int) -> bytes:
        """A TIFF with that tile alone, as it is stored: at most the tile's size, cropped to the
        level's edge. One or two small reads find it, unless its table was read already.

        Raises:
            LookupError: there is no such level or tile.
            UnreadableImage: the tile is missing, not in the file, too large, or stored in a way
                that is not served.
        """
        if not 0 <= level < len(self.levels):
            raise LookupError(f"there is no level {level}: they are 0 to {len(self.levels) - 1}")
        size, page = self.levels[level], self._directories[level]
        if not (0 <= column < size.columns and 0 <= row < size.rows):
            raise LookupError(
                f"there is no tile at column {column}, row {row} of level {level}: "
                f"it has {size.columns} columns and {size.rows} rows"
            )
        self._refuse_storage(page)
        index = row * size.columns + column
        (offset,) = page.numbers(_OFFSETS, index, 1) or (0,)
        (count,) = page.numbers(_COUNTS, index, 1) or (0,)
        name = f"the tile at column {column}, row {row} of level {level}"
        if not offset or not count:
            raise UnreadableImage(f"{name} is missing: make the pyramid again")
        if count > MAX_TILE_BYTES:
            raise UnreadableImage(f"{name} has {count} bytes, at most {MAX_TILE_BYTES} are read")
        return self._one_tile(level, size.inside(column, row), self._data.get(offset, count))

    def facts(self) -> dict[str, Any]:
        """What the file says of itself, as JSON can hold it; sizes are pixels and bytes, `dpi` dots
        per inch across and down. What it does not say is None.

        Raises:
            UnreadableImage: it is damaged.
        """
        first = self.levels[0]
        return {
            "bytes": self._data.size,
            "bigtiff": self._header.big,
            "byte_order": "little-endian" if self._header.order == "<" else "big-endian",
            "width": first.width,
            "height": first.height,
            "levels": len(self.levels),
            "tile_width": first.tile_width,
            "tile_height": first.tile_height,
            **page_facts(self._directories[0]),
        }

    def faults(self) -> list[str]:
        """What is wrong with the structure, in sentences for people; empty when it is right.

        Sizes of levels, what must be the same in all of them, and that each tile is there, inside
        the file and apart from all others. No pixel is looked at.
        """
        found = [*self._left_out, *self._size_faults()]
        try:
            found += self._difference_faults()
            found += self._table_faults()
        except UnreadableImage as bad:
            found.append(str(bad))
        return found

    def _pages(self) -> Iterator[tuple[Directory, PyramidLevel]]:
        """The first page and its smaller levels, the largest first."""
        seen: set[int] = set()
        first = self._directory(self._header.first, seen)
        level = _level(first)
        if level is None:
            raise UnreadableImage(
                "this TIFF is not tiled, so no part of it can be shown alone: "
                "make a pyramid of it (DAG pyramid_tiff)"
            )
        smaller = []
        for page in self._reduced(first, seen):
            size = _level(page)
            if size is None:
                self._left_out.append("a reduced page is not tiled")
            elif size.width >= level.width and size.height >= level.height:
                self._left_out.append("a reduced page is not smaller than the picture")
            else:
                smaller.append((page, size))
        yield first, level
        yield from sorted(smaller, key=lambda each: -each[1].width * each[1].height)

    def _reduced(self, first: Directory, seen: set[int]) -> Iterator[Directory]:
        """Reduced pages of the first one: in its sub-directories, and behind it up to the next
        picture."""
        field = first.fields.get(_SUBDIRECTORIES)
        count = min(field.count, MAX_DIRECTORIES) if field else 0
        for offset in first.numbers(_SUBDIRECTORIES, 0, count):
            page = self._directory(offset, seen)
            if page.number(_SUBFILE, 0) & (_REDUCED | _MASK) == _REDUCED:
                yield page
        offset = first.following
        while offset:
            page = self._directory(offset, seen)
            kind = page.number(_SUBFILE, 0)
            if not kind & (_REDUCED | _MASK):
                return
            if kind & (_REDUCED | _MASK) == _REDUCED:
                yield page
            offset = page.following

    def _directory(self, offset: int, seen: set[int]) -> Directory:
        if offset in seen:
            raise UnreadableImage("the list of the TIFF's pages runs in a circle: write it again")
        if len(seen) == MAX_DIRECTORIES:
            raise UnreadableImage(f"the TIFF has more than {MAX_DIRECTORIES} reduced pages")
        seen.add(offset)
        return Directory(self._data, self._header, offset)

    def _refuse_storage(self, page: Directory) -> None:
        compression = page.number(_COMPRESSION, 1)
        if compression not in COMPRESSIONS:
            raise UnreadableImage(
                f"tiles of compression {compression} are not served: write it with deflate or jpeg"
            )
        if page.number(_PLANES, 1) != 1:
            raise UnreadableImage(
                "each band of this TIFF has tiles of its own: write it with interleaved bands"
            )

    def _one_tile(self, level: int, inside: tuple[int, int], data: bytes) -> bytes:
        page, size = self._directories[level], self.levels[level]
        tags = {tag: self._copied(level, tag) for tag in _COPIED if tag in page.fields}
        if _PROFILE not in tags and _PROFILE in self._directories[0].fields:
            # Some writers put it into the first page alone.
            tags[_PROFILE] = self._copied(0, _PROFILE)
        sides = {_WIDTH: inside[0], _HEIGHT: inside[1]}
        sides |= {_TILE_WIDTH: size.tile_width, _TILE_HEIGHT: size.tile_height}
        sides |= {_OFFSETS: 0, _COUNTS: len(data)}
        order = self._header.order
        tags |= {tag: (_LONG, 1, struct.pack(order + "I", side)) for tag, side in sides.items()}
        return small_tiff(order, tags, data)

    def _copied(self, level: int, tag: int) -> Tag:
        """Type, count and bytes of a tag as a classic TIFF can hold it."""
        field = self._directories[level].fields[tag]
        if field.type not in _COPIED_TYPES:
            raise UnreadableImage(f"tag {tag} of level {level} is of no type that it may have")
        return field.type, field.count, self._raw(level, tag)

    def _raw(self, level: int, tag: int) -> bytes:
        if tag != _PROFILE:
            return self._directories[level].raw(tag)
        profile = self._profiles.get(level)
        if profile is None:
            profile = self._directories[level].raw(tag)
            self._profiles = {level: profile}  # one: each may be of some MB
        return profile

    def _size_faults(self) -> Iterator[str]:
        first = self.levels[0]
        if first.tile_width != first.tile_height:
            yield f"tiles are {first.tile_width} x {first.tile_height}, should be square"
            return
        wanted = expected_levels(first.width, first.height, first.tile_width)
        found = [(level.width, level.height) for level in self.levels]
        if len(found) != len(wanted):
            yield f"the number of levels is {len(found)}, should be {len(wanted)}"
        for number, (is_now, should) in enumerate(zip(found, wanted, strict=False)):
            if is_now != should:
                yield (
                    f"level {number} is {is_now[0]} x {is_now[1]}, "
                    f"should be {should[0]} x {should[1]}"
                )

    def _difference_faults(self) -> Iterator[str]:
        first = _same_in_all(self._directories[0], self.levels[0])
        for number in range(1, len(self.levels)):
            other = _same_in_all(self._directories[number], self.levels[number])
            for name, value in other.items():
                if value != first[name]:
                    yield f"level {number}: {name} is {value}, in level 0 it is {first[name]}"

    def _table_faults(self) -> Iterator[str]:
        if sum(map(self._tiles, range(len(self.levels)))) > MAX_TABLE:
            yield f"there are more than {MAX_TABLE} tiles: where they lie was not looked at"
            return
        ranges: list[tuple[int, int]] = []
        for number in range(len(self.levels)):
            yield from self._level_faults(number, ranges)
        ranges.sort()
        shared = sum(one[0] + one[1] > other[0] for one, other in pairwise(ranges))
        if shared:
            yield f"{shared} tiles share bytes with another"

    def _tiles(self, number: int) -> int:
        page, level = self._directories[number], self.levels[number]
        planes = page.number(_BANDS, 1) if page.number(_PLANES, 1) == 2 else 1
        return level.columns * level.rows * planes

    def _level_faults(self, number: int, ranges: list[tuple[int, int]]) -> Iterator[str]:
        """Adds to `ranges` place and size of each tile that lies in the file."""
        page, tiles = self._directories[number], self._tiles(number)
        listed = [
            page.fields[tag].count if tag in page.fields else 0 for tag in (_OFFSETS, _COUNTS)
        ]
        if listed != [tiles, tiles]:
            yield (
                f"level {number} has {tiles} tiles, "
                f"its tables name {listed[0]} places and {listed[1]} sizes"
            )
        missing = outside = 0
        for offset, size in self._table(page, min(tiles, *listed)):
            if not offset or not size:
                missing += 1
            elif offset + size > self._data.size:
                outside += 1
            else:
                ranges.append((offset, size))
        if missing:
            yield f"level {number}: {missing} of {tiles} tiles are missing"
        if outside:
            yield f"level {number}: {outside} of {tiles} tiles end behind the file"

    def _table(self, page: Directory, tiles: int) -> Iterator[tuple[int, int]]:
        for start in range(0, tiles, _TABLE_PIECE):
            count = min(_TABLE_PIECE, tiles - start)
            offsets = page.numbers(_OFFSETS, start, count)
            yield from zip(offsets, page.numbers(_COUNTS, start, count), strict=True)


def _level(page: Directory) -> PyramidLevel | None:
    """The size of a page, or None when it is not tiled."""
    if _TILE_WIDTH not in page.fields or _TILE_HEIGHT not in page.fields:
        return None
    level = PyramidLevel(
        *(page.number(tag, 0) for tag in (_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT))
    )
    for side in (level.width, level.height, level.tile_width, level.tile_height):
        if not 0 < side <= MAX_SIDE:
            raise UnreadableImage(
                f"a side of {side} pixels is no picture's or more than {MAX_SIDE}"
            )
    bands = page.number(_BANDS, 1)
    if not 0 < bands <= MAX_BANDS:
        raise UnreadableImage(f"{bands} bands are no picture's or more than the {MAX_BANDS} read")
    decoded = level.tile_width * level.tile_height * bands * max(bits_of(page)) // 8
    if decoded > MAX_TILE_BYTES:
        raise UnreadableImage(
            f"a tile of {level.tile_width} x {level.tile_height} pixels takes {decoded} bytes, "
            f"more than the {MAX_TILE_BYTES} allowed: write it with smaller tiles"
        )
    return level


def _same_in_all(page: Directory, level: PyramidLevel) -> dict[str, Any]:
    compression = page.number(_COMPRESSION, 1)
    return {
        "tile size": f"{level.tile_width} x {level.tile_height}",
        "compression": COMPRESSIONS.get(compression, f"number {compression}"),
        "photometric": page.number(_PHOTOMETRIC, -1),
        "bands": page.number(_BANDS, 1),
        "bits": bits_of(page)[0],
        "sample format": page.number(_SAMPLE_FORMAT, 1),
    }
