"""Colour profiles: which are usable, and how a picture becomes sRGB."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyvips

_PROFILE = "icc-profile-data"
# Samples of the three kinds of picture, as lcms names them.
_SPACES = {"b-w": ("gray", 1), "grey16": ("gray", 1), "cmyk": ("cmyk", 4)}


def check_profile(image: pyvips.Image) -> tuple[pyvips.Image, str | None]:
    """The picture without its profile, and a note, when the profile cannot be used.

    libvips would silently use a built-in profile in place of a broken one, and keep the broken
    one in the result; so each profile is tried with lcms first.
    """
    profile = profile_of(image)
    if profile is None:
        return image, None
    if _usable(profile, str(image.interpretation)):
        return image, None
    return without_profile(image), "broken ICC profile dropped"


def profile_of(image: pyvips.Image) -> bytes | None:
    """The embedded ICC profile, or None."""
    if image.get_typeof(_PROFILE) == 0:
        return None
    return bytes(image.get(_PROFILE))


def without_profile(image: pyvips.Image) -> pyvips.Image:
    copy = image.copy()
    copy.remove(_PROFILE)
    return copy


def _usable(profile: bytes, interpretation: str) -> bool:
    import imagecodecs
    import numpy as np

    space, bands = _SPACES.get(interpretation, ("rgb", 3))
    probe = np.zeros((2, 2, bands), np.uint8)
    try:
        imagecodecs.cms_transform(
            probe, profile, _srgb_profile(), colorspace=space, outcolorspace="rgb"
        )
    except (imagecodecs.CmsError, ValueError):
        return False
    return True


def _srgb_profile() -> bytes:
    import pyvips

    return bytes(pyvips.Image.profile_load("srgb"))


def needs_conversion(image: pyvips.Image) -> bool:
    """Whether the pixels are anything but sRGB or plain grey already.

    A profile counts as sRGB when it moves no colour of a coarse cube by more than one step.
    """
    if image.interpretation == "cmyk":
        return True
    profile = profile_of(image)
    return profile is not None and not _is_srgb(profile, str(image.interpretation))


def _is_srgb(profile: bytes, interpretation: str) -> bool:
    import imagecodecs
    import numpy as np

    if interpretation in _SPACES:
        return False
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    moved = imagecodecs.cms_transform(
        cube, profile, _srgb_profile(), colorspace="rgb", outcolorspace="rgb"
    )
    return int(np.abs(moved.astype(int) - cube).max()) <= 1


def to_srgb(image: pyvips.Image) -> pyvips.Image:
    """Convert to sRGB by the embedded profile; CMYK without one by libvips' built-in profile.

    Relative intent with black point compensation, as photo programs do. Grey stays one band.
    """
    deep = image.format == "ushort"
    grey = image.interpretation in {"b-w", "grey16"}
    alpha = image.hasalpha()
    made = image.icc_transform(
        "srgb",
        embedded=True,
        intent="relative",
        black_point_compensation=True,
        depth=16 if deep else 8,
    )
    if not grey:
        return made
    one = made.extract_band(0)
    if alpha:
        one = one.bandjoin(made.extract_band(made.bands - 1))
    return without_profile(one).copy(interpretation="grey16" if deep else "b-w")
