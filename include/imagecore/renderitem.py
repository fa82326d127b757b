"""One stack of layers brought to the bucket: rendered in every size, copied to its other names."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from imagecore.composite import (
    VERSION,
    CompositeImage,
    CompositeInfo,
    CompositeRequest,
    Layer,
)
from imagecore.errors import ItemFailed
from imagecore.layerfiles import LayerFiles
from imagecore.manifest import Item
from imagecore.outcome import Result, State
from imagecore.renderstyle import Cut, Format
from imagecore.s3 import Bucket, S3Object, ServerFault
from imagecore.sandbox import PictureWorker
from imagecore.stacks import layer_file
from imagecore.tempspace import temp_folder

MEDIA_TYPES = {"png": "image/png", "webp": "image/webp", "avif": "image/avif", "jpeg": "image/jpeg"}
CHECKED_PSNR = 50.0
"""Decibels that `fast` must come near `exact`."""


@dataclass(frozen=True)
class Output:
    """One file that is made of each composite."""

    cut: Cut
    format: Format

    def key(self, name: str) -> str:
        """Of a composite of this name, below the style's prefix."""
        return f"{self.cut.name}/{name}.{self.format.extension}"


@dataclass(frozen=True)
class Rendering:
    """What a plan fixes for all its stacks. `layers` has, by name of the layer file, what is known
    of it: `key`, `size`, `modified`, `etag`."""

    style: str
    sizes: tuple[Cut, ...]
    formats: tuple[Format, ...]
    ppi: int
    compositing: str
    layers: Mapping[str, Mapping[str, Any]]

    @property
    def outputs(self) -> list[Output]:
        """Every file that is made of a composite."""
        return [Output(cut, format) for cut in self.sizes for format in self.formats]

    def as_json(self) -> dict[str, Any]:
        """As a plan keeps it."""
        return asdict(self)

    @staticmethod
    def from_json(kept: Mapping[str, Any]) -> Rendering:
        """As it was kept."""
        formats = [{**each, "background": tuple(each["background"])} for each in kept["formats"]]
        return Rendering(
            **{
                **kept,
                "sizes": tuple(Cut(**each) for each in kept["sizes"]),
                "formats": tuple(Format(**each) for each in formats),
            }
        )

    def files(self, item: Item) -> list[str]:
        """The layer files of a stack, bottom first."""
        return [layer_file(base, item["colour"]) for base in item["layers"]]

    def identity(self, file: str) -> str:
        """What changes when the layer file is another one."""
        known = self.layers[file]
        version = known["etag"] or f"{known['size']} {known['modified']}"
        return f"{known['key']} {version}"

    def recipe(self, item: Item, output: Output) -> str:
        """16 hexadecimal digits that change when the file would: with a layer, the size, the
        format, the way of compositing, and the version of libvips."""
        import pyvips

        what = {
            "version": VERSION,
            "libvips": [pyvips.version(part) for part in range(3)],
            "layers": [self.identity(file) for file in self.files(item)],
            "cut": asdict(output.cut),
            "format": asdict(output.format),
            "ppi": self.ppi,
            "compositing": self.compositing,
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


class RenderItems:
    """Renders the items of a batch; many threads may call `process` at once.

    A file is up to date when its metadata have its recipe. What is not is rendered and verified
    under the stack's first name, and copied within the server to the others.

    Parameters:
        rendering: what the plan fixed.
        bucket: where composites go, below `prefix`.
        files: fetches layer files.
        workers: what renders; each keeps layers and unfinished stacks in memory.
        temp: a folder for files until they are delivered.
        cache_mb: MB that a worker keeps.
        force: render also what is up to date.
        checked: of how many stacks one rendered by `fast` is compared with `exact`; the first
            always is.
    """

    def __init__(
        self,
        rendering: Rendering,
        bucket: Bucket,
        prefix: str,
        files: LayerFiles,
        workers: SimpleQueue[PictureWorker],
        temp: Path,
        *,
        cache_mb: int,
        force: bool = False,
        checked: int = 50,
    ) -> None:
        self._rendering = rendering
        self._bucket = bucket
        self._prefix = prefix
        self._files = files
        self._workers = workers
        self._temp = temp
        self._cache_mb = cache_mb
        self._force = force
        self._checked = checked
        self._rendered = 0

    def process(self, item: Item) -> Result:
        """Bring one stack up to date under all its names.

        Raises:
            ItemRefused: a layer is bad, or does not fit the others.
            ItemFailed: a layer file is missing or changed, or the result is not as it must be.
            InfrastructureError: nothing could be done for any other either.
        """
        try:
            return self._bring_up_to_date(item)
        except ServerFault as fault:
            self._bucket.check()
            raise ItemFailed(f"{fault}; the server answers for others") from fault

    def _bring_up_to_date(self, item: Item) -> Result:
        if item.get("missing"):
            raise ItemFailed(f"layer files are missing: {', '.join(item['missing'])}")
        recipes = {output: self._rendering.recipe(item, output) for output in self._outputs}
        main, *aliases = item["names"]
        sha256: dict[Output, str] = {}
        for output, recipe in recipes.items():
            found = None if self._force else self._current(output.key(main), {"recipe": recipe})
            if found is not None:
                sha256[output] = found.metadata.get("sha256", "")
        stale = [output for output in recipes if output not in sha256]
        info = self._render(item, stale, recipes) if stale else None
        for output, image in self._made(stale, info) if info else ():
            sha256[output] = image.sha256
        copied = 0
        for output, recipe in recipes.items():
            made = {"recipe": recipe, "sha256": sha256[output]}
            copied += self._copy(output, main, aliases, made)
        detail: dict[str, Any] = {"names": len(item["names"]), "copied": copied}
        if info is None:
            state = State.DONE if copied else State.SKIPPED
            return Result(state, "" if copied else "up to date", detail)
        detail |= {
            "rendered": len(stale),
            "bytes": sum(image.bytes for _, image in self._made(stale, info)),
            "seconds_of": info.seconds,
        }
        if info.psnr is not None:
            detail["psnr"] = info.psnr
        return Result(State.DONE, "; ".join(info.notes), detail)

    def trial(self, items: Iterable[Item]) -> tuple[float, int]:
        """The seconds that rendering some stacks takes after the first one, and the bytes of their
        files; nothing is delivered."""
        size, started = 0, time.monotonic()
        for number, item in enumerate(items):
            with temp_folder(self._temp) as folder:
                info = self._make(item, self._outputs, folder, check=False)
            if number:
                size += sum(image.bytes for image in info.images)
            else:
                started = time.monotonic()
        return time.monotonic() - started, size

    @property
    def _outputs(self) -> list[Output]:
        return self._rendering.outputs

    def _current(self, key: str, made: dict[str, str]) -> S3Object | None:
        found = self._bucket.find(self._prefix + key)
        return found if found and self._bucket.is_current(found, made) else None

    def _render(
        self, item: Item, outputs: list[Output], recipes: Mapping[Output, str]
    ) -> CompositeInfo:
        with temp_folder(self._temp) as folder:
            fast = self._rendering.compositing == "fast"
            check = fast and self._rendered % self._checked == 0
            self._rendered += 1
            info = self._make(item, outputs, folder, check=check)
            for output, image in self._made(outputs, info):
                metadata = {
                    "recipe": recipes[output],
                    "sha256": image.sha256,
                    "bytes": str(image.bytes),
                    "width": str(image.width),
                    "height": str(image.height),
                }
                key = self._prefix + output.key(item["names"][0])
                media_type = MEDIA_TYPES[output.format.name]
                self._bucket.deliver(Path(image.file), key, media_type, metadata)
        return info

    def _made(
        self, outputs: list[Output], info: CompositeInfo
    ) -> Iterator[tuple[Output, CompositeImage]]:
        """What was made of these. Sizes are made in all formats, so there may be more."""
        images = {(image.size, image.format): image for image in info.images}
        for output in outputs:
            yield output, images[output.cut.name, output.format.name]

    def _make(
        self, item: Item, outputs: list[Output], folder: Path, *, check: bool
    ) -> CompositeInfo:
        rendering = self._rendering
        names = rendering.files(item)
        planned = {name: rendering.layers[name] for name in names}
        with self._files.held(planned) as paths:
            files = dict(zip(planned, paths, strict=True))
            request = CompositeRequest(
                layers=tuple(Layer(str(files[name]), rendering.identity(name)) for name in names),
                sizes=tuple(dict.fromkeys(output.cut for output in outputs)),
                formats=tuple(dict.fromkeys(output.format for output in outputs)),
                ppi=rendering.ppi,
                mode=rendering.compositing,
                check_fast=check,
                cache_mb=self._cache_mb,
            )
            worker = self._workers.get()
            try:
                info = worker.make_composite(request, folder)
            finally:
                self._workers.put(worker)
        if info.psnr is not None and info.psnr < CHECKED_PSNR:
            failed = ItemFailed(
                f"composited fast it is {info.psnr:.1f} dB near the exact one, and "
                f"{CHECKED_PSNR:g} are the least: run this style with compositing = exact"
            )
            failed.detail = {"psnr": info.psnr}
            raise failed
        return info

    def _copy(self, output: Output, main: str, aliases: Iterable[str], made: dict[str, str]) -> int:
        """Bring one file to the other names; returns how many copies it took."""
        source, copied = self._prefix + output.key(main), 0
        for alias in aliases:
            key = output.key(alias)
            if self._current(key, made):
                continue
            self._bucket.copy(source, self._prefix + key)
            if not self._current(key, made):
                raise ItemFailed(
                    f"{self._bucket.url(self._prefix + key)} is not the copy that was made: "
                    "someone else wrote it at the same time, or the server keeps no metadata"
                )
            copied += 1
        return copied
