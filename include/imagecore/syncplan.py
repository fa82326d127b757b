"""The plan of a sync: two sides compared by declared rules, and the lists people read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

from imagecore.content import Content, FileContent, look, same_content
from imagecore.diff import (
    RULES,
    Change,
    Difference,
    OutOfOrder,
    ascending,
    compare,
    looked_at,
    newest_of_each,
)
from imagecore.errors import ItemFailed, PlanRefused
from imagecore.extsort import external_sort
from imagecore.keymap import KEY_MAPS, Identity
from imagecore.manifest import Item, decode_lines, encode
from imagecore.naming import KINDS, NamingRule
from imagecore.sides import Entry, LocalSide, S3Side, Side
from imagecore.text import printable

log = logging.getLogger(__name__)

LISTS = ("new", "modified", "duplicate_stores", "success", "error", "combined")
"""The text files, under the names of the legacy scripts; `combined` is rclone's format."""

_SIGNS = {Change.NEW: "+", Change.MODIFIED: "*", Change.UNCHANGED: "=", Change.DUPLICATE: "-"}
ENTRY_BYTES = 300
"""About what an entry takes in memory, besides its name and key."""


@dataclass(frozen=True)
class SyncRules:
    """How two sides are compared, and what may become of the result.

    `compare` names a rule of `diff.RULES`, `mapping` a mapping of `keymap.KEY_MAPS`. `ignore` are
    patterns of file names that are no candidates. `prefix` limits both sides to names that begin
    with it, `only` to these names, and `changed` to sources modified in [start, end) (nanoseconds
    since 1970); with `only` names or a time nothing but what they select is counted.
    """

    compare: str = "newer"
    mapping: str = "identity"
    naming: NamingRule = field(default_factory=NamingRule)
    transform: str = "none"
    ignore: tuple[str, ...] = ()
    delete: bool = False
    max_delete: int = 1_000
    max_delete_ratio: float = 0.1
    force: bool = False
    prefix: str = ""
    only: frozenset[str] | None = None
    changed: tuple[int, int] | None = None


@dataclass
class Tally:
    """A number of pictures, and their bytes."""

    count: int = 0
    bytes: int = 0

    def add(self, entry: Entry) -> None:
        """Count one more."""
        self.count += 1
        self.bytes += entry.size


@dataclass
class Counts:
    """What the comparison found. `foreign`: in the destination, and none of this sync's names."""

    new: Tally = field(default_factory=Tally)
    modified: Tally = field(default_factory=Tally)
    unchanged: Tally = field(default_factory=Tally)
    duplicate: Tally = field(default_factory=Tally)
    rejected: Tally = field(default_factory=Tally)
    foreign: Tally = field(default_factory=Tally)
    accepted: int = 0
    """Pictures of the source that this sync takes, whether or not this run is to."""
    existing: int = 0
    """Pictures of the destination that are this sync's."""


