"""The photo ladder: the resized, watermarked copies made of one store photo or menu.

Its table is `include/photo_ladder.json`, its watermarks are in `include/watermarks/`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from imagecore.colour import profile_of, without_profile
from imagecore.errors import InfrastructureError, ItemRefused, UnreadableImage
from imagecore.parts import new_part
from imagecore.picture import Plan, inspect, pipeline, plan, resized
from imagecore.recipe import Recipe, recipe_from
from imagecore.tempspace import disk_errors
from imagecore.vipserror import explained

if TYPE_CHECKING:
    import pyvips

JPEG, PNG = "image/jpeg", "image/png"
_TYPES = {".jpg": JPEG, ".jpeg": JPEG, ".png": PNG}
_KINDS = {"jpeg": JPEG, "png": PNG}
LOADERS = tuple(_KINDS)
_TABLE = Path(__file__).resolve().parents[1] / "photo_ladder.json"
_MARKS = _TABLE.with_name("watermarks")
# Raise it when the same table and watermarks begin to give other pixels.
_VERSION = 1
_HIGHEST = 32_768
"""Of a copy, in pixels. JPEG allows twice as much, but each copy is held in memory."""


class _Mark(TypedDict):
    """A watermark: where, and turned by how many degrees clockwise."""

    place: str
    turned: int


@dataclass(frozen=True)
class LadderImage:
    """One verified copy in `file`. `width` is its rung, None for the full-size one; sizes are
    pixels."""

    width: int | None
    file: str
    pixels_wide: int
    pixels_high: int
    bytes: int
    sha256: str
    content_type: str


@dataclass(frozen=True)
class LadderInfo:
    """A verified ladder, full-size copy first. `width` × `height` pixels is the source turned
    upright, `widths` are the rungs, `notes` say what of the source was changed."""

    width: int
    height: int
    widths: tuple[int, ...]
    images: tuple[LadderImage, ...]
    notes: tuple[str, ...]


def ladder_widths(kind: str, source_width: int) -> tuple[int, ...]:
    """The widths in pixels made of a source so wide, besides the full-size copy; () is none.

    Raises:
        ValueError: there is no ladder of that kind.

    >>> ladder_widths("menus", 901)
    (200, 800)
    """
    for rung in _ladder(kind)["rungs"]:
        if source_width > rung["wider_than"]:
            return tuple(rung["widths"])
    return ()


def ladder_recipe() -> str:
    """16 hexadecimal digits that change when a ladder would be of other bytes: with the table,
    a watermark or the version of libvips.

    Raises:
        InfrastructureError: one of the files cannot be read.
    """
    import pyvips

    digest = hashlib.sha256()
    version = [str(pyvips.version(part)) for part in range(3)]
    digest.update(f"{_VERSION} {'.'.join(version)}".encode())
    for file in (_TABLE, *(_mark_file(width) for width in _table()["mark_widths"])):
        try:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError as error:
            raise InfrastructureError(f"The file {file} cannot be used: {error}") from error
    return digest.hexdigest()[:16]


def make_ladder(source: Path, folder: Path, kind: str, name: str) -> LadderInfo:
    """Write the full-size copy of `source` and those of its rungs into `folder`.

    `kind` is photos or menus. The extension of `name`, the object's name, decides the format:
    .jpg and .jpeg progressive JPEG, .png PNG with its transparency. Files appear only when every
    one has been verified. Heights are in proportion, rounded down, and at least one pixel.

    Raises:
        UnreadableImage: the source is damaged, or neither a JPEG nor a PNG picture.
        ItemRefused: the name has another extension, or a copy would be too high.
        VerificationFailed: a copy is not what it should be.
        ItemFailed: the ladder could not be made now.
        InfrastructureError: a watermark cannot be used.
        DiskFull: no space left in `folder` or in the temporary folder.
        ValueError: there is no ladder of that kind.
    """
    import pyvips

    pyvips.cache_set_max(0)
    content, ladder = _content_type(name), _ladder(kind)
    recipe = _reading(content)
    with disk_errors(folder), explained(folder):
        planned = plan(inspect(source, recipe), recipe, copyright=False)
        wide, high = planned.source.upright
        widths = ladder_widths(kind, wide)
        sizes = _sizes(wide, high, widths)
        held = _decoded(planned)
    with disk_errors(folder), explained(folder, writing="ladder"):
        images = _write_all(held, folder, content, (None, *widths), sizes, ladder["marks"])
    notes = (*planned.notes, *_format_note(planned, content))
    return LadderInfo(wide, high, widths, images, notes)


def _write_all(
    held: pyvips.Image,
    folder: Path,
    content: str,
    widths: tuple[int | None, ...],
    sizes: list[tuple[int, int]],
    marks: list[_Mark],
) -> tuple[LadderImage, ...]:
    """All copies or none: each gets its name when the last one has been verified."""
    made: list[tuple[Path, LadderImage]] = []
    try:
        for width, size in zip(widths, sizes, strict=True):
            part = new_part(folder)
            image = LadderImage(width, _file(folder, width, content), *size, 0, "", content)
            made.append((part, image))
            finished = _marked(resized(held, *size), marks).copy_memory()
            data = _write(finished, part, content)
            digest = hashlib.sha256(data).hexdigest()
            made[-1] = part, replace(image, bytes=len(data), sha256=digest)
        for part, image in made:
            os.replace(part, image.file)
    finally:
        for part, _ in made:
            part.unlink(missing_ok=True)
    return tuple(image for _, image in made)


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text())
    return table


def _ladder(kind: str) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = _table()["kinds"]
    if kind not in kinds:
        raise ValueError(f"there is no ladder {kind!r}: choose one of {', '.join(kinds)}")
    return kinds[kind]


def _reading(content: str) -> Recipe:
    """How a source is read: in sRGB, and no larger than twice the full-size copy, which leaves
    Lanczos enough to work with."""
    return recipe_from(
        "iiif",
        {
            # jpeg flattens transparency, webp keeps it; both give 8 bits.
            "compression": {JPEG: "jpeg", PNG: "webp"}[content],
            "loaders": list(LOADERS),
            "max_width": 2 * _table()["full_width"],
            "max_height": _HIGHEST,
        },
    )


def _content_type(name: str) -> str:
    extension = os.path.splitext(name)[1].lower()
    if extension not in _TYPES:
        raise ItemRefused(f"the name {name!r} must end in {', '.join(_TYPES)}")
    return _TYPES[extension]


def _format_note(planned: Plan, content: str) -> tuple[str, ...]:
    kind = planned.source.kind
    same = _KINDS[kind] == content
    return () if same else (f"a {kind} picture by content, {content} by name",)


def _sizes(wide: int, high: int, widths: tuple[int, ...]) -> list[tuple[int, int]]:
    """Width and height of the full-size copy and of each rung."""
    outputs = (min(wide, _table()["full_width"]), *widths)
    sizes = [(width, max(1, high * width // wide)) for width in outputs]
    if sizes[0][1] > _HIGHEST:
        raise ItemRefused(f"the copy would be {sizes[0][1]} pixels high: {_HIGHEST} are possible")
    return sizes


def _file(folder: Path, width: int | None, content: str) -> str:
    stem = "full" if width is None else f"w{width}"
    return str(folder / f"{stem}{'.png' if content == PNG else '.jpg'}")


def _decoded(planned: Plan) -> pyvips.Image:
    """The picture decoded once, upright, in red, green and blue."""
    jpeg = planned.source.kind == "jpeg"
    image = pipeline(planned, **({"shrink": _shrink(planned)} if jpeg else {}))
    if image.bands < 3:
        image = image.colourspace("srgb")
    return image.copy_memory().autorot()


def _shrink(planned: Plan) -> int:
    """How many times smaller a JPEG's decoder may give it, which saves time and memory."""
    times = planned.source.upright[0] // planned.width
    return max(shrink for shrink in (1, 2, 4, 8) if shrink <= times)


