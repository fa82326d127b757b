"""The keys of eZ's images: the Adler-32 of a file's path, a dash, and the file's name."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

HASH_PREFIX = "var/ezflow_site/storage/images"
"""What stands before a file's path below the assets when it is hashed."""

KEY_BYTES = 1_024
"""The longest key that is taken for one, in UTF-8."""

_KEY = re.compile(r"([0-9a-f]{1,8})-([^/\x00-\x1f\x7f]+)")


@dataclass(frozen=True)
class Reference:
    """A key, read: the hash as a number, and the exact bytes of the file's name."""

    key: str
    adler: int
    name: bytes


def adler32(path: bytes) -> str:
    """The hash of a path as eZ writes it: 8 lower-case hexadecimal digits.

    >>> adler32(b"Wikipedia")
    '11e60398'
    """
    return f"{zlib.adler32(path):08x}"


def parse_reference(key: str) -> Reference:
    """Split a key at its first dash. Leading zeros of the hash may be missing.

    Raises:
        ValueError: it is none; the text says why.
    """
    found = _KEY.fullmatch(key)
    try:
        name, size = key.partition("-")[2].encode(), len(key.encode())
    except UnicodeEncodeError:
        raise ValueError("it cannot be written as UTF-8") from None
    if found is None:
        raise ValueError(_what_is_wrong(key))
    if size > KEY_BYTES:
        raise ValueError(f"its {size:,} bytes are more than {KEY_BYTES:,}")
    return Reference(key, int(found[1], 16), name)


def _what_is_wrong(key: str) -> str:
    hash_text, dash, name = key.partition("-")
    if not dash:
        return "it has no dash"
    if not name:
        return "it has no file name"
    if not _KEY.fullmatch(f"{hash_text}-name"):
        return "its hash is not 1 to 8 lower-case hexadecimal digits"
    return "its file name has a slash or a control character"
