"""A style file begun from a folder of layers; what a person must still decide is marked."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import takewhile

import yaml  # type: ignore[import-untyped]

from imagecore.layerindex import is_hidden, layer_of
from imagecore.renderstyle import LAYERS, LEGACY_SIZES, SIDES, Cut, layer_and_side
from imagecore.sides import Side
from imagecore.stylenames import LENGTHS, Guess, Layer, guess
from imagecore.text import printable

_SHOWN = 50
"""Of names that are no layer's; the others are counted."""
_POWER = 30
"""Up to so many codes the number of combinations is written out."""
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*")
_NO_FOLDERS = {"", ".", ".."}

Files = dict[tuple[str, int], list[str]]
"""The keys of each base name and colour."""


def style_skeleton(side: Side, title: str) -> str:
    """The text of a style file for the layers below a folder or prefix.

    `load_style` accepts it as it is. Holds memory in proportion to the layers.

    Raises:
        PlanRefused: there is no such folder.
        InfrastructureError: the listing would not be whole.
    """
    files: Files = defaultdict(list)
    odd: list[str] = []
    for entry in side.entries("", lambda key, reason: None):
        *folders, name = entry.key.split("/")
        layer = layer_of(name)
        if layer is None or is_hidden(folders):
            continue
        try:
            layer_and_side(layer[0])
        except ValueError:
            odd.append(entry.key)
        else:
            files[layer].append(entry.key)
    found = guess(base for base, _ in files)
    sections = [
        _head(files, found, title, printable(side.url)),
        _lengths(found),
        _codes(found),
        _search(files),
        _defaults(found),
        _layers(found.layers),
        _rules(len(found.codes)),
        [*_list("sizes", map(_size, LEGACY_SIZES)), *_list("formats", ["{name: png}"])],
        _odd([*found.odd, *sorted(odd)]),
    ]
    return "\n\n".join(text for each in sections if (text := "\n".join(each))) + "\n"


def _head(files: Files, found: Guess, title: str, url: str) -> Iterator[str]:
    highest = max((colour for _, colour in files), default=0)
    bases = {base for base, _ in files}
    lacking = sum(
        any((base, colour) not in files for colour in range(highest + 1)) for base in bases
    )
    yield f"# Begun from {url}: {len(bases):,} layers, {len(files):,} pictures."
    yield "# Every line marked DECIDE needs a person."
    yield f"title: {_text(title)}"
    doubt = f"  # DECIDE: {lacking:,} layers lack some of these colours" if lacking else ""
    yield f"highest_colour: {highest}{doubt}"


def _lengths(found: Guess) -> Iterator[str]:
    yield "# DECIDE: the order, and the names shown to people."
    yield "lengths:"
    for length in found.lengths:
        shown = LENGTHS.get(length, length.replace("_", "-").title())
        doubt = "" if length in LENGTHS else "  # DECIDE: is this a length?"
        if found.invented:
            doubt = "  # DECIDE: no name has a length, and there must be one: what is it called?"
        yield f"  {_text(length)}: {_text(shown)}{doubt}"


def _codes(found: Guess) -> Iterator[str]:
    yield "# DECIDE: the order. Where two codes have the same layer, the later one's is shown."
    yield from _list("codes", map(_text, found.codes))
    if found.conditions:
        names = ", ".join(found.conditions)
        yield f"# DECIDE: are these codes? Others' layers are for them, they have none: {names}"


def _search(files: Files) -> Iterator[str]:
    folders = [key.split("/")[:-1] for keys in files.values() for key in keys]
    first, last = min(folders, default=[]), max(folders, default=[])
    common = [each for each, _ in takewhile(_alike, zip(first, last, strict=False))]
    above, depth = "/".join(common) or ".", len(common)
    if all(len(keys) == 1 for keys in files.values()):
        yield from _list("search", [_text(above)])
        return
    yield "# DECIDE: the order. Some layers are in several places, and of these folders the first"
    yield "# that has any file of a code is taken for that code."
    inside = {"/".join(each[: depth + 1]) for each in folders if _is_inside(each, depth)}
    rest = [above] if not all(_is_inside(each, depth) for each in folders) else []
    yield from _list("search", map(_text, [*sorted(inside), *rest]))


