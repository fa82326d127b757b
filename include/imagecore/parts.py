"""Results in the making: files that get their name when they have been verified."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_PREFIX = ".making-"


def new_part(folder: Path) -> Path:
    """A path in `folder` for a result of this process that is not finished yet."""
    return folder / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(6)}.part"


def remove_parts(folder: Path, pid: int | None) -> None:
    """Remove what a process that ended has left in `folder`."""
    for part in folder.glob(f"{_PREFIX}{pid}-*.part"):
        part.unlink(missing_ok=True)
