"""Pictures in small and tiles of pyramids, made so that no file can hurt the API server.

Decoding happens in child processes with a limit of time, memory and pixels, a few at a time; what
came of it, an error too, is kept in memory by the version of the file.
"""

from __future__ import annotations

import atexit
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import monotonic

import anyio.to_thread
from anyio import CapacityLimiter

from imagecore.errors import ImageflowsError, ItemFailed, ItemRefused, UnreadableImage
from imagecore.pyramidfile import PyramidFile
from imagecore.sandbox import picture_workers
from imagecore.tempspace import disk_errors, temp_folder, temp_space
from imageflows.web.pictures import Place

WORKERS = 2
WAITING = 64
"""How many requests may wait for a worker; more are told to come again."""
SECONDS = 20
MEMORY_MB = 512
FETCHED_MB = 200
"""The largest file that is fetched for a preview. Of a pyramid only a tile is."""
TILE_SIDE = 2_048
"""No tile that is shown is larger."""
KEPT_BYTES = 64 << 20
FAILED_SECONDS = 60
"""How long it is remembered that a picture could not be made, which may be otherwise next time."""
PYRAMIDS = 16
"""How many pyramids' directories are kept."""


class Busy(ImageflowsError):
    """Too many pictures are asked for at the same time."""


@dataclass(frozen=True)
class Image:
    """A JPEG or PNG; `data` is None when the browser has it already."""

    etag: str
    media_type: str
    data: bytes | None


class Kept:
    """The images made last, up to KEPT_BYTES of them, and what was wrong with the others."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Image | ItemRefused | ItemFailed, float]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, name: str) -> Image | ItemRefused | ItemFailed | None:
        with self._lock:
            if name not in self._kept:
                return None
            image, since = self._kept[name]
            if isinstance(image, ItemFailed) and monotonic() >= since + FAILED_SECONDS:
                self._drop(name)
                return None
            self._kept.move_to_end(name)
            return image

    def put(self, name: str, image: Image | ItemRefused | ItemFailed) -> None:
        with self._lock:
            if name in self._kept:
                self._drop(name)
            self._kept[name] = image, monotonic()
            self._bytes += _weight(image)
            while self._bytes > KEPT_BYTES:
                self._drop(next(iter(self._kept)))

    def _drop(self, name: str) -> None:
        self._bytes -= _weight(self._kept.pop(name)[0])


def _weight(image: object) -> int:
    return 1_000 + (len(image.data or b"") if isinstance(image, Image) else 0)


class Previews:
    """Makes and keeps images. For many threads, of which `within_limits` lets few in.

    Methods raise ItemRefused when the file is no picture that can be shown, ItemFailed when it is
    too much or not there, and InfrastructureError when nothing can be read.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._temp = self._stack.enter_context(temp_space())
        self._workers = self._stack.enter_context(
            picture_workers(
                WORKERS,
                temp_dir=self._temp,
                timeout_s=SECONDS,
                memory_mb=MEMORY_MB,
                file_mb=FETCHED_MB,
            )
        )
        self._limiter = CapacityLimiter(WORKERS)
        self._kept = Kept()
        self._pyramids = lru_cache(maxsize=PYRAMIDS)(_open_pyramid)
        atexit.register(self._stack.close)

    async def within_limits(self, make: Callable[[], Image]) -> Image:
        """Make an image in a thread of its own, as soon as one of WORKERS is free.

        Raises:
            Busy: too many wait already.
        """
        if self._limiter.statistics().tasks_waiting >= WAITING:
            raise Busy("Too many pictures are asked for at the moment: wait a little, and reload.")
        return await anyio.to_thread.run_sync(make, limiter=self._limiter)

    def preview(self, place: Place, side: int, known: str = "") -> Image:
        """A picture within `side` x `side` pixels. `known` is the ETag that the browser has."""
        seen = place.look()

        def write(target: Path) -> None:
            pyramid = self._smallest(place, seen.version, side)
            if pyramid is not None:
                target.write_bytes(pyramid)
            elif seen.size > FETCHED_MB * 10**6:
                raise ItemFailed(
                    f"{place.address} has {seen.size:,} bytes, and previews are made of up to "
                    f"{FETCHED_MB * 10**6:,}."
                )
            else:
                place.fetch(seen, target, SECONDS)

        return self._made(f"{place.address} {seen.version} {side}", side, write, known)

    def tile(self, place: Place, at: tuple[int, int, int], known: str = "") -> Image:
        """A tile of a pyramid: of a level (0 is the largest), at a column and row."""
        seen = place.look()

        def write(target: Path) -> None:
            pyramid = self._pyramids(place, seen.version)
            try:
                target.write_bytes(pyramid.tile(*at))
            except LookupError as error:
                raise ItemFailed(f"{place.address}: {error}") from error

        return self._made(f"{place.address} {seen.version} {at}", TILE_SIDE, write, known)

    def pyramid(self, place: Place, version: str) -> PyramidFile:
        """A pyramid's directory."""
        return self._pyramids(place, version)

    def _smallest(self, place: Place, version: str, side: int) -> bytes | None:
        """A file with a level of a pyramid that is a single tile: the smallest that is large
        enough, or the largest there is."""
        if not place.by_ranges:
            return None
        try:
            pyramid = self._pyramids(place, version)
            if pyramid.facts()["orientation"] not in {None, 1}:
                return None  # a tile does not tell that it has to be turned
            levels = enumerate(pyramid.levels)
            single = [(n, each) for n, each in levels if each.columns * each.rows == 1]
            large = [n for n, each in single if max(each.width, each.height) >= side]
            if large or single:
                return pyramid.tile(large[-1] if large else single[0][0], 0, 0)
        except UnreadableImage:
            pass  # libvips may read what cannot be taken apart here
        return None

    def _made(self, name: str, side: int, write: Callable[[Path], None], known: str) -> Image:
        etag = f'"{hashlib.sha256(name.encode()).hexdigest()[:32]}"'
        if known == etag:
            return Image(etag, "", None)
        made = self._kept.get(etag)
        if made is None:
            try:
                made = self._make(etag, side, write)
            except ItemRefused as error:
                made = ItemRefused(str(error))  # without what it was raised from
            except ItemFailed as error:
                made = ItemFailed(str(error))
            self._kept.put(etag, made)
        if isinstance(made, Image):
            return made
        raise type(made)(str(made))

    def _make(self, etag: str, side: int, write: Callable[[Path], None]) -> Image:
        worker = self._workers.get()
        try:
            with disk_errors(self._temp), temp_folder(self._temp) as folder:
                source, target = folder / "source", folder / "preview"
                write(source)
                made = worker.preview(source, target, side)
                return Image(etag, made.media_type, target.read_bytes())
        finally:
            self._workers.put(worker)


def _open_pyramid(place: Place, version: str) -> PyramidFile:
    seen = place.look()
    if seen.version != version:
        raise ItemFailed(f"{place.address} changed just now: reload.")
    return PyramidFile.open(lambda offset, length: place.read(seen, offset, length), seen.size)


@lru_cache(maxsize=1)
def previews() -> Previews:
    """Those of this process, with its workers."""
    return Previews()
