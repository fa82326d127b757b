"""Layers of a composite: what becomes of each kind of file, and what is kept of them."""

import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
from drawnlayers import dress, layer, part, premultiplied, read, save
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import data_of
from PIL import Image, ImageCms

from imagecore.composite import CompositeRequest
from imagecore.compositor import Compositor
from imagecore.errors import ItemFailed, ItemRefused, UnreadableImage
from imagecore.rendercache import LAYER, STACK, RenderCache
from imagecore.renderstyle import Cut
from imagecore.sandbox import PictureWorker

WHOLE = (Cut("w", "fit", 300, 300),)
DISPLAY_P3 = ImageCms.ImageCmsProfile(io.BytesIO(pyvips.Image.profile_load("p3"))).tobytes()
NECKLINE = part("neckline", 250, 300)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    return made


@pytest.fixture
def over_bottom(tmp_path, folder):
    """Composite a file's bytes, named neckline.png, over the bottom; returns pixels and notes."""
    below = save(part("bottom", 250, 300), tmp_path / "bottom.png")

    def run(data, first=False, mode="exact"):
        file = tmp_path / "neckline.png"
        if isinstance(data, bytes):
            file.write_bytes(data)
        layers = [layer(below), layer(file)]
        request = CompositeRequest(tuple(layers[:: -1 if first else 1]), WHOLE, mode=mode)
        info = Compositor(50).make(request, folder)
        return read(info.images[0].file), info.notes

    return run


def saved(mode="RGBA", kind="PNG", **options):
    return data_of(Image.fromarray(NECKLINE).convert(mode), kind, **options)


def deep(pixels):
    """As PNG of 16 bits."""
    image = pyvips.Image.new_from_array(pixels.astype(np.uint16) * 257)
    space = "rgb16" if image.bands >= 3 else "grey16"
    return bytes(image.copy(interpretation=space).pngsave_buffer())


def palette(mode="RGBA"):
    drawn = Image.fromarray(NECKLINE).convert(mode)
    few = drawn.quantize(200, method=Image.Quantize.FASTOCTREE)
    return data_of(few, "PNG"), np.asarray(few.convert("RGBA"))


def flipped():
    data = bytearray(saved())
    at = data.index(b"IDAT") + 2000
    data[at : at + 4] = bytes(255 - each for each in data[at : at + 4])
    return bytes(data)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        (flipped(), UnreadableImage, "the picture is damaged"),
        (saved()[:3000], UnreadableImage, "the picture is damaged"),
        (saved()[:-20], UnreadableImage, "the picture is damaged"),
        (saved()[:20], UnreadableImage, "the picture is damaged"),
        (b"", UnreadableImage, "the file is empty"),
        (b"no picture" * 99, UnreadableImage, "not a picture of any known kind"),
        (saved("RGB", "JPEG"), UnreadableImage, "jpeg pictures are not among the loaders"),
        (saved("CMYK", "JPEG"), UnreadableImage, "jpeg pictures are not among the loaders"),
        (saved("CMYK", "TIFF"), UnreadableImage, "tiff pictures are not among the loaders"),
        (saved("RGBA", "TIFF"), UnreadableImage, "tiff pictures are not among the loaders"),
        (saved("RGBA", "WEBP"), UnreadableImage, "webp pictures are not among the loaders"),
        (saved("RGB"), ItemRefused, "has no transparency and would hide the layers below"),
        (saved("L"), ItemRefused, "has no transparency and would hide the layers below"),
        (saved("1"), ItemRefused, "has no transparency and would hide the layers below"),
        (palette("RGB")[0], ItemRefused, "has no transparency and would hide the layers below"),
        (deep(NECKLINE[..., :3]), ItemRefused, "has no transparency"),
        (data_of(Image.new("RGBA", (300, 250)), "PNG"), ItemRefused, "is 300 x 250 pixels, the"),
        (data_of(Image.new("RGBA", (125, 150)), "PNG"), ItemRefused, "layers below are 250 x 300"),
        (None, ItemFailed, "there is no such file"),
    ],
)
def test_a_layer_that_cannot_be_used_is_named_with_its_reason(
    over_bottom, folder, data, error, reason, mode
):
    with pytest.raises(error, match=f"^layer neckline.png:? .*{reason}") as caught:
        over_bottom(data, mode=mode)
    assert type(caught.value) is error
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize(
    ("data", "pixels", "notes"),
    [
        (deep(NECKLINE), NECKLINE, ("neckline.png: 16 bits scaled to 8",)),
        (saved("LA"), np.asarray(Image.fromarray(NECKLINE).convert("LA").convert("RGBA")), ()),
        (
            deep(np.asarray(Image.fromarray(NECKLINE).convert("LA"))),
            np.asarray(Image.fromarray(NECKLINE).convert("LA").convert("RGBA")),
            ("neckline.png: 16 bits scaled to 8",),
        ),
        (*palette(), ()),
        (saved(interlace=1), NECKLINE, ()),
        (
            saved(exif=b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + bytes(4)),
            NECKLINE,
            (),
        ),
        (saved(icc_profile=b"no profile"), NECKLINE, ()),
    ],
    ids=["16 bits", "grey", "grey 16 bits", "palette", "interlaced", "turned", "bad profile"],
)
def test_a_layer_of_another_kind_of_png_is_the_same_layer(over_bottom, data, pixels, notes, mode):
    right, _ = over_bottom(data_of(Image.fromarray(pixels), "PNG"), mode=mode)
    found, said = over_bottom(data, mode=mode)
    assert said == notes
    assert np.abs(premultiplied(found) - premultiplied(right)).max() <= 1


