"""What is said about a wrong style file: every fault, with its line."""

import json

import jsonschema
import pytest
from renderfiles import DRESS, write

from imagecore.renderstyle import StyleError, load_style
from imagecore.stylefile import SCHEMA

WRONG = [
    ("highest_colour: 17", "highest_color: 17", 2, "did you mean 'highest_colour'?"),
    ("title: A dress", "titel: A dress", 1, "'title' is missing: add it"),
    ("highest_colour: 17", "highest_colour: many", 2, "must be a whole number, not 'many'"),
    ("highest_colour: 17", "highest_colour: 17.0", 2, "must be a whole number, not 17.0"),
    ("highest_colour: 17", "highest_colour: yes", 2, "must be a whole number, not True"),
    ("highest_colour: 17", "highest_colour: 10000", 2, "must be at most 9999"),
    ("highest_colour: 17", "highest_colour: 17\nppi: 0", 3, "must be at least 1"),
    ("knee: Knee", "knee: 7", 4, "must be text, not 7: put it in quotes"),
    ("  knee: Knee", "  Knee: Knee", 4, "'Knee' is no name here: lower-case letters"),
    ("  knee: Knee", "  on: Knee", 4, "'on' is no text, and cannot be a key"),
    ("  knee: Knee", "  b3_mini: Knee", 4, "'b3' is also a code"),
    ("  knee: Knee", "  bottom: Knee", 4, "'bottom' is the name of a layer"),
    ("  knee: Knee", "  knee: Knee\n  knee: Again", 5, "'knee' is there twice, first in line 4"),
    ("[t1, t13, b3, b16]", "\n  - t1\n  - t13\n  - b3\n  - b16\n  - T13", 11, "'T13' is no name"),
    ("[t1, t13, b3, b16]", "\n  - t1\n  - t13\n  - b3\n  - b16\n  - t1", 11, "'t1' is there twice"),
    ("[t1, t13, b3, b16]", "[t1, t13, b3, b16, 12]", 6, "must be text, not 12"),
    ("[t1, t13, b3, b16]", "[t1, t13, b3, b16, default]", 6, "the word is reserved"),
    ("[t1, t13, b3, b16]", "[t1, t13, b3, b16, for]", 6, "the word is reserved"),
    ("  bottom: base", "  botom: base", 8, "'botom' is neither a layer"),
    ("_bottom_{side}", "_botom_{side}", 8, "'base_knee_botom_front' does not end in"),
    ("_bottom_{side}", "_belt_{side}", 8, "is not of layer bottom and side front"),
    ("_bottom_{side}", "_bottom_front", 8, "is not of layer bottom and side back"),
    ("{length}", "{size}", 8, "'base_{size}_bottom_front' is no base name"),
    ("  bottom: ", "  maxi: {front: {}}\n  bottom: ", 8, "there is no length 'maxi'"),
    ("  bottom: ", "  knee: {left: {}}\n  bottom: ", 8, "'left' must be one of front, back"),
    ("  bottom: ", "  knee: {front: {x: y}}\n  bottom: ", 8, "'x' must be one of behind"),
    ("  bottom: ", "  knee: {front: {belt: y}}\n  bottom: ", 8, "'y' does not end in"),
    ("t1_neckline", "t1_nekline", 10, "'t1_nekline_front' does not end in"),
    ("t1_neckline", "t2_neckline", 10, "begins with 't2', which is no code of the style"),
    ("for_b3_knee", "for_b3_maxi", 11, "'maxi', which is no code"),
    ("t1_neckline_front", "b16_for_b3_knee_bottom_back", 11, "stands for the same as line 10"),
    ("- t1_neckline_front", "- {name: a_belt_front}", 10, "'code' is missing"),
    ("- t1_neckline_front", "- {name: a_belt_front, code: t2}", 10, "'t2' is not among the codes"),
    ("- t1_neckline_front", "- {name: a_belt_front, code: t1, fro: x}", 10, "did you mean 'for'?"),
    ("- t1_neckline_front", "- {name: a_b_front, code: t1}", 10, "'a_b_front' does not end in"),
    ("- t1_neckline_front", "- {name: a_belt_front, code: t1, for: [t1]}", 10, "its own code"),
    ("- t1_neckline_front", "- {name: a_belt_front, code: t1, length: x}", 10, "no length 'x'"),
    ("- t1_neckline_front", "- [t1]", 10, "must be text or a mapping (key: value), not ['t1']"),
    ("layers:", "ignored: [t1]\nlayers:", 11, "is a layer of 't1', which is ignored"),
    ("layers:", "invalid_pairs:\n  - [t1, t13]\n  - [t1, t99]\nlayers:", 11, "'t99' is not among"),
    ("layers:", "invalid_pairs:\n  - [t1]\nlayers:", 10, "must have 2 or more entries"),
    ("layers:", "invalid_codes: {knee: [t99]}\nlayers:", 9, "'t99' is not among the codes"),
    ("layers:", "invalid_codes: {maxi: [t1]}\nlayers:", 9, "there is no length 'maxi'"),
    ("layers:", "draw_order: [belt, bottom]\nlayers:", 9, "must have 6 or more entries"),
    ("layers:", "search: [a, /b]\nlayers:", 9, "'/b' must be a folder below"),
    ("layers:", "search: [a/../..]\nlayers:", 9, "'a/../..' must be a folder below"),
    ("layers:", "combination_files: {maxi: x.csv}\nlayers:", 9, "there is no length 'maxi'"),
    ("layers:", "combination_files: {knee: x.csv}\nlayers:", 9, "there is no file 'x.csv'"),
    ("layers:", "combination_files: {knee: ./}\nlayers:", 9, "there is no file './'"),
    (
        "layers:",
        "sizes:\n  - {name: s, kind: fit, width: 1, height: 1}\n"
        "  - {name: s, kind: trim, width: 2, height: 2}\nlayers:",
        11,
        "two have the name 's'",
    ),
    (
        "layers:",
        "sizes:\n  - {name: s, kind: fit, width: 1, height: 1, drop: 3}\nlayers:",
        10,
        "'fit' drops nothing",
    ),
    (
        "layers:",
        "sizes:\n  - {name: a b, kind: fit, width: 1, height: 1}\nlayers:",
        10,
        "'a b' is no name here",
    ),
    ("layers:", "formats: []\nlayers:", 9, "must have 1 or more entries"),
    ("layers:", "formats: [{name: gif}]\nlayers:", 9, "'gif' must be one of png, webp, avif, jpeg"),
    ("layers:", "formats: [{name: png}, {name: png}]\nlayers:", 9, "two have the name 'png'"),
    ("layers:", "formats: [{name: png, quality: 9}]\nlayers:", 9, "png loses nothing"),
    (
        "layers:",
        "formats: [{name: webp, background: [0, 0, 0]}]\nlayers:",
        9,
        "webp keeps transparency",
    ),
]


