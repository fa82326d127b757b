"""Pictures the tests are about: real photographs, and small ones made to be difficult."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import skimage
import tifffile
from numpy.typing import NDArray
from PIL import Image

PHOTOS = Path(skimage.__file__).parent / "data"


def photo(width: int = 600, height: int = 400) -> Image.Image:
    """The coffee cup, in colour."""
    cup = Image.open(PHOTOS / "coffee.png").convert("RGB")
    return cup if (width, height) == cup.size else cup.resize((width, height))


def quarters(width: int = 64, height: int = 48) -> Image.Image:
    """Red, green / blue, white: shows turning and swapped channels at a glance."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 255, 0, 0
    pixels[: height // 2, width // 2 :] = 0, 255, 0
    pixels[height // 2 :, : width // 2] = 0, 0, 255
    pixels[height // 2 :, width // 2 :] = 255, 255, 255
    return Image.fromarray(pixels)


def data_of(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels_of(path: Path, level: int = 0) -> NDArray[np.unsignedinteger]:
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[level].asarray()


def page_of(path: Path) -> tifffile.TiffPage:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        for tag in page.tags:
            _ = tag.value  # read while the file is open
        return page
