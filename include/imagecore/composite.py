"""What is asked of the compositor, and what it answers."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from imagecore.renderstyle import LEGACY_SIZES, PPI, Cut, Format

MODES = ("exact", "fast")
VERSION = 1
"""Raise it when the same layers begin to give other pixels."""


@dataclass(frozen=True)
class Layer:
    """A layer's local file, and a text that changes when its content does, such as its ETag:
    what was decoded of it before is used again by that text."""

    file: str
    identity: str


@dataclass(frozen=True)
class CompositeRequest:
    """What is to be made of `layers`, bottom first; the first one's size is the canvas.

    `ppi` is written into the files. `check_fast` also makes the exact composite and compares.
    `cache_mb` is as for Compositor.
    """

    layers: tuple[Layer, ...]
    sizes: tuple[Cut, ...] = LEGACY_SIZES
    formats: tuple[Format, ...] = (Format(),)
    ppi: int = PPI
    mode: str = "exact"
    check_fast: bool = False
    cache_mb: float = 512


def request_to_json(request: CompositeRequest) -> dict[str, Any]:
    """The request in JSON's types, for a process that may have another working folder."""
    layers = [replace(each, file=os.path.abspath(each.file)) for each in request.layers]
    return asdict(replace(request, layers=tuple(layers)))


def request_from_json(data: dict[str, Any]) -> CompositeRequest:
    """What `request_to_json` wrote."""
    formats = [{**each, "background": tuple(each["background"])} for each in data["formats"]]
    lists = {
        "layers": tuple(Layer(**each) for each in data["layers"]),
        "sizes": tuple(Cut(**each) for each in data["sizes"]),
        "formats": tuple(Format(**each) for each in formats),
    }
    return CompositeRequest(**{**data, **lists})


@dataclass(frozen=True)
class CompositeImage:
    """One verified file: the names of its size and format, and its size in pixels and bytes."""

    size: str
    format: str
    file: str
    width: int
    height: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class CompositeInfo:
    """A verified composite: its files by size, then format. `seconds` are those of each step;
    `psnr` is of the fast one against the exact one in dB (99: no difference), None: not compared.
    `decoded` and `overs` count the layers and operations that were not in the cache, which holds
    `held` bytes."""

    images: tuple[CompositeImage, ...]
    seconds: dict[str, float]
    psnr: float | None
    notes: tuple[str, ...]
    decoded: int
    overs: int
    held: int