def _alike(parts: tuple[str, str]) -> bool:
    return parts[0] == parts[1] and parts[0] not in _NO_FOLDERS


def _is_inside(folders: list[str], depth: int) -> bool:
    """Whether a file lies in a folder that can be named below that depth."""
    return len(folders) > depth and folders[depth] not in _NO_FOLDERS


def _defaults(found: Guess) -> Iterator[str]:
    yield "# What is shown where no code has a layer."
    if found.defaults:
        yield "defaults:"
    else:
        yield "defaults: {}  # DECIDE: no name begins with base_ or default_; are there any?"
    singly = []
    for layer in LAYERS:
        template = _template(found, layer)
        if template:
            yield f"  {layer}: '{template}'"
        else:
            singly.append(layer)
    for length in found.lengths:
        sides = [
            f"    {side}: {{{', '.join(names)}}}"
            for side in SIDES
            if (names := _singly(found, length, side, singly))
        ]
        if sides:
            yield f"  {_text(length)}:"
            yield from sides
    for name in found.unused:
        yield f"# DECIDE: others are the defaults in place of {name}"


def _template(found: Guess, layer: str) -> str | None:
    """One name for all lengths and sides, if it stands for the defaults of a layer."""
    length, side = found.lengths[0], SIDES[0]
    name = found.defaults.get((length, side, layer))
    if name is None:
        return None
    stem = name.removesuffix(f"_{layer}_{side}")
    if stem.endswith(f"_{length}"):
        stem = f"{stem.removesuffix(length)}{{length}}"
    template = f"{stem}_{layer}_{{side}}"
    fits = all(
        found.defaults.get((each, side, layer)) == template.format(length=each, side=side)
        for each in found.lengths
        for side in SIDES
    )
    return template if fits else None


def _singly(found: Guess, length: str, side: str, layers: Iterable[str]) -> list[str]:
    names = ((layer, found.defaults.get((length, side, layer))) for layer in layers)
    return [f"{layer}: {_text(name)}" for layer, name in names if name]


def _layers(layers: Iterable[Layer]) -> Iterator[str]:
    lines = [_layer(each) for each in layers]
    named = any(line.startswith("  -") for line in lines)
    yield "layers:" if named else "layers: []"
    yield from lines


def _layer(layer: Layer) -> str:
    base, clear, twin = layer
    given = _text(base.name)
    if not clear:
        parts = [f"name: {given}", f"code: {_text(base.code)}"]
        parts += [f"for: [{', '.join(map(_text, base.conditions))}]"] if base.conditions else []
        parts += [f"length: {_text(base.length)}"] if base.length else []
        given = f"{{{', '.join(parts)}}}"
    if twin:
        return f"  # - {given}  # DECIDE: in place of {twin}?"
    return f"  - {given}" + ("" if clear else "  # DECIDE: is this what it is for?")


def _rules(codes: int) -> list[str]:
    combinations = f"{2**codes - 1:,}" if codes <= _POWER else f"2^{codes} - 1"
    return [
        "# DECIDE: which codes do not go together? Write each pair as [one, other].",
        f"# Combinations of each length, as long as all go together: {combinations}.",
        "invalid_pairs: []",
        "# DECIDE: which codes can a length not have? Write them as length: [one, other].",
        "invalid_codes: {}",
    ]


def _odd(names: list[str]) -> Iterator[str]:
    if names:
        yield f"# DECIDE: {len(names):,} names are not built as <code>_..._<layer>_<side>:"
        yield from (f"#   {printable(name)}" for name in names[:_SHOWN])
    if len(names) > _SHOWN:
        yield f"#   and {len(names) - _SHOWN:,} more"


def _size(size: Cut) -> str:
    drop = f", drop: {size.drop}" if size.drop else ""
    what = f"name: {_text(size.name)}, kind: {size.kind}"
    return f"{{{what}, width: {size.width}, height: {size.height}{drop}}}"


def _list(name: str, values: Iterable[str]) -> list[str]:
    lines = [f"  - {value}" for value in values]
    return [f"{name}:", *lines] if lines else [f"{name}: []"]


def _text(text: str) -> str:
    """A text as YAML, in quotes where it would be read as something else."""
    if _WORD.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    quoted: str = yaml.safe_dump(text, default_style='"', width=float("inf"), allow_unicode=True)
    return quoted.strip()