@pytest.mark.parametrize(("right", "wrong", "line", "text"), WRONG)
def test_a_fault_of_a_style_is_named_with_its_line(tmp_path, right, wrong, line, text):
    assert right in DRESS
    file = write(tmp_path, DRESS.replace(right, wrong, 1))

    with pytest.raises(StyleError) as raised:
        load_style(file)

    found = [each for each in raised.value.problems if each.startswith(f"{file}:{line}: ")]
    assert any(text in each for each in found), raised.value.problems


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "the file is empty"),
        ("title: [a\nlengths: {", 2, "not YAML"),
        ("title: a\n\tcodes: []", 2, "not YAML"),
        ("title: 'a", 1, "not YAML"),
        ("title: a\n---\ntitle: b", 2, "not YAML"),
        ("title: a\ncodes: &c [t1]\nignored: *c", 3, "an alias (*): write the value out"),
        ("title: a\ncodes: !!python/tuple [t1]", 2, "the tag"),
        ("title: a\ncodes: [!!python/name:os.system t1]", 2, "cannot be read"),
        ("title: a\ncodes: [2024-13-45]", 2, "cannot be read"),
        ("title: a\n? [x]\n: y", 2, "cannot be a key"),
        ("title: a\ncodes: \x01", 2, "cannot stand in YAML"),
        ("title: a\ncodes: " + "[" * 1000, 1, "nested too deeply"),
        ("- a", 1, "must be a mapping (key: value), not ['a']"),
        ("~", 1, "must be a mapping"),
    ],
)
def test_what_is_not_yaml_or_no_style_is_named_with_its_line(tmp_path, text, line, said):
    file = write(tmp_path, text)

    with pytest.raises(StyleError) as raised:
        load_style(file)

    found = [each for each in raised.value.problems if each.startswith(f"{file}:{line}: ")]
    assert any(said in each for each in found), raised.value.problems


def test_what_cannot_be_read_is_not_said_to_be_empty_too(tmp_path):
    file = write(tmp_path, DRESS.replace("title: A dress", "title: !colour red"))

    with pytest.raises(StyleError) as raised:
        load_style(file)

    assert [each.split(": ", 1)[1] for each in raised.value.problems] == [
        "'red' cannot be read: put it in quotes, without a tag"
    ]


def test_what_is_not_utf8_is_named_with_its_line(tmp_path):
    file = tmp_path / "dress.yaml"
    file.write_bytes(DRESS.encode().replace(b"Micro-Mini", b"Mini \xe9"))

    with pytest.raises(StyleError, match=r"dress\.yaml:5: this line is not UTF-8"):
        load_style(file)


def test_a_byte_order_mark_does_not_matter(tmp_path):
    file = tmp_path / "dress.yaml"
    file.write_text(DRESS, encoding="utf-8-sig")

    assert load_style(file).title == "A dress"


def test_every_fault_is_listed_at_once_by_line(tmp_path):
    text = DRESS.replace("{side}", "{seite}").replace("t1_neck", "t2_neck").replace("17", "-1")
    text += "invalid_pairs: [[t1, t99]]\ncolour: 3\ntitle: Again\n"

    with pytest.raises(StyleError) as raised:
        load_style(write(tmp_path, text))

    lines = [problem.split(":")[1] for problem in raised.value.problems]
    assert lines == ["2", "8", "10", "12", "13", "14"]
    assert str(raised.value).splitlines() == list(raised.value.problems)


def test_a_style_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StyleError, match=r"gone\.yaml:1: cannot be read"):
        load_style(tmp_path / "gone.yaml")


def test_the_name_of_the_file_must_do_as_the_name_of_the_style(tmp_path):
    with pytest.raises(StyleError, match="'My Dress' is the style's name"):
        load_style(write(tmp_path, DRESS, "My Dress.yaml"))


def test_the_schema_is_one_and_describes_every_setting():
    schema = json.loads(SCHEMA.read_bytes())

    jsonschema.Draft202012Validator.check_schema(schema)
    assert all(setting.get("description") for setting in schema["properties"].values())
