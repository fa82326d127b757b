"""How a key of the source and a key of the destination name the same picture.

Both sides are compared by *name*. `identity`: the key itself. `width_folders`, the layout of the
legacy shop bucket, keeps a picture's full size in a folder that names the widths made of it:

    source       stores/slug/photos/1.jpg              chains/slug/photos/1.jpg
    name         slug/photos/1.jpg                     chains/slug/photos/1.jpg
    destination  slug/photos/__w-200-400__/1.jpg       chains/slug/photos/__w__/1.jpg
    copies       slug/photos/w200/1.jpg …/w400/1.jpg   none
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

_SOURCE = re.compile(r"(?:stores/|(?=chains/))((?:chains/)?[^/]+/[^/]+/[^/]+)", re.DOTALL)
_FULL = re.compile(r"((?:chains/)?[^/]+/[^/]+/)__w((?:-[0-9]+)*)__/([^/]+)", re.DOTALL)
_COPY = re.compile(r"((?:chains/)?[^/]+/[^/]+/)w[0-9]+/([^/]+)", re.DOTALL)


class Placed(NamedTuple):
    """A picture of the destination: its name, and the widths that are made of it."""

    name: str
    widths: tuple[int, ...] = ()


class KeyMap(Protocol):
    """A mapping between keys of the source, names, and keys of the destination."""

    def name(self, source_key: str) -> str | None:
        """The name of a source's picture; None: a key this mapping has no place for."""

    def source_key(self, name: str) -> str:
        """The source's key of a name."""

    def placed(self, key: str) -> Placed | None:
        """The picture whose (full-size) object this key of the destination is, if of any."""

    def is_copy(self, key: str) -> bool:
        """Whether a key of the destination is a resized copy, and goes with its picture."""

    def key(self, name: str, widths: tuple[int, ...] = ()) -> str:
        """Where a picture's (full-size) object goes in the destination."""

    def copy_key(self, name: str, width: int) -> str:
        """Where its copy of this width goes."""


class Identity:
    """Both sides use the same keys."""

    def name(self, source_key: str) -> str | None:
        return source_key

    def source_key(self, name: str) -> str:
        return name

    def placed(self, key: str) -> Placed | None:
        return Placed(key)

    def is_copy(self, key: str) -> bool:
        return False

    def key(self, name: str, widths: tuple[int, ...] = ()) -> str:
        return name

    def copy_key(self, name: str, width: int) -> str:
        raise ValueError("the mapping identity has no place for resized copies")


class WidthFolders:
    """`stores/slug/photos/1.jpg` is `slug/photos/__w-200-400__/1.jpg` in the destination."""

    def name(self, source_key: str) -> str | None:
        found = _SOURCE.fullmatch(source_key)
        if not found:
            return None
        name = found.group(1)
        return name if self.source_key(name) == source_key else None

    def source_key(self, name: str) -> str:
        return name if name.count("/") == 3 else f"stores/{name}"

    def placed(self, key: str) -> Placed | None:
        found = _FULL.fullmatch(key)
        if not found:
            return None
        folder, widths, file = found.groups()
        return Placed(folder + file, tuple(int(width) for width in widths.split("-")[1:]))

    def is_copy(self, key: str) -> bool:
        return _COPY.fullmatch(key) is not None

    def key(self, name: str, widths: tuple[int, ...] = ()) -> str:
        folder, _, file = name.rpartition("/")
        return f"{folder}/__w{''.join(f'-{width}' for width in widths)}__/{file}"

    def copy_key(self, name: str, width: int) -> str:
        folder, _, file = name.rpartition("/")
        return f"{folder}/w{width}/{file}"


KEY_MAPS: dict[str, KeyMap] = {"identity": Identity(), "width_folders": WidthFolders()}
