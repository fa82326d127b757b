"""Large pictures with the detail of real ones, made once from the photographs of scikit-image."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench import ROOT
from bench.measure import say

FOLDER = ROOT / "build" / "bench" / "pictures"
PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
LARGE = (12_000, 9_000)
CAMERA = (6_000, 4_000)
SMALL = (640, 480)


def pictures(size: tuple[int, int], count: int) -> list[Path]:
    """`count` JPEG files of so many pixels, each of another photograph; kept for the next time.

    They are made in a process of their own: this one stays small.
    """
    names = [FOLDER / f"{size[0]}x{size[1]}-{number}.jpg" for number in range(count)]
    if not all(name.exists() for name in names):
        say(f"making {count} pictures of {size[0]} × {size[1]} in {FOLDER}")
        subprocess.run(
            [sys.executable, "-m", "bench.pictures", *map(str, (*size, count))],
            cwd=ROOT,
            check=True,
        )
    return names


def _make(width: int, height: int, target: Path, number: int) -> None:
    """A photograph at its own resolution, mirrored in every direction as often as needed, under
    the slight noise of a camera. Enlarging it would leave nothing that is hard to compress."""
    import pyvips
    import skimage

    name = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
    folder = Path(skimage.__file__).parent / "data"
    photo = pyvips.Image.new_from_file(str(folder / name)).colourspace("srgb")
    pair = photo.join(photo.fliphor(), "horizontal")
    block = pair.join(pair.flipver(), "vertical").copy_memory()
    wide = block.replicate(-(-width // block.width), -(-height // block.height))
    noise = pyvips.Image.gaussnoise(width, height, sigma=2.0, mean=0, seed=number)
    noisy = (wide.crop(0, 0, width, height) + noise).cast("uchar")
    draft = target.with_suffix(".part.jpg")
    noisy.copy(interpretation="srgb").jpegsave(str(draft), Q=90, strip=True)
    os.replace(draft, target)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    _width, _height, _count = map(int, sys.argv[1:])
    for _number in range(_count):
        _make(_width, _height, FOLDER / f"{_width}x{_height}-{_number}.jpg", _number)
