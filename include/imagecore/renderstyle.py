"""A style: the layers, rules, sizes and formats its composites are made by, read from YAML.

A *base name* is a layer file's name without its colour and extension:

    <code>[_for_<condition>_…][_<length>]_<layer>_<side>        b16_for_b3_knee_bottom_back
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagecore.errors import PlanRefused

LAYERS = ("behind", "bottom", "behindbelt", "belt", "neckline", "infront")
"""The layers in the legacy draw order, bottom first."""
REPLACED = frozenset({"bottom", "belt", "neckline"})
"""Of these a code's layer takes the place of what is there; of the others it goes before it."""
SIDES = ("front", "back")
PPI = 172
_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
EXTENSIONS: Mapping[str, str] = {"png": "png", "webp": "webp", "avif": "avif", "jpeg": "jpg"}


class StyleError(PlanRefused):
    """A style or combination file is wrong. `problems` has one `file:line: …` for each fault."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Base:
    """A layer of a code: shown when the code and all `conditions` are selected.

    `length` None: in every length.
    """

    name: str
    code: str
    conditions: tuple[str, ...]
    length: str | None
    layer: str
    side: str


@dataclass(frozen=True)
class Cut:
    """One output size; `width` and `height` are pixels, `drop` is percent of the height.

    `kind` is `fit` (inside width x height, small ones enlarged, no padding), `trim` (trimmed,
    fitted, centred on a transparent width x height), `top` (trimmed, `drop` percent cut off at the
    bottom, made `width` wide, the centre cut to width x height) or `bottom` (the same, cut off at
    the top).
    """

    name: str
    kind: str
    width: int
    height: int
    drop: int = 0


LEGACY_SIZES = (
    Cut("800x800", "fit", 800, 800),
    Cut("142x142", "trim", 142, 142),
    Cut("top-crop", "top", 142, 142, 33),
    Cut("bottom-crop", "bottom", 142, 142, 33),
)


@dataclass(frozen=True)
class Format:
    """A file format: `png`, `webp`, `avif` or `jpeg`.

    `quality` is 1 to 100, None: lossless; jpeg always has one. `background` (red, green, blue,
    0 to 255) is what a jpeg shows where the composite is transparent.
    """

    name: str = "png"
    quality: int | None = None
    background: tuple[int, int, int] = (255, 255, 255)

    @property
    def extension(self) -> str:
        """The ending of file names, without the dot."""
        return EXTENSIONS[self.name]


@dataclass(frozen=True)
class Style:
    """Everything a style file says. Lengths and codes are in the order of the file.

    `colours` is how many: they are 0 to colours - 1. `lengths` maps each token to its display
    name. `ignored` codes are sold but not drawn: they have no layers and no combinations.
    `search` are the folders with layer files, the first that has a code wins. `defaults` maps
    length, side and layer to a base name. `combination_files` maps a length to the CSV file that
    stands in place of the rules. `ppi` is pixels per inch, as written into the results.
    """

    name: str
    title: str
    colours: int
    lengths: Mapping[str, str]
    codes: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    search: tuple[str, ...] = (".",)
    defaults: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    layers: tuple[Base, ...] = ()
    invalid_pairs: frozenset[frozenset[str]] = frozenset()
    invalid_codes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    draw_order: tuple[str, ...] = LAYERS
    sizes: tuple[Cut, ...] = LEGACY_SIZES
    formats: tuple[Format, ...] = (Format(),)
    combination_files: Mapping[str, Path] = field(default_factory=dict)
    ppi: int = PPI


def load_style(path: Path) -> Style:
    """The style of a YAML file, as `include/styles/schema.json` describes it.

    The file's name without its ending is the style's name.

    Raises:
        StyleError: with every fault found, each as `file:line: what is wrong and what to do`.
    """
    # Whoever only needs the classes, as every sandbox child, does not wait for the validator.
    from imagecore.stylefile import read_style

    return read_style(path)


def parse_base(name: str, codes: Sequence[str], lengths: Sequence[str]) -> Base:
    """What a base name says; `name` is lower case, as layer files are stored.

    Raises:
        ValueError: it is not built as a base name is, or names no such code, length, layer or
            side; the text says which.
    """
    layer, side = layer_and_side(name)
    stem = name[: -len(f"_{layer}_{side}")]
    length = max((each for each in lengths if stem.endswith(f"_{each}")), key=len, default=None)
    code, *rest = (stem[: -len(length) - 1] if length else stem).split("_")
    if code not in codes:
        raise ValueError(f"{name!r} begins with {code!r}, which is no code of the style")
    if rest and (rest[0] != "for" or len(rest) == 1):
        raise ValueError(
            f"{name!r} has {'_'.join(rest)!r} after its code, where only for_<codes> "
            "and a length of the style can stand"
        )
    conditions = tuple(rest[1:])
    for each in conditions:
        if each not in codes:
            raise ValueError(f"{name!r} is for {each!r}, which is no code of the style")
    if len({code, *conditions}) <= len(conditions):
        raise ValueError(f"{name!r} names a code twice")
    return Base(name, code, conditions, length, layer, side)


def layer_and_side(name: str) -> tuple[str, str]:
    """The last two parts of any base name, also of a default.

    Raises:
        ValueError: it does not end in `_<layer>_<side>`.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no base name: lower-case letters and digits, with _ only between them"
        )
    parts = name.split("_")
    if len(parts) < 3 or parts[-2] not in LAYERS or parts[-1] not in SIDES:
        raise ValueError(
            f"{name!r} does not end in _<layer>_<side>: a layer is one of {', '.join(LAYERS)}, "
            f"a side one of {', '.join(SIDES)}"
        )
    return parts[-2], parts[-1]
