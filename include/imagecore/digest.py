"""Hashes of files, read piece by piece."""

from __future__ import annotations

import hashlib
from pathlib import Path

PIECE_BYTES = 2**20


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while piece := data.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
