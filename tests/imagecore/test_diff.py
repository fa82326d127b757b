"""Two listings compared: each rule, any names, any order, and content looked at where in doubt."""

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecore import extsort
from imagecore.diff import (
    LOOKS,
    RULES,
    SECOND,
    Change,
    Difference,
    OutOfOrder,
    ascending,
    compare,
    looked_at,
    newer,
    newest_of_each,
)
from imagecore.sides import Entry
from tests.imagecore.synctools import ListedSide, entries, entry, names, plan_of

NAMES = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab/ '\"%+\n\r\t\0\\\u2028é😀")
)
NUMBERS = st.integers(0, 2)
ENTRIES = st.dictionaries(
    NAMES.filter(bool),
    st.tuples(
        NUMBERS, st.integers(0, 3).map(lambda half: half * SECOND // 2), st.sampled_from(["", "e"])
    ),
    max_size=12,
)


def listed(found: dict[str, tuple[int, int, str]]) -> list[Entry]:
    """The entries as S3 orders them: by the bytes of their keys."""
    return [Entry(key, key, *found[key]) for key in sorted(found, key=str.encode)]


def naive(source: dict[str, Any], destination: dict[str, Any], rule: str) -> dict[str, set[str]]:
    """What the rule makes of each name; what must be looked at is told apart."""
    found: dict[str, set[str]] = {
        "new": source.keys() - destination.keys(),
        "duplicate": destination.keys() - source.keys(),
        "modified": set(),
        "unchanged": set(),
        "in doubt": set(),
    }
    for name in source.keys() & destination.keys():
        (size, at, etag), (their_size, their_at, their_etag) = source[name], destination[name]
        sizes_differ = size != their_size
        found[
            {
                "newer": "modified" if at // SECOND > their_at // SECOND else "unchanged",
                "size": "modified" if sizes_differ else "unchanged",
                "etag": "modified"
                if sizes_differ
                else "unchanged"
                if etag == their_etag == "e"
                else "in doubt",
                "checksum": "modified" if sizes_differ else "in doubt",
            }[rule]
        ].add(name)
    return found


@pytest.mark.parametrize("rule", sorted(RULES))
@given(source=ENTRIES, destination=ENTRIES, shared=ENTRIES)
def test_a_comparison_is_what_dictionaries_would_find(
    rule: str, source: Any, destination: Any, shared: Any
) -> None:
    source, destination = {**shared, **source}, {**destination, **shared}
    found: dict[str, set[str]] = {name: set() for name in naive({}, {}, rule)}
    order = []
    for (change, left, right), doubt in compare(
        ascending(listed(source), "source"), ascending(listed(destination), "x"), RULES[rule]
    ):
        name = (left or right or entry("")).name
        found["in doubt" if doubt else change.value].add(name)
        order.append(name)
        assert left is None or left == Entry(name, name, *source[name])
        assert right is None or right == Entry(name, name, *destination[name])
        assert (left is None, right is None) == (name not in source, name not in destination)
    assert found == naive(source, destination, rule)
    assert order == sorted(source.keys() | destination.keys())


@given(source=ENTRIES, destination=ENTRIES, dice=st.randoms(use_true_random=False))
def test_the_order_in_which_sides_are_listed_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, source: Any, destination: Any, dice: Any
) -> None:
    sides = [listed(source), listed(destination)]
    folder = tmp_path_factory.mktemp("plan")
    expected = names(plan_of(*map(ListedSide, sides), folder))
    for side in sides:
        dice.shuffle(side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extsort, "SORT_BYTES", 1_000)
        assert names(plan_of(*map(ListedSide, sides), folder)) == expected
        unordered = [ListedSide(side, ascending=False) for side in sides]
        assert names(plan_of(*unordered, folder)) == expected


def test_an_unordered_listing_is_asked_for_again_and_only_then(tmp_path: Path) -> None:
    destination = ListedSide(entries("a", "b"))
    for keys, expected in [("abc", 1), ("acb", 2), ("abbc", 2)]:
        source = ListedSide(entries(*keys))
        plan = plan_of(source, destination, tmp_path)
        assert names(plan) == {"unchanged": ["a", "b"], "new": ["c"]}
        assert source.times_listed == expected
        assert plan.counts.unchanged.count == 2
    local = ListedSide(entries(*"bca"), ascending=False)
    assert names(plan_of(local, destination, tmp_path))["new"] == ["c"]
    assert local.times_listed == 1


# Rules


@pytest.mark.parametrize(
    ("source", "destination", "differs"),
    [
        ("05.000", "05.000", False),
        ("05.000", "05.999", False),
        ("05.999", "05.000", False),
        ("06.000", "05.999", True),
        ("06.000", "05.000", True),
        ("05.999", "06.000", False),
        ("07.000", "60.000", False),
    ],
)
def test_newer_is_strictly_later_at_whole_seconds(
    source: str, destination: str, differs: bool
) -> None:
    at, their = (round(float(time) * 1_000) * 10**6 for time in (source, destination))
    here, there = entry("a")._replace(modified=at), entry("a")._replace(modified=their)
    assert newer(here, there) is differs


@pytest.mark.parametrize(
    ("rule", "source", "destination", "differs"),
    [
        ("newer", {"size": 1, "etag": "x"}, {"size": 2, "etag": "y"}, False),
        ("size", {"size": 1, "at": 9, "etag": "x"}, {"size": 1, "at": 1, "etag": "y"}, False),
        ("size", {"size": 1, "etag": "x"}, {"size": 2, "etag": "x"}, True),
        ("etag", {"size": 1, "etag": "x"}, {"size": 2, "etag": "x"}, True),
        ("etag", {"at": 9, "etag": "x"}, {"at": 1, "etag": "x"}, False),
        ("etag", {"etag": "x"}, {"etag": "y"}, None),
        ("etag", {"etag": ""}, {"etag": ""}, None),
        ("checksum", {"etag": "x"}, {"etag": "x"}, None),
        ("checksum", {"size": 1}, {"size": 2}, True),
    ],
)
def test_each_rule_compares_what_it_says_and_nothing_else(
    rule: str, source: Any, destination: Any, differs: bool | None
) -> None:
    assert RULES[rule](entry("a", **source), entry("a", **destination)) is differs


