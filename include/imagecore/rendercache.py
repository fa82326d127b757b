"""What is kept from one composite to the next: layers, and beginnings of stacks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Any

LAYER, STACK = "layer", "stack"
Key = tuple[Hashable, ...]
"""LAYER or STACK, and what tells it from others."""


class RenderCache:
    """Values by key, of at most `limit` bytes together.

    Composites are made in depth first order of their stacks, so what is not on the path to the
    present stack makes room first: beginnings of stacks left behind, which do not come back, then
    layers; in both, what was not used for longest. What alone is over the limit is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.held = 0
        self._limit = limit
        self._kept: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self._path: Collection[Key] = ()

    def walk(self, path: Collection[Key]) -> None:
        """Say what the present stack is made of, which is given up last."""
        self._path = path

    def get(self, key: Key) -> Any:
        """The value, or None."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: Key, value: Any, size: int) -> None:
        """Keep a value of `size` bytes. Room is made before, so that the limit always holds."""
        if key in self._kept:
            self.held -= self._kept.pop(key)[1]
        if size > self._limit:
            return
        while self.held + size > self._limit:
            self.held -= self._kept.pop(min(self._kept, key=self._worth))[1]
        self._kept[key] = value, size
        self.held += size

    def _worth(self, key: Key) -> tuple[bool, bool]:
        return key in self._path, key[0] == LAYER
