"""The legacy's way to a composite: ImageMagick's `convert`, once for it and once for each cut."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from imagecore.compositefiles import psnr
from imagecore.renderstyle import PPI

ABSENT = "ImageMagick is not installed: apt-get install imagemagick"
_NAMES = ("convert-im6.q16", "convert")
"""Debian's own name of the program first: behind the other there may be a wrapper that costs."""

WHOLE = "800x800.png"
_LEAST_ALIKE = 30.0
"""dB. Filters are others than ours; what is less alike is another picture."""

_DENSITY = ["-units", "PixelsPerInch", "-density", str(PPI)]
_SMALL = ["-gravity", "center", "-background", "transparent", "-extent", "142x142"]
_CUTS = {
    "142x142": ["-resize", "142x142"],
    "top-crop": ["-gravity", "south", "-chop", "0x33%", "-resize", "142x"],
    "bottom-crop": ["-gravity", "north", "-chop", "0x33%", "-resize", "142x"],
}


def find_convert() -> str | None:
    """The path of ImageMagick's `convert`, or None where there is none that works."""
    for path in filter(None, map(shutil.which, _NAMES)):
        done = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
        if done.stdout.startswith("Version: ImageMagick"):
            return path
    return None


def legacy_composite(
    convert: str, layers: Sequence[Path], folder: Path, threads: int | None
) -> float:
    """Write the four files of a stack into a new folder; returns the seconds it took.

    `threads` None: as many as ImageMagick takes by itself.
    """
    folder.mkdir(parents=True)
    whole = folder / WHOLE
    environ = {**os.environ, **({"MAGICK_THREAD_LIMIT": str(threads)} if threads else {})}

    def run(source: Iterable[str | Path], *options: str | Path) -> None:
        subprocess.run([convert, *source, *options], env=environ, check=True)

    first, *others = layers
    stacked = [part for layer in others for part in (layer, "-composite")]
    started = perf_counter()
    run([first, *stacked], *_DENSITY, "-resize", "800x800", whole)
    for name, options in _CUTS.items():
        run([whole], "-trim", "+repage", *options, *_SMALL, folder / f"{name}.png")
    return perf_counter() - started


def likeness(ours: Path, legacy: Path) -> float:
    """How alike two composites are, in dB. Of the cuts only the size is compared: when filters
    leave one pixel more to be trimmed, all others move.

    Raises:
        RuntimeError: they are not pictures of the same.
    """
    import numpy as np
    import pyvips

    found = 0.0
    for file in (WHOLE, *(f"{name}.png" for name in _CUTS)):
        pair: list[Any] = [
            pyvips.Image.new_from_file(str(folder / file)).colourspace("srgb")
            for folder in (ours, legacy)
        ]
        sizes = [(image.width, image.height) for image in pair]
        if sizes[0] != sizes[1]:
            raise RuntimeError(f"{ours / file} is {sizes[0]} pixels, the legacy's {sizes[1]}")
        if file == WHOLE:
            found = psnr(*(np.ascontiguousarray(image.numpy()) for image in pair))
    if found < _LEAST_ALIKE:
        raise RuntimeError(f"{ours} is another picture than the legacy's: {found:.1f} dB")
    return found
