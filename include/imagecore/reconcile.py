"""What events lost: pictures without a pyramid, or with one older than they are, by listings alone.

Nothing is looked at one by one, and memory does not grow with the number of pictures: listings are
sorted on disk and joined, first by the pyramid's key, and what that leaves by the key it has in
quarantine. On a day that lost nothing, almost nothing is left.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from imagecore.diff import SECOND, OutOfOrder
from imagecore.extsort import external_sort
from imagecore.listing import Listed, list_pages
from imagecore.manifest import Item
from imagecore.notes import (
    ELSEWHERE,
    NOTES,
    QUARANTINE,
    looks_like_picture,
    note_names,
    picture_or_refusal,
    quarantine_key,
)
from imagecore.s3 import Bucket, reaching

log = logging.getLogger(__name__)

CURRENT = "current/"
"""Where the process bucket keeps that a picture was uploaded again and its pyramid still serves."""

NO_PYRAMID = "no pyramid"
OLDER = "its pyramid is older than its source"
CLASH = "another picture has its pyramid's name"

NEVER = -1
ROW_BYTES = 300
"""About what a row takes in memory, besides its texts."""

Listing = Callable[[str], Iterable[Listed]]
"""The objects of a bucket below a prefix."""


def listing(bucket: Bucket) -> Listing:
    """Lists a bucket. Raises as `reaching` says."""

    def below(prefix: str) -> Iterator[Listed]:
        with reaching(bucket.url(prefix)):
            for page in list_pages(bucket.client, bucket.name, prefix):
                yield from page.entries

    return below


def current_key(item: Item) -> str:
    """Where it is kept that an item's pyramid was found to serve, though older than its source."""
    return CURRENT + quarantine_key(item).removeprefix(QUARANTINE)


def disjoint(prefixes: Iterable[str]) -> list[str]:
    """The prefixes in order, without those that another one covers."""
    kept: list[str] = []
    for prefix in sorted(prefixes):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return kept


class Candidate(NamedTuple):
    """A picture that may have been lost; times are seconds since 1970, or NEVER.

    `suffix` is what its key has in place of the target's `.tif`; `made` is when the pyramid was
    written, `current` when it was last found to serve.
    """

    target: str
    suffix: str
    modified: int
    made: int
    current: int = NEVER

    @property
    def key(self) -> str:
        return self.target[:-4] + self.suffix

    @property
    def why(self) -> str:
        """Why it is to be made, by itself; empty when it is not."""
        if self.made == NEVER:
            return NO_PYRAMID
        return OLDER if self.modified > max(self.made, self.current) else ""


