"""The two real combination files with the styles whose rules give them, and a short style."""

import csv
import json
from pathlib import Path

from imagecore.renderstyle import Style, load_style

RENDERS = Path(__file__).parents[1] / "data/renders"
REAL = [
    ("fp-dr1003-102.yaml", "FP-DR1003-102-Micro-Mini.csv", 349),
    ("fp-dr1006-102.yaml", "FP-DR1006-102-Mini.csv", 329),
]
DRESS = """\
title: A dress
highest_colour: 17
lengths:
  knee: Knee
  micro_mini: Micro-Mini
codes: [t1, t13, b3, b16]
defaults:
  bottom: base_{length}_bottom_{side}
layers:
  - t1_neckline_front
  - b16_for_b3_knee_bottom_back
"""


def real_rows(name: str) -> list[tuple]:
    """A real combination file, split without any of our code."""
    with (RENDERS / name).open(newline="") as file:
        rows = list(csv.reader(file))
    return [(tuple(a.split("-")), tuple(b.split(" ")), tuple(c.split(" "))) for a, b, c in rows]


def write(tmp_path: Path, text: str, name: str = "dress.yaml") -> Path:
    """A style file of this text."""
    file = tmp_path / name
    file.write_text(text)
    return file


def style_with(tmp_path: Path, *layers: str, **more: object) -> Style:
    """A style with these layers, three defaults, and settings added or replaced."""
    data = {
        "title": "Dress",
        "highest_colour": 17,
        "lengths": {"knee": "Knee", "mini": "Mini"},
        "codes": ["t1", "t9", "b3", "a5"],
        "layers": layers,
        "defaults": {
            "bottom": "base_{length}_bottom_{side}",
            "neckline": "base_neckline_{side}",
            "infront": "base_belt_infront_{side}",
        },
    }
    file = tmp_path / "dress.yaml"
    file.write_text(json.dumps(data | more))
    return load_style(file)
