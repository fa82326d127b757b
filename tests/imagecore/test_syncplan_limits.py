"""What a plan selects, what it would take out of the destination, and when it is refused."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagecore.diff import SECOND
from imagecore.errors import InfrastructureError, PlanRefused
from imagecore.naming import NamingRule
from imagecore.s3 import Bucket
from imagecore.sides import LocalSide, S3Side
from imagecore.syncplan import SyncPlan, SyncRules
from tests.faults import FaultProxy, corrupt_response, denied, status, unsorted
from tests.imagecore.synctools import (
    ListedSide,
    entries,
    entry,
    lines,
    names,
    once,
    plan_of,
    side,
)

STORES = NamingRule("stores")
SHOP = {"mapping": "width_folders", "delete": True}


def removed(plan: SyncPlan) -> list[str]:
    """The keys that the plan removes."""
    return [each["key"] for item in plan.removals() for each in item["remove"]]


# What is selected

HERE = [entry("a/1", at=1), entry("a/2", at=2), entry("b/1", at=3)]
THERE = [entry("a/1"), entry("a/9"), entry("b/1", at=9), entry("b/9")]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            {},
            {
                "new": ["a/2"],
                "modified": ["a/1"],
                "unchanged": ["b/1"],
                "duplicate": ["a/9", "b/9"],
            },
        ),
        ({"prefix": "a/"}, {"new": ["a/2"], "modified": ["a/1"], "duplicate": ["a/9"]}),
        ({"prefix": "b"}, {"unchanged": ["b/1"], "duplicate": ["b/9"]}),
        ({"only": frozenset({"a/2", "a/9"})}, {"new": ["a/2"], "duplicate": ["a/9"]}),
        ({"only": frozenset({"b/1"})}, {"unchanged": ["b/1"]}),
        ({"only": frozenset()}, {}),
        ({"changed": (SECOND, 2 * SECOND)}, {"modified": ["a/1"]}),
        ({"changed": (2 * SECOND, 3 * SECOND + 1)}, {"new": ["a/2"], "unchanged": ["b/1"]}),
        (
            {"changed": (SECOND, SECOND + 1), "only": frozenset({"a/2", "b/9"})},
            {"new": ["a/2"], "modified": ["a/1"]},
        ),
        (
            {"force": True},
            {"new": ["a/2"], "modified": ["a/1", "b/1"], "duplicate": ["a/9", "b/9"]},
        ),
        ({"force": True, "only": frozenset({"b/1"})}, {"modified": ["b/1"]}),
    ],
)
def test_a_plan_has_what_is_selected(
    tmp_path: Path, rules: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    plan = plan_of(side(*HERE), side(*THERE), tmp_path, delete=True, **rules)
    assert names(plan) == expected
    counts = plan.summary()
    for name in ("new", "modified", "unchanged", "duplicate"):
        assert counts[name]["count"] == len(expected.get(name, ()))
    assert removed(plan) == expected.get("duplicate", [])
    assert [item["name"] for item in plan.transfers()] == sorted(
        expected.get("new", []) + expected.get("modified", [])
    )
    assert plan.refusals() == [] or expected.get("duplicate")


def test_a_prefix_is_of_names_where_keys_are_mapped(tmp_path: Path) -> None:
    source = side(*entries("stores/a/photos/1.jpg", "stores/b/photos/1.jpg"))
    destination = side(*entries("a/photos/__w__/2.jpg", "b/photos/__w__/2.jpg"))
    plan = plan_of(source, destination, tmp_path, prefix="a/", **SHOP)
    assert names(plan) == {"new": ["a/photos/1.jpg"], "duplicate": ["a/photos/2.jpg"]}


def test_selecting_some_does_not_make_the_source_look_empty(tmp_path: Path) -> None:
    plan = plan_of(side(*HERE), side(*THERE), tmp_path, only=frozenset({"none"}))
    assert plan.counts.accepted == 3
    assert plan.refusals() == []


# What is in the destination


def test_what_a_newer_full_size_replaced_is_a_duplicate_and_its_shared_widths_stay(
    tmp_path: Path,
) -> None:
    source = side(entry("stores/a/photos/1.jpg"))
    destination = side(
        entry("a/photos/__w-200-400-600__/1.jpg", at=2, etag="old"),
        entry("a/photos/__w-200-400__/1.jpg", at=3, etag="new"),
        entry("a/photos/__w__/1.jpg", at=1, etag="oldest"),
    )
    plan = plan_of(source, destination, tmp_path, **SHOP)
    assert names(plan) == {"unchanged": ["a/photos/1.jpg"], "duplicate": ["a/photos/1.jpg"] * 2}
    assert lines(plan, "duplicate_stores") == [
        "a/photos/__w__/1.jpg",
        "a/photos/__w-200-400-600__/1.jpg",
        "a/photos/w600/1.jpg",
    ]
    _, item = plan.removals()
    assert item["absent"] is None  # the picture is in the source, and stays
    assert item["remove"] == [
        {"key": "a/photos/w600/1.jpg", "etag": None},
        {"key": "a/photos/__w-200-400-600__/1.jpg", "etag": "old"},
    ]


def test_a_picture_that_is_gone_goes_with_all_its_full_sizes_and_widths(tmp_path: Path) -> None:
    destination = side(
        entry("a/photos/__w-200-400__/1.jpg", at=1), entry("a/photos/__w-200__/1.jpg", at=2)
    )
    plan = plan_of(side(entry("stores/b/photos/1.jpg")), destination, tmp_path, **SHOP)
    assert sorted(removed(plan)) == [
        "a/photos/__w-200-400__/1.jpg",
        "a/photos/__w-200__/1.jpg",
        "a/photos/w200/1.jpg",
        "a/photos/w400/1.jpg",
    ]


@pytest.mark.parametrize("mapping", ["identity", "width_folders"])
def test_what_is_none_of_this_sync_s_names_is_never_removed(tmp_path: Path, mapping: str) -> None:
    foreign = {
        "identity": [
            "index.html",
            "stores/a/photos/1.png",
            "stores/a/photos/.hidden/1.jpg",
            "stores/a/photos/desktop.ini",
            "chains/a/photos/1.jpg",
        ],
        "width_folders": [
            "index.html",
            "a/photos/2.jpg",
            "a/photos/__w-x__/1.jpg",
            "a/photos/__w-200__/1.png",
            "a/photos/__w-200__/desktop.ini",
            "a/videos/__w-200__/1.jpg",
            "chains/a/photos/__w-200__/1.jpg",
            "chains/a/photos/__w__/1.jpg",
        ],
    }[mapping]
    ours = {"identity": "stores/a/photos/9.jpg", "width_folders": "a/photos/__w__/9.jpg"}[mapping]
    destination = side(*entries(*foreign, ours))
    plan = plan_of(
        side(entry("stores/a/photos/1.jpg")),
        destination,
        tmp_path,
        mapping=mapping,
        naming=STORES,
        ignore=("*.ini",),
        delete=True,
    )
    assert removed(plan) == lines(plan, "duplicate_stores") == [ours]
    assert plan.counts.foreign.count == len(foreign)
    assert plan.counts.existing == 1


def test_resized_copies_are_neither_pictures_nor_foreign(tmp_path: Path) -> None:
    destination = side(*entries("a/photos/__w-200__/1.jpg", "a/photos/w200/1.jpg"))
    plan = plan_of(side(entry("stores/a/photos/1.jpg")), destination, tmp_path, **SHOP)
    assert names(plan) == {"unchanged": ["a/photos/1.jpg"]}
    assert plan.counts.foreign.count == 0


@pytest.mark.parametrize("ignore", [(), ("*.ini",)])
def test_an_ignored_file_is_no_reason_to_remove_its_object(
    tmp_path: Path, ignore: tuple[str, ...]
) -> None:
    here, there = side(*entries("a.jpg", "b.ini")), side(*entries("a.jpg", "b.ini"))
    plan = plan_of(here, there, tmp_path, ignore=ignore, delete=True)
    assert names(plan)["unchanged"] == (["a.jpg"] if ignore else ["a.jpg", "b.ini"])
    assert removed(plan) == []


def test_a_source_that_is_refused_by_name_keeps_its_object(tmp_path: Path) -> None:
    here = side(*entries("stores/a/photos/1.jpg", "x.jpg", at=9))
    plan = plan_of(here, side(entry("x.jpg")), tmp_path, naming=STORES, delete=True)
    assert names(plan) == {"new": ["stores/a/photos/1.jpg"], "rejected": ["x.jpg"]}
    assert removed(plan) == []


# Refusals


@pytest.mark.parametrize(
    ("source", "rejected"),
    [
        (side(), 0),
        (side(*entries("x.jpg", "y.jpg")), 2),
        (side(rejects=(("link.jpg", "it is a symbolic link"),)), 1),
        (side(entry("kept.jpg")), 0),
    ],
)
def test_a_source_without_a_picture_is_refused_even_where_nothing_would_be_deleted(
    tmp_path: Path, source: ListedSide, rejected: int
) -> None:
    """The last one has a picture that is the same in the destination, and not taken either."""
    destination = side(*entries("kept.jpg", "stores/a/photos/1.jpg"))
    for delete in (True, False):
        plan = plan_of(source, destination, tmp_path, naming=STORES, delete=delete)
        (reason,) = plan.refusals()
        assert "memory://side/ has no picture that this sync takes" in reason
        assert f"({rejected} were rejected)" in reason
        assert "right prefix" in reason
        assert "mounted" in reason
        assert plan.summary()["refused"] == [reason]


def deleting(folder: Path, gone: int, stay: int, **limits: Any) -> SyncPlan:
    keep = entries(*(f"keep{number:05}" for number in range(stay)))
    go = entries(*(f"gone{number:05}" for number in range(gone)))
    there = side(*go, *keep)
    return plan_of(side(*keep, entry("new")), there, folder, delete=True, **limits)


@pytest.mark.parametrize(
    ("gone", "stay", "limits", "refused"),
    [
        (0, 10, {"max_delete": 0, "max_delete_ratio": 0.0}, False),
        (1, 9, {}, False),
        (1, 8, {}, True),
        (100, 900, {}, False),
        (101, 900, {}, True),
        (5, 5, {"max_delete": 5, "max_delete_ratio": 0.5}, False),
        (5, 5, {"max_delete": 4, "max_delete_ratio": 0.5}, True),
        (5, 5, {"max_delete": 5, "max_delete_ratio": 0.4999}, True),
        (1_000, 9_000, {}, False),
        (1_001, 9_009, {"max_delete_ratio": 1.0}, True),
        (1, 9, {"max_delete": 0}, True),
    ],
)
def test_deletions_are_allowed_up_to_both_limits(
    tmp_path: Path, gone: int, stay: int, limits: dict[str, Any], refused: bool
) -> None:
    assert bool(deleting(tmp_path, gone, stay, **limits).refusals()) == refused


def test_a_refusal_has_the_numbers_and_what_to_run_instead(tmp_path: Path) -> None:
    (reason,) = deleting(tmp_path, 1, 2).refusals()
    assert "would delete 1 of 3 pictures of memory://side/ (33.3%)" in reason
    assert "Allowed are 1,000 (max_delete) and 10.0% (max_delete_ratio)" in reason
    assert "duplicate_stores.txt" in reason
    assert '{"max_delete": 1, "max_delete_ratio": 0.3334}' in reason


@example(gone=1, stay=0, superseded=3)
@given(gone=st.integers(1, 40), stay=st.integers(0, 40), superseded=st.integers(0, 3))
def test_what_a_refusal_proposes_is_enough_and_may_be_given(
    tmp_path_factory: pytest.TempPathFactory, gone: int, stay: int, superseded: int
) -> None:
    keep = [f"a/photos/__w__/{number}.jpg" for number in range(stay)]
    older = [f"a/photos/__w-{width}__/x.jpg" for width in range(superseded)]
    go = [f"b/photos/__w__/{number}.jpg" for number in range(gone)]
    source = [f"stores/a/photos/{number}.jpg" for number in range(stay)]
    sides = side(*entries(*source, "stores/z/photos/1.jpg")), side(*entries(*keep, *older, *go))
    folder = tmp_path_factory.mktemp("plan")
    refused = plan_of(*sides, folder, **SHOP, max_delete=0, max_delete_ratio=0.0).refusals()
    proposed = json.loads(re.findall(r"\{.*\}", refused[0])[0])
    assert 0 <= proposed["max_delete_ratio"] <= 1
    assert plan_of(*sides, folder, **SHOP, **proposed).refusals() == []


@pytest.mark.parametrize(
    "rules", [{"mapping": "identity"}, {"mapping": "width_folders", "compare": "size"}]
)
def test_the_ladder_needs_its_mapping_and_comparison(tmp_path: Path, rules: Any) -> None:
    with pytest.raises(PlanRefused, match="set mapping to width_folders and compare to newer"):
        SyncPlan(side(), side(), SyncRules(transform="photo_ladder", **rules), tmp_path)


def test_the_ladder_takes_photos_and_menus_only(tmp_path: Path) -> None:
    source = side(*entries("stores/a/menus/1.jpg", "stores/a/films/1.jpg"))
    rules = {"transform": "photo_ladder", "mapping": "width_folders"}
    plan = plan_of(source, side(), tmp_path, **rules)
    assert names(plan) == {"new": ["a/menus/1.jpg"], "rejected": ["stores/a/films/1.jpg"]}
    assert next(plan.transfers())["target"] is None  # the ladder names it by its widths


# Content, on real servers


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def bucket(proxy: FaultProxy, new_bucket: Callable[[str], str]) -> Bucket:
    return Bucket(new_bucket("plan"), once(proxy.url))


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    (tmp_path / "drive").mkdir()
    for name in "abc":
        (tmp_path / "drive" / name).write_bytes(b"picture")
    return tmp_path / "drive"


@pytest.mark.parametrize("rule", ["etag", "checksum"])
def test_another_content_of_the_same_size_is_found_without_reading_objects(
    tmp_path: Path, drive: Path, bucket: Bucket, proxy: FaultProxy, rule: str
) -> None:
    bucket.write("to/a", b"picture", "image/jpeg")
    bucket.write("to/b", b"PICTURE", "image/jpeg")
    plan = plan_of(LocalSide(drive), S3Side(bucket, "to/"), tmp_path, compare=rule)
    assert names(plan) == {"unchanged": ["a"], "modified": ["b"], "new": ["c"]}
    assert proxy.requests.count("GetObject") == 0


@pytest.mark.parametrize("fault", [status(404), denied(), corrupt_response(2)])
def test_what_cannot_be_compared_is_planned_and_left_to_fail_alone(
    tmp_path: Path, drive: Path, bucket: Bucket, proxy: FaultProxy, fault: Any
) -> None:
    where = {"Bucket": bucket.name, "Body": b"picture", "ServerSideEncryption": "aws:kms"}
    for key in "abc":
        bucket.client.put_object(Key=key, **where)
    with proxy.fault("GetObject", fault, key="b"):
        plan = plan_of(LocalSide(drive), S3Side(bucket, ""), tmp_path, compare="checksum")
    assert names(plan) == {"unchanged": ["a", "c"], "modified": ["b"]}


def test_a_server_that_breaks_during_the_comparison_ends_the_plan(
    tmp_path: Path, drive: Path, bucket: Bucket, proxy: FaultProxy
) -> None:
    bucket.write("b", b"picture", "image/jpeg")
    with (
        proxy.fault("HeadObject", status(503)),
        pytest.raises(InfrastructureError, match=f"s3://{bucket.name}/b"),
    ):
        plan_of(LocalSide(drive), S3Side(bucket, ""), tmp_path, compare="checksum")


def test_an_unordered_server_gives_the_same_plan(
    tmp_path: Path, bucket: Bucket, proxy: FaultProxy
) -> None:
    for key in ("in/a", "in/b", "in/c", "to/b", "to/d"):
        bucket.write(key, b"picture", "image/jpeg")
    with proxy.fault("ListObjectsV2", unsorted()):
        plan = plan_of(S3Side(bucket, "in/"), S3Side(bucket, "to/"), tmp_path)
    assert names(plan) == {"new": ["a", "c"], "unchanged": ["b"], "duplicate": ["d"]}
