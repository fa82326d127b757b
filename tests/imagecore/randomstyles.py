"""Random styles as the data of a style file, and the legacy rules written the slow, obvious way."""

import json
import re
from itertools import product
from pathlib import Path

from hypothesis import strategies as st

from imagecore.renderstyle import LAYERS, SIDES, Style, load_style

CODES = ["a1", "t9", "t13", "b2", "b10"]
LENGTHS = {"knee": "Knee", "mini": "Mini", "micro_mini": "Micro-Mini"}
_PARTS = re.compile(
    r"(?P<code>[a-z0-9]+)(_for_(?P<for>[a-z0-9_]+?))?(_(?P<length>knee|micro_mini|mini))?"
    rf"_(?P<layer>{'|'.join(LAYERS)})_(?P<side>front|back)"
)


@st.composite
def style_data(draw) -> dict:
    """The data of a valid style file with up to five codes and three lengths."""
    codes = draw(st.lists(st.sampled_from(CODES), unique=True, min_size=1))
    lengths = draw(st.lists(st.sampled_from(list(LENGTHS)), unique=True, min_size=1))
    some = st.lists(st.sampled_from(codes), unique=True)
    ignored = draw(st.just([]) | some)
    drawn = [code for code in codes if code not in ignored]
    layers = draw(st.lists(_base(drawn, lengths), unique=True, max_size=20)) if drawn else []
    return {
        "title": "Random",
        "highest_colour": draw(st.integers(0, 2)),
        "lengths": {length: LENGTHS[length] for length in lengths},
        "codes": codes,
        "ignored": ignored,
        "defaults": draw(_defaults(lengths)),
        "layers": layers,
        "invalid_pairs": draw(
            st.lists(st.lists(st.sampled_from(codes), unique=True, min_size=2), max_size=4)
            if len(codes) > 1
            else st.just([])
        ),
        "invalid_codes": draw(st.dictionaries(st.sampled_from(lengths), some)),
        "draw_order": draw(st.just(list(LAYERS)) | st.permutations(LAYERS)),
    }


@st.composite
def _base(draw, codes: list[str], lengths: list[str]) -> str:
    code = draw(st.sampled_from(codes))
    others = [each for each in codes if each != code]
    conditions = draw(st.lists(st.sampled_from(others), unique=True, max_size=2)) if others else []
    length = draw(st.none() | st.sampled_from(lengths))
    parts = [
        code,
        *(["for", *sorted(conditions)] if conditions else []),
        *([length] * bool(length)),
    ]
    return "_".join([*parts, draw(st.sampled_from(LAYERS)), draw(st.sampled_from(SIDES))])


@st.composite
def _defaults(draw, lengths: list[str]) -> dict:
    templates = {
        layer: draw(st.sampled_from(["base_", "base_{length}_", "other_"])) + f"{layer}_{{side}}"
        for layer in draw(st.lists(st.sampled_from(LAYERS), unique=True))
    }
    own = {
        length: {
            side: {layer: draw(st.sampled_from([None, f"own_{layer}_{side}"]))}
            for side, layer in product(SIDES, draw(st.lists(st.sampled_from(LAYERS), max_size=1)))
        }
        for length in draw(st.lists(st.sampled_from(lengths), unique=True))
    }
    return templates | own


def load(data: dict, folder: Path) -> Style:
    """The style of `data`, by way of a file: JSON is YAML."""
    file = folder / "random.yaml"
    file.write_text(json.dumps(data, indent=1))
    return load_style(file)


def slow_combinations(data: dict, length: str) -> list[tuple[str, ...]]:
    """Every subset, counted in binary, and each rule asked for each subset."""
    codes = [code for code in data["codes"] if code not in data["ignored"]]
    kept = []
    for number in range(2 ** len(codes)):
        chosen = [code for bit, code in enumerate(codes) if number & 2**bit]
        if any(code in data["invalid_codes"].get(length, []) for code in chosen):
            continue
        if any(len(set(group) & set(chosen)) > 1 for group in data["invalid_pairs"]):
            continue
        kept.append(tuple(chosen))
    return kept


def slow_stack(data: dict, length: str, chosen: tuple[str, ...], side: str) -> tuple[str, ...]:
    """The layers of one side of a combination, every file name looked at for every code."""
    shown: dict[str, list[str]] = {layer: [] for layer in LAYERS}
    for layer in LAYERS:
        template = data["defaults"].get(layer)
        if template:
            shown[layer] = [template.format(length=length, side=side)]
        of_length = data["defaults"].get(length, {}).get(side, {})
        if layer in of_length:
            shown[layer] = [of_length[layer]] if of_length[layer] else []
    for code in data["codes"]:
        if code in chosen:
            for layer, name in _entry(data, length, chosen, code).get(side, {}).items():
                if layer in ("bottom", "belt", "neckline"):
                    shown[layer] = [name]
                else:
                    shown[layer] = [name, *shown[layer]]
    return tuple(name for layer in data["draw_order"] for name in shown[layer])


def _entry(data: dict, length: str, chosen: tuple[str, ...], code: str) -> dict:
    """By side and layer, the code's most specific entry; of equals the last in the file."""
    best: set[str] | None = None
    for name in data["layers"]:
        its_code, conditions, its_length, _, _ = _parts(name)
        matches = its_code == code and its_length in (None, length) and conditions <= set(chosen)
        if matches and (best is None or len(conditions) >= len(best)):
            best = conditions
    entry: dict[str, dict[str, str]] = {}
    for only in (None, length):
        for name in data["layers"]:
            its_code, conditions, its_length, layer, side = _parts(name)
            if (its_code, conditions, its_length) == (code, best, only):
                entry.setdefault(side, {})[layer] = name
    return entry


def _parts(name: str) -> tuple:
    found = _PARTS.fullmatch(name)
    conditions = set((found["for"] or "").split("_")) - {""}
    return found["code"], conditions, found["length"], found["layer"], found["side"]
