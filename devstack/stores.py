"""A sample drive of store pictures: good ones, a damaged one, and names the rule rejects."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from devstack.samples import jpeg_of, photograph

ORIGINALS_BUCKET = "imageflows-originals"
STORE_BUCKET = "imageflows-store"
TRASH_BUCKET = "imageflows-trash"
BUCKETS = (ORIGINALS_BUCKET, STORE_BUCKET, TRASH_BUCKET)

LARGE = "stores/1-chelsea-salon/photos/0.jpg"
REMOVED = "stores/1-chelsea-salon/photos/1.jpg"
REPLACED = "stores/2-coffee-house/photos/0.jpg"
DAMAGED = "stores/2-coffee-house/photos/1.jpg"


def _damaged() -> bytes:
    whole = jpeg_of("astronaut.png")
    return whole[: len(whole) // 2]


DRIVE: dict[str, Callable[[], bytes]] = {
    LARGE: lambda: jpeg_of("hubble_deep_field.jpg", scale=2),
    REMOVED: lambda: photograph("rocket.jpg"),
    "stores/1-chelsea-salon/menus/0.jpg": lambda: jpeg_of("camera.png", scale=2),
    REPLACED: lambda: jpeg_of("coffee.png"),
    DAMAGED: _damaged,
    "stores/2-coffee-house/photos/desktop.ini": lambda: b"[.ShellClassInfo]\r\n",
    "stores/2-coffee-house/photos/IMG-20150724-WA0000.jpg": lambda: jpeg_of("chelsea.png"),
    "stores/2-coffee-house/menus/men menu card.xlsx": lambda: b"PK\x03\x04 no picture",
}

UPLOADED = {LARGE, REMOVED, "stores/1-chelsea-salon/menus/0.jpg", REPLACED, DAMAGED}
REJECTED = {
    "stores/2-coffee-house/photos/IMG-20150724-WA0000.jpg",
    "stores/2-coffee-house/menus/men menu card.xlsx",
}


def fill(folder: Path) -> None:
    """Write the drive anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in DRIVE.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data())