def test_a_foreign_profile_is_converted_and_noted(over_bottom):
    plain, _ = over_bottom(saved())
    found, notes = over_bottom(saved(icc_profile=DISPLAY_P3))
    assert notes == ("neckline.png: converted to sRGB",)
    assert np.array_equal(found[..., 3], plain[..., 3])
    assert np.abs(found.astype(int) - plain).max() > 3


def test_the_lowest_layer_may_have_no_transparency(over_bottom):
    found, notes = over_bottom(saved("RGB"), first=True)
    assert notes == ()
    assert (found[..., 3] == 255).all()
    assert tuple(found[290, 125, :3]) == tuple(read_small("bottom")[290, 125, :3])


def read_small(name):
    return part(name, 250, 300)


def test_a_layer_that_failed_is_read_again_when_it_was_mended(tmp_path, folder):
    layers = dress(tmp_path, 250, 300)
    bad = Path(layers[2].file)
    whole = bad.read_bytes()
    bad.write_bytes(whole[:900])
    mine = Compositor(50)
    request = CompositeRequest(layers, WHOLE)
    with pytest.raises(UnreadableImage, match=r"layer belt\.png"):
        mine.make(request, folder)
    bad.write_bytes(whole)
    info = mine.make(request, folder)
    assert (info.decoded, info.overs) == (3, 3)  # behind and bottom were kept


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_layers_are_decoded_once_and_shared_beginnings_composited_once(tmp_path, folder, mode):
    a, b, c, d, e = dress(tmp_path, 250, 300)
    mine = Compositor(100)
    counts = []
    for stack in [(a, b, c), (a, b, c, d), (a, b, d), (a, b, d, e), (a, c), (b,), (b, c), (a, b)]:
        info = mine.make(CompositeRequest(stack, WHOLE, mode=mode), folder)
        counts.append((info.decoded, info.overs))
    assert counts == [(3, 2), (1, 1), (0, 1), (1, 1), (0, 1), (0, 0), (0, 1), (0, 0)]


def test_a_damaged_layer_leaves_the_child_and_its_cache(tmp_path, folder):
    layers = dress(tmp_path, 250, 300)
    bad = tmp_path / "bad.png"
    bad.write_bytes(saved()[:2000])
    with PictureWorker(temp_dir=tmp_path, timeout_s=60, memory_mb=2048, file_mb=None) as worker:
        worker.make_composite(CompositeRequest(layers, WHOLE), folder)
        with pytest.raises(UnreadableImage, match=r"layer bad\.png: the picture is damaged"):
            worker.make_composite(CompositeRequest((*layers, layer(bad)), WHOLE), folder)
        info = worker.make_composite(CompositeRequest(layers, WHOLE), folder)
        assert (info.decoded, info.overs) == (0, 0)


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    """Forty layers of different places and colours."""
    folder, rng = tmp_path_factory.mktemp("forty"), np.random.default_rng(3)
    layers = []
    for number in range(40):
        pixels = np.zeros((60, 50, 4), np.uint8)
        top, left = rng.integers(0, 40, 2)
        pixels[top : top + 20, left : left + 20] = rng.integers(0, 256, 4)
        layers.append(layer(save(pixels, folder / f"{number}.png")))
    return layers