class SyncPlan:
    """Compares two sides. `make` does it; then the rest can be asked.

    Parameters:
        source, destination: the sides.
        rules: how.
        folder: where the lists and spools are written.
    """

    def __init__(self, source: Side, destination: Side, rules: SyncRules, folder: Path) -> None:
        self.counts = Counts()
        self._source = source
        self._destination = destination
        self._rules = rules
        self._folder = folder
        self._map = KEY_MAPS[rules.mapping]
        if rules.transform == "photo_ladder" and (
            rules.mapping != "width_folders" or rules.compare != "newer"
        ):
            raise PlanRefused(
                "transform photo_ladder makes pictures that differ from their source, in several "
                "widths: set mapping to width_folders and compare to newer."
            )

    def make(self) -> None:
        """List both sides and compare them.

        A listing that was expected in ascending order and is not is asked for again, and sorted.
        """
        sort = not (self._source.ascending and self._destination.ascending)
        sort = sort or not isinstance(self._map, Identity)
        try:
            self._run(sort)
        except OutOfOrder as error:
            log.warning("%s: listing again, to sort it", error)
            self._run(sort=True)

    def files(self) -> dict[str, Path]:
        """The lists, by name."""
        return {f"{name}.txt": self._folder / f"{name}.txt" for name in LISTS}

    def transfers(self) -> Iterator[Item]:
        """What is to be brought to the destination."""
        return self._spooled("transfers")

    def removals(self) -> Iterator[Item]:
        """What is no longer needed in the destination, if the rules allow to delete it."""
        return self._spooled("removals") if self._rules.delete else iter(())

    def refusals(self) -> list[str]:
        """Why the plan must not be carried out; nothing when it may."""
        counts, rules = self.counts, self._rules
        if not counts.accepted:
            return [
                f"The source {self._source.url} has no picture that this sync takes "
                f"({counts.rejected.count:,} were rejected): is it the right prefix, and is the "
                "drive mounted? An empty source would empty the destination."
            ]
        deletions = counts.duplicate.count if rules.delete else 0
        share = deletions / counts.existing if counts.existing else 0.0
        if deletions <= rules.max_delete and share <= rules.max_delete_ratio:
            return []
        return [
            f"The plan would delete {deletions:,} of {counts.existing:,} pictures of "
            f"{self._destination.url} ({share:.1%}). Allowed are {rules.max_delete:,} "
            f"(max_delete) and {rules.max_delete_ratio:.1%} (max_delete_ratio). They are listed in "
            "duplicate_stores.txt. If that is what you want, run with "
            f'{{"max_delete": {deletions}, "max_delete_ratio": {_up(share)}}}.'
        ]

    def _run(self, sort: bool) -> None:
        self.counts = Counts()
        with ExitStack() as stack:
            opened: dict[str, IO[Any]] = {
                name: stack.enter_context(
                    (self._folder / f"{name}.txt").open("w", encoding="utf-8")
                )
                for name in LISTS
            }
            for name in ("transfers", "removals"):
                path = self._folder / f"{name}.jsonl"
                opened[name] = stack.enter_context(path.open("wb"))
            self._open = opened
            source = self._sorted(self._sources(), sort, self._same_name)
            destination = self._sorted(self._destinations(), sort, self._superseded)
            pairs = compare(
                ascending(source, self._source.url),
                ascending(destination, self._destination.url),
                RULES[self._rules.compare],
            )
            for difference in looked_at(pairs, self._same):
                self._take(difference)

    def _sorted(
        self, entries: Iterable[Entry], sort: bool, older: Callable[[Entry, Entry], None]
    ) -> Iterator[Entry]:
        if not sort:
            return iter(entries)
        rows = external_sort((tuple(e) for e in entries), self._folder, _bytes_of)
        return newest_of_each(map(Entry._make, rows), older)

    def _sources(self) -> Iterator[Entry]:
        rules, identity = self._rules, isinstance(self._map, Identity)
        for entry in self._source.entries(rules.prefix if identity else "", self._reject):
            if rules.ignore and _ignored(entry.key, rules.ignore):
                continue
            if identity:
                yield entry
                continue
            name = self._map.name(entry.key)
            if name is None:
                self._reject(entry.key, f"the mapping {rules.mapping} has no place for it")
            elif name.startswith(rules.prefix):
                yield entry._replace(name=name)

    def _destinations(self) -> Iterator[Entry]:
        rules, identity = self._rules, isinstance(self._map, Identity)
        for entry in self._destination.entries(rules.prefix if identity else "", self._reject):
            if identity:
                yield entry
                continue
            placed = self._map.placed(entry.key)
            if placed is not None:
                if placed.name.startswith(rules.prefix):
                    yield entry._replace(name=placed.name)
            elif not self._map.is_copy(entry.key):
                self.counts.foreign.add(entry)

    def _take(self, difference: Difference) -> None:
        change, source, destination = difference
        if source is None:
            assert destination is not None
            self._take_duplicate(destination)
            return
        name = source.name
        refusal = self._rules.naming.refusal(source.key) or self._no_ladder(name)
        if not refusal:
            self.counts.accepted += 1
            self.counts.existing += destination is not None
        if change is Change.UNCHANGED and self._rules.force:
            change = Change.MODIFIED
        if not self._wanted(source):
            return
        if change is Change.UNCHANGED:
            self.counts.unchanged.add(source)
            self._list("combined", f"= {name}")
            return
        if refusal:
            self._reject(source.key, refusal)
            return
        getattr(self.counts, change.value).add(source)
        self._list(change.value, name)
        self._list("success", source.key)
        self._list("combined", f"{_SIGNS[change]} {name}")
        self._open["transfers"].write(encode(self._transfer(change, source, destination)))

    def _take_duplicate(self, entry: Entry) -> None:
        if self._is_ours(entry):
            self._remove(entry, self._map.source_key(entry.name), keep=())

    def _superseded(self, older: Entry, newest: Entry) -> None:
        """Another full-size object of a picture: its widths changed, and this was left behind."""
        placed = self._map.placed(newest.key)
        if self._is_ours(older):
            self._remove(older, None, keep=placed.widths if placed else ())

    def _is_ours(self, entry: Entry) -> bool:
        """Whether this sync could have put it there; counts it."""
        refusal = self._rules.naming.refusal(self._map.source_key(entry.name))
        if refusal or _ignored(entry.key, self._rules.ignore):
            self.counts.foreign.add(entry)
            return False
        self.counts.existing += 1
        return True

    def _remove(self, entry: Entry, absent: str | None, keep: tuple[int, ...]) -> None:
        only, changed = self._rules.only, self._rules.changed
        if changed is not None or (only is not None and entry.name not in only):
            return
        placed = self._map.placed(entry.key)
        widths = [width for width in (placed.widths if placed else ()) if width not in keep]
        copies = [self._map.copy_key(entry.name, width) for width in widths]
        self.counts.duplicate.add(entry)
        for key in (entry.key, *copies):
            self._list("duplicate_stores", key)
        self._list("combined", f"- {entry.name}")
        item = {
            "key": self._destination.key(entry.key),
            "name": entry.name,
            "action": Change.DUPLICATE.value,
            "absent": absent and self._source.key(absent),
            "remove": [
                *({"key": self._destination.key(key), "etag": None} for key in copies),
                {"key": self._destination.key(entry.key), "etag": entry.etag},
            ],
        }
        self._open["removals"].write(encode(item))

    def _transfer(self, change: Change, source: Entry, destination: Entry | None) -> Item:
        ladder = self._rules.transform == "photo_ladder"
        key = None if ladder else self._map.key(source.name)
        before = None
        if destination is not None and (ladder or destination.key == key):
            before = {
                "key": self._destination.key(destination.key),
                "etag": destination.etag,
                "size": destination.size,
            }
        return {
            "key": source.name,
            "name": source.name,
            "action": change.value,
            "source": {
                "key": self._source.key(source.key),
                "size": source.size,
                "etag": source.etag,
                "modified": source.modified,
            },
            "target": key and self._destination.key(key),
            "before": before,
        }

    def _no_ladder(self, name: str) -> str:
        if self._rules.transform == "photo_ladder" and name.split("/")[-2] not in KINDS:
            return f"photo_ladder knows only {' and '.join(KINDS)}"
        return ""

    def _wanted(self, source: Entry) -> bool:
        only, changed = self._rules.only, self._rules.changed
        named = only is not None and source.name in only
        if changed is None:
            return only is None or named
        return named or changed[0] <= source.modified < changed[1]

    def _same_name(self, older: Entry, newest: Entry) -> None:
        self._reject(older.key, f"it would become the same picture as {newest.key}")

    def _reject(self, key: str, reason: str) -> None:
        self.counts.rejected.count += 1
        self._list("error", f"{_line(key)}\t{_line(reason)}", escaped=True)
        self._list("combined", f"! {key}")

    def _list(self, name: str, line: str, *, escaped: bool = False) -> None:
        self._open[name].write(f"{line if escaped else _line(line)}\n")

    def _same(self, source: Entry, destination: Entry) -> bool:
        try:
            return same_content(
                _content(self._source, source), _content(self._destination, destination)
            )
        except ItemFailed as error:  # carrying it out looks again, and then it fails alone
            log.warning("%s is planned as modified: %s", printable(source.name), error)
            return False

    def _spooled(self, name: str) -> Iterator[Item]:
        with (self._folder / f"{name}.jsonl").open("rb") as lines:
            yield from decode_lines(lines, name)

    def summary(self) -> dict[str, Any]:
        """The counts, as plan.json and report.json hold them."""
        return {**asdict(self.counts), "refused": self.refusals()}


def _content(side: Side, entry: Entry) -> Content:
    if isinstance(side, LocalSide):
        return FileContent(side.folder / entry.key, entry.size, entry.modified)
    assert isinstance(side, S3Side)
    return look(side.bucket, side.key(entry.key))


def _bytes_of(row: tuple[Any, ...]) -> int:
    return ENTRY_BYTES + len(row[0]) + len(row[1])


def _line(text: str) -> str:
    """One line of a list: a line break in a name must not make two of it."""
    return text if text.isprintable() else printable(text)


def _ignored(key: str, patterns: tuple[str, ...]) -> bool:
    name = key.rpartition("/")[2]
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _up(share: float) -> float:
    """A ratio, rounded up so that it is enough when pasted."""
    return min(1.0, round(share + 0.00005, 4))
