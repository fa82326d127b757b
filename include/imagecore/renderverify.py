"""Delivered composites looked at again, every file of every name: what is wrong, and with which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from imagecore.composite import MODES
from imagecore.digest import sha256_of
from imagecore.errors import ImageflowsError, InfrastructureError, ItemFailed, UnreadableImage
from imagecore.layerindex import LayerIndex
from imagecore.manifest import Item
from imagecore.outcome import Result
from imagecore.renderitem import Output, Rendering
from imagecore.renderstyle import Cut, Style
from imagecore.report import reported
from imagecore.s3 import Bucket, ObjectDamaged, ObjectMissing, S3Object, ServerFault
from imagecore.sandbox import PictureWorker
from imagecore.stacks import layer_file
from imagecore.tempspace import temp_folder
from imagecore.text import printable
from imagecore.viewing import Viewed
from imagecore.workstore import WorkStore

MISSING = "missing"
EMPTY = "0 bytes"
FOREIGN = "not rendered by us: its metadata have no recipe, size and SHA-256"
OTHER = "another composite's, or an outdated one: its recipe differs"
CHANGED = "its bytes are not those that were recorded"
NO_LAYERS = "outdated: it has a layer file that is missing now"
LISTED = 100
"""How many wrong files an outcome names; it counts them all."""

_RECORDED = ("recipe", "sha256", "bytes", "width", "height")
# WebP leaves alpha out where all is opaque.
_ALPHA = {"png": True, "avif": True, "jpeg": False}


class PictureReader:
    """Fetches pictures of a bucket and has them decoded by workers; for many threads.

    :param temp: a folder for a picture while it is looked at.
    """

    def __init__(self, bucket: Bucket, workers: SimpleQueue[PictureWorker], temp: Path) -> None:
        self.bucket = bucket
        self._workers = workers
        self._temp = temp

    @contextmanager
    def fetched(self, found: S3Object) -> Iterator[Path]:
        """The picture's bytes in a file, removed at the end.

        Raises:
            ItemFailed: they do not arrive whole, or the object is gone or another one.
            InfrastructureError: nor would any other.
        """
        with temp_folder(self._temp) as folder:
            path = folder / "picture"
            try:
                self.bucket.fetch(found, path)
            except ObjectDamaged:  # by the way it took, perhaps; what lies there stays damaged
                self.bucket.fetch(found, path)
            yield path

    def view(self, path: Path, small: Path | None = None, side: int = 0) -> Viewed | str:
        """As `viewing.view`, in a worker; a text says what is wrong with the picture."""
        worker = self._workers.get()
        try:
            return worker.view(path, small, side)
        except UnreadableImage as error:
            return f"does not decode: {error}"
        except InfrastructureError:
            raise
        except ImageflowsError as error:
            return f"could not be decoded: {error}"
        finally:
            self._workers.put(worker)

    def why_unread(self, error: ImageflowsError) -> str:
        """What an error of reading one object says of the object.

        Raises:
            InfrastructureError: it says something of the bucket.
        """
        if isinstance(error, ServerFault):
            self.bucket.check()
            return f"{error}; the server answers for others"
        if isinstance(error, InfrastructureError):
            raise error
        # HEAD answers 404 also when the whole bucket is gone, and 403 when all of it is closed.
        self.bucket.check()
        return MISSING if isinstance(error, ObjectMissing) else f"cannot be read: {error}"


def too_large(found: S3Object, cut: Cut) -> str:
    """What is wrong with an object that no picture of this size can be; it is not fetched."""
    if found.size <= 8 * cut.width * cut.height + (1 << 20):
        return ""
    return f"{found.size:,} bytes: no picture of this size has as many"


class VerifyItems:
    """Verifies the items of a batch; many threads may call `process` at once.

    Parameters:
        rendering: what the plan fixed.
        bucket: where composites are, below `prefix`.
        workers: what decodes them.
        temp: a folder for files while they are looked at.
    """

    def __init__(
        self,
        rendering: Rendering,
        bucket: Bucket,
        prefix: str,
        workers: SimpleQueue[PictureWorker],
        temp: Path,
    ) -> None:
        self._rendering = rendering
        self._prefix = prefix
        self._reader = PictureReader(bucket, workers, temp)

    def process(self, item: Item) -> Result:
        """Look at every file of one stack, under all its names.

        Raises:
            ItemFailed: some are wrong. `detail` names up to LISTED in `wrong`, counts them in
                `wrong_files`, and in `missing` those not there, by length and size.
            InfrastructureError: the bucket cannot be read, so nothing is known.
        """
        wrong: dict[str, str] = {}
        missing: dict[str, Counter[str]] = {}
        for output in self._rendering.outputs:
            for name, why in self._wrong(item, output).items():
                wrong[output.key(name)] = why
                if why == MISSING:
                    missing.setdefault(length_of(name), Counter())[output.cut.name] += 1
        checked = len(item["names"]) * len(self._rendering.outputs)
        if not wrong:
            return Result(detail={"checked": checked})
        named = "; ".join(f"{printable(key)}: {why}" for key, why in wrong.items())
        failed = ItemFailed(f"{len(wrong):,} of {checked:,} files are wrong: {named}")
        listed = [{"key": key, "why": why} for key, why in wrong.items()][:LISTED]
        failed.detail = {
            "checked": checked,
            "wrong_files": len(wrong),
            "wrong": listed,
            "missing": missing,
        }
        raise failed

    def _wrong(self, item: Item, output: Output) -> dict[str, str]:
        """What is wrong, by name."""
        recipes = None if item.get("missing") else self._recipes(item, output)
        views: dict[str, Viewed | str] = {}
        wrong: dict[str, str] = {}
        right: dict[str, str] = {}
        for name in item["names"]:
            try:
                why, digest = self._look(self._prefix + output.key(name), output, recipes, views)
            except ImageflowsError as error:
                why, digest = self._reader.why_unread(error), ""
            if why:
                wrong[name] = why
                continue
            first = next(iter(right), name)
            if right.setdefault(first, digest) != digest:
                wrong[name] = f"another picture than {first}, of which it is a copy"
        return wrong

    def _recipes(self, item: Item, output: Output) -> set[str]:
        """What a right file may have been made by: either way of compositing."""
        return {replace(self._rendering, compositing=mode).recipe(item, output) for mode in MODES}

    def _look(
        self, key: str, output: Output, recipes: set[str] | None, views: dict[str, Viewed | str]
    ) -> tuple[str, str]:
        """What is wrong with a file, if anything, and its SHA-256; `views` has what is known of
        pictures by theirs."""
        found = self._reader.bucket.head(key)
        made = found.metadata
        if why := _described_wrong(found, recipes) or too_large(found, output.cut):
            return why, ""
        with self._reader.fetched(found) as path:
            digest = sha256_of(path)
            if digest not in views:
                views[digest] = self._reader.view(path)
        seen = views[digest]
        if isinstance(seen, str):
            return seen, digest
        return (CHANGED if digest != made["sha256"] else _shown_wrong(seen, made, output)), digest


def _described_wrong(found: S3Object, recipes: set[str] | None) -> str:
    """What HEAD already tells."""
    if not found.size:
        return EMPTY
    if recipes is None:
        return NO_LAYERS
    if not all(found.metadata.get(each) for each in _RECORDED):
        return FOREIGN
    return "" if found.metadata["recipe"] in recipes else OTHER


def _shown_wrong(seen: Viewed, made: Mapping[str, str], output: Output) -> str:
    """What is wrong with a whole picture."""
    cut, format = output.cut, output.format.name
    if seen.kind != format:
        return f"wrong format: it is a {seen.kind} picture"
    size = f"wrong size: {seen.width} x {seen.height}, where"
    if (str(seen.width), str(seen.height)) != (made["width"], made["height"]):
        return f"{size} {made['width']} x {made['height']} is recorded"
    inside = seen.width <= cut.width and seen.height <= cut.height
    equal = seen.width == cut.width, seen.height == cut.height
    if not inside or not (any(equal) if cut.kind == "fit" else all(equal)):
        return f"{size} {cut.name} is {cut.width} x {cut.height}"
    if seen.alpha != _ALPHA.get(format, seen.alpha):
        return "it has transparency" if seen.alpha else "its transparency is lost"
    return ""


def length_of(name: str) -> str:
    """The length token in a composite's name.

    >>> length_of("a2-t13-knee-front-0003")
    'knee'
    """
    return name.rsplit("-", 3)[-3] if name.count("-") >= 3 else ""


def verify_log(
    store: WorkStore, outcomes: str, folder: Path, sizes: Sequence[Cut], lengths: Sequence[str]
) -> Path:
    """Write `verify.log` into `folder`; it is there also when empty.

    First the legacy sentence for each length and size of which a file is missing (the legacy
    guessed: fewer than 10,000), in the order of the style. Then a line for each wrong file.
    """
    missing: set[tuple[str, str]] = set()
    for outcome in reported(store, outcomes):
        for length, of_size in outcome["detail"].get("missing", {}).items():
            missing |= {(length, size) for size in of_size}
    path = folder / "verify.log"
    with path.open("w", encoding="utf-8") as log:
        for length in [*lengths, *sorted({each for each, _ in missing} - {*lengths})]:
            for cut in sizes:
                if (length, cut.name) in missing:
                    log.write(f"{printable(length)} is missing items for image size {cut.name}\n")
        for outcome in reported(store, outcomes):
            log.writelines(f"ERROR - {line}\n" for line in _lines(outcome))
    return path


def _lines(outcome: Mapping[str, Any]) -> Iterator[str]:
    if outcome["state"] not in ("failed", "quarantined"):
        return
    key, detail = printable(outcome["key"]), outcome["detail"]
    wrong = detail.get("wrong", ())
    if not wrong:
        yield f"{key}: {printable(outcome['reason'])}"
    for each in wrong:
        yield f"{printable(each['key'])}: {printable(each['why'])}"
    more = detail.get("wrong_files", 0) - len(wrong)
    if more > 0:
        yield f"{key}: {more:,} more files are wrong"


def colours(index: LayerIndex, style: Style) -> Iterator[str]:
    """A sentence for each base name that lacks colours, and for each refused layer file."""
    for base, absent in index.absent.items():
        if len(absent) == style.colours:
            yield f"{base} is missing in all {style.colours} colours"
        else:
            listed = ", ".join(f"{colour:04d}" for colour in absent)
            yield f"{base} is missing in {len(absent)} of {style.colours} colours: {listed}"
    for (base, colour), reason in index.refused.items():
        yield f"{layer_file(base, colour)} is refused: {reason}"
