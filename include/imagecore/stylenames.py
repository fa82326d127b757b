"""What the names of layers say of a style that nobody has described yet."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from imagecore.renderstyle import LAYERS, SIDES, Base, layer_and_side, parse_base

LENGTHS: Mapping[str, str] = {
    "micro": "Micro-Mini",
    "micro_mini": "Micro-Mini",
    "mini": "Mini",
    "knee": "Knee",
    "midi": "Midi",
    "ankle": "Ankle",
    "maxi": "Maxi",
}
"""The lengths that legacy styles had, and the names shown to people."""
PLAIN = ("base", "default")
"""With these begin the names of default layers."""
_NO_CODES = {"for", *PLAIN}
_NUMBERS = re.compile(r"([0-9]+)")


class Layer(NamedTuple):
    """A code's layer. `clear`: the name says all of it. `twin` is the name of the layer before it
    that says the same, or None."""

    base: Base
    clear: bool
    twin: str | None


class Guess(NamedTuple):
    """What base names say together; codes and layers in natural order, t9 before t13.

    `conditions` are the codes that have no layer of their own. `lengths` is never empty:
    `invented` says that no name has one. `defaults` is by length, side and layer. `unused` are
    the default layers that are none of these, `odd` the names that begin with no possible code.
    """

    codes: tuple[str, ...]
    conditions: tuple[str, ...]
    lengths: tuple[str, ...]
    invented: bool
    defaults: Mapping[tuple[str, str, str], str]
    unused: tuple[str, ...]
    layers: tuple[Layer, ...]
    odd: tuple[str, ...]


def guess(bases: Iterable[str]) -> Guess:
    """Take apart base names, each of which ends in `_<layer>_<side>`.

    A code is what a name begins with, or the first after its `for`. A length is what stands
    between the codes and the layer, and in a default's name only what is known as one.
    """
    names = sorted(set(bases), key=_natural)
    plain = [name for name in names if _words(name)[0] in PLAIN]
    odd = [name for name in names if _words(name)[0] == "for"]
    drawn = [name for name in names if _words(name)[0] not in _NO_CODES]
    own = {_words(name)[0] for name in drawn}
    first_for = {words[2] for words in map(_words, drawn) if words[1:2] == ["for"] and words[2:]}
    conditions = first_for - own - _NO_CODES
    codes = sorted(own | conditions, key=_natural)
    found = _lengths(drawn, plain, codes)
    lengths = found or (_invented(names),)
    defaults = _defaults(plain, lengths)
    return Guess(
        tuple(codes),
        tuple(sorted(conditions, key=_natural)),
        lengths,
        not found,
        defaults,
        tuple(name for name in plain if name not in defaults.values()),
        tuple(_layers(drawn, codes, lengths)),
        tuple(odd),
    )


def _words(base: str) -> list[str]:
    """The parts of a name before its layer and side."""
    return base.split("_")[:-2]


def _natural(text: str) -> list[str | int]:
    return [int(part) if number % 2 else part for number, part in enumerate(_NUMBERS.split(text))]


def _lengths(drawn: list[str], plain: list[str], codes: Collection[str]) -> tuple[str, ...]:
    found = {_length(_words(name), codes) for name in drawn}
    found |= {_ending(_words(name), LENGTHS) for name in plain}
    taken = set(codes)
    return tuple(sorted(each for each in found if each and not taken & set(each.split("_"))))


def _length(words: list[str], codes: Collection[str]) -> str:
    rest = words[1:]
    if rest[:1] == ["for"]:
        rest = rest[1:]
        while rest and rest[0] in codes:
            rest = rest[1:]
    length = "_".join(rest)
    return "" if "for" in rest or length in LAYERS else length


def _ending(words: list[str], lengths: Iterable[str]) -> str:
    """The length that the words after the first end with, or nothing."""
    text = "_".join(["", *words[1:]])
    return max((each for each in lengths if text.endswith(f"_{each}")), key=len, default="")


def _invented(names: list[str]) -> str:
    used = {word for name in names for word in name.split("_")}
    return next(each for number in count(1) if (each := f"length{number}") not in used)


def _defaults(plain: list[str], lengths: tuple[str, ...]) -> dict[tuple[str, str, str], str]:
    """For each length, side and layer the name of that length, or else one of any length."""
    found: dict[tuple[str, str, str], str] = {}
    for name in plain:
        layer, side = layer_and_side(name)
        found.setdefault((_ending(_words(name), lengths), side, layer), name)
    chosen = {
        (length, side, layer): found.get((length, side, layer), found.get(("", side, layer)))
        for length in lengths
        for side in SIDES
        for layer in LAYERS
    }
    return {place: name for place, name in chosen.items() if name}


def _layers(drawn: list[str], codes: Sequence[str], lengths: Sequence[str]) -> Iterable[Layer]:
    seen: dict[object, str] = {}
    for name in drawn:
        try:
            base, clear = parse_base(name, codes, lengths), True
        except ValueError:
            base, clear = _unclear(name, codes, lengths), False
        role = (base.code, frozenset(base.conditions), base.length, base.layer, base.side)
        yield Layer(base, clear, seen.get(role))
        seen.setdefault(role, name)


def _unclear(name: str, codes: Sequence[str], lengths: Sequence[str]) -> Base:
    code, *rest = _words(name)
    conditions = dict.fromkeys(each for each in rest if each in codes and each != code)
    length = _ending([code, *rest], lengths) or None
    return Base(name, code, tuple(conditions), length, *layer_and_side(name))
