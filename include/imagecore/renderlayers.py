"""The layers of a style from where they were drawn to the bucket: made, verified, delivered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imagecore.errors import ItemFailed, ItemRefused
from imagecore.ladderitem import Workshop
from imagecore.layerindex import LayerFile, LayerIndex, output_key
from imagecore.layerpicture import LayerInfo, LayerRecipe
from imagecore.manifest import Item
from imagecore.outcome import Result, State
from imagecore.s3 import Bucket, S3Object, ServerFault
from imagecore.sides import Side
from imagecore.syncitem import BucketSource, Planned, Source
from imagecore.tempspace import temp_folder


def layer_items(index: LayerIndex, side: Side) -> Iterator[Item]:
    """The items of a manifest: every layer file found below `side`, what is refused, and what is
    missing for all colours to be there."""
    for base, colours in index.files.items():
        for colour, found in colours.items():
            yield {"key": output_key(base, colour), "source": source_of(found, side)}
    for (base, colour), reason in index.refused.items():
        yield {"key": output_key(base, colour), "source": None, "refused": reason}
    for base, absent in index.absent.items():
        for colour in absent:
            yield {"key": output_key(base, colour), "source": None}


def source_of(found: LayerFile, side: Side) -> Planned:
    """A layer file of that side as a plan keeps it, to be fetched later."""
    _, key, size, modified, etag = found.entry
    return {"key": side.key(key), "size": size, "modified": modified, "etag": etag}


class LayerItems:
    """Processes the items of a batch; many threads may call `process` at once.

    The metadata of each layer tell what it was made of and how: `source-etag`, `recipe`,
    `width`, `height`, `bytes` and `sha256`.

    Parameters:
        source: where the layers were drawn to.
        bucket: where they go.
        prefix: of their keys there; empty, or ending with a slash.
        recipe: what is made of them.
        workshop: where they are made.
        force: make layers that are up to date again.
    """

    def __init__(
        self,
        source: Source,
        bucket: Bucket,
        prefix: str,
        recipe: LayerRecipe,
        workshop: Workshop,
        *,
        force: bool,
    ) -> None:
        self._source = source
        self._bucket = bucket
        self._prefix = prefix
        self._recipe = recipe
        self._fingerprint = recipe.fingerprint()
        self._workshop = workshop
        self._force = force

    def process(self, item: Item) -> Result:
        """Bring one layer up to date.

        Raises:
            ItemRefused: the layer is bad, or two files would become it.
            ItemFailed: it could not be made or delivered this time.
            InfrastructureError: nor could any other.
        """
        if "refused" in item:
            raise ItemRefused(item["refused"])
        if item["source"] is None:
            raise ItemFailed("the layer file is missing: no search directory has it")
        try:
            return self._bring_up_to_date(item["source"], self._prefix + item["key"])
        except ServerFault as fault:
            self._source.check()
            self._bucket.check()
            raise ItemFailed(f"{fault}; the server answers for others") from fault

    def _bring_up_to_date(self, planned: Planned, target: str) -> Result:
        most = self._workshop.max_source_bytes
        if planned["size"] > most:
            raise ItemRefused(
                f"the file has {planned['size']:,} bytes, and max_source_mb allows {most:,}"
            )
        existing = self._bucket.find(target)
        self._refuse_taken(target, existing)
        origin = {"source-etag": source_version(planned), "recipe": self._fingerprint}
        if existing and not self._force and self._bucket.is_current(existing, origin):
            return Result(State.SKIPPED, "up to date", {"target": target})
        with temp_folder(self._workshop.temp) as folder:
            return self._make(planned, target, origin, folder)

    def _refuse_taken(self, target: str, existing: S3Object | None) -> None:
        """Refuse to write over what somebody drew, where layers go into the source's bucket."""
        source = self._source
        same = isinstance(source, BucketSource) and source.bucket.name == self._bucket.name
        if same and existing and "recipe" not in existing.metadata:
            raise ItemRefused(
                f"it would overwrite {self._bucket.url(target)}, which no run has made: "
                "choose another prefix for the results"
            )

    def _make(self, planned: Planned, target: str, origin: dict[str, str], folder: Path) -> Result:
        fetched, made = folder / "source", folder / "layer.png"
        try:
            with fetched.open("wb") as file:
                for piece in self._source.content(planned).pieces():
                    file.write(piece)
        except ItemFailed:
            self._source.check()  # a drive or bucket that is gone is nobody's bad layer
            raise
        info = self._worked(fetched, made)
        described = {
            "width": info.width,
            "height": info.height,
            "bytes": info.bytes,
            "sha256": info.sha256,
        }
        metadata = origin | {name: str(value) for name, value in described.items()}
        self._bucket.deliver(made, target, "image/png", metadata)
        detail = {"target": target, "source": planned["key"], **described}
        return Result(State.DONE, "; ".join(info.notes), detail)

    def _worked(self, fetched: Path, made: Path) -> LayerInfo:
        worker = self._workshop.workers.get()
        try:
            return worker.make_layer(fetched, made, self._recipe)
        finally:
            self._workshop.workers.put(worker)


def source_version(planned: Planned) -> str:
    """What changes when a source does: its ETag, of a file its size and time."""
    return planned["etag"] or f"{planned['size']}-{planned['modified']}"
