"""Reading a style file: what a JSON schema cannot say is checked here."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

from imagecore.renderstyle import (
    LAYERS,
    LEGACY_SIZES,
    PPI,
    SIDES,
    Base,
    Cut,
    Format,
    Style,
    StyleError,
    layer_and_side,
    parse_base,
)
from imagecore.text import printable
from imagecore.yamllines import Document, Place

SCHEMA = Path(__file__).resolve().parents[1] / "styles/schema.json"
JPEG_QUALITY = 85
_STEM = re.compile(r"[a-z0-9][a-z0-9._-]*")
_RESERVED = ("for", "default")
"""No codes: `for` begins conditions, and `default` is the name of the composite without codes."""

Defaults = dict[str, dict[str, dict[str, str]]]


def read_style(path: Path) -> Style:
    """The style of a YAML file; see `renderstyle.load_style`."""
    try:
        document = Document(path)
    except OSError as error:
        raise StyleError(
            [f"{printable(path)}:1: cannot be read ({error.strerror}): correct its name"]
        ) from error
    document.validate(_schema())
    style = _Reader(document, path).style() if _checkable(document.data) else None
    if document.problems or style is None:
        raise StyleError(document.problems)
    return style


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(SCHEMA.read_bytes())
    return schema


def _checkable(data: object) -> bool:
    """Whether there is what everything else refers to."""
    return isinstance(data, dict) and "codes" in data and "lengths" in data


class _Reader:
    """Makes a Style of a document that follows the schema; notes what is wrong in the document."""

    def __init__(self, document: Document, path: Path) -> None:
        self._document = document
        self._path = path
        self._data: dict[str, Any] = document.data
        self._lengths: dict[str, str] = self._data["lengths"]
        ignored = self._data.get("ignored", [])
        self._codes: list[str] = list(dict.fromkeys([*self._data["codes"], *ignored]))

    def style(self) -> Style:
        data = self._data
        if not _STEM.fullmatch(self._path.stem):
            self._problem(
                (),
                f"the file's name {self._path.stem!r} is the style's name: lower-case letters, "
                "digits, and . _ - after the first",
            )
        self._check_words()
        return Style(
            name=self._path.stem,
            title=data.get("title", ""),
            colours=data.get("highest_colour", 0) + 1,
            lengths=dict(self._lengths),
            codes=tuple(data["codes"]),
            ignored=tuple(data.get("ignored", ())),
            search=self._search(),
            defaults=self._defaults(),
            layers=self._layers(),
            invalid_pairs=self._invalid_pairs(),
            invalid_codes=self._invalid_codes(),
            draw_order=tuple(data.get("draw_order", LAYERS)),
            sizes=self._sizes(),
            formats=self._formats(),
            combination_files=self._combination_files(),
            ppi=data.get("ppi", PPI),
        )

    def _problem(self, place: Place, text: str) -> None:
        self._document.problem(place, text)

    def _check_words(self) -> None:
        for name in ("codes", "ignored"):
            for index, code in enumerate(self._data.get(name, ())):
                if code in _RESERVED:
                    self._problem((name, index), f"{code!r} is no code: the word is reserved")
        for length in self._lengths:
            taken = [part for part in length.split("_") if part in self._codes]
            if taken:
                self._problem(
                    ("lengths", length), f"{taken[0]!r} is also a code: file names would be unclear"
                )
            if length in LAYERS:
                self._problem(("lengths", length), f"{length!r} is the name of a layer")

    def _known(self, code: str, place: Place) -> bool:
        if code not in self._codes:
            self._problem(place, f"{code!r} is not among the codes: add it there or correct it")
        return code in self._codes

    def _known_length(self, length: str, place: Place) -> bool:
        if length not in self._lengths:
            known = ", ".join(self._lengths)
            self._problem(place, f"there is no length {length!r}: choose one of {known}")
        return length in self._lengths

    def _search(self) -> tuple[str, ...]:
        folders: Sequence[str] = self._data.get("search", ["."])
        for index, folder in enumerate(folders):
            if folder.startswith("/") or ".." in PurePosixPath(folder).parts:
                self._problem(
                    ("search", index), f"{folder!r} must be a folder below the source of layers"
                )
        return tuple(folders)

    def _layers(self) -> tuple[Base, ...]:
        bases: list[Base] = []
        seen: dict[tuple[object, ...], Place] = {}
        for index, given in enumerate(self._data.get("layers", ())):
            place = ("layers", index)
            try:
                base = self._base(given)
            except ValueError as error:
                self._problem(place, f"{error}: correct it")
                continue
            role = (base.code, frozenset(base.conditions), base.length, base.layer, base.side)
            if role in seen:
                self._problem(
                    place,
                    f"{base.name!r} stands for the same as line "
                    f"{self._document.line(seen[role])}: keep one of them",
                )
            if base.code in self._data.get("ignored", ()):
                self._problem(
                    place,
                    f"{base.name!r} is a layer of {base.code!r}, which is ignored: "
                    "take one of them out",
                )
            seen.setdefault(role, place)
            bases.append(base)
        return tuple(bases)

    def _base(self, given: str | dict[str, Any]) -> Base:
        if isinstance(given, str):
            return parse_base(given, self._codes, tuple(self._lengths))
        name, code, length = given["name"], given["code"], given.get("length")
        conditions = tuple(given.get("for", ()))
        layer, side = layer_and_side(name)
        for each in (code, *conditions):
            if each not in self._codes:
                raise ValueError(f"{each!r} is not among the codes")
        if code in conditions:
            raise ValueError(f"{name!r} is for its own code")
        if length is not None and length not in self._lengths:
            raise ValueError(f"there is no length {length!r}")
        return Base(name, code, conditions, length, layer, side)

    def _defaults(self) -> Defaults:
        found: Defaults = {length: {side: {} for side in SIDES} for length in self._lengths}
        given: dict[str, Any] = self._data.get("defaults", {})
        for layer, template in given.items():
            place = ("defaults", layer)
            if isinstance(template, dict):
                self._known_length(layer, place)
            elif layer not in LAYERS:
                self._problem(
                    place,
                    f"{layer!r} is neither a layer ({', '.join(LAYERS)}) "
                    "nor a length with its sides below it",
                )
            else:
                self._from_template(found, layer, template)
        for length, sides in given.items():
            if isinstance(sides, dict) and length in self._lengths:
                self._of_length(found[length], length, sides)
        return found

    def _from_template(self, found: Defaults, layer: str, template: str) -> None:
        place = ("defaults", layer)
        for length in self._lengths:
            for side in SIDES:
                name = template.replace("{length}", length).replace("{side}", side)
                if not self._default_fits(place, name, layer, side):
                    return
                found[length][side][layer] = name

    def _of_length(
        self, found: dict[str, dict[str, str]], length: str, sides: dict[str, Any]
    ) -> None:
        for side, layers in sides.items():
            for layer, name in layers.items():
                place = ("defaults", length, side, layer)
                if name is None:
                    found[side].pop(layer, None)
                elif self._default_fits(place, name, layer, side):
                    found[side][layer] = name

    def _default_fits(self, place: Place, name: str, layer: str, side: str) -> bool:
        try:
            if layer_and_side(name) == (layer, side):
                return True
            text = f"{name!r} is not of layer {layer} and side {side}"
        except ValueError as error:
            text = str(error)
        self._problem(place, f"{text}: end it in _{layer}_{{side}}, or _{layer}_{side}")
        return False

    def _invalid_pairs(self) -> frozenset[frozenset[str]]:
        pairs: set[frozenset[str]] = set()
        for index, group in enumerate(self._data.get("invalid_pairs", ())):
            place = ("invalid_pairs", index)
            known = [self._known(code, (*place, i)) for i, code in enumerate(group)]
            if all(known):
                pairs.update(frozenset(pair) for pair in combinations(group, 2))
        return frozenset(pairs)

    def _invalid_codes(self) -> dict[str, frozenset[str]]:
        found = {}
        for length, codes in self._data.get("invalid_codes", {}).items():
            place = ("invalid_codes", length)
            self._known_length(length, place)
            for index, code in enumerate(codes):
                self._known(code, (*place, index))
            found[length] = frozenset(codes)
        return found

    def _sizes(self) -> tuple[Cut, ...]:
        if "sizes" not in self._data:
            return LEGACY_SIZES
        sizes = tuple(Cut(**each) for each in self._data["sizes"])
        self._check_names("sizes", [size.name for size in sizes])
        for index, size in enumerate(sizes):
            if size.drop and size.kind not in ("top", "bottom"):
                self._problem(
                    ("sizes", index, "drop"),
                    f"{size.kind!r} drops nothing: remove it, or choose the kind top or bottom",
                )
        return sizes

    def _formats(self) -> tuple[Format, ...]:
        if "formats" not in self._data:
            return (Format(),)
        self._check_names("formats", [each["name"] for each in self._data["formats"]])
        return tuple(self._format(i, each) for i, each in enumerate(self._data["formats"]))

    def _format(self, index: int, given: dict[str, Any]) -> Format:
        name = given["name"]
        if name == "png" and "quality" in given:
            self._problem(("formats", index, "quality"), "png loses nothing: remove it")
        if name != "jpeg" and "background" in given:
            self._problem(("formats", index, "background"), f"{name} keeps transparency: remove it")
        red, green, blue = given.get("background", (255, 255, 255))
        quality = given.get("quality", JPEG_QUALITY if name == "jpeg" else None)
        return Format(name, quality, (red, green, blue))

    def _check_names(self, list_: str, names: list[str]) -> None:
        for index, name in enumerate(names):
            if name in names[:index]:
                self._problem(
                    (list_, index),
                    f"two have the name {name!r}, and would write one file: rename or remove one",
                )

    def _combination_files(self) -> dict[str, Path]:
        found = {}
        for length, name in self._data.get("combination_files", {}).items():
            place = ("combination_files", length)
            self._known_length(length, place)
            found[length] = self._path.parent / name
            if PurePosixPath(name).name != name or not found[length].is_file():
                self._problem(place, f"there is no file {name!r} beside the style: correct it")
        return found
