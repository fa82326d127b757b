"""Uploads in parts that were begun, on record, so that what a killed process left can be ended."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta, timezone

from imagecore.workstore import WorkStore

CLOCKS = timedelta(minutes=15)
"""How far the clocks of the worker and of the S3 server may differ."""


class UploadLog:
    """The uploads of one batch to one bucket, a small object each below `folder`."""

    def __init__(self, store: WorkStore, folder: str) -> None:
        self._store = store
        self._folder = folder

    def begun(self, key: str) -> None:
        """Put on record that an upload to `key` is about to begin."""
        note = {"key": key, "at": datetime.now(timezone.utc).isoformat()}
        self._store.put(self._path(key), json.dumps(note).encode())

    def ended(self, key: str) -> None:
        """Take it off the record."""
        self._store.delete([self._path(key)])

    def left(self) -> list[tuple[str, datetime]]:
        """Keys whose upload did not end, and a time before it began."""
        notes = [json.loads(self._store.get(path)) for path in self._store.paths(self._folder)]
        return [(note["key"], datetime.fromisoformat(note["at"]) - CLOCKS) for note in notes]

    def _path(self, key: str) -> str:
        return f"{self._folder}/{hashlib.sha256(key.encode()).hexdigest()}.json"
