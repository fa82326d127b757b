"""How a pyramid is made: every setting, three presets, and a fingerprint of what changes pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, cast

Compression = Literal["deflate", "jpeg", "lzw", "webp", "none"]
Colour = Literal["keep", "srgb"]
FailOn = Literal["warning", "error", "truncated"]

KINDS = ("jpeg", "png", "tiff", "webp", "gif", "avif", "svg")
DEFAULT_KINDS = ("jpeg", "png", "tiff", "webp", "gif", "avif")
# Raise it when the same settings begin to give other pixels: results are then made again.
PIPELINE_VERSION = 1


def _setting(default: object, title: str, description: str, **schema: object) -> Any:
    metadata = {"title": title, "description": description, "schema": schema}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Recipe:
    """The settings of one pyramid; each field's metadata holds `title`, `description` and the
    JSON `schema` its value must satisfy."""

    max_width: int | None = _setting(
        4000,
        "Greatest width",
        "Pixels; a wider picture is made smaller, never larger. 0: no limit.",
        type=["integer", "null"],
        minimum=0,
    )
    max_height: int | None = _setting(
        4000,
        "Greatest height",
        "Pixels; a higher picture is made smaller, never larger. 0: no limit.",
        type=["integer", "null"],
        minimum=0,
    )
    copyright_max_width: int | None = _setting(
        843,
        "Greatest width under copyright",
        "Pixels; holds beside the general limit when the picture is under copyright. 0: no limit.",
        type=["integer", "null"],
        minimum=0,
    )
    copyright_max_height: int | None = _setting(
        560,
        "Greatest height under copyright",
        "Pixels; holds beside the general limit when the picture is under copyright. 0: no limit.",
        type=["integer", "null"],
        minimum=0,
    )
    compression: Compression = _setting(  # noqa: RUF009
        "deflate",
        "Compression",
        "How tiles are stored. Only jpeg loses detail; webp is written lossless.",
        type="string",
        enum=["deflate", "jpeg", "lzw", "webp", "none"],
    )
    quality: int = _setting(
        85,
        "JPEG quality",
        "Used by jpeg only. Below 50 a result could not be told from a damaged one.",
        type="integer",
        minimum=50,
        maximum=100,
    )
    tile: int = _setting(
        512,
        "Tile size",
        "Width and height of a tile in pixels.",
        type="integer",
        enum=[128, 256, 512, 1024],
    )
    dpi: int = _setting(
        300,
        "Resolution",
        "Dots per inch written into the result; no pixel depends on it.",
        type="integer",
        minimum=1,
        maximum=10000,
    )
    colour: Colour = _setting(  # noqa: RUF009
        "keep",
        "Colour",
        "keep: the source's colours and profile; srgb: converted to sRGB.",
        type="string",
        enum=["keep", "srgb"],
    )
    autorotate: bool = _setting(
        True,
        "Turn upright",
        "Turn the pixels as the orientation tag says and reset the tag: viewers ignore it.",
        type="boolean",
    )
    background: tuple[int, int, int] = _setting(
        (255, 255, 255),
        "Background",
        "Red, green, blue (0 to 255) behind transparency, where the result cannot hold it.",
        type="array",
        items={"type": "integer", "minimum": 0, "maximum": 255},
        minItems=3,
        maxItems=3,
    )
    loaders: tuple[str, ...] = _setting(
        DEFAULT_KINDS,
        "Kinds of picture read",
        "Every other kind is refused. svg can be added: a drawing may ask for any amount of work.",
        type="array",
        items={"type": "string", "enum": list(KINDS)},
        minItems=1,
    )
    max_pixels: int = _setting(
        1_000_000_000,
        "Most pixels",
        "Width x height of a source; a larger one is refused before it is decoded.",
        type="integer",
        minimum=1,
    )
    fail_on: FailOn = _setting(  # noqa: RUF009
        "warning",
        "Refuse at",
        "The least fault of a source that refuses it: warning (strictest), error, truncated.",
        type="string",
        enum=["warning", "error", "truncated"],
    )

    def limits(self, copyright: bool) -> tuple[int | None, int | None]:
        """The greatest width and height in pixels that hold for one picture."""
        if not copyright:
            return self.max_width or None, self.max_height or None
        return (
            _least(self.max_width, self.copyright_max_width),
            _least(self.max_height, self.copyright_max_height),
        )

    def fingerprint(self, copyright: bool) -> str:
        """16 hexadecimal digits that change when this recipe would give other bytes.

        What only decides whether a picture is read at all (`loaders`, `max_pixels`, `fail_on`)
        does not count; the version of libvips does.
        """
        import pyvips

        width, height = self.limits(copyright)
        effective = {
            "max_width": width,
            "max_height": height,
            "compression": self.compression,
            "quality": self.quality if self.compression == "jpeg" else None,
            "tile": self.tile,
            "dpi": self.dpi,
            "colour": self.colour,
            "autorotate": self.autorotate,
            "background": list(self.background) if self.compression == "jpeg" else None,
            "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
            "pipeline": PIPELINE_VERSION,
        }
        text = json.dumps(effective, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


PRESETS: Mapping[str, Recipe] = MappingProxyType(
    {
        "legacy": Recipe(),
        "iiif": Recipe(max_width=None, max_height=None, compression="jpeg", colour="srgb"),
        "lossless": Recipe(max_width=None, max_height=None),
    }
)


def recipe_from(preset: str, overrides: Mapping[str, object] | None = None) -> Recipe:
    """The named preset with single values replaced.

    Raises:
        ValueError: no such preset or setting, or a value outside its schema; the text says which.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    settings: dict[str, Field[Any]] = {each.name: each for each in fields(Recipe)}
    values: dict[str, Any] = {}
    for name, value in (overrides or {}).items():
        if name not in settings:
            known = ", ".join(settings)
            raise ValueError(f"there is no setting {name!r}: the settings are {known}")
        schema = settings[name].metadata["schema"]
        problem = _problem(value, schema)
        if problem:
            raise ValueError(f"{name} = {value!r}: {problem}")
        values[name] = tuple(cast("list[object]", value)) if schema["type"] == "array" else value
    return replace(PRESETS[preset], **values)


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values that `Recipe(**values)` and JSON understand."""
    return asdict(recipe)


def recipe_from_json(values: Mapping[str, Any]) -> Recipe:
    """The opposite of `recipe_to_json`; lists become tuples again."""
    plain: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in values.items()
    }
    return Recipe(**plain)


def _least(one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value]
    return min(known) if known else None


_TYPES: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list, tuple),
}


def _problem(value: object, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a value, or None; covers the part of JSON schema used above."""
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is_a(value, name) for name in names):
        return f"must be of type {' or '.join(names)}"
    if value is None:
        return None
    if "enum" in schema and value not in schema["enum"]:
        return f"must be one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, (list, tuple)):
        return _array_problem(value, schema)
    return _range_problem(value, schema)


def _is_a(value: object, name: str) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    return isinstance(value, _TYPES[name])


def _range_problem(value: Any, schema: Mapping[str, Any]) -> str | None:
    if "minimum" in schema and value < schema["minimum"]:
        return f"must be at least {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        return f"must be at most {schema['maximum']}"
    return None


def _array_problem(value: list[Any] | tuple[Any, ...], schema: Mapping[str, Any]) -> str | None:
    least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if not least <= len(value) <= most:
        return f"must have {least} values" if least == most else f"must have at least {least} value"
    return next((found for each in value if (found := _problem(each, schema["items"]))), None)
