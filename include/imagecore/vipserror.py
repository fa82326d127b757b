"""What libvips raises, as errors that say what to do next."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from imagecore.errors import DiskFull, ItemFailed, UnreadableImage

if TYPE_CHECKING:
    import pyvips

_NEARLY_FULL = 8 << 20
_OUT_OF_MEMORY = ("out of memory", "insufficient memory", "cannot allocate")


@contextmanager
def explained(folder: Path, *, writing: str = "") -> Iterator[None]:
    """Turn what libvips raises into our errors, as `explain` does; while a result is written,
    which `writing` names, the picture is not to blame."""
    import pyvips

    try:
        yield
    except pyvips.Error as error:
        found = explain(error, folder)
        if writing and isinstance(found, UnreadableImage):
            found = ItemFailed(f"the {writing} could not be written: {cause(error)}")
        raise found from error


def explain(error: pyvips.Error, folder: Path) -> Exception:
    """What went wrong while a picture was read and its result written to `folder`; the picture
    is blamed where nothing else explains it."""
    text = str(error).lower()
    if "no space left" in text or shutil.disk_usage(folder).free < _NEARLY_FULL:
        return DiskFull(f"no space left in {folder}")
    if "file too large" in text:
        return ItemFailed("the result is larger than the file limit")
    if any(words in text for words in _OUT_OF_MEMORY):
        return ItemFailed(f"not enough memory: {cause(error)}")
    return UnreadableImage(f"the picture is damaged: {cause(error)}")


def cause(error: pyvips.Error) -> str:
    """The first line libvips gives as the cause; what comes after repeats it."""
    lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
    if lines and "bad seek" in lines[0]:
        return "the file ends too early"  # the text would name our temporary file
    return lines[0] if lines else "libvips names no cause"
