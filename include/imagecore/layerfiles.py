"""The layer files of a batch on the local disk: each fetched once, as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from imagecore.errors import ItemFailed
from imagecore.s3 import ServerFault
from imagecore.syncitem import Source


@dataclass
class _File:
    path: Path
    lock: Lock = field(default_factory=Lock)
    users: int = 0
    bytes: int = 0


class LayerFiles:
    """Fetches layer files for threads that use them at the same time.

    :param source: where they are.
    :param folder: where they are kept, and removed by whoever made it.
    :param most_bytes: what the files that nobody uses may take; the longest unused go first.
    """

    def __init__(self, source: Source, folder: Path, most_bytes: int) -> None:
        self._source = source
        self._folder = folder
        self._most_bytes = most_bytes
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def held(self, layers: Mapping[str, Mapping[str, Any]]) -> Iterator[list[Path]]:
        """The files of these names, as planned, in order; they stay while in here.

        Raises:
            ItemFailed, ServerFault: one is gone, or not as it was planned, or cannot be read.
            InfrastructureError: nor can any other.
        """
        with ExitStack() as stack:
            yield [stack.enter_context(self._one(*each)) for each in layers.items()]

    @contextmanager
    def _one(self, name: str, planned: Mapping[str, Any]) -> Iterator[Path]:
        with self._lock:
            file = self._files.setdefault(name, _File(self._folder / name))
            self._files.move_to_end(name)
            file.users += 1
        try:
            with file.lock:
                if not file.bytes:
                    self._fetch(file, planned)
            yield file.path
        finally:
            with self._lock:
                file.users -= 1
                self._make_room()

    def _fetch(self, file: _File, planned: Mapping[str, Any]) -> None:
        try:
            with file.path.open("wb") as target:
                for piece in self._source.content(dict(planned)).pieces():
                    target.write(piece)
        except BaseException as error:
            file.path.unlink(missing_ok=True)
            if isinstance(error, (ItemFailed, ServerFault)):
                self._source.check()  # a drive or bucket that is gone is nobody's bad layer
            raise
        file.bytes = file.path.stat().st_size

    def _make_room(self) -> None:
        total = sum(file.bytes for file in self._files.values())
        for name, file in list(self._files.items()):
            if total <= self._most_bytes:
                return
            if not file.users:
                total -= file.bytes
                file.path.unlink(missing_ok=True)
                del self._files[name]
