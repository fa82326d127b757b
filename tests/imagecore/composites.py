"""Composites as a run delivers them, without the run: small ones, described the same way."""

from __future__ import annotations

import hashlib

import numpy as np
import pyvips

from imagecore.combinations import composite_name
from imagecore.renderitem import MEDIA_TYPES, Output, Rendering
from imagecore.renderstyle import Cut, Format
from imagecore.s3 import Bucket

PREFIX = "renders/composites/dress/"
SIZES = (Cut("60x60", "fit", 60, 60), Cut("top-crop", "top", 24, 24, 33))
PNG, WEBP = Format(), Format("webp")
_SUFFIX = {
    "png": ".png",
    "webp": ".webp[lossless]",
    "avif": ".avif[lossless,effort=0]",
    "jpeg": ".jpg",
}


def rendering_of(sizes=SIZES, formats=(PNG, WEBP)) -> Rendering:
    """What a plan fixes for the stacks of `stacks`."""
    layers = {
        f"{base}_{colour:04d}.png": {
            "key": f"{base}/{colour}",
            "size": 1,
            "modified": 1,
            "etag": "e",
        }
        for base in ("base_bottom_front", "base_bottom_back", "t1_belt_front", "t1_belt_back")
        for colour in range(18)
    }
    return Rendering("dress", sizes, formats, 172, "exact", layers)


def stack(side, colour, names=1, bases=("base_bottom",), lengths=("knee", "mini")) -> dict:
    """An item; its names are of both lengths in turn."""
    layers = [f"{base}_{side}" for base in bases]
    named = [
        composite_name((f"a{number}",) * bool(number), lengths[number % len(lengths)], side, colour)
        for number in range(names)
    ]
    key = f"{colour:04d} {side} {' '.join(layers)}"
    return {"key": key, "layers": layers, "colour": colour, "side": side, "names": named}


def drawn(seed, width, height, kind="png", shape=None) -> bytes:
    """A disc of a colour of its own on nothing; `shape` "full": without transparency."""
    dice = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big"))
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[..., :3] = dice.integers(0, 255, (height, width, 3))
    rows, columns = np.ogrid[:height, :width]
    inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 2.2) ** 2
    pixels[..., 3] = 255 if shape == "full" else np.where(inside, 255, 0)
    image = pyvips.Image.new_from_array(pixels, interpretation="srgb")
    image = image.flatten(background=[255] * 3) if kind == "jpeg" else image
    return image.write_to_buffer(_SUFFIX[kind])


def size_of(cut: Cut) -> tuple[int, int]:
    """Of the composites drawn here; one that is fitted is narrower."""
    return (cut.width * 2 // 3 if cut.kind == "fit" else cut.width), cut.height


def described(data: bytes, recipe: str, width: int, height: int) -> dict[str, str]:
    """The metadata of a delivered file."""
    return {
        "recipe": recipe,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": str(len(data)),
        "width": str(width),
        "height": str(height),
    }


def deliver(bucket: Bucket, rendering: Rendering, item: dict, folder, shape=None) -> None:
    """What rendering an item leaves in the bucket."""
    for output in rendering.outputs:
        data = drawn(f"{item['key']}{output}", *size_of(output.cut), output.format.name, shape)
        put_picture(bucket, rendering, item, output, data, folder)
        main, *aliases = item["names"]
        for alias in aliases:
            bucket.copy(PREFIX + output.key(main), PREFIX + output.key(alias))


def put_picture(
    bucket: Bucket, rendering: Rendering, item: dict, output: Output, data: bytes, folder, name=None
) -> None:
    """A file with the metadata of the item's own, delivered under its first name."""
    file = folder / "file"
    file.write_bytes(data)
    image = pyvips.Image.new_from_buffer(data, "")
    made = described(data, rendering.recipe(item, output), image.width, image.height)
    key = PREFIX + output.key(name or item["names"][0])
    bucket.deliver(file, key, MEDIA_TYPES[output.format.name], made)
