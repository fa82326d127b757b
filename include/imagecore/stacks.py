"""Which stacks a style's composites are drawn of: each once, with every name it goes by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from imagecore.combinations import (
    Codes,
    Stack,
    combination_rows,
    composite_name,
    count_combinations,
    dropped,
)
from imagecore.errors import PlanRefused
from imagecore.manifest import Item
from imagecore.renderstyle import SIDES, Style

MAX_COMPOSITES = 5_000_000
"""Of one style. What is held of a plan grows with them, a few bytes each."""

Uses = list[tuple[Codes, str]]
"""The combinations and lengths that are drawn of one stack."""


@dataclass(frozen=True)
class MissingLayer:
    """A layer file that is not there, the lengths that need it, and how many composites do."""

    base: str
    colour: int
    lengths: tuple[str, ...]
    composites: int

    @property
    def file(self) -> str:
        """Its name."""
        return layer_file(self.base, self.colour)


@dataclass
class StackCounts:
    """What a plan comes to. An "over" lays one layer on another.

    `combinations` and `dropped` are by length, the default is one of the combinations; `dropped`
    counts by rule (see `combinations.dropped`). `composites` are names, `stacks` distinct stacks
    of one colour and side: only they are rendered. `failing` composites need a missing layer.
    `empty` composites have no layer at all, and are not planned. Overs are counted as if every
    composite were drawn, then for stacks, then when stacks share their lower layers.
    """

    combinations: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    composites: int = 0
    stacks: int = 0
    failing: int = 0
    empty: int = 0
    overs: int = 0
    overs_of_stacks: int = 0
    overs_shared: int = 0
    missing: list[MissingLayer] = field(default_factory=list)

    @property
    def aliases(self) -> int:
        """Composites that are copies of another one."""
        return self.composites - self.stacks


class StackPlan:
    """A planned style: `counts` says what comes, `items` gives it.

    A stack has the same shape in every colour, so it is held once for all of them.
    """

    def __init__(self, style: Style, layers: Mapping[str, Collection[int]]) -> None:
        self.counts = StackCounts()
        self._style = style
        self._colours = range(style.colours)
        self._shapes: dict[str, dict[Stack, Uses]] = {side: {} for side in SIDES}
        for length in style.lengths:
            self._add_length(length)
        self._missing = self._missing_colours(layers)
        self._count()

    def items(self) -> Iterator[Item]:
        """An item for each stack, in ascending order of `key`.

        Ordered so, stacks are a walk through the tree of their layers, depth first: those that
        begin alike stand together. The first of `names` is rendered, the others are its copies.
        `missing` are the layer files that are not there; without any the item has no such entry.
        """
        shapes = {
            side: sorted((" ".join(stack), stack) for stack in self._shapes[side])
            for side in sorted(SIDES)
        }
        for colour in self._colours:
            for side, stacks in shapes.items():
                for joined, stack in stacks:
                    yield self._item(f"{colour:04d} {side} {joined}", stack, side, colour)

    def _item(self, key: str, stack: Stack, side: str, colour: int) -> Item:
        item: Item = {
            "key": key,
            "layers": list(stack),
            "colour": colour,
            "side": side,
            "names": [
                composite_name(codes, length, side, colour)
                for codes, length in self._shapes[side][stack]
            ],
        }
        missing = [
            layer_file(base, colour)
            for base in dict.fromkeys(stack)
            if colour in self._missing.get(base, ())
        ]
        return item | {"missing": missing} if missing else item

    def _add_length(self, length: str) -> None:
        count = 0
        for codes, *stacks in combination_rows(self._style, length):
            count += 1
            for side, stack in zip(SIDES, stacks, strict=True):
                if stack:
                    self._shapes[side].setdefault(stack, []).append((codes, length))
                else:
                    self.counts.empty += len(self._colours)
        self.counts.combinations[length] = count
        if length not in self._style.combination_files:
            self.counts.dropped[length] = dropped(self._style, length)

    def _missing_colours(self, layers: Mapping[str, Collection[int]]) -> dict[str, set[int]]:
        """For each base name that any stack has, the colours that are not there; if any."""
        bases = {base for stacks in self._shapes.values() for stack in stacks for base in stack}
        missing = {base: set(self._colours).difference(layers.get(base, ())) for base in bases}
        return {base: colours for base, colours in missing.items() if colours}

    def _count(self) -> None:
        counts, colours = self.counts, len(self._colours)
        needed: dict[str, Counter[str]] = {base: Counter() for base in self._missing}
        for stacks in self._shapes.values():
            before: Stack = ()
            for stack in sorted(stacks):
                uses = stacks[stack]
                counts.composites += len(uses) * colours
                counts.stacks += colours
                counts.overs += (len(stack) - 1) * len(uses) * colours
                counts.overs_of_stacks += (len(stack) - 1) * colours
                counts.overs_shared += (len(stack) - max(_shared(before, stack), 1)) * colours
                before = stack
                lost = [base for base in set(stack) if base in self._missing]
                counts.failing += len(set().union(*(self._missing[b] for b in lost))) * len(uses)
                for base in lost:
                    needed[base].update(length for _, length in uses)
        counts.missing = [
            MissingLayer(
                base,
                colour,
                tuple(length for length in self._style.lengths if needed[base][length]),
                needed[base].total(),
            )
            for base in sorted(needed)
            for colour in sorted(self._missing[base])
        ]


def plan_stacks(
    style: Style,
    layers: Mapping[str, Collection[int]],
    *,
    max_composites: int = MAX_COMPOSITES,
) -> StackPlan:
    """The distinct stacks of all composites of a style.

    Equal stacks of different lengths or combinations are one. `layers` gives for each base name
    the colours whose layer file is there; a stack with a missing one is planned all the same, so
    that it fails by name.

    Raises:
        StyleError: a combination file is wrong.
        PlanRefused: the rules allow more than `max_composites`; nothing is walked then.
    """
    by_rules = [length for length in style.lengths if length not in style.combination_files]
    combinations = {length: count_combinations(style, length) for length in by_rules}
    composites = sum(combinations.values()) * len(SIDES) * style.colours
    if composites > max_composites:
        each = ", ".join(f"{length} {count:,}" for length, count in combinations.items())
        raise PlanRefused(
            f"The rules of the style {style.name} allow {composites:,} composites, and at most "
            f"{max_composites:,} are planned. Combinations: {each}. Add invalid_pairs or "
            "invalid_codes to the style, or take codes out."
        )
    return StackPlan(style, layers)


def layer_file(base: str, colour: int) -> str:
    """The name of a layer file."""
    return f"{base}_{colour:04d}.png"


def _shared(one: Stack, other: Stack) -> int:
    """How many layers two stacks have in common at the bottom."""
    for number, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return number
    return min(len(one), len(other))


def shared_layers(one: str, other: str) -> int:
    """How much two items' keys have in common: 0 for another colour, 1 for the other side, and
    one more for each layer, bottom first.

    >>> shared_layers("0003 front a b", "0003 front a c")
    3
    """
    return _shared(tuple(one.split(" ")), tuple(other.split(" ")))
