"""What an image reference in eZ's documents is."""

from __future__ import annotations

from dataclasses import dataclass

PATTERNS = ("content:v1:de:de:live:*", "buzz:v1:de:de:live:*")
KEY_NAMES = (
    "src",
    "image",
    "thumbnail",
    "cover",
    "backgroundImage",
    "backgroundImageSubmit",
    "backgroundImageAttendanceLimit",
)
PREFIX = "ez/"
MAX_DOCUMENT_BYTES = 64 * 10**6


@dataclass(frozen=True)
class RefRules:
    """What a reference is: a string that begins with `prefix`, the value of one of `key_names`
    in a document of at most `max_document_bytes`, whose Redis key matches one of `patterns`."""

    patterns: tuple[str, ...] = PATTERNS
    key_names: tuple[str, ...] = KEY_NAMES
    prefix: str = PREFIX
    max_document_bytes: int = MAX_DOCUMENT_BYTES
