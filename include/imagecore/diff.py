"""Two listings compared: what is new, modified, unchanged, or no longer in the source.

Both sides stream and are merged by name, so memory does not grow with their number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from imagecore.errors import ImageflowsError
from imagecore.sides import Entry

SECOND = 10**9
LOOKS = 16
"""How many pairs are looked at by content at once."""


class Change(str, Enum):
    """What a name is, comparing the sides."""

    NEW = "new"
    MODIFIED = "modified"
    UNCHANGED = "unchanged"
    DUPLICATE = "duplicate"
    """In the destination, and no longer in the source: the legacy word for what is to go."""


class Difference(NamedTuple):
    """A name, compared. One of the sides is None for `new` and `duplicate`."""

    change: Change
    source: Entry | None
    destination: Entry | None


class OutOfOrder(ImageflowsError):
    """A listing that was to be in ascending order is not: sort it."""


Verdict = Callable[[Entry, Entry], "bool | None"]
"""Whether a pair differs; None: the listings do not tell, and the content must be looked at."""


def newer(source: Entry, destination: Entry) -> bool | None:
    """The legacy rule: the source was modified strictly later, at whole seconds."""
    return source.modified // SECOND > destination.modified // SECOND


def size(source: Entry, destination: Entry) -> bool | None:
    """The sizes differ."""
    return source.size != destination.size


def etag(source: Entry, destination: Entry) -> bool | None:
    """Sizes or contents differ. Equal ETags are equal contents; others are looked at, since
    uploads in other parts and encrypted objects have other ETags for the same content."""
    if source.size != destination.size:
        return True
    return False if source.etag and source.etag == destination.etag else None


def checksum(source: Entry, destination: Entry) -> bool | None:
    """Sizes or contents differ; every pair of one size is looked at."""
    return True if source.size != destination.size else None


RULES: dict[str, Verdict] = {"newer": newer, "size": size, "etag": etag, "checksum": checksum}


def ascending(entries: Iterable[Entry], side: str) -> Iterator[Entry]:
    """`entries` as they come, each name once and later than the one before it.

    Raises:
        OutOfOrder: at the first that is not.
    """
    last = None
    for entry in entries:
        name = entry[0]
        if last is not None and name <= last:
            raise OutOfOrder(f"{side} is not listed in ascending order of keys")
        last = name
        yield entry


def newest_of_each(
    entries: Iterable[Entry], older: Callable[[Entry, Entry], None]
) -> Iterator[Entry]:
    """One entry a name from entries sorted by name: the last modified.

    The others are handed to `older` with it; an object that was listed twice is no other.
    """
    for _, same in groupby(entries, key=attrgetter("name")):
        found = sorted(same, key=attrgetter("modified", "key"))
        newest = found.pop()
        for entry in {each.key: each for each in found if each.key != newest.key}.values():
            older(entry, newest)
        yield newest


def compare(
    source: Iterator[Entry], destination: Iterator[Entry], verdict: Verdict
) -> Iterator[tuple[Difference, bool]]:
    """Merge two sides in ascending order of names.

    Yields each difference, and whether it still has to be looked at (its change is `modified`
    until then).
    """
    left, right = next(source, None), next(destination, None)
    while left is not None and right is not None:
        if left[0] == right[0]:
            differs = verdict(left, right)
            change = Change.UNCHANGED if differs is False else Change.MODIFIED
            yield Difference(change, left, right), differs is None
            left, right = next(source, None), next(destination, None)
        elif left[0] < right[0]:
            yield Difference(Change.NEW, left, None), False
            left = next(source, None)
        else:
            yield Difference(Change.DUPLICATE, None, right), False
            right = next(destination, None)
    while left is not None:
        yield Difference(Change.NEW, left, None), False
        left = next(source, None)
    while right is not None:
        yield Difference(Change.DUPLICATE, None, right), False
        right = next(destination, None)


def looked_at(
    differences: Iterable[tuple[Difference, bool]], same: Callable[[Entry, Entry], bool]
) -> Iterator[Difference]:
    """The differences, those in doubt decided by `same`, which looks at the content.

    A few are looked at at once; the order stays, and a bounded number waits.
    """
    waiting: deque[tuple[Difference, Future[bool] | None]] = deque()

    def settled(difference: Difference, look: Future[bool] | None) -> Difference:
        if look is not None and look.result():
            return difference._replace(change=Change.UNCHANGED)
        return difference

    with ThreadPoolExecutor(LOOKS, thread_name_prefix="look") as pool:
        try:
            for difference, doubt in differences:
                if not doubt and not waiting:
                    yield difference
                    continue
                source, destination = difference.source, difference.destination
                look = pool.submit(same, source, destination) if doubt else None  # type: ignore[arg-type]
                waiting.append((difference, look))
                while len(waiting) > 4 * LOOKS or (waiting and _done(waiting[0][1])):
                    yield settled(*waiting.popleft())
            while waiting:
                yield settled(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _done(look: Future[bool] | None) -> bool:
    return look is None or look.done()
