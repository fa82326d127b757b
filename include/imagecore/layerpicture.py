"""One layer made of what was drawn: inside a box, with transparency, as a verified PNG."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagecore.colour import profile_of
from imagecore.layout import VerificationFailed
from imagecore.parts import new_part
from imagecore.picture import Plan, inspect, pipeline, plan, resized, target_size
from imagecore.recipe import Recipe, recipe_from
from imagecore.renderstyle import PPI
from imagecore.tempspace import disk_errors
from imagecore.vipserror import explained

if TYPE_CHECKING:
    import pyvips

LOADERS = ("png", "jpeg")
# Raise it when the same settings begin to give other pixels.
_VERSION = 1
_INCH_MM = 25.4


@dataclass(frozen=True)
class LayerRecipe:
    """How a layer is made: it fits inside `width` × `height` pixels, small ones enlarged, and
    says `ppi` pixels per inch."""

    width: int = 800
    height: int = 800
    ppi: int = PPI

    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when a layer would be of other bytes."""
        effective = [_VERSION, asdict(self), self.reading().fingerprint(copyright=False)]
        return hashlib.sha256(json.dumps(effective).encode()).hexdigest()[:16]

    def reading(self) -> Recipe:
        """How a source is read: in sRGB, made smaller where it is larger."""
        return recipe_from(
            "iiif",
            {
                "compression": "webp",  # which keeps transparency and has 8 bits
                "loaders": list(LOADERS),
                "max_width": self.width,
                "max_height": self.height,
            },
        )

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The size in pixels that a source of this size gets.

        >>> LayerRecipe().size(300, 400)
        (600, 800)
        """
        times = max(self.width, self.height)  # target_size never enlarges
        return target_size(width * times, height * times, (self.width, self.height))


@dataclass(frozen=True)
class LayerInfo:
    """A verified layer of `width` × `height` pixels; `notes` say what of the source was changed."""

    width: int
    height: int
    bytes: int
    sha256: str
    notes: tuple[str, ...]


def make_layer(source: Path, target: Path, recipe: LayerRecipe) -> LayerInfo:
    """Write `source` as a PNG with transparency to `target`, in proportion.

    The file appears only when it has been verified.

    Raises:
        UnreadableImage: the source is damaged, or neither a PNG nor a JPEG picture.
        VerificationFailed: the file is not what it should be.
        ItemFailed: it could not be made now.
        DiskFull: no space left beside `target` or in the temporary folder.
    """
    import pyvips

    pyvips.cache_set_max(0)
    folder, reading = target.parent, recipe.reading()
    with disk_errors(folder), explained(folder):
        planned = plan(inspect(source, reading), reading, copyright=False)
        read = pipeline(planned).copy_memory().autorot()
    with disk_errors(folder), explained(folder, writing="layer"):
        size = recipe.size(*planned.source.upright)
        fitted = enlarged(read, *size) if size > (read.width, read.height) else resized(read, *size)
        drawn = fitted if fitted.hasalpha() else fitted.addalpha()
        data = _write(drawn.copy_memory(), target, recipe.ppi)
    return LayerInfo(
        drawn.width,
        drawn.height,
        len(data),
        hashlib.sha256(data).hexdigest(),
        (*planned.notes, *_notes(planned, read)),
    )


def enlarged(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """The picture so many pixels wide and high, larger than it was, weighted by alpha.

    Bicubic, as libvips' own `resize`, which would move it right and down by half a pixel.
    """
    import pyvips

    drawn = image.premultiply() if image.hasalpha() else image
    larger = drawn.affine(
        [width / image.width, 0, 0, height / image.height],
        interpolate=pyvips.Interpolate.new("bicubic"),
        idx=0.5,
        idy=0.5,
        odx=-0.5,
        ody=-0.5,
        oarea=[0, 0, width, height],
        extend="copy",
        premultiplied=True,
    )
    if not image.hasalpha():
        return larger
    return (
        larger.unpremultiply().rint().cast(image.format).copy(interpretation=image.interpretation)
    )


def _notes(planned: Plan, read: pyvips.Image) -> Iterator[str]:
    if planned.source.kind != "png":
        yield f"a {planned.source.kind} picture by content, image/png by name"
    if not read.hasalpha():
        yield "no transparency: it hides whatever lies below it"


def _write(image: pyvips.Image, target: Path, ppi: int) -> bytes:
    """Save a finished layer and compare what is in the file; returns it."""
    from imagecore.ladder_check import check_png

    part, per_mm = new_part(target.parent), ppi / _INCH_MM
    try:
        image.copy(xres=per_mm, yres=per_mm).pngsave(
            os.fsencode(part), compression=6, filter="all", keep="icc"
        )
        data = part.read_bytes()
        check_png(data, image.numpy(), profile_of(image))
        _check_resolution(data, round(per_mm * 1000))
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return data


def _check_resolution(data: bytes, per_metre: int) -> None:
    stored = data.partition(b"IDAT")[0].partition(b"pHYs")[2][:9]
    if stored != struct.pack(">IIB", per_metre, per_metre, 1):
        raise VerificationFailed(f"the PNG does not say {per_metre} pixels per metre")
