"""The combinations of a style's codes, what they are called, and the layers each is drawn of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from imagecore.combinationfile import Codes, Row, Stack, read_combinations
from imagecore.renderstyle import REPLACED, SIDES, Style

__all__ = [
    "Codes",
    "Row",
    "Stack",
    "combination_rows",
    "combinations",
    "composite_name",
    "count_combinations",
    "dropped",
    "read_combinations",
    "stack_of",
    "stacker",
]


def combinations(style: Style, length: str) -> Iterator[Codes]:
    """Every combination the rules allow in a length, `()` first: that is the default.

    They come in the order of the legacy files, which is counting in binary with the first code as
    the lowest digit: a, b, a b, c, a c, … Each step gives one, whatever the rules cut away.
    """
    codes, allowed, fits = _rules(style, length)

    def walk(chosen: Codes, free: int) -> Iterator[Codes]:
        yield chosen
        for bit in _bits(free):
            yield from walk((codes[bit], *chosen), free & fits[bit] & ((1 << bit) - 1))

    return walk((), allowed)


def dropped(style: Style, length: str) -> dict[str, int]:
    """How many of the 2^n - 1 non-empty sets of codes each rule of a length drops.

    A set that breaks several rules counts for the first: codes invalid in the length in their
    order, then pairs in the order of their later and earlier code. So the numbers and the
    combinations add up to 2^n - 1. Ignored codes are not among the n. Counted without walking
    the sets.
    """
    codes, allowed, fits = _rules(style, length)
    everything = (1 << len(codes)) - 1
    found: dict[str, int] = {}
    left = everything
    for bit in _bits(everything & ~allowed):
        left &= ~(1 << bit)
        found[f"{codes[bit]} in {length}"] = 1 << left.bit_count()
    fits_so_far = [everything] * len(codes)
    for later in _bits(left):
        for earlier in _bits(left & ~fits[later] & ((1 << later) - 1)):
            both = 1 << later | 1 << earlier
            free = left & fits_so_far[later] & fits_so_far[earlier] & ~both
            fits_so_far[later] &= ~(1 << earlier)
            fits_so_far[earlier] &= ~(1 << later)
            # Of the other codes, no rule before this one ties one to either of these two.
            found[f"{codes[earlier]} with {codes[later]}"] = _sets(free, fits_so_far)
    return found


def count_combinations(style: Style, length: str) -> int:
    """How many `combinations` gives, without walking them."""
    _, allowed, fits = _rules(style, length)
    return _sets(allowed, fits)


def stacker(style: Style, length: str) -> Callable[[Sequence[str], str], Stack]:
    """`stack_of` for one length, prepared for many calls: a function of the codes and the side."""
    order = {code: number for number, code in enumerate(style.codes)}
    entries = _entries(style, length)
    defaults = style.defaults.get(length, {})
    drawn = style.draw_order

    def stack(codes: Sequence[str], side: str) -> Stack:
        names = {layer: [name] for layer, name in defaults.get(side, {}).items()}
        chosen = frozenset(codes)
        for code in sorted(codes, key=order.__getitem__):
            for conditions, sides in entries.get(code, ()):
                if conditions <= chosen:
                    for layer, name in sides[side].items():
                        below = [] if layer in REPLACED else names.get(layer, [])
                        names[layer] = [name, *below]
                    break
        return tuple(name for layer in drawn for name in names.get(layer, ()))

    return stack


def stack_of(style: Style, length: str, codes: Sequence[str], side: str) -> Stack:
    """The base names one side of a combination is drawn of, by the rules of the style.

    It starts from the defaults. Then, in the order of the style's codes, each selected code adds
    its entry: all its layers with the same conditions, of this length or of every length (its own
    length counts first). Of the entries whose conditions are all selected, the one with the most
    conditions is taken, of several the last in the file. Its bottom, belt and neckline take the
    place of what is there; its behind, behindbelt and infront go before it.
    """
    return stacker(style, length)(codes, side)


def combination_rows(style: Style, length: str) -> Iterator[Row]:
    """Every combination of a length with its stacks: by its combination file, or by the rules.

    The default `()` comes first. Combination files do not have it: there it is drawn of the
    style's defaults, and left out when the length has none.

    Raises:
        StyleError: the combination file is wrong; after the last row, with all its faults.
    """
    stack = stacker(style, length)
    if length in style.combination_files:
        front, back = stack((), "front"), stack((), "back")
        if front or back:
            yield (), front, back
        yield from read_combinations(style.combination_files[length], style)
    else:
        for codes in combinations(style, length):
            yield codes, stack(codes, "front"), stack(codes, "back")


def composite_name(codes: Sequence[str], length: str, side: str, colour: int) -> str:
    """What a composite is called, without extension: `a2-t13-knee-front-0003`.

    Without codes it is `default-knee-front-0003`. Codes are sorted as text: t13 before t9.
    """
    return f"{'-'.join(sorted(codes)) or 'default'}-{length}-{side}-{colour:04d}"


def _rules(style: Style, length: str) -> tuple[list[str], int, list[int]]:
    """The codes, and as bits: those a length allows, and for each code those it goes with."""
    codes = [code for code in style.codes if code not in style.ignored]
    invalid = style.invalid_codes.get(length, frozenset())
    allowed = sum(1 << bit for bit, code in enumerate(codes) if code not in invalid)
    fits = [
        sum(
            1 << bit
            for bit, other in enumerate(codes)
            if frozenset((code, other)) not in style.invalid_pairs
        )
        for code in codes
    ]
    return codes, allowed, fits


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _sets(free: int, fits: Sequence[int]) -> int:
    """How many sets, the empty one too, there are of the codes `free` that all go together."""
    known: dict[int, int] = {}

    def count(free: int) -> int:
        if free in known:
            return known[free]
        together = _tied(free, fits)
        if together != free:  # what no rule ties to each other is chosen independently
            known[free] = count(together) * count(free & ~together)
            return known[free]
        clashes = {bit: (free & ~fits[bit]).bit_count() for bit in _bits(free)}
        worst = max(clashes, key=clashes.__getitem__, default=0)
        if not clashes.get(worst):
            return 1 << len(clashes)
        without = free & ~(1 << worst)
        known[free] = count(without) + count(without & fits[worst])
        return known[free]

    return count(free)


def _tied(free: int, fits: Sequence[int]) -> int:
    """One of the codes `free`, and those of them that rules tie to it, also by way of others."""
    found, new = 0, free & -free
    while new:
        found |= new
        clashing = 0
        for bit in _bits(new):
            clashing |= ~fits[bit]
        new = free & clashing & ~found
    return found


Entry = tuple[frozenset[str], Mapping[str, Mapping[str, str]]]
"""Conditions, and by side and layer the base names."""


def _entries(style: Style, length: str) -> dict[str, list[Entry]]:
    """For each code its entries in a length, the one that counts first in front."""
    found: dict[str, dict[frozenset[str], dict[str, dict[str, str]]]] = {}
    # Those of this length last: they take the place of those of every length.
    for base in sorted(style.layers, key=lambda base: base.length is not None):
        if base.length in (None, length):
            of_code = found.setdefault(base.code, {})
            entry = of_code.setdefault(frozenset(base.conditions), {side: {} for side in SIDES})
            entry[base.side][base.layer] = base.name
    last: dict[tuple[str, frozenset[str]], int] = {}
    for number, base in enumerate(style.layers):
        if base.length in (None, length):
            last[base.code, frozenset(base.conditions)] = number
    return {
        code: sorted(
            entries.items(), key=lambda entry: (len(entry[0]), last[code, entry[0]]), reverse=True
        )
        for code, entries in found.items()
    }
