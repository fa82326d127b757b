"""What the tests of the sync's comparison share: sides of given entries, and plans of them."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from imagecore.diff import SECOND
from imagecore.sides import Entry, Reject, Side
from imagecore.syncplan import SyncPlan, SyncRules

DATA = Path(__file__).parents[1] / "data"


def once(url: str) -> Any:
    """A client that tries each request once, and sends no checksums of its own accord."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(
            s3={"addressing_style": "path"},
            proxies={},
            request_checksum_calculation="when_required",
            retries={"total_max_attempts": 1},
        ),
    )


def recorded(name: str) -> list[str]:
    """The lines of a list that the legacy scripts read or wrote."""
    return gzip.decompress((DATA / f"{name}.txt.gz").read_bytes()).decode().splitlines()


def entry(key: str, *, size: int = 1, at: float = 0, etag: str = "") -> Entry:
    """An object as it is listed; `at` in seconds."""
    return Entry(key, key, size, int(at * SECOND), etag)


def entries(*keys: str, **same: Any) -> list[Entry]:
    """Entries of these keys, alike in everything else."""
    return [entry(key, **same) for key in keys]


@dataclass
class ListedSide:
    """A side that has exactly these entries, listed in this order, and rejects these names."""

    listed: Iterable[Entry]
    prefix: str = ""
    ascending: bool = True
    rejects: tuple[tuple[str, str], ...] = ()
    times_listed: int = 0

    @property
    def url(self) -> str:
        return f"memory://side/{self.prefix}"

    def key(self, key: str) -> str:
        return self.prefix + key

    def entries(self, below: str, reject: Reject) -> Iterator[Entry]:
        self.times_listed += 1
        for name, reason in self.rejects:
            reject(name, reason)
        for each in self.listed:
            if each.key.startswith(below):
                yield each


def side(*listed: Entry, **options: Any) -> ListedSide:
    """A side whose listing is in ascending order of keys."""
    return ListedSide(sorted(listed), **options)


def plan_of(source: Side, destination: Side, folder: Path, **rules: Any) -> SyncPlan:
    """A plan that is made."""
    plan = SyncPlan(source, destination, SyncRules(**rules), folder)
    plan.make()
    return plan


def lines(plan: SyncPlan, name: str) -> list[str]:
    """The lines of one of the plan's lists."""
    return plan.files()[f"{name}.txt"].read_text("utf-8").split("\n")[:-1]


def names(plan: SyncPlan) -> dict[str, list[str]]:
    """The names that the plan takes, by what it takes them for."""
    signs = {"+": "new", "*": "modified", "=": "unchanged", "-": "duplicate", "!": "rejected"}
    found: dict[str, list[str]] = {name: [] for name in signs.values()}
    for line in lines(plan, "combined"):
        found[signs[line[0]]].append(line[2:])
    return {name: listed for name, listed in found.items() if listed}
