"""Files of composites: what each format holds, and damage to them is noticed."""

import errno
from pathlib import Path

import numpy as np
import pytest
from drawnlayers import dress, premultiplied, read
from PIL import Image

from imagecore import compositefiles, compositor
from imagecore.composite import CompositeRequest
from imagecore.compositor import Compositor
from imagecore.errors import DiskFull
from imagecore.layout import VerificationFailed
from imagecore.renderstyle import Cut, Format

WHOLE = (Cut("800x800", "fit", 800, 800),)
ALL = (Format("png"), Format("webp", 80), Format("webp"), Format("avif", 60), Format("jpeg", 85))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return dress(tmp_path_factory.mktemp("layers"), 500, 600)


@pytest.fixture(scope="module")
def right(drawn, tmp_path_factory):
    """The pixels of the 800 x 800 composite."""
    info = Compositor(50).make(CompositeRequest(drawn, WHOLE), tmp_path_factory.mktemp("right"))
    return read(info.images[0].file)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    return made


@pytest.mark.parametrize("format", ALL, ids=lambda each: f"{each.name}-{each.quality}")
def test_every_format_holds_the_composite(drawn, right, folder, format):
    info = Compositor(100).make(CompositeRequest(drawn, formats=(format,)), folder)
    assert all(Path(each.file).suffix == f".{format.extension}" for each in info.images)
    image = Image.open(info.images[0].file)
    assert image.format == {"jpeg": "JPEG"}.get(format.name, format.name.upper())
    found = np.asarray(image)
    if format.name == "jpeg":
        ground = np.where(right[..., 3:] == 0, 255, found)
        assert np.abs(found - ground.astype(int)).mean() < 1
        return
    apart = np.abs(premultiplied(found) - premultiplied(right))
    assert apart.max() == 0 if format.quality is None else apart.mean() < 3


def test_a_jpeg_shows_its_background(drawn, folder):
    format = Format("jpeg", 90, (10, 200, 30))
    info = Compositor(100).make(CompositeRequest(drawn, formats=(format, Format())), folder)
    assert [each.format for each in info.images] == ["jpeg", "png"] * 4
    found = np.asarray(Image.open(info.images[0].file)).astype(int)
    clear = read(info.images[1].file)[..., 3] == 0
    clear[1:-1, 1:-1] &= clear[:-2, 1:-1] & clear[2:, 1:-1] & clear[1:-1, :-2] & clear[1:-1, 2:]
    assert np.abs(found[:90, :90] - format.background).max() <= 3
    assert np.abs(found[clear] - format.background).mean() < 2


@pytest.mark.parametrize("format", ALL, ids=lambda each: f"{each.name}-{each.quality}")
@pytest.mark.parametrize("harm", ["cut short", "other pixels", "lost"])
def test_a_file_damaged_on_disk_is_noticed_and_nothing_is_left(
    drawn, folder, monkeypatch, format, harm
):
    honest = Path.write_bytes
    blank = np.zeros((800, 667, 4), np.uint8)
    blank[300:400, 300:400] = 255
    other = compositefiles.encoded(blank, format, 172)[0]

    def damaged(path, data):
        written = {"cut short": data[:-500], "other pixels": other, "lost": b""}[harm]
        return honest(path, written)

    monkeypatch.setattr(Path, "write_bytes", damaged)
    request = CompositeRequest(drawn, WHOLE, (format,))
    with pytest.raises(VerificationFailed):
        Compositor(100).make(request, folder)
    assert list(folder.iterdir()) == []


def test_all_files_appear_or_none(drawn, folder, monkeypatch):
    checked = compositor.check_picture

    def failing(data, meant, format):
        if meant.shape[0] == 142:
            raise VerificationFailed("the result is not right")
        checked(data, meant, format)

    monkeypatch.setattr(compositor, "check_picture", failing)
    with pytest.raises(VerificationFailed, match="not right"):
        Compositor(100).make(CompositeRequest(drawn), folder)
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_said_and_nothing_is_left(drawn, folder, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFull, match="No space left in"):
        Compositor(100).make(CompositeRequest(drawn), folder)
    assert list(folder.iterdir()) == []
