"""A sample drive of store pictures: good ones, a damaged one, and names the rule rejects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from devstack.samples import client, jpeg_of, photograph

ORIGINALS_BUCKET = "imageflows-originals"
STORE_BUCKET = "imageflows-store"
TRASH_BUCKET = "imageflows-trash"
BUCKETS = (ORIGINALS_BUCKET, STORE_BUCKET, TRASH_BUCKET)

LARGE = "stores/1-chelsea-salon/photos/0.jpg"
MENU = "stores/1-chelsea-salon/menus/0.jpg"
REMOVED = "stores/1-chelsea-salon/photos/1.jpg"
REPLACED = "stores/2-coffee-house/photos/0.jpg"
DAMAGED = "stores/2-coffee-house/photos/1.jpg"


def _damaged() -> bytes:
    whole = jpeg_of("astronaut.png")
    return whole[: len(whole) // 2]


DRIVE: dict[str, Callable[[], bytes]] = {
    LARGE: lambda: jpeg_of("hubble_deep_field.jpg", scale=2),
    REMOVED: lambda: photograph("rocket.jpg"),
    MENU: lambda: jpeg_of("camera.png", scale=2),
    REPLACED: lambda: jpeg_of("coffee.png"),
    DAMAGED: _damaged,
    "stores/2-coffee-house/photos/desktop.ini": lambda: b"[.ShellClassInfo]\r\n",
    "stores/2-coffee-house/photos/IMG-20150724-WA0000.jpg": lambda: jpeg_of("chelsea.png"),
    "stores/2-coffee-house/menus/men menu card.xlsx": lambda: b"PK\x03\x04 no picture",
}

UPLOADED = {LARGE, REMOVED, MENU, REPLACED, DAMAGED}
UPLOADED_BEFORE = {LARGE, REMOVED, MENU}
REJECTED = {
    "stores/2-coffee-house/photos/IMG-20150724-WA0000.jpg",
    "stores/2-coffee-house/menus/men menu card.xlsx",
}


def fill(folder: Path) -> None:
    """Write the drive's files; what else is there stays."""
    for name, data in DRIVE.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data())


def seed_stores(endpoint: str, drive: Path) -> None:
    """Fill the drive, and make the buckets with what was uploaded of it before: so both an upload
    and a sync have something to do. Done twice, it changes nothing."""
    fill(drive)
    s3 = client(endpoint)
    for bucket in BUCKETS:
        s3.create_bucket(Bucket=bucket)
    for key in sorted(UPLOADED_BEFORE):
        s3.put_object(Bucket=ORIGINALS_BUCKET, Key=key, Body=DRIVE[key](), ContentType="image/jpeg")
