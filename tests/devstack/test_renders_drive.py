"""The sample renders drive: whole, the same each time, and drawn so that layers fit each other."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import pyvips

from devstack.layout import Layout
from devstack.renders import (
    ARCHIVE,
    COLOURS,
    CURRENT,
    STYLE,
    SUPERSEDED,
    draw_renders,
    drawings,
    render,
)
from imagecore.combinations import combinations, stack_of
from imagecore.layerindex import LayerFile, index_layers
from imagecore.renderstyle import LAYERS, SIDES, Style, load_style
from imagecore.sides import LocalSide

ROOT = Layout().root
FILE = ROOT / "include" / "styles" / f"{STYLE}.yaml"
SCALE = 0.25
DRAWN = (0, 17)


@pytest.fixture(scope="module")
def style() -> Style:
    return load_style(FILE)


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drive")
    assert draw_renders(folder, scale=SCALE, colours=DRAWN) == len(list(pngs(folder)))
    return folder


def pngs(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*.png") if file.is_file())


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in pngs(folder)}


def layer_files(style: Style, drive: Path) -> dict[tuple[str, int], LayerFile]:
    index = index_layers(style, LocalSide(drive))
    return {(base, c): file for base, found in index.files.items() for c, file in found.items()}


def used(style: Style) -> set[str]:
    """Every base name that some valid combination is drawn of."""
    return {
        base
        for length in style.lengths
        for codes in combinations(style, length)
        for side in SIDES
        for base in stack_of(style, length, codes, side)
    }


def opaque(drive: Path, file: LayerFile) -> set[int]:
    """Rows of the canvas of 1200 in which the layer hides what is behind its middle."""
    alpha = pyvips.Image.new_from_file(str(drive / file.entry.key))[3]
    column = alpha.crop(alpha.width // 2, 0, 1, alpha.height).tolist()
    return {round(row / SCALE) for row, (value,) in enumerate(column) if value == 255}


def test_the_style_has_every_layer_it_uses_and_no_other(style, drive):
    files = layer_files(style, drive)
    assert set(files) == {(base, colour) for base in used(style) for colour in DRAWN}
    assert {base.name for base in style.layers} <= used(style)


def test_all_18_colours_are_drawn_when_none_are_named(style, tmp_path, monkeypatch):
    one = next(drawings())
    monkeypatch.setattr("devstack.renders.drawings", lambda: iter([one]))
    assert draw_renders(tmp_path, scale=0.1) == style.colours == len(COLOURS) == 18
    assert {file.stem[-4:] for file in pngs(tmp_path)} == {f"{n:04}" for n in range(18)}


def test_every_layer_has_alpha_and_shows_something_on_one_canvas(drive):
    for file in pngs(drive):
        image = pyvips.Image.new_from_file(str(file))
        assert (image.width, image.height, image.bands) == (200, 300, 4), file.name
        # Sleeves are of thin cloth.
        assert image[3].max() > 200, file.name
        assert image[3].min() == 0, file.name
        assert image[:3].deviate() > 0, file.name


def test_it_is_drawn_alike_by_another_process(drive, tmp_path):
    script = (
        "import sys; from pathlib import Path; from devstack.renders import draw_renders;"
        f"draw_renders(Path(sys.argv[1]), scale={SCALE}, colours={DRAWN})"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=True)
    assert content(tmp_path) == content(drive)


def test_a_scale_makes_the_same_drawing_larger():
    _, draw = next(drawings())
    small, large = render(draw, 0.25)[0], render(draw, 0.5)[0]
    assert (large.width, large.height) == (400, 600)
    assert abs(large[1].avg() - small[1].avg()) < 0.5


def test_colours_are_those_they_are_named_for(style, drive):
    files = layer_files(style, drive)
    ivory, black = (
        pyvips.Image.new_from_file(str(drive / files["base_maxi_bottom_front", colour].entry.key))
        .crop(90, 150, 20, 20)[:3]
        .avg()
        for colour in DRAWN
    )
    assert ivory > 180
    assert black < 60


def test_of_a_code_in_both_folders_the_first_wins(style, drive):
    files = layer_files(style, drive)
    name = f"{SUPERSEDED}_0000.png"
    assert len({file.read_bytes() for file in pngs(drive) if file.name == name}) == 2
    assert files[SUPERSEDED, 0].folder == CURRENT
    assert {base for (base, _), file in files.items() if file.folder == ARCHIVE} == {
        "a3_belt_back",
        "a3_for_a1_belt_back",
    }


def test_the_style_shows_what_a_style_can_have(style):
    assert {name.split("_")[-2] for name in used(style)} == set(LAYERS)
    assert any(base.conditions and base.length for base in style.layers)
    assert style.invalid_pairs
    assert style.invalid_codes
    assert style.ignored


def test_there_are_as_many_combinations_as_the_style_file_says(style):
    counts = {length: len(list(combinations(style, length))) for length in style.lengths}
    composites = sum(counts.values()) * style.colours * len(SIDES)
    said = ", ".join(f"{length} {count}" for length, count in counts.items())
    text = re.sub(r"\s*\n#\s*", " ", FILE.read_text())
    assert f"included: {said}; each in 18 colours" in text
    assert f"{composites:,} composites." in text


@pytest.mark.parametrize("side", SIDES)
def test_bodice_belt_and_skirt_overlap_so_that_no_gap_shows(style, drive, side):
    rows = {
        layer: [
            opaque(drive, file)
            for (base, colour), file in layer_files(style, drive).items()
            if colour == DRAWN[0] and base.endswith(f"_{layer}_{side}")
        ]
        for layer in ("bottom", "belt", "neckline")
    }
    assert all(rows.values())
    for belt in rows["belt"]:
        assert all(bodice & belt for bodice in rows["neckline"])
        assert all(skirt & belt for skirt in rows["bottom"])
