"""Sample pictures: real photographs out of scikit-image, awkward ones made of them, and notes.

Where each photograph is from is in SAMPLES-NOTICE.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import boto3
import pyvips
from botocore.config import Config

from devstack.events import make_queue, notify

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SOURCE_BUCKET = "imageflows-source"
PROCESS_BUCKET = "imageflows-process"
IMAGE_BUCKET = "imageflows-image"
NOTES = "rbsc/"


@dataclass(frozen=True)
class Sample:
    """A picture in the source bucket, and the state in which a run must leave it."""

    key: str
    data: Callable[[], bytes]
    expected: str = "done"
    copyrighted: bool = False

    def note(self) -> tuple[str, bytes]:
        """Key and content of the note that asks for its pyramid."""
        path = PurePosixPath(self.key)
        note = {"key": self.key, "path": f"{path.parent}/"}
        if self.copyrighted:
            note["copyrightStatus"] = "copyright"
        return f"{NOTES}{path.stem}.json", json.dumps(note).encode()


def client(endpoint: str) -> S3Client:
    """A client of the embedded S3, whatever the user's own AWS settings say."""
    s3: S3Client = aws("s3", endpoint)
    return s3


def aws(service: str, endpoint: str) -> Any:
    """A client of an embedded service of AWS, `s3` or `sqs`."""
    make: Any = boto3.client  # its overloads know no service by a variable's value
    return make(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )


def seed(endpoint: str) -> None:
    """Make the buckets and put every sample with its note there. Done twice, it changes nothing.

    The queue of uploads hears of what is uploaded from then on: the samples have their notes.
    """
    make_queue(aws("sqs", endpoint))
    s3 = client(endpoint)
    for bucket in (SOURCE_BUCKET, PROCESS_BUCKET, IMAGE_BUCKET):
        s3.create_bucket(Bucket=bucket)
    notify(s3, SOURCE_BUCKET, events=False)
    s3.put_object(Bucket=PROCESS_BUCKET, Key=NOTES, Body=b"")
    for sample in SAMPLES:
        s3.put_object(Bucket=SOURCE_BUCKET, Key=sample.key, Body=sample.data())
        key, note = sample.note()
        s3.put_object(Bucket=PROCESS_BUCKET, Key=key, Body=note)
    notify(s3, SOURCE_BUCKET)


def size(data: bytes) -> str:
    """Width × height of a picture's header, or that it has none."""
    try:
        image = pyvips.Image.new_from_buffer(data, "")
    except pyvips.Error:
        return "not a picture"
    return f"{image.width} × {image.height}"


def photograph(name: str) -> bytes:
    """A photograph's file, as it is in scikit-image."""
    import skimage

    return (Path(skimage.__file__).parent / "data" / name).read_bytes()


def _image(name: str) -> Any:
    return pyvips.Image.new_from_buffer(photograph(name), "")


def jpeg_of(name: str, scale: float = 1) -> bytes:
    """A photograph as a JPEG, enlarged."""
    return bytes(_image(name).resize(scale).jpegsave_buffer(Q=85))


def _sideways() -> bytes:
    """Stored as a camera held upright stores it: turned left, with EXIF orientation 6."""
    turned = _image("rocket.jpg").rot270().copy()
    turned.set_type(pyvips.GValue.gint_type, "orientation", 6)
    return bytes(turned.jpegsave_buffer(Q=90))


def _transparent() -> bytes:
    photograph = _image("coffee.png")
    fade = pyvips.Image.identity().resize(photograph.width / 256, vscale=photograph.height)
    return bytes(photograph.bandjoin(fade.cast("uchar")).pngsave_buffer())


def _sixteen_bits() -> bytes:
    deep = (_image("camera.png").cast("ushort") * 257).cast("ushort")
    return bytes(deep.copy(interpretation="grey16").tiffsave_buffer(compression="lzw"))


def _large() -> bytes:
    return jpeg_of("hubble_deep_field.jpg", scale=7)


def _cmyk() -> bytes:
    inks = _image("chelsea.png").icc_transform("cmyk", input_profile="srgb")
    return bytes(inks.tiffsave_buffer(compression="lzw"))


def _truncated() -> bytes:
    whole = jpeg_of("astronaut.png")
    return whole[: len(whole) * 2 // 3]


def _text() -> bytes:
    return b"Dear archive, the picture will follow by post. It is not in this file.\n" * 20


def _photo(folder: str, name: str, *, copyrighted: bool = False) -> Sample:
    return Sample(f"digital/{folder}/{name}", lambda: photograph(name), copyrighted=copyrighted)


def _made(name: str, make: Callable[[], bytes], expected: str = "done") -> Sample:
    return Sample(f"digital/awkward/{name}", cache(make), expected)


SAMPLES = (
    _photo("animals", "chelsea.png"),
    _photo("medical", "retina.jpg", copyrighted=True),
    _photo("people", "camera.png"),
    _photo("space", "astronaut.png"),
    _photo("space", "hubble_deep_field.jpg"),
    _photo("space", "rocket.jpg"),
    _photo("things", "coffee.png"),
    _made("camera_16_bit.tif", _sixteen_bits),
    _made("chelsea_cmyk.tif", _cmyk),
    _made("coffee_transparent.png", _transparent),
    _made("hubble_large.jpg", _large),
    _made("rocket_sideways.jpg", _sideways),
    _made("astronaut_truncated.jpg", _truncated, "quarantined"),
    _made("letter_named.jpg", _text, "quarantined"),
)

EXPECTED = {sample.key: sample.expected for sample in SAMPLES}
