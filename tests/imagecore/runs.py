"""A planned run in a work store of memory, for tests that read its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

from obstore.store import MemoryStore

from imagecore.manifest import Item, write_manifest
from imagecore.outcome import Outcome, State
from imagecore.workstore import WorkStore

RUN = "dag/run"
PLAN = f"{RUN}/plan-1-cafe"
TICK = count()


@dataclass(frozen=True)
class CountingStore(WorkStore):
    """A work store in memory that counts what is read; a test may put something before a read."""

    url: str = "memory://"
    store: MemoryStore = field(default_factory=MemoryStore)
    reads: Counter[str] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=list)
    before: dict[str, Callable[[], None]] = field(default_factory=dict)

    def get(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        self.before.pop("get", lambda: None)()
        data = super().get(path, offset, length)
        self.reads[path] += 1
        self.sizes.append(len(data))
        return data

    def paths(self, folder: str) -> list[str]:
        self.reads["list"] += 1
        return super().paths(folder)


def planned(
    store: WorkStore, keys: Iterable[str], removals: Iterable[str] = (), size: int = 3
) -> dict[str, Any]:
    """The plan of these keys, its manifests written."""

    def written(name: str, prefix: str, keys: Iterable[str]) -> list[dict[str, Any]]:
        items: list[Item] = [{"key": key, "path": f"to/{key}"} for key in keys]
        path = f"{PLAN}/{name}.jsonl"
        batches = write_manifest(items, store, path, lambda count: size, prefix)[1]
        return [asdict(batch) for batch in batches]

    plan = {
        "at": "2026-01-01T00:00:00.000+00:00",
        "batches": written("manifest", "", keys),
        "removals": written("removals", "removals-", removals),
    }
    stages = (*plan["batches"], *plan["removals"])
    return {**plan, "planned": sum(batch["count"] for batch in stages)}


def outcome(key: str, state: State = State.DONE, reason: str = "") -> Outcome:
    """An outcome later than any before."""
    return Outcome(key, state, reason, 0.5, f"2026-01-01T00:00:{next(TICK):012}Z", {"n": 1})
