"""Layers of a drawn dress with soft edges and cloth, and what ImageMagick makes of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray

from imagecore.composite import Layer

Pixels = NDArray[np.uint8]

PARTS = ("behind", "bottom", "belt", "neckline", "infront")
"""Bottom first."""
_COLOURS = {"behind": (50, 60, 120), "belt": (30, 30, 30), "infront": (230, 200, 40)}
_CLOTH = (60, 90, 180)


def part(name: str, width: int, height: int) -> Pixels:
    """Rows x columns x RGBA of one layer, its edges three pixels soft at 2000 pixels."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = x / width, y / height
    side = abs(x - 0.5)
    inside = {
        "behind": np.minimum(np.minimum(0.28 - side, y - 0.05), 0.30 - y),
        "bottom": np.minimum(np.minimum(0.15 + 0.20 * y - side, y - 0.45), 0.95 - y),
        "belt": np.minimum(np.minimum(0.25 - side, y - 0.43), 0.50 - y),
        "neckline": np.minimum(np.minimum(0.22 - side, y - 0.08), 0.46 - y),
        "infront": 0.1 - np.hypot(x - 0.5, y - 0.47),
    }[name]
    alpha = np.clip(inside * 2000 / 3 * max(1, width / 2000) + 0.5, 0, 1)
    shade = 0.75 + 0.2 * np.sin(x * 54 + y * 22) + np.random.default_rng(7).normal(0, 0.01, x.shape)
    drawn = np.empty((height, width, 4), np.uint8)
    for band, value in enumerate(_COLOURS.get(name, _CLOTH)):
        drawn[..., band] = np.clip(value * shade, 0, 255)
    drawn[..., 3] = np.rint(alpha * 255)
    return drawn


def save(pixels: Pixels, file: Path, **options: object) -> Path:
    image = pyvips.Image.new_from_array(pixels)
    space = "srgb" if image.bands >= 3 else "b-w"
    image.copy(interpretation=space).pngsave(str(file), compression=1, **options)
    return file


def layer(file: Path, identity: str | None = None) -> Layer:
    return Layer(str(file), identity or file.name)


def dress(folder: Path, width: int, height: int) -> tuple[Layer, ...]:
    """All parts as files, bottom first."""
    return tuple(layer(save(part(name, width, height), folder / f"{name}.png")) for name in PARTS)


def premultiplied(pixels: Pixels) -> NDArray[np.float64]:
    made = pixels.astype(np.float64)
    made[..., :3] *= made[..., 3:] / 255
    return made


def read(file: str | Path) -> Pixels:
    image = pyvips.Image.new_from_file(str(file), revalidate=True).colourspace("srgb")
    return (image if image.hasalpha() else image.bandjoin(255)).numpy()


@cache
def imagemagick() -> str | None:
    """The command that is ImageMagick's own convert, version 6 or 7."""
    found = shutil.which("convert") or ""
    if not found:
        return None
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    return found if said.stdout.startswith("Version: ImageMagick") else None


IMAGEMAGICK = pytest.mark.skipif(
    imagemagick() is None,
    reason="ImageMagick's convert is not installed; apt-get install imagemagick brings it",
)


def convert(*arguments: str | Path) -> None:
    environment = {**os.environ, "MAGICK_THREAD_LIMIT": "1"}
    command = [imagemagick() or "convert", *map(str, arguments)]
    subprocess.run(command, check=True, env=environment, capture_output=True)


CENTRED = ("-gravity", "center", "-background", "transparent", "-extent", "142x142")
LEGACY = {
    "142x142": ("-trim", "+repage", "-resize", "142x142", *CENTRED),
    "top-crop": (
        *("-trim", "+repage", "-gravity", "south", "-chop", "0x33%", "-resize", "142x"),
        *CENTRED,
    ),
    "bottom-crop": (
        *("-trim", "+repage", "-gravity", "north", "-chop", "0x33%", "-resize", "142x"),
        *CENTRED,
    ),
}
"""What the legacy called ImageMagick with, by the cut's name."""


def legacy_composite(files: Sequence[str], target: Path) -> None:
    overs = [each for file in files[1:] for each in (file, "-composite")]
    density = ("-density", "172", "-units", "PixelsPerInch", "-resize", "800x800")
    convert(files[0], *overs, *density, target)


def legacy_cut(source: Path, name: str, target: Path) -> None:
    convert(source, *LEGACY[name], f"PNG32:{target}")