def _mark_file(width: int) -> Path:
    return _MARKS / f"{width}.png"


def _mark(width: int) -> pyvips.Image:
    """The watermark for pictures so wide. It has no profile, which would become the picture's.

    Raises:
        InfrastructureError: the file is missing or cannot be used.
    """
    import pyvips

    file, recipe = _mark_file(width), _reading(PNG)
    try:
        drawn = _decoded(plan(inspect(file, recipe), recipe, copyright=False))
    except (UnreadableImage, pyvips.Error, OSError) as error:
        raise InfrastructureError(f"The watermark {file} cannot be used: {error}") from error
    return without_profile(drawn) if profile_of(drawn) else drawn


def _marked(image: pyvips.Image, marks: list[_Mark]) -> pyvips.Image:
    """The picture with the largest watermark drawn for pictures no wider than it."""
    fitting = [width for width in _table()["mark_widths"] if width <= image.width]
    if not fitting:
        return image
    image, drawn = image.copy_memory(), _mark(max(fitting))
    for mark in marks:
        image = _with_mark(image, drawn.rot(f"d{mark['turned']}"), mark["place"])
    return image


def _with_mark(image: pyvips.Image, mark: pyvips.Image, place: str) -> pyvips.Image:
    """The watermark laid over its place, smaller where it would not fit; no pixel beside it
    changes, hidden colours included."""
    margin = int(_table()["mark_margin"] * min(image.width, image.height))
    wide, high = image.width - 2 * margin, image.height - 2 * margin
    scale = min(wide / mark.width, high / mark.height, 1)
    mark = resized(mark, max(1, int(mark.width * scale)), max(1, int(mark.height * scale)))
    left, top = {
        "centre": ((image.width - mark.width) // 2, (image.height - mark.height) // 2),
        "bottom right": (margin + wide - mark.width, margin + high - mark.height),
        "top left": (margin, margin),
    }[place]
    below = image.crop(left, top, mark.width, mark.height)
    return image.insert(below.composite2(mark, "over")[: image.bands], left, top)


def _write(image: pyvips.Image, part: Path, content: str) -> bytes:
    """Save a finished picture and compare what is in the file; returns it."""
    from imagecore.ladder_check import check_jpeg, check_png

    target, profile = os.fsencode(part), profile_of(image)
    if content == PNG:
        image.pngsave(target, compression=6, filter="all", keep="icc")
        data = part.read_bytes()
        check_png(data, image.numpy(), profile)
        return data
    quality = _table()["jpeg_quality"]
    image.jpegsave(target, Q=quality, interlace=True, subsample_mode="on", keep="icc")
    data = part.read_bytes()
    check_jpeg(data, image.numpy(), quality, profile)
    return data
