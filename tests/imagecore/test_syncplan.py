"""The plan of a sync: what is taken, what is listed, what is refused, and what is left alone.

The recorded lists are those that the legacy scripts read and wrote. Where ours are meant to
differ, a test named `test_unlike_the_legacy_…` says how.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagecore import keymap
from imagecore.diff import SECOND
from imagecore.naming import NamingRule
from imagecore.s3 import Bucket
from imagecore.sides import LocalSide, S3Side
from imagecore.syncplan import LISTS, SyncPlan
from tests.imagecore.synctools import (
    ListedSide,
    entries,
    entry,
    lines,
    names,
    plan_of,
    recorded,
    side,
)

STORES = NamingRule("stores")
SHOP = {"mapping": "width_folders", "compare": "newer", "delete": True}


# The recorded runs


def test_the_recorded_buckets_give_the_recorded_lists(tmp_path: Path) -> None:
    source = side(*entries(*recorded("bucket_sync_hyve-rootwork_keys"), at=100))
    destination = side(*entries(*recorded("bucket_sync_hyve-stores_keys"), at=100))
    plan = plan_of(source, destination, tmp_path, **SHOP)
    assert lines(plan, "new") == recorded("bucket_sync_new")
    assert lines(plan, "modified") == recorded("bucket_sync_modified")
    assert lines(plan, "duplicate_stores") == recorded("bucket_sync_duplicates_stores")
    assert lines(plan, "error") == []
    assert plan.counts.unchanged.count == 7_858
    assert plan.counts.foreign.count == 0
    assert plan.refusals() == []


def upload(drive: Path, bucket: S3Side, folder: Path, *keys: str, **rules: Any) -> SyncPlan:
    """The plan of uploading files of these names."""
    for key in keys:
        (drive / key).parent.mkdir(parents=True, exist_ok=True)
        (drive / key).touch()
    folder.mkdir(exist_ok=True)
    rules = {"compare": "size", "naming": STORES, "ignore": ("*.ini",), **rules}
    return plan_of(LocalSide(drive), bucket, folder, **rules)


@pytest.fixture
def empty(new_bucket: Callable[[str], str], s3_client: Any) -> S3Side:
    return S3Side(Bucket(new_bucket("stores"), s3_client), "")


def test_the_recorded_drive_gives_the_recorded_success_and_error_lists(
    tmp_path: Path, empty: S3Side
) -> None:
    plan = upload(tmp_path / "drive", empty, tmp_path, *recorded("photo_upload_trimmed"))
    assert lines(plan, "success") == sorted(recorded("photo_upload_success"))
    errors = [line.split("\t") for line in lines(plan, "error")]
    assert [key for key, _ in errors] == recorded("photo_upload_error")
    jpg, other = "its extension is not .jpg (lower case counts)", "its extension is not .jpg"
    assert errors == [
        ["stores/1092-sparkle-spa-salon/photos/DSC02614.JPG", jpg],
        ["stores/1412-velvete-lounge/menus/IMAG0007.JPG", jpg],
        ["stores/1412-velvete-lounge/menus/IMAG0008.JPG", jpg],
        ["stores/1412-velvete-lounge/menus/IMAG0009.JPG", jpg],
        ["stores/1412-velvete-lounge/menus/IMAG0010.JPG", jpg],
        ["stores/1412-velvete-lounge/menus/IMAG0011.JPG", jpg],
        ["stores/2153-lounge/menus/men menu card.xlsx", other],
        ["stores/2153-lounge/menus/new ladies menu card.xlsx", other],
    ]


def test_unlike_the_legacy_the_list_of_duplicates_has_the_name_of_the_readme() -> None:
    assert "duplicate_stores" in LISTS
    assert "duplicates_stores" not in LISTS


def test_unlike_the_legacy_success_is_in_the_order_of_keys_not_of_the_drive(
    tmp_path: Path, empty: S3Side
) -> None:
    keys = recorded("photo_upload_success")[32:35]
    assert keys != sorted(keys)
    assert lines(upload(tmp_path / "drive", empty, tmp_path, *keys), "success") == sorted(keys)


def test_unlike_the_legacy_an_error_has_its_reason(tmp_path: Path, empty: S3Side) -> None:
    plan = upload(tmp_path / "drive", empty, tmp_path, "stores/a/photos/1.JPG")
    assert lines(plan, "error") == [
        "stores/a/photos/1.JPG\tits extension is not .jpg (lower case counts)"
    ]


def test_unlike_the_legacy_every_list_is_written_again(tmp_path: Path, empty: S3Side) -> None:
    for name in LISTS:
        (tmp_path / f"{name}.txt").write_text("of yesterday\n")
    plan = upload(tmp_path / "drive", empty, tmp_path, "stores/a/photos/1.jpg")
    assert lines(plan, "error") == lines(plan, "duplicate_stores") == []
    assert set(plan.files()) == {f"{name}.txt" for name in LISTS}


def test_unlike_the_legacy_a_picture_without_widths_has_no_folder_that_is_not_there(
    tmp_path: Path,
) -> None:
    """It listed `a/photos/w__/1.jpg` of `__w-__`, and the picture stayed for ever."""
    destination = side(*entries("a/photos/__w__/1.jpg", "b/photos/__w-200-400__/1.jpg"))
    plan = plan_of(side(entry("stores/c/photos/1.jpg")), destination, tmp_path, **SHOP)
    assert lines(plan, "duplicate_stores") == [
        "a/photos/__w__/1.jpg",
        "b/photos/__w-200-400__/1.jpg",
        "b/photos/w200/1.jpg",
        "b/photos/w400/1.jpg",
    ]


def test_unlike_the_legacy_chains_and_stores_are_two(tmp_path: Path) -> None:
    source = side(*entries("stores/a/photos/1.jpg", "chains/a/photos/1.jpg"))
    plan = plan_of(source, side(entry("a/photos/__w__/1.jpg")), tmp_path, **SHOP)
    assert lines(plan, "new") == ["chains/a/photos/1.jpg"]
    assert names(plan)["unchanged"] == ["a/photos/1.jpg"]


def test_unlike_the_legacy_what_has_no_place_is_listed(tmp_path: Path) -> None:
    """It took whatever held `.jpg` or `.png`, and passed over everything else in silence."""
    source = side(*entries("stores/a/photos/1.jpg", "stores/a.jpg", "readme.txt"))
    plan = plan_of(source, side(), tmp_path, **SHOP)
    assert lines(plan, "new") == ["a/photos/1.jpg"]
    reason = "the mapping width_folders has no place for it"
    assert lines(plan, "error") == [f"readme.txt\t{reason}", f"stores/a.jpg\t{reason}"]


@pytest.mark.parametrize("at", [5, 5.999])
def test_the_readme_s_rule_an_equal_second_is_not_newer(tmp_path: Path, at: float) -> None:
    source, destination = entry("a.jpg", at=at), entry("a.jpg", at=5)
    assert names(plan_of(side(source), side(destination), tmp_path)) == {"unchanged": ["a.jpg"]}


def test_ini_files_are_no_candidates(tmp_path: Path, empty: S3Side) -> None:
    keys = ["stores/a/photos/1.jpg", "stores/a/photos/desktop.ini", "x.ini/y.jpg"]
    plan = upload(tmp_path / "drive", empty, tmp_path, *keys)
    assert names(plan) == {"new": [keys[0]], "rejected": [keys[2]]}


# Lists and items


def test_each_list_holds_what_its_name_says(tmp_path: Path) -> None:
    source = side(
        entry("stores/a/photos/1.jpg"),
        entry("stores/a/photos/2.jpg", size=7),
        entry("stores/a/photos/3.jpg"),
        entry("stores/a/photos/x.jpg"),
    )
    destination = side(*entries(*(f"stores/a/photos/{number}.jpg" for number in (2, 3, 4))))
    plan = plan_of(source, destination, tmp_path, compare="size", naming=STORES, delete=True)
    here = "stores/a/photos"
    assert {name: lines(plan, name) for name in LISTS} == {
        "new": [f"{here}/1.jpg"],
        "modified": [f"{here}/2.jpg"],
        "duplicate_stores": [f"{here}/4.jpg"],
        "success": [f"{here}/1.jpg", f"{here}/2.jpg"],
        "error": [f"{here}/x.jpg\tits name is not a number"],
        "combined": [
            f"+ {here}/1.jpg",
            f"* {here}/2.jpg",
            f"= {here}/3.jpg",
            f"- {here}/4.jpg",
            f"! {here}/x.jpg",
        ],
    }
    counts = plan.summary()
    assert [counts[name] for name in ("new", "modified", "unchanged", "duplicate")] == [
        {"count": 1, "bytes": 1},
        {"count": 1, "bytes": 7},
        {"count": 1, "bytes": 1},
        {"count": 1, "bytes": 1},
    ]
    assert (counts["accepted"], counts["existing"], counts["rejected"]["count"]) == (3, 3, 1)


def test_a_name_with_line_breaks_is_one_line_of_every_list(tmp_path: Path) -> None:
    awkward = "a\n+ b\tc\r\x85\u2028.jpg"
    shown = r"a\n+ b\tc\r\x85\u2028.jpg"
    source = ListedSide([entry(awkward)], rejects=((f"x{awkward}", "why"),))
    plan = plan_of(source, side(entry(f"z{awkward}")), tmp_path, delete=True)
    assert lines(plan, "new") == lines(plan, "success") == [shown]
    assert lines(plan, "duplicate_stores") == [f"z{shown}"]
    assert lines(plan, "error") == [f"x{shown}\twhy"]
    assert lines(plan, "combined") == [f"! x{shown}", f"+ {shown}", f"- z{shown}"]
    assert next(plan.transfers())["source"]["key"] == awkward


def test_two_keys_of_one_name_are_one_picture_and_a_reason_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class IgnoringCase(keymap.WidthFolders):
        def name(self, source_key: str) -> str | None:
            return source_key.lower()

    monkeypatch.setitem(keymap.KEY_MAPS, "ignoring case", IgnoringCase())
    source = side(entry("A\n.jpg", at=2), entry("a\n.jpg", at=1))
    plan = plan_of(source, side(), tmp_path, mapping="ignoring case")
    assert lines(plan, "new") == [r"a\n.jpg"]
    assert lines(plan, "error") == [
        r"a\n.jpg" + "\t" + r"it would become the same picture as A\n.jpg"
    ]


def test_the_lists_are_utf_8_wherever_they_are_written(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.imagecore.synctools import *; "
        "plan_of(side(entry('caf\\u00e9.jpg')), side(), Path(sys.argv[1]))"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    root = Path(__file__).parents[2]
    path = os.pathsep.join([f"{root}/include", str(root)])
    subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        check=True,
        env={**os.environ, **ascii_only, "PYTHONPATH": path},
    )
    assert (tmp_path / "new.txt").read_text("utf-8") == "caf\u00e9.jpg\n"


def test_items_say_what_was_seen_on_both_sides(tmp_path: Path) -> None:
    source = side(entry("a", size=3, at=9, etag="new"), entry("b"), prefix="from/")
    destination = side(entry("a", etag="old"), entry("c", etag="gone"), prefix="to/")
    plan = plan_of(source, destination, tmp_path, delete=True)
    changed, new = plan.transfers()
    assert changed == {
        "key": "a",
        "name": "a",
        "action": "modified",
        "source": {"key": "from/a", "size": 3, "etag": "new", "modified": 9 * SECOND},
        "target": "to/a",
        "before": {"key": "to/a", "etag": "old", "size": 1},
    }
    assert (new["action"], new["target"], new["before"]) == ("new", "to/b", None)
    assert list(plan.removals()) == [
        {
            "key": "to/c",
            "name": "c",
            "action": "duplicate",
            "absent": "from/c",
            "remove": [{"key": "to/c", "etag": "gone"}],
        }
    ]


def test_without_delete_duplicates_are_listed_and_none_is_removed(tmp_path: Path) -> None:
    plan = plan_of(side(entry("a")), side(*entries("b", "c")), tmp_path)
    assert lines(plan, "duplicate_stores") == ["b", "c"]
    assert list(plan.removals()) == []
    assert plan.refusals() == []
