"""The directories of a TIFF nobody vouches for, read over any distance with few, bounded reads;
and a small TIFF written."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from imagecore.errors import UnreadableImage

Read = Callable[[int, int], bytes]
"""(offset, length) to the bytes there; fewer where the file ends."""

Tag = tuple[int, int, bytes]
"""The number of its type, how many values, and their bytes."""

PIECE_BYTES = 64 << 10
MAX_KEPT = 64
"""Pieces kept, and so the most reads that the directories may take."""
MAX_TAGS = 1024
MAX_VALUE_BYTES = 4 << 20
"""Of one tag: the largest are profiles of printers."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4}
_SIZES |= {10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_TEXT_BYTES = 2000
_TILE_OFFSETS, _LONG = 324, 4


class Bytes:
    """The bytes of a file: pieces around what is read are kept until `freeze`, which makes the
    object safe to use by several threads if `read` is."""

    def __init__(self, read: Read, size: int) -> None:
        self.size = size
        self._read = read
        self._kept: list[tuple[int, bytes]] = []
        self._frozen = False

    def get(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`.

        Raises:
            UnreadableImage: they do not lie in the file, or `MAX_KEPT` pieces are kept already.
        """
        if offset < 0 or offset + length > self.size:
            raise UnreadableImage(
                f"the TIFF points at byte {offset + length}, it has only {self.size}: "
                "it was cut short or damaged, write it again"
            )
        for start, piece in self._kept:
            if start <= offset and offset + length <= start + len(piece):
                return piece[offset - start : offset - start + length]
        if self._frozen:
            return self._exactly(offset, length)
        if len(self._kept) == MAX_KEPT:
            raise UnreadableImage(
                f"the TIFF's directories lie in more than {MAX_KEPT} places: write it again"
            )
        piece = self._exactly(offset, min(max(length, PIECE_BYTES), self.size - offset))
        self._kept.append((offset, piece))
        return piece[:length]

    def freeze(self) -> None:
        """Keep what is there; later reads are exact, and nothing more is kept."""
        self._frozen = True

    def _exactly(self, offset: int, length: int) -> bytes:
        data = self._read(offset, length)
        if len(data) != length:
            raise UnreadableImage(
                f"only {len(data)} of {length} bytes could be read at {offset}: "
                "the file was cut short or has changed, open it again"
            )
        return data


@dataclass(frozen=True)
class Field:
    """One tag as it lies in the file: its type's number, how many values, and where they are."""

    type: int
    count: int
    offset: int

    @property
    def bytes(self) -> int:
        return _SIZES[self.type] * self.count


@dataclass(frozen=True)
class Header:
    """How numbers are written: `order` is `<` or `>` as in struct."""

    order: str
    big: bool
    first: int
    """Offset of the first directory."""


def read_header(data: Bytes) -> Header:
    """Read the first bytes.

    Raises:
        UnreadableImage: it is no TIFF.
    """
    start = data.get(0, min(16, data.size)).ljust(16, b"\0")
    order = {b"II": "<", b"MM": ">"}.get(start[:2], "")
    version, *widths = struct.unpack_from(order + "HHH", start, 2)
    if order and version == 42 and data.size >= 8:
        return Header(order, False, struct.unpack_from(order + "I", start, 4)[0])
    if order and version == 43 and widths == [8, 0]:
        return Header(order, True, struct.unpack_from(order + "Q", start, 8)[0])
    raise UnreadableImage("this is not a TIFF file")


class Directory:
    """The tags of one page.

    :param following: offset of the next page's directory, 0 after the last
    """

    def __init__(self, data: Bytes, header: Header, offset: int) -> None:
        self._data = data
        self.order = header.order
        self.fields: dict[int, Field] = {}
        counting, entry, pointer = ("Q", "HHQ", "Q") if header.big else ("H", "HHI", "I")
        counting, entry, pointer = (self.order + each for each in (counting, entry, pointer))
        head, room = struct.calcsize(counting), struct.calcsize(pointer)
        (count,) = struct.unpack(counting, data.get(offset, head))
        if not 0 < count <= MAX_TAGS:
            raise UnreadableImage(f"a page of the TIFF has {count} tags: it is damaged")
        each = struct.calcsize(entry) + room
        table = data.get(offset + head, count * each + room)
        for at in range(0, count * each, each):
            tag, kind, values = struct.unpack_from(entry, table, at)
            if kind not in _SIZES:
                continue
            place = offset + head + at + each - room
            if _SIZES[kind] * values > room:
                (place,) = struct.unpack_from(pointer, table, at + each - room)
            self.fields.setdefault(tag, Field(kind, values, place))
        (self.following,) = struct.unpack_from(pointer, table, count * each)

    def raw(self, tag: int) -> bytes:
        """The bytes of all values of a tag that is there.

        Raises:
            UnreadableImage: more than MAX_VALUE_BYTES, or not in the file.
        """
        field = self.fields[tag]
        if field.bytes > MAX_VALUE_BYTES:
            raise UnreadableImage(
                f"tag {tag} of the TIFF has {field.bytes} bytes, "
                f"more than the {MAX_VALUE_BYTES} that are read"
            )
        return self._data.get(field.offset, field.bytes)

    def numbers(self, tag: int, start: int = 0, count: int | None = None) -> tuple[int, ...]:
        """So many values of a tag, or all; empty when there is no such tag.

        Raises:
            UnreadableImage: they are no whole numbers, too many, or not in the file.
        """
        field = self.fields.get(tag)
        if field is None:
            return ()
        letter = _NUMBERS.get(field.type)
        if letter is None:
            raise UnreadableImage(f"tag {tag} of the TIFF is not a number: it is damaged")
        if count is None:
            data, count = self.raw(tag), field.count
        elif start + count > field.count:
            raise UnreadableImage(
                f"tag {tag} of the TIFF has {field.count} values where {start + count} belong"
            )
        else:
            size = _SIZES[field.type]
            data = self._data.get(field.offset + start * size, count * size)
        return struct.unpack(f"{self.order}{count}{letter}", data)

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag, or `default`."""
        field = self.fields.get(tag)
        return self.numbers(tag, 0, 1)[0] if field and field.count else default

    def ratio(self, tag: int) -> float | None:
        """The value of a rational number, or None."""
        field = self.fields.get(tag)
        if field is None or field.type != 5 or field.count != 1:
            return None
        over, under = struct.unpack(self.order + "II", self.raw(tag))
        return over / under if under else None

    def text(self, tag: int) -> str | None:
        """The beginning of a text, or None."""
        field = self.fields.get(tag)
        if field is None or field.type != 2:
            return None
        data = self._data.get(field.offset, min(field.count, _TEXT_BYTES))
        return data.partition(b"\0")[0].decode(errors="replace")


def small_tiff(order: str, tags: dict[int, Tag], data: bytes) -> bytes:
    """A classic TIFF of one directory and, behind it, the data its tile offset is made to name."""
    behind = 8 + 2 + 12 * len(tags) + 4
    values = bytearray()
    places = {}
    for tag in sorted(tags):
        value = tags[tag][2]
        if len(value) > 4:
            places[tag] = behind + len(values)
            values += value + bytes(len(value) % 2)
    tags[_TILE_OFFSETS] = (_LONG, 1, struct.pack(order + "I", behind + len(values)))
    made = bytearray({"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8))
    made += struct.pack(order + "H", len(tags))
    for tag in sorted(tags):
        kind, count, value = tags[tag]
        place = struct.pack(order + "I", places[tag]) if tag in places else value.ljust(4, b"\0")
        made += struct.pack(order + "HHI", tag, kind, count) + place
    return bytes(made + bytes(4) + values + data)
