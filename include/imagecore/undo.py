"""Taking a sync back: from what its receipts say was done, the items that undo it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from imagecore.manifest import Item
from imagecore.outcome import Outcome


@dataclass
class Touched:
    """A key of the destination: what was there before the run, and what the run left there.

    `before` is a receipt's entry of what was replaced or removed, `left` the ETag of what was
    written; None: nothing.
    """

    before: dict[str, Any] | None
    left: str | None


def touched_by(outcomes: Iterable[Outcome]) -> dict[str, Touched]:
    """Every key that a run touched, from its outcomes in the order of its plans.

    About 1 kB a key is held.
    """
    keys: dict[str, Touched] = {}
    for outcome in outcomes:
        for entry in outcome.detail.get("wrote", ()):
            known = keys.setdefault(entry["key"], Touched(entry["replaced"], None))
            known.left = entry["etag"]
        for entry in outcome.detail.get("removed", ()):
            known = keys.setdefault(entry["key"], Touched(entry, None))
            known.left = None
    return keys


def restores(keys: dict[str, Touched]) -> Iterator[Item]:
    """Items that bring back from the trash what was replaced or removed."""
    for key, touched in keys.items():
        before = touched.before
        if before is None or before["trash"] is None:
            continue
        yield {
            "key": key,
            "name": key,
            "action": "modified" if touched.left else "new",
            "source": {
                "key": before["trash"],
                "etag": before["kept"],
                "size": before["size"],
                "modified": 0,
            },
            "target": key,
            "before": touched.left and {"key": key, "etag": touched.left, "size": 0},
        }


def withdrawals(keys: dict[str, Touched]) -> Iterator[Item]:
    """Items that take out of the destination what had not been there."""
    for key, touched in keys.items():
        if touched.before is None and touched.left is not None:
            yield {
                "key": key,
                "name": key,
                "action": "duplicate",
                "absent": None,
                "remove": [{"key": key, "etag": touched.left}],
            }


def lost(keys: dict[str, Touched]) -> list[str]:
    """Keys whose former object was not kept, so that it cannot be brought back."""
    return [key for key, touched in keys.items() if touched.before and not touched.before["trash"]]
