"""Composites: exact, fast, without dark edges, verified, and made from a cache that is bounded."""

import hashlib
import math
from pathlib import Path

import numpy as np
import psutil
import pytest
import pyvips
from drawnlayers import (
    IMAGEMAGICK,
    LEGACY,
    PARTS,
    dress,
    layer,
    legacy_composite,
    legacy_cut,
    part,
    premultiplied,
    read,
    save,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagecore.composite import CompositeRequest, request_from_json, request_to_json
from imagecore.compositor import Compositor
from imagecore.cuts import cuts_of
from imagecore.errors import ItemRefused
from imagecore.rendercache import LAYER
from imagecore.renderstyle import LEGACY_SIZES, Cut, Format
from imagecore.sandbox import PictureWorker

SMALL = (Cut("s", "fit", 200, 200),)
BOTH = (Format(), Format("webp", 80))
WHOLE = (Cut("800x800", "fit", 800, 800),)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return dress(tmp_path_factory.mktemp("layers"), 1000, 1200)


def made(layers, folder, sizes=WHOLE, cache_mb=100, **options):
    """The pixels of the first file of a new compositor."""
    request = CompositeRequest(tuple(layers), sizes, **options)
    return read(Compositor(cache_mb).make(request, folder).images[0].file)


def chain(arrays, fit=(800, 800)):
    """What libvips gives when all layers are laid over each other at once, then resized."""
    images = [pyvips.Image.new_from_array(each, interpretation="srgb") for each in arrays]
    whole = images[0].composite(images[1:], "over") if images[1:] else images[0]
    return fitted(whole, fit)


def fitted(image, fit):
    scale = min(fit[0] / image.width, fit[1] / image.height)
    small = image.premultiply().resize(scale).unpremultiply()
    return small.rint().cast("uchar").numpy()


def obvious(arrays, fit):
    """As `chain`, but what fractions are dropped does not hang on the last bit of a float."""
    colour, alpha = np.zeros((*arrays[0].shape[:2], 3)), np.zeros((*arrays[0].shape[:2], 1))
    for each in arrays:
        above = each[..., 3:] / 255
        colour = each[..., :3] * above + colour * (1 - above)
        alpha = above + alpha * (1 - above)
    straight = np.divide(colour, alpha, out=np.zeros_like(colour), where=alpha > 0)
    pixels = np.floor(np.dstack([straight, alpha * 255]) + 1 / 256).astype(np.uint8)
    return fitted(pyvips.Image.new_from_array(pixels, interpretation="srgb"), fit)


def apart(found, right):
    assert found.shape == right.shape
    return np.abs(premultiplied(found) - premultiplied(right))


@pytest.mark.parametrize(("width", "height"), [(1000, 1200), (801, 1199), (300, 211)])
def test_exact_is_within_one_step_of_the_plain_chain(tmp_path, folder, width, height):
    found = made(dress(tmp_path, width, height), folder)
    right = chain([part(name, width, height) for name in PARTS])
    assert apart(found, right).max() <= 1
    assert apart(found, right).mean() < 0.01


stacks = st.tuples(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 5), st.integers(0, 2**32 - 1)
)


