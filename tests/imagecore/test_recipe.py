"""A recipe: presets, overrides with usable errors, and a fingerprint of what changes pixels."""

from dataclasses import fields, replace

import pytest

from imagecore.recipe import PRESETS, Recipe, recipe_from, recipe_from_json, recipe_to_json


def test_legacy_is_what_the_old_script_did():
    legacy = PRESETS["legacy"]
    assert legacy.limits(copyright=False) == (4000, 4000)
    assert legacy.limits(copyright=True) == (843, 560)
    assert (legacy.compression, legacy.tile, legacy.dpi, legacy.colour) == (
        "deflate",
        512,
        300,
        "keep",
    )


def test_iiif_is_full_size_jpeg_in_srgb():
    iiif = PRESETS["iiif"]
    assert iiif.limits(copyright=False) == (None, None)
    assert (iiif.compression, iiif.quality, iiif.tile, iiif.colour) == ("jpeg", 85, 512, "srgb")


def test_lossless_is_full_size_deflate():
    lossless = PRESETS["lossless"]
    assert (lossless.max_width, lossless.max_height, lossless.compression) == (
        None,
        None,
        "deflate",
    )


def test_the_smaller_of_two_limits_holds_under_copyright():
    recipe = recipe_from("legacy", {"max_width": 200, "copyright_max_height": None})
    assert recipe.limits(copyright=True) == (200, 4000)


def test_overrides_replace_single_values():
    recipe = recipe_from("legacy", {"tile": 256, "background": [1, 2, 3]})
    assert recipe == replace(PRESETS["legacy"], tile=256, background=(1, 2, 3))


@pytest.mark.parametrize(
    ("preset", "overrides", "words"),
    [
        ("fancy", {}, "no preset 'fancy'.*legacy"),
        ("legacy", {"tiles": 256}, "no setting 'tiles'.*tile"),
        ("legacy", {"tile": 300}, "tile = 300: must be one of 128"),
        ("legacy", {"quality": 10}, "at least 50"),
        ("legacy", {"quality": 101}, "at most 100"),
        ("legacy", {"quality": True}, "of type integer"),
        ("legacy", {"max_width": "4000"}, "of type integer or null"),
        ("legacy", {"compression": "zstd"}, "one of deflate"),
        ("legacy", {"background": [1, 2]}, "must have 3 values"),
        ("legacy", {"background": [1, 2, 300]}, "at most 255"),
        ("legacy", {"loaders": []}, "at least 1"),
        ("legacy", {"loaders": ["pdf"]}, "one of jpeg"),
    ],
)
def test_a_wrong_setting_is_refused_with_a_usable_sentence(preset, overrides, words):
    with pytest.raises(ValueError, match=words):
        recipe_from(preset, overrides)


def test_every_field_describes_itself_and_its_default_fits():
    for each in fields(Recipe):
        assert each.metadata["title"]
        assert each.metadata["description"]
        assert "type" in each.metadata["schema"]
        recipe_from("legacy", {each.name: each.default})


def test_a_recipe_survives_json():
    for recipe in PRESETS.values():
        assert recipe_from_json(recipe_to_json(recipe)) == recipe


@pytest.mark.parametrize(
    "change",
    [
        {"max_width": 10},
        {"compression": "jpeg"},
        {"tile": 256},
        {"dpi": 72},
        {"colour": "srgb"},
        {"autorotate": False},
    ],
)
def test_what_changes_the_result_changes_the_fingerprint(change):
    legacy = PRESETS["legacy"]
    assert replace(legacy, **change).fingerprint(False) != legacy.fingerprint(False)


@pytest.mark.parametrize(
    "change",
    [
        {"max_pixels": 5},
        {"loaders": ("png",)},
        {"fail_on": "error"},
        {"quality": 60},
        {"background": (0, 0, 0)},
        {"copyright_max_width": 5},
    ],
)
def test_what_changes_no_pixel_keeps_the_fingerprint(change):
    legacy = PRESETS["legacy"]
    assert replace(legacy, **change).fingerprint(False) == legacy.fingerprint(False)


def test_copyright_has_its_own_fingerprint_only_where_it_has_its_own_limits():
    free = replace(PRESETS["iiif"], copyright_max_width=None, copyright_max_height=None)
    assert free.fingerprint(True) == free.fingerprint(False)
    assert PRESETS["iiif"].fingerprint(True) != PRESETS["iiif"].fingerprint(False)


def test_a_new_library_gives_a_new_fingerprint(monkeypatch):
    before = PRESETS["iiif"].fingerprint(False)
    monkeypatch.setattr("pyvips.version", lambda part: 99)
    assert PRESETS["iiif"].fingerprint(False) != before
