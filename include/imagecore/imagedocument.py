"""The document in which a picture lies in Riak: a JSON object whose values are all text.

It is the one the legacy script stored, field for field, because its readers stay as they are.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

CONTENT_TYPE = "application/json"
ORIGIN = "Python ImageSync"


class NoDocument(ValueError):
    """The bytes are no such document."""


@dataclass(frozen=True)
class ImageDocument:
    """A picture and what is known of it: `width` and `height` in pixels, `created` in seconds
    since 1970, `size` the bytes of the file in the assets (which `reencode` makes another than
    the picture's)."""

    key: str
    title: str
    size: int
    width: int
    height: int
    media_type: str
    picture: bytes
    created: int

    def encode(self) -> bytes:
        """As it is stored."""
        fields = {
            "id": self.key,
            "title": self.title,
            "size": str(self.size),
            "width": str(self.width),
            "height": str(self.height),
            "mimeType": self.media_type,
            "imageBinary": base64.b64encode(self.picture).decode(),
            "type": "image",
            "origin": ORIGIN,
            "createdAt": str(self.created),
        }
        return json.dumps(fields).encode()


def decode(stored: bytes) -> ImageDocument:
    """Read a stored document.

    Raises:
        NoDocument: a field is missing, or is not what it must be.
    """
    try:
        fields = json.loads(stored)
        return ImageDocument(
            key=str(fields["id"]),
            title=str(fields["title"]),
            size=int(fields["size"]),
            width=int(fields["width"]),
            height=int(fields["height"]),
            media_type=str(fields["mimeType"]),
            picture=base64.b64decode(fields["imageBinary"], validate=True),
            created=int(fields["createdAt"]),
        )
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise NoDocument(
            f"it is no picture's document ({type(error).__name__}: {error})"
        ) from error


def encoded_bytes(picture: int) -> int:
    """About how many bytes the document of a picture of so many bytes has, and never fewer."""
    return picture * 4 // 3 + 4