def random_stack(width, height, count, seed):
    """Noise, flat colours, and patches with hard edges, anywhere on the canvas."""
    rng = np.random.default_rng(seed)
    arrays = []
    for _ in range(count):
        cell = rng.choice([1, 7, 100])
        size = (height // cell + 1, width // cell + 1, 4)
        small = rng.integers(0, 256, size).astype(np.uint8)
        pixels = small.repeat(cell, 0).repeat(cell, 1)[:height, :width].copy()
        pixels[..., 3] = np.where(pixels[..., 3] > rng.choice([0, 90, 160]), pixels[..., 3], 0)
        pixels[: rng.integers(0, height), :, 3] = 0
        pixels[:, rng.integers(1, width + 1) :, 3] = 0
        arrays.append(pixels)
    return arrays


@settings(max_examples=60, deadline=None)
@given(stacks, st.integers(8, 150), st.integers(8, 150))
def test_exact_is_the_plain_chain_for_any_stack(tmp_path_factory, stack, wide, high):
    arrays = random_stack(*stack)
    side, other = arrays[0].shape[1::-1]
    scale = min(wide / side, high / other)
    if min(round(side * scale), round(other * scale)) < 1:
        return  # libvips refuses
    folder = tmp_path_factory.mktemp("stack")
    layers = [layer(save(each, folder / f"{at}.png")) for at, each in enumerate(arrays)]
    found = made(layers, folder, (Cut("f", "fit", wide, high),))
    assert apart(found, obvious(arrays, (wide, high))).max() <= 1.01
    # libvips itself drops one more where a fraction is next to nothing.
    assert apart(found, chain(arrays, (wide, high))).max() <= 3


@pytest.mark.parametrize("size", [(1000, 1200), (1400, 1400)])
def test_fast_is_within_50_db_of_exact(tmp_path, folder, size):
    layers = dress(tmp_path, *size)
    request = CompositeRequest(layers, mode="fast", check_fast=True)
    info = Compositor(200).make(request, folder)
    assert 50 < info.psnr < 99
    whole = read(info.images[0].file)
    right = made(layers, folder)
    seen = (whole[..., 3] > 0) | (right[..., 3] > 0)
    error = np.mean((premultiplied(whole) - premultiplied(right))[seen] ** 2)
    assert info.psnr == pytest.approx(10 * math.log10(255**2 / error), abs=0.01)


def test_fast_keeps_the_colours_of_hard_edges(tmp_path, folder):
    """Lanczos overshoots there, in alpha as in the colours weighted by it."""
    hard = np.zeros((1200, 1000, 4), np.uint8)
    hard[200:1000, 300:700] = (200, 120, 40, 255)
    layers = (layer(save(hard, tmp_path / "hard.png")),)
    request = CompositeRequest(layers, mode="fast", check_fast=True)
    assert Compositor(200).make(request, folder).psnr > 60


def test_only_a_fast_composite_is_compared_and_only_when_asked(drawn, folder):
    for mode, check, psnr in [("exact", True, None), ("fast", False, None), ("fast", True, 50)]:
        request = CompositeRequest(drawn[1:2], mode=mode, check_fast=check)
        alike = Compositor(50).make(request, folder).psnr
        assert alike is None if psnr is None else 50 < alike <= 99


def test_a_reduced_layer_is_nowhere_brighter_than_white_or_more_than_opaque(tmp_path, folder):
    """What Lanczos adds beside hard edges would grow with every layer laid over it."""
    hard = np.zeros((300, 300, 4), np.uint8)
    hard[50:200, 80:220] = 255
    hard[100:150, 120:220] = (255, 0, 0, 128)
    hard[100:150, 120:220:20] = (0, 0, 255, 128)
    fast = Compositor(10)
    request = CompositeRequest((layer(save(hard, tmp_path / "hard.png")),), SMALL, mode="fast")
    fast.make(request, folder)
    (kept,) = (value for key, (value, _) in fast.cache._kept.items() if key[0] == LAYER)
    samples = kept.fits[0].samples
    assert (samples.min(), samples.max()) == (0, 255)
    assert (samples[:, :3] <= samples[:, 3:]).all()


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("hidden", [0, 90])
def test_white_over_white_with_soft_edges_stays_white(tmp_path, folder, mode, hidden):
    layers = []
    for name in PARTS:
        pixels = part(name, 700, 900)
        pixels[..., :3] = np.where(pixels[..., 3:] > 0, 255, hidden)
        layers.append(layer(save(pixels, tmp_path / f"{name}.png")))
    request = CompositeRequest(tuple(layers), mode=mode)
    for image in Compositor(100).make(request, folder).images:
        found = read(image.file)
        soft = (found[..., 3] > 0) & (found[..., 3] < 255)
        assert soft.any()
        assert (found[found[..., 3] > 0][:, :3] == 255).all()


def test_the_legacy_sizes_are_made_and_described(drawn, folder):
    info = Compositor(100).make(CompositeRequest(drawn), folder)
    found = {each.size: (each.width, each.height) for each in info.images}
    assert found == {
        "800x800": (667, 800),
        "142x142": (142, 142),
        "top-crop": (142, 142),
        "bottom-crop": (142, 142),
    }
    assert {Path(each.file) for each in info.images} == set(folder.iterdir())
    for each in info.images:
        data = Path(each.file).read_bytes()
        assert (each.bytes, each.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        image = Image.open(each.file)
        assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (each.width, each.height))
        assert image.info["dpi"] == pytest.approx((172, 172), abs=0.02)
    cuts = cuts_of(read(info.images[0].file), LEGACY_SIZES[1:])
    for each, right in zip(info.images[1:], cuts, strict=True):
        assert np.array_equal(read(each.file), right)
    assert set(info.seconds) == {"decode", "composite", "resize", "encode", "verify"}
    assert (info.decoded, info.overs, info.notes) == (5, 4, ())


def test_a_cut_is_the_same_whatever_else_is_made(drawn, folder):
    first = Compositor(100).make(CompositeRequest(drawn), folder)
    alone = Compositor(100).make(CompositeRequest(drawn, LEGACY_SIZES[2:3]), folder)
    large = (Cut("large", "fit", 1000, 1000), *LEGACY_SIZES[1:], Cut("big", "trim", 900, 10))
    other = Compositor(100).make(CompositeRequest(drawn, large), folder)
    hashes = {each.size: each.sha256 for each in first.images}
    assert alone.images[0].sha256 == hashes["top-crop"]
    for each in other.images[1:4]:
        assert each.sha256 == hashes[each.size]
    assert [(each.width, each.height) for each in other.images[::4]] == [(833, 1000), (900, 10)]


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_transparent_composite_is_transparent_in_every_size(tmp_path, folder, mode):
    empty = np.zeros((500, 400, 4), np.uint8)
    empty[..., 0] = 200
    layers = [layer(save(empty, tmp_path / f"{name}.png")) for name in "abc"]
    info = Compositor(10).make(CompositeRequest(tuple(layers), mode=mode), folder)
    assert (info.images[0].width, info.images[0].height) == (640, 800)
    assert all(not read(each.file).any() for each in info.images)


def test_what_cannot_be_asked_for_is_refused(drawn, folder):
    with pytest.raises(ItemRefused, match="at least one layer"):
        Compositor(1).make(CompositeRequest(()), folder)
    with pytest.raises(ValueError, match="no mode 'slow': choose one of exact, fast"):
        Compositor(1).make(CompositeRequest(drawn, mode="slow"), folder)
    with pytest.raises(ValueError, match="no format 'gif'"):
        Compositor(100).make(CompositeRequest(drawn, formats=(Format("gif"),)), folder)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_the_child_makes_the_same_composites_and_keeps_its_cache(drawn, folder, tmp_path, mode):
    request = CompositeRequest(
        drawn, formats=(Format(), Format("webp", 80)), mode=mode, cache_mb=100
    )
    assert request_from_json(request_to_json(request)) == request
    right = Compositor(100).make(request, folder).images
    with PictureWorker(temp_dir=tmp_path, timeout_s=60, memory_mb=2048, file_mb=None) as worker:
        first = worker.make_composite(request, folder)
        assert first.images == right
        assert (first.decoded, first.overs) == (5, 4)
        again = worker.make_composite(request, folder)
        assert again.images == right
        assert (again.decoded, again.overs) == (0, 0)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_memory_is_flat_over_300_composites_of_one_child(tmp_path, folder, mode):
    drawn = dress(tmp_path, 250, 300)
    with PictureWorker(temp_dir=tmp_path, timeout_s=60, memory_mb=2048, file_mb=None) as worker:
        used = []
        for number in range(300):
            parts = [layer(Path(each.file), f"{each.file} {number}") for each in drawn]
            layers = (drawn[0], *parts[1 : 2 + number % 4])
            worker.make_composite(CompositeRequest(layers, SMALL, mode=mode, cache_mb=5), folder)
            used.append(psutil.Process(worker.pid).memory_info().rss >> 20)
    assert max(used[200:]) <= max(used[50:150]) + 10


# Measured on these layers: a mean of at most 0.8 of 255. ImageMagick reduces by another filter.
ALIKE = 1.2


@IMAGEMAGICK
def test_the_legacy_sizes_are_those_imagemagick_makes(tmp_path, folder):
    layers = dress(tmp_path, 1600, 2000)
    whole = tmp_path / "whole.png"
    legacy_composite([each.file for each in layers], whole)
    info = Compositor(100).make(CompositeRequest(layers), folder)
    for each in info.images:
        target = whole
        if each.size in LEGACY:
            target = tmp_path / f"{each.size}.png"
            legacy_cut(whole, each.size, target)
        right, found = read(target), read(each.file)
        assert found.shape == right.shape
        assert apart(found, right).mean() <= ALIKE
        boxes = []
        for pixels in (found, right):
            rows, columns = np.nonzero(pixels[..., 3] > 127)
            boxes.append((columns.min(), rows.min(), columns.max(), rows.max()))
        assert np.abs(np.subtract(*boxes)).max() <= 1