class Reconciliation:
    """Finds what events lost. Times are compared at whole seconds, as S3 keeps them.

    Found is a picture by its name that has no pyramid in its own folder, or an older one, and that
    since then is not in quarantine, nor had its pyramid made in another folder. Of several that
    share a pyramid's key, those are found that are so by themselves; where there is none, all whose
    pyramid it is not, so that they are refused once. One whose note is in quarantine because it
    cannot be read carries its refusal.

    Parameters:
        source, image, process: the listings of the three buckets.
        same: source and image bucket are one. What is named as a pyramid is then none's source.
        makes: (target, key): whether that pyramid is of that picture; asked for clashes only.
        folder: for what is sorted; some hundred bytes a picture for a while.
    """

    def __init__(
        self,
        source: Listing,
        image: Listing,
        process: Listing,
        *,
        same: bool,
        makes: Callable[[str, str], bool],
        folder: Path,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """What was listed: `pictures`, and `not pictures` by their names."""
        self._source = source
        self._image = image
        self._process = process
        self._same = same
        self._makes = makes
        self._folder = folder
        self._notes: set[str] = set()

    def lost(self, prefixes: Iterable[str]) -> Iterator[tuple[Item, str]]:
        """What is found below the prefixes of the source, by target, and why."""
        prefixes = disjoint(prefixes)
        try:
            yield from self._lost(prefixes, sort=False)
        except OutOfOrder as error:  # before anything was yielded: a sort takes all first
            log.warning("%s: listing again, to sort it", error)
            yield from self._lost(prefixes, sort=True)

    def _lost(self, prefixes: list[str], sort: bool) -> Iterator[tuple[Item, str]]:
        self.counts.clear()
        self._notes.clear()
        rows = self._not_quarantined(self._candidates(prefixes, sort))
        candidates = map(Candidate._make, self._sorted(rows))
        for target, same in groupby(candidates, key=itemgetter(0)):
            rivals = list(same)
            found = [(rival, rival.why) for rival in rivals if rival.why]
            if not found and len(rivals) > 1:
                found = [(each, CLASH) for each in rivals if not self._makes(target, each.key)]
            for rival, why in found:
                yield self._picture(rival.key), why

    def _picture(self, key: str) -> Item:
        item = picture_or_refusal(key)
        for note in note_names(key):
            if {note, f"{note}.json"} <= self._notes:  # as it was, and the reason
                item.setdefault(
                    "refused",
                    "its note cannot be read, and may speak of copyright: mend "
                    f"{QUARANTINE}{note}, and move it to {note}",
                )
        return item

    def _candidates(self, prefixes: list[str], sort: bool) -> Iterator[Candidate]:
        """All that a pyramid is missing for, or too old for, or not enough for."""
        sources = self._sorted(self._sources(prefixes))
        images = self._sorted(self._images(prefixes)) if sort else self._images(prefixes)
        rows = heapq.merge(images if sort else _ascending(images), sources)
        for target, same in groupby(rows, key=itemgetter(0)):
            made = NEVER
            pictures = []
            for _, suffix, modified in same:
                if suffix:
                    pictures.append(Candidate(target, suffix, modified, made))
                else:
                    made = modified
            if len(pictures) > 1 or any(each.why for each in pictures):
                yield from pictures

    def _sources(self, prefixes: list[str]) -> Iterator[tuple[str, str, int]]:
        for found in chain.from_iterable(map(self._source, prefixes)):
            key = found.key
            if not looks_like_picture(key):
                self.counts["not pictures"] += 1
                continue
            stem, _, extension = key.rpartition(".")
            if self._same and extension == "tif":
                continue
            self.counts["pictures"] += 1
            yield f"{stem}.tif", f".{extension}", found.modified // SECOND

    def _images(self, prefixes: list[str]) -> Iterator[tuple[str, str, int]]:
        for found in chain.from_iterable(map(self._image, disjoint(map(_stem, prefixes)))):
            if found.key.endswith(".tif"):
                yield found.key, "", found.modified // SECOND

    def _not_quarantined(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Those that are not in quarantine, nor made elsewhere, since they were uploaded; when they
        were current."""
        wanted = ((current_key({"key": each.key}), 1, *each) for each in candidates)
        rows = self._sorted(chain(self._looked_at(), wanted))
        for _, same in groupby(rows, key=itemgetter(0)):
            looked = {QUARANTINE: NEVER, CURRENT: NEVER, ELSEWHERE: NEVER}
            for _, wants, text, suffix, modified, made, _ in same:
                if not wants:
                    looked[text] = modified
                elif max(looked[QUARANTINE], looked[ELSEWHERE]) < modified:
                    yield Candidate(text, suffix, modified, made, looked[CURRENT])

    def _looked_at(self) -> Iterator[tuple[Any, ...]]:
        for folder in (QUARANTINE, CURRENT, ELSEWHERE):
            for found in self._process(folder):
                if found.key.startswith(QUARANTINE + NOTES):
                    self._notes.add(found.key.removeprefix(QUARANTINE))
                name = CURRENT + found.key.removeprefix(folder)
                yield name, 0, folder, "", found.modified // SECOND, NEVER, NEVER

    def _sorted(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        return external_sort(map(tuple, rows), self._folder, _bytes_of)


def _ascending(rows: Iterable[tuple[str, str, int]]) -> Iterator[tuple[str, str, int]]:
    last = ""
    for row in rows:
        if row[0] <= last:
            raise OutOfOrder("the image bucket is not listed in ascending order of keys")
        last = row[0]
        yield row


def _stem(prefix: str) -> str:
    """What the pyramids of pictures below a prefix begin with."""
    folder, slash, name = prefix.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _bytes_of(row: tuple[Any, ...]) -> int:
    return ROW_BYTES + 2 * len(row[0])
