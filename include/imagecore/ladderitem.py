"""A planned change whose picture becomes a ladder: fetched, made, verified, delivered in widths."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from imagecore.content import FileContent, ObjectContent, look
from imagecore.errors import ItemFailed, ItemRefused
from imagecore.keymap import KEY_MAPS
from imagecore.ladder import LadderImage, LadderInfo, ladder_recipe
from imagecore.manifest import Item
from imagecore.outcome import Result, State
from imagecore.s3 import ObjectChanged, ObjectDamaged
from imagecore.sandbox import PictureWorker
from imagecore.syncitem import Source, SyncItems, Trash, receipt
from imagecore.target import Target
from imagecore.tempspace import temp_folder

MAP = KEY_MAPS["width_folders"]


@dataclass(frozen=True)
class Workshop:
    """Where pictures are made: a folder, the workers, and the largest file they get, in bytes."""

    temp: Path
    workers: SimpleQueue[PictureWorker]
    max_source_bytes: int


class LadderItems(SyncItems):
    """Carries out the items of a plan with the transform `photo_ladder`.

    The full-size copy is written last: its key, which a comparison looks for, says that all
    others are there. The metadata of each copy tell what it was made of and how: `source-etag`,
    `recipe`, `sha256` and `plan`.

    Parameters: as for SyncItems, and

        prefix: of the destination.
        plan: the plan's folder, to know again what an earlier try of it wrote.
        workshop: where ladders are made.
    """

    def __init__(
        self,
        source: Source,
        target: Target,
        trash: Trash | None,
        *,
        prefix: str,
        plan: str,
        workshop: Workshop,
    ) -> None:
        super().__init__(source, target, trash)
        self._prefix = prefix
        self._plan = hashlib.sha256(plan.encode()).hexdigest()[:16]
        self._recipe = ladder_recipe()
        self._workshop = workshop

    def _transfer(self, item: Item) -> Result:
        if item["source"]["size"] > self._workshop.max_source_bytes:
            raise ItemRefused(
                f"the file has {item['source']['size']:,} bytes, and max_source_mb allows "
                f"{self._workshop.max_source_bytes:,}"
            )
        with temp_folder(self._workshop.temp) as folder:
            return self._deliver(item, self._make(item, folder))

    def _make(self, item: Item, folder: Path) -> LadderInfo:
        *_, kind, name = item["name"].split("/")
        fetched = folder / "source"
        with fetched.open("wb") as file:
            for piece in self._source.content(item["source"]).pieces():
                file.write(piece)
        made = folder / "made"
        made.mkdir()
        worker = self._workshop.workers.get()
        try:
            return worker.make_ladder(fetched, made, kind, name)
        finally:
            self._workshop.workers.put(worker)

    def _deliver(self, item: Item, ladder: LadderInfo) -> Result:
        full = [image for image in ladder.images if image.width is None]
        copies = [image for image in ladder.images if image.width is not None]
        wrote: list[dict[str, Any]] = []
        try:
            for image in copies:
                key = MAP.copy_key(item["name"], image.width or 0)
                wrote.append(self._place(item, self._prefix + key, image))
            for image in full:
                key = self._prefix + MAP.key(item["name"], ladder.widths)
                self._refuse_changed(item, key)
                wrote.append(self._place(item, key, image))
        except ItemFailed as error:
            error.detail = receipt(item, wrote=wrote)
            raise
        detail = receipt(item, wrote=wrote) | {"widths": list(ladder.widths)}
        return Result(State.DONE, "; ".join(ladder.notes), detail)

    def _place(self, item: Item, key: str, image: LadderImage) -> dict[str, Any]:
        """Write one copy; what is there is replaced, and kept."""
        file = Path(image.file)
        same = {
            "source-etag": item["source"]["etag"],
            "sha256": image.sha256,
            "plan": self._plan,
        }
        found = self._find(key)
        if found is not None and same.items() <= _metadata(found).items():
            replaced = self._trash.kept(key) if self._trash else None
            return {"key": key, "etag": found.version, "size": found.size, "replaced": replaced}
        replaced, expected = (self._keep(found), found.version) if found else (None, None)
        content = FileContent(file, image.bytes, file.stat().st_mtime_ns)
        headers = {"ContentType": image.content_type, "Metadata": {**same, "recipe": self._recipe}}
        try:
            written = self._target.write(key, content.pieces(), image.bytes, headers, expected)
        except ObjectDamaged:
            self._put_back(key, replaced)
            raise
        return {**asdict(written), "replaced": replaced}

    def _refuse_changed(self, item: Item, key: str) -> None:
        """The full-size object must be what was planned, unless an earlier try replaced it."""
        before, found = item["before"], self._find(key)
        planned = before["etag"] if before and before["key"] == key else None
        if found is None or found.version == planned or _metadata(found).get("plan") == self._plan:
            return
        raise ObjectChanged(
            f"{self._target.bucket.url(key)} is {found.version}, which is not what was planned: "
            "the next run looks again"
        )

    def _find(self, key: str) -> ObjectContent | None:
        """What is there now, if anything, with its metadata."""
        return self._target.find(key) and look(self._target.bucket, key)


def _metadata(found: ObjectContent) -> dict[str, str]:
    return {name.lower(): value for name, value in found.head["Metadata"].items()}
