"""Composites: a stack of layers laid over each other, in every size and format, verified.

In `exact` mode layers are laid over each other at their own size and the result is reduced; in
`fast` mode each layer is reduced once and they are laid over each other then.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from imagecore.composite import (
    MODES,
    CompositeImage,
    CompositeInfo,
    CompositeRequest,
    Layer,
)
from imagecore.compositefiles import check_picture, encoded, psnr
from imagecore.cuts import cuts_of
from imagecore.errors import ItemFailed, ItemRefused, UnreadableImage
from imagecore.overs import (
    Bytes,
    Pixels,
    Planes,
    added,
    fitted_size,
    laid_over,
    legal,
    over,
    read_layer,
    reduced,
    straight,
)
from imagecore.parts import new_part
from imagecore.rendercache import LAYER, STACK, RenderCache
from imagecore.renderstyle import Cut
from imagecore.tempspace import disk_errors
from imagecore.vipserror import explained

LOADERS = ("png",)
_SIDE = 800
_STEPS = ("decode", "composite", "resize", "encode", "verify")


_Kind = tuple[Any, ...]
"""The mode, and the width and height of each `fit` size: others would be made otherwise."""


@dataclass(frozen=True)
class _Reduced:
    """A layer of `fast` mode, by itself in each `fit` size."""

    canvas: tuple[int, int]
    fits: tuple[Planes, ...]
    opaque: bool
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        return sum(each.samples.nbytes for each in self.fits)


@dataclass(frozen=True)
class _Stack:
    """Some layers over each other: the whole in each `fit` size, and in `exact` mode, at source
    size, what is then seen in the part of the last layer."""

    canvas: tuple[int, int]
    top: Planes | None
    fits: tuple[Planes, ...]
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        top = self.top.samples.nbytes if self.top else 0
        return top + sum(each.samples.nbytes for each in self.fits)


class Compositor:
    """Makes composites one after another, and keeps layers and beginnings of stacks for the next.

    :param cache_mb: most megabytes (1 << 20 bytes) kept from one composite to the next; the one
        being made needs room for its own layers beside them
    """

    def __init__(self, cache_mb: float) -> None:
        self.cache = RenderCache(int(cache_mb * (1 << 20)))
        self._seconds = dict.fromkeys(_STEPS, 0.0)
        self._decoded = self._overs = 0

    def make(self, request: CompositeRequest, folder: Path) -> CompositeInfo:
        """Write every size in every format into `folder`, as `<size>.<extension>`.

        Files appear only when all have been verified. Sizes other than `fit` are cut from the
        composite fitted inside 800 x 800, or a multiple of it that is larger than they are.

        Raises:
            UnreadableImage: a layer file is damaged, or no PNG picture.
            ItemRefused: no layers, one of another size than the first, or one without
                transparency that would hide those below.
            VerificationFailed: a file is not what it should be.
            ItemFailed: a layer file is missing, or the composite could not be made now.
            DiskFull: no space left in `folder`.
            ValueError: there is no such mode, kind of size or format.
        """
        import pyvips

        pyvips.cache_set_max(0)
        if request.mode not in MODES:
            raise ValueError(f"there is no mode {request.mode!r}: choose one of {', '.join(MODES)}")
        self._seconds, self._decoded, self._overs = dict.fromkeys(_STEPS, 0.0), 0, 0
        with disk_errors(folder):
            stack = self._stacked(request, request.mode, folder)
            pixels = self._sized(stack, request)
            alike = None
            if request.check_fast and request.mode == "fast":
                right = self._sized(self._stacked(request, "exact", folder), request)
                first = request.sizes[0].name
                alike = psnr(pixels[first], right[first])
            with explained(folder, writing="composite"):
                images = self._write_all(pixels, request, folder)
        return CompositeInfo(
            images,
            self._seconds,
            alike,
            stack.notes,
            self._decoded,
            self._overs,
            self.cache.held,
        )

    def _stacked(self, request: CompositeRequest, mode: str, folder: Path) -> _Stack:
        """The whole stack, from the longest beginning there is in the cache upwards."""
        if not request.layers:
            raise ItemRefused("a composite needs at least one layer")
        kind = (mode, *_fits(request.sizes))
        names = [each.identity for each in request.layers]
        keys = [(STACK, kind, *names[: count + 1]) for count in range(len(names))]
        self.cache.walk({*keys, *((LAYER, kind, name) for name in names)})
        stacks: list[_Stack] = []
        for key, layer in zip(keys, request.layers, strict=True):
            found: _Stack | None = self.cache.get(key)
            if found is None:
                found = self._extended(stacks, layer, kind, folder)
                self.cache.put(key, found, found.nbytes)
            stacks.append(found)
        return stacks[-1]

    def _extended(self, below: list[_Stack], layer: Layer, kind: _Kind, folder: Path) -> _Stack:
        """One more layer over the last of `below`, which has all beginnings of the stack."""
        above = self._layer(layer, kind, folder)
        if below:
            _refuse_misfit(above, below[-1].canvas, _name(layer))
        self._overs += bool(below)
        top: Planes | None = None
        if isinstance(above, Pixels):
            with self._timed("composite"):
                top, change = laid_over([each.top for each in below if each.top], above)
            with self._timed("resize"):
                fits = tuple(reduced(change, above.canvas, fit) for fit in kind[1:])
                fits = tuple(map(added, below[-1].fits, fits)) if below else fits
        else:
            with self._timed("composite"):
                fits = tuple(map(over, below[-1].fits, above.fits)) if below else above.fits
        notes = tuple(f"{_name(layer)}: {note}" for note in above.notes)
        return _Stack(above.canvas, top, fits, (*(below[-1].notes if below else ()), *notes))

    def _layer(self, layer: Layer, kind: _Kind, folder: Path) -> Pixels | _Reduced:
        key = (LAYER, kind, layer.identity)
        found: Pixels | _Reduced | None = self.cache.get(key)
        if found is not None:
            return found
        with self._timed("decode"), _reading_faults(_name(layer), folder):
            found = read = read_layer(Path(layer.file))
        self._decoded += 1
        if kind[0] == "fast":
            with self._timed("resize"):
                planes = read.premultiplied()
                fits = tuple(legal(reduced(planes, read.canvas, fit)) for fit in kind[1:])
            found = _Reduced(read.canvas, fits, read.opaque, read.notes)
        self.cache.put(key, found, found.nbytes)
        return found

    def _sized(self, stack: _Stack, request: CompositeRequest) -> dict[str, Bytes]:
        """The pixels of every size, by its name."""
        with self._timed("resize"):
            whole = {
                fit: straight(planes, *fitted_size(stack.canvas, fit))
                for fit, planes in zip(_fits(request.sizes), stack.fits, strict=True)
            }
            pixels = {each.name: whole[_fit(each)] for each in request.sizes if each.kind == "fit"}
            for fit, composite in whole.items():
                cuts = [each for each in request.sizes if each.kind != "fit" and _fit(each) == fit]
                names = [each.name for each in cuts]
                pixels |= zip(names, cuts_of(composite, cuts), strict=True)
            return pixels

    def _write_all(
        self, pixels: dict[str, Bytes], request: CompositeRequest, folder: Path
    ) -> tuple[CompositeImage, ...]:
        """All files or none: each gets its name when the last one has been verified."""
        made: list[tuple[Path, CompositeImage]] = []
        part = folder
        try:
            for size, format in product(request.sizes, request.formats):
                part = new_part(folder)
                with self._timed("encode"):
                    data, meant = encoded(pixels[size.name], format, request.ppi)
                    part.write_bytes(data)
                with self._timed("verify"):
                    data = part.read_bytes()
                    check_picture(data, meant, format)
                    digest = hashlib.sha256(data).hexdigest()
                file = str(folder / f"{size.name}.{format.extension}")
                high, wide = meant.shape[:2]
                image = (size.name, format.name, file, wide, high, len(data), digest)
                made.append((part, CompositeImage(*image)))
            for done, composite in made:
                os.replace(done, composite.file)
        finally:
            for each in (part, *(done for done, _ in made)):
                if each != folder:
                    each.unlink(missing_ok=True)
        return tuple(image for _, image in made)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[step] += time.perf_counter() - started


def _fits(sizes: Sequence[Cut]) -> tuple[tuple[int, int], ...]:
    """Width and height of each reduced composite that these sizes need."""
    return tuple(dict.fromkeys(map(_fit, sizes)))


def _fit(cut: Cut) -> tuple[int, int]:
    """What a cut is made of, whatever else is made: 800 x 800, as many times larger as it takes
    for the cut to be smaller."""
    if cut.kind == "fit":
        return cut.width, cut.height
    times = max(1, -(-cut.width // _SIDE), -(-cut.height // _SIDE))
    return _SIDE * times, _SIDE * times


def _name(layer: Layer) -> str:
    return Path(layer.file).name


def _refuse_misfit(above: Pixels | _Reduced, canvas: tuple[int, int], name: str) -> None:
    if above.canvas != canvas:
        sizes = [f"{wide} x {high}" for wide, high in (above.canvas, canvas)]
        raise ItemRefused(
            f"layer {name} is {sizes[0]} pixels, the layers below are {sizes[1]}: "
            "save all on the same canvas"
        )
    if above.opaque:
        raise ItemRefused(
            f"layer {name} has no transparency and would hide the layers below: "
            "save it with an alpha channel"
        )


@contextmanager
def _reading_faults(name: str, folder: Path) -> Iterator[None]:
    """Name the layer file in what goes wrong with it."""
    try:
        with explained(folder):
            yield
    except (UnreadableImage, ItemFailed) as error:
        raise type(error)(f"layer {name}: {error}") from error
