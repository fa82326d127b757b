"""A picture looked at as it is, all of its pixels decoded, and perhaps saved again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagecore.picture import inspect, open_stored
from imagecore.recipe import Recipe
from imagecore.vipserror import explain

LOADERS = ("jpeg", "png", "gif", "webp", "tiff")
_AS_IT_IS = Recipe(loaders=LOADERS, autorotate=False)
_SAVERS = {
    "jpeg": ".jpg[Q=75,keep=none]",
    "png": ".png[keep=none]",
    "gif": ".gif[keep=none]",
    "webp": ".webp[Q=80,keep=none]",
    "tiff": ".tif[keep=none]",
}
"""The defaults of the imaging library that the legacy script saved with, as near as they have one
here."""


@dataclass(frozen=True)
class Examined:
    """The kind of a picture by its content, and its size in pixels as it is stored."""

    kind: str
    width: int
    height: int


def examine(source: Path, saved: Path | None = None) -> Examined:
    """Decode a picture whole; with `saved`, save it again there, as the legacy script did: in its
    own format, its metadata and all but the first frame left out.

    Raises:
        UnreadableImage: it is broken, too large, or of no kind that is read.
    """
    import pyvips

    try:
        found = inspect(source, _AS_IT_IS)
        image = open_stored(source, found.kind, _AS_IT_IS)
        if saved is None:
            image.avg()
        else:
            saved.write_bytes(image.write_to_buffer(_SAVERS[found.kind]))
    except pyvips.Error as error:
        raise explain(error, source.parent) from error
    return Examined(found.kind, found.width, found.height)