orders = st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=6), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(orders, st.sampled_from(["exact", "fast"]), st.integers(0, 300))
def test_a_bounded_cache_gives_what_an_unbounded_one_gives(
    forty, tmp_path_factory, order, mode, kilobytes
):
    folder = tmp_path_factory.mktemp("out")
    small, large = Compositor(kilobytes / 1024), Compositor(1000)
    for numbers in order:
        layers = tuple(forty[number] for number in numbers)
        request = CompositeRequest(layers, (Cut("w", "fit", 40, 40),), mode=mode)
        first, second = small.make(request, folder), large.make(request, folder)
        assert first.images == second.images
        assert first.held <= kilobytes * 1024
        assert first.decoded >= second.decoded


LAYER_MB = 4
requests = st.lists(st.lists(st.integers(0, 499), min_size=1, max_size=7), min_size=20, max_size=60)


@settings(max_examples=25, deadline=None)
@given(requests, st.integers(0, 400))
def test_500_layers_of_4_mb_never_take_more_than_the_cache_may_hold(order, cache_mb):
    """In any order, and every layer once at the end."""
    cache = RenderCache(cache_mb << 20)
    held = {}
    for numbers in [*order, *([number] for number in range(500))]:
        beginnings = [(STACK, *numbers[: count + 1]) for count in range(len(numbers))]
        keys = [*((LAYER, number) for number in numbers), *beginnings]
        cache.walk(set(keys))
        for key in keys:
            if cache.get(key) is None:
                cache.put(key, key, LAYER_MB << 20)
                held[key] = LAYER_MB << 20
            assert cache.get(key) in (key, None)
            kept = [key for key in held if cache.get(key) is not None]
            held = {key: held[key] for key in kept}
            assert cache.held == sum(held.values()) <= cache_mb << 20
    assert cache.held == cache_mb // LAYER_MB * LAYER_MB << 20


def test_what_is_not_on_the_path_goes_first_and_stacks_before_layers():
    cache = RenderCache(40)
    old, mine, layer_old, layer_mine = (STACK, 1), (STACK, 2), (LAYER, 1), (LAYER, 2)
    cache.walk({old, layer_old})
    cache.put(old, "old", 10)
    cache.put(layer_old, "layer", 10)
    cache.walk({mine, layer_mine, (STACK, 2, 3), (STACK, 2, 3, 4)})
    cache.put(layer_mine, "layer", 10)
    cache.put(mine, "mine", 10)
    assert cache.get(old) == "old"  # used last, and yet it goes
    cache.put((STACK, 2, 3), "more", 10)
    assert cache.get(old) is None
    assert cache.get(layer_old) == "layer"
    cache.put((STACK, 2, 3, 4), "all", 10)
    assert cache.get(layer_old) is None
    assert cache.get(mine) == "mine"
    assert cache.held == 40


def test_what_alone_is_too_large_is_not_kept_and_nothing_makes_room_for_it():
    cache = RenderCache(40)
    cache.put((LAYER, 1), "small", 30)
    cache.put((LAYER, 2), "large", 41)
    assert cache.get((LAYER, 1)) == "small"
    assert cache.get((LAYER, 2)) is None
    cache.put((LAYER, 1), "again", 35)
    assert (cache.get((LAYER, 1)), cache.held) == ("again", 35)


def test_of_equals_what_was_not_used_for_longest_goes_first():
    cache = RenderCache(20)
    cache.put((LAYER, 1), "one", 10)
    cache.put((LAYER, 2), "two", 10)
    assert cache.get((LAYER, 1)) == "one"
    cache.put((LAYER, 3), "three", 10)
    assert [cache.get((LAYER, number)) for number in (1, 2, 3)] == ["one", None, "three"]