# Order


@pytest.mark.parametrize("keys", ["ba", "aa", "abcb"])
def test_what_is_not_in_ascending_order_is_noticed(keys: str) -> None:
    with pytest.raises(OutOfOrder, match="s3://there is not listed in ascending order"):
        list(ascending(entries(*keys), "s3://there"))


def test_ascending_is_by_bytes_as_s3_orders() -> None:
    ordered = entries("a", "z", "\u00e9", "\uffee", "\U0001f5bc")
    assert list(ascending(ordered, "x")) == ordered


def test_of_several_objects_of_one_name_the_newest_counts() -> None:
    def placed(key: str, at: int) -> Entry:
        return entry(key, at=at)._replace(name=key[0])

    older: list[tuple[str, str]] = []
    found = newest_of_each(
        [placed("a1", 5), placed("a2", 9), placed("a3", 9), placed("a0", 1), placed("b1", 1)],
        lambda old, new: older.append((old.key, new.key)),
    )
    assert [each.key for each in found] == ["a3", "b1"]
    assert older == [("a0", "a3"), ("a1", "a3"), ("a2", "a3")]


@pytest.mark.parametrize("times", [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("other", [[], [0], [3]])
def test_an_object_that_is_listed_twice_is_one(times: tuple[int, int], other: list[int]) -> None:
    twice = [entry("a", at=at) for at in times]
    others = [entry("b", at=at)._replace(name="a") for at in other]
    older: list[Entry] = []
    newest = list(newest_of_each([*twice, *others], lambda old, new: older.append(old)))
    assert len(newest) == 1
    assert sorted(map(attrgetter("key"), newest + older)) == ["a", "b"][: 1 + len(other)]
    latest = twice[times.index(max(times))]
    assert latest in newest + older


# Content


def doubtful(*marks: bool) -> Iterator[tuple[Difference, bool]]:
    for number, doubt in enumerate(marks):
        each = entry(f"{number:04d}", size=number)
        yield Difference(Change.MODIFIED, each, each), doubt


@given(st.lists(st.booleans(), max_size=200), st.integers(2, 5))
def test_content_is_looked_at_only_in_doubt_and_the_order_stays(
    marks: list[bool], each: int
) -> None:
    looked: list[int] = []

    def same(source: Entry, destination: Entry) -> bool:
        looked.append(source.size)
        return source.size % each == 0

    found = list(looked_at(doubtful(*marks), same))
    assert sorted(looked) == [number for number, doubt in enumerate(marks) if doubt]
    assert [difference.source.size for difference in found if difference.source] == [
        *range(len(marks))
    ]
    for number, difference in enumerate(found):
        unchanged = marks[number] and number % each == 0
        assert difference.change is (Change.UNCHANGED if unchanged else Change.MODIFIED)


def test_several_are_looked_at_at_once() -> None:
    together = threading.Barrier(LOOKS, timeout=60)

    def same(source: Entry, destination: Entry) -> bool:
        together.wait()
        return True

    assert len(list(looked_at(doubtful(*[True] * 2 * LOOKS), same))) == 2 * LOOKS


def test_a_bounded_number_waits_for_a_slow_look() -> None:
    taken = 0
    slow = threading.Event()

    def counted() -> Iterator[tuple[Difference, bool]]:
        nonlocal taken
        for each in doubtful(True, *[False] * 10_000):
            taken += 1
            if taken > 8 * LOOKS:
                slow.set()  # else the test would hang
            yield each

    def same(source: Entry, destination: Entry) -> bool:
        assert not slow.wait(0.2)
        return True

    found = looked_at(counted(), same)
    assert next(found).change is Change.UNCHANGED
    assert taken <= 4 * LOOKS + 1
    assert len(list(found)) == 10_000


def test_a_look_that_fails_ends_the_comparison_and_its_threads() -> None:
    def same(source: Entry, destination: Entry) -> bool:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        list(looked_at(doubtful(*[True] * 100), same))
    assert not [each for each in threading.enumerate() if each.name.startswith("look")]


# Memory


def peak_of(folder: Path, listed: Callable[[], Iterator[Entry]], **options: Any) -> int:
    class Generated(ListedSide):
        def entries(self, below: str, reject: Any) -> Iterator[Entry]:
            return listed()

    here, there = Generated((), **options), Generated((), **options)
    tracemalloc.start()
    plan = plan_of(here, there, folder, delete=True)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.counts.unchanged.count == sum(1 for _ in listed())
    return taken


def test_memory_is_flat_for_400_000_entries(tmp_path: Path) -> None:
    def listed() -> Iterator[Entry]:
        return (entry(f"stores/{number:08}/photos/1.jpg") for number in range(200_000))

    assert peak_of(tmp_path, listed) < 1_000_000


@pytest.mark.parametrize("length", [10, 900])
def test_memory_is_bounded_where_entries_must_be_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(extsort, "SORT_BYTES", 2_000_000)
    monkeypatch.setattr(extsort, "BLOCK", 32)

    def listed() -> Iterator[Entry]:
        count = 10_500
        return (entry(f"{n * 7_919 % count:0{length}}") for n in range(count))

    assert (
        peak_of(tmp_path, listed, ascending=False) < 3_000_000
    )  # all would take 8,000,000 and more
