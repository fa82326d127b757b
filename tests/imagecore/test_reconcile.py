"""What events lost is found by listings: all of it, nothing else, and once."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagecore import extsort
from imagecore.diff import SECOND
from imagecore.listing import Listed
from imagecore.notes import (
    looks_like_picture,
    picture_or_refusal,
    quarantine_key,
    target_key,
)
from imagecore.reconcile import (
    CLASH,
    NO_PYRAMID,
    OLDER,
    Reconciliation,
    current_key,
    disjoint,
    listing,
)
from imagecore.s3 import Bucket
from tests.objects import put

Times = dict[str, int]
"""When each object of a bucket was written, in seconds since 1970."""

LONG = "digital/" + "x" * 1_010 + ".jpg"
DOTS = "digital/../secret.jpg"


def lists(times: Times) -> Callable[[str], Iterator[Listed]]:
    """The listing of a made-up bucket."""
    return lambda prefix: (
        Listed(key, 1, times[key] * SECOND, "") for key in sorted(times) if key.startswith(prefix)
    )


def reconciled(
    folder: Path,
    source: Times,
    image: Times,
    *,
    quarantined: Times | None = None,
    current: Times | None = None,
    prefixes: tuple[str, ...] = ("",),
    makers: dict[str, str] | None = None,
    same: bool = False,
) -> dict[str, str]:
    """Why each picture is found. `quarantined` and `current` go by the pictures' keys, `makers`
    by pyramids'."""
    process = {quarantine_key({"key": key}): at for key, at in (quarantined or {}).items()}
    process |= {current_key({"key": key}): at for key, at in (current or {}).items()}
    joined = Reconciliation(
        lists(source),
        lists(source if same else image),
        lists(process),
        same=same,
        makes=lambda target, key: (makers or {}).get(target) == key,
        folder=folder,
    )
    found = list(joined.lost(prefixes))
    assert len({item["key"] for item, _ in found}) == len(found)
    assert all(item == picture_or_refusal(item["key"]) for item, _ in found)
    return {item["key"]: why for item, why in found}


def test_a_picture_without_a_pyramid_is_found(tmp_path: Path) -> None:
    source = {"digital/a.jpg": 5, "digital/b.PNG": 5, "digital/c.jpg": 5}
    found = reconciled(tmp_path, source, {"digital/b.tif": 9, "digital/elsewhere/c.tif": 9})
    assert found == {"digital/a.jpg": NO_PYRAMID, "digital/c.jpg": NO_PYRAMID}


@pytest.mark.parametrize(("made", "found"), [(4, {"a.jpg": OLDER}), (5, {}), (6, {})])
def test_a_pyramid_is_too_old_only_when_it_is_older(
    tmp_path: Path, made: int, found: dict[str, str]
) -> None:
    assert reconciled(tmp_path, {"a.jpg": 5}, {"a.tif": made}) == found


def test_times_are_compared_at_whole_seconds(tmp_path: Path) -> None:
    source = [Listed("a.jpg", 1, 5 * SECOND + 900, "")]
    image = [Listed("a.tif", 1, 5 * SECOND + 100, "")]
    joined = Reconciliation(
        lambda _: source, lambda _: image, lambda _: (), same=False, makes=never, folder=tmp_path
    )
    assert list(joined.lost([""])) == []


def never(target: str, key: str) -> bool:
    return False


@pytest.mark.parametrize("key", ["digital/a.jpg", LONG, DOTS, "digital/ü 図.jpg"])
@pytest.mark.parametrize(("since", "is_found"), [(4, True), (5, False), (6, False)])
def test_what_is_in_quarantine_is_found_when_its_source_is_newer(
    tmp_path: Path, key: str, since: int, is_found: bool
) -> None:
    found = reconciled(tmp_path, {key: 5}, {}, quarantined={key: since})
    assert found == ({key: NO_PYRAMID} if is_found else {})


def test_a_key_that_is_refused_is_found_with_its_refusal(tmp_path: Path) -> None:
    assert reconciled(tmp_path, {DOTS: 5}, {}) == {DOTS: NO_PYRAMID}
    assert "refused" in picture_or_refusal(DOTS)


def test_what_was_uploaded_again_unchanged_is_not_found_every_day(tmp_path: Path) -> None:
    source, image = {"a.jpg": 5, "b.jpg": 5, "c.jpg": 5}, {"a.tif": 1, "b.tif": 1}
    found = reconciled(tmp_path, source, image, current={"a.jpg": 5, "b.jpg": 4, "c.jpg": 9})
    assert found == {"b.jpg": OLDER, "c.jpg": NO_PYRAMID}


# Several pictures that would become one pyramid

CLASHING = {"d/a.jpg": 5, "d/a.png": 5}


@pytest.mark.parametrize(
    ("source", "image", "quarantined", "makers", "found"),
    [
        pytest.param(
            CLASHING, {}, {}, {}, dict.fromkeys(CLASHING, NO_PYRAMID), id="all are new: all"
        ),
        pytest.param(CLASHING, {}, dict.fromkeys(CLASHING, 6), {}, {}, id="all in quarantine"),
        pytest.param(
            {"d/a.jpg": 5, "d/a.png": 8}, {"d/a.tif": 6}, {}, {"d/a.tif": "d/a.jpg"},
            {"d/a.png": OLDER}, id="the later one came after the pyramid",
        ),
        pytest.param(
            {"d/a.jpg": 2, "d/a.png": 3}, {"d/a.tif": 6}, {}, {"d/a.tif": "d/a.jpg"},
            {"d/a.png": CLASH}, id="the other came before the pyramid was made",
        ),
        pytest.param(
            {"d/a.jpg": 2, "d/a.png": 3}, {"d/a.tif": 6}, {"d/a.png": 7}, {},
            {}, id="the other is in quarantine",
        ),
        pytest.param(
            {"d/a.jpg": 2, "d/a.png": 3}, {"d/a.tif": 6}, {}, {},
            dict.fromkeys(CLASHING, CLASH), id="the pyramid is of neither",
        ),
        pytest.param(
            {"d/a.jpg": 9, "d/a.png": 3}, {"d/a.tif": 6}, {"d/a.png": 7}, {},
            {"d/a.jpg": OLDER}, id="the pyramid's own picture is replaced",
        ),
    ],
)  # fmt: skip
def test_of_pictures_that_clash_none_is_lost_and_none_found_for_ever(
    tmp_path: Path,
    source: Times,
    image: Times,
    quarantined: Times,
    makers: dict[str, str],
    found: dict[str, str],
) -> None:
    got = reconciled(tmp_path, source, image, quarantined=quarantined, makers=makers)
    assert got == found


def test_whose_pyramid_it_is_is_asked_for_clashes_only(tmp_path: Path) -> None:
    asked = []

    def makes(target: str, key: str) -> bool:
        asked.append((target, key))
        return key == "b.jpg"

    source = {"a.jpg": 1, "b.jpg": 1, "b.png": 1, "c.jpg": 9, "d.jpg": 1}
    image = {"a.tif": 5, "b.tif": 5, "c.tif": 5}
    joined = Reconciliation(
        lists(source), lists(image), lists({}), same=False, makes=makes, folder=tmp_path
    )
    assert [item["key"] for item, _ in joined.lost([""])] == ["b.png", "c.jpg", "d.jpg"]
    assert asked == [("b.tif", "b.jpg"), ("b.tif", "b.png")]


# What else lies there


def test_names_that_are_no_pictures_are_counted(tmp_path: Path) -> None:
    source = {"d/": 1, "d/list.xml": 1, "d/.hidden.jpg": 1, "d/noextension": 1, "d/a.jpg": 1}
    joined = Reconciliation(
        lists(source), lists({}), lists({}), same=False, makes=never, folder=tmp_path
    )
    assert [item["key"] for item, _ in joined.lost([""])] == ["d/a.jpg"]
    assert joined.counts == {"pictures": 1, "not pictures": 4}


def test_foreign_things_in_the_image_and_process_buckets_do_not_matter(tmp_path: Path) -> None:
    image = {"d/a.tif": 9, "d/a.jpg": 9, "d/b.tif/": 9, "d/zz.tif": 9, "other/x.tif": 9}
    process = {"quarantine/": 9, "quarantine/b.jpg.json": 9, "quarantine/d/c.jpg": 9}
    joined = Reconciliation(
        lists({"d/a.jpg": 5, "d/b.jpg": 5, "d/c.jpg": 5}),
        lists(image),
        lists(process),
        same=False,
        makes=never,
        folder=tmp_path,
    )
    assert [item["key"] for item, _ in joined.lost(["d/"])] == ["d/b.jpg", "d/c.jpg"]


@pytest.mark.parametrize("note", ["rbsc/d/a.jpg.json", "rbsc/a.json"])
def test_a_picture_whose_note_in_quarantine_is_unreadable_is_refused(
    tmp_path: Path, note: str
) -> None:
    def refusals(*process: str) -> dict[str, str | None]:
        joined = Reconciliation(
            lists({"d/a.jpg": 5, "d/b.jpg": 5}),
            lists({}),
            lists(dict.fromkeys(process, 9)),
            same=False,
            makes=never,
            folder=tmp_path,
        )
        return {item["key"]: item.get("refused") for item, _ in joined.lost([""])}

    refused = refusals(f"quarantine/{note}", f"quarantine/{note}.json")
    assert refused["d/b.jpg"] is None
    assert f"mend quarantine/{note}, and move it to {note}" in refused["d/a.jpg"]
    for alone in (f"quarantine/{note}", f"quarantine/{note}.json"):  # moved; a picture's own
        assert refusals(alone) == {"d/a.jpg": None, "d/b.jpg": None}


def test_in_one_bucket_pyramids_are_no_sources_and_pictures_no_pyramids(tmp_path: Path) -> None:
    both = {"d/a.jpg": 5, "d/a.tif": 6, "d/b.jpg": 5, "d/scan.tif": 5, "d/c.TIF": 5, "d/c.tif": 4}
    found = reconciled(tmp_path, both, {}, same=True)
    assert found == {"d/b.jpg": NO_PYRAMID, "d/c.TIF": OLDER}


def test_in_two_buckets_a_tif_has_a_pyramid_of_its_own_name(tmp_path: Path) -> None:
    assert reconciled(tmp_path, {"scan.tif": 5}, {"scan.tif": 6}) == {}
    assert reconciled(tmp_path, {"scan.tif": 5}, {}) == {"scan.tif": NO_PYRAMID}


@pytest.mark.parametrize(
    "prefixes", [("d/",), ("d/a.j", "d/b"), ("d/b", "d/", "d/"), ("d/a", "d/b"), ("",)]
)
def test_pyramids_are_looked_for_below_the_same_prefixes(
    tmp_path: Path, prefixes: tuple[str, ...]
) -> None:
    source, image = {"d/a.jpg": 5, "d/b.jpg": 5}, {"d/a.tif": 9}
    assert reconciled(tmp_path, source, image, prefixes=prefixes) == {"d/b.jpg": NO_PYRAMID}


def test_no_prefix_lists_nothing(tmp_path: Path) -> None:
    assert reconciled(tmp_path, {"d/a.jpg": 5}, {}, prefixes=()) == {}


@given(st.lists(st.text("ab/", max_size=4)), st.text("ab/", max_size=6))
def test_disjoint_prefixes_cover_each_name_that_any_covers_once(
    prefixes: list[str], name: str
) -> None:
    covering = [prefix for prefix in disjoint(prefixes) if name.startswith(prefix)]
    assert len(covering) == any(name.startswith(prefix) for prefix in prefixes)


def test_an_image_bucket_that_is_not_listed_in_order_is_sorted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = {f"{number}.tif": 9 for number in range(20)}
    source = {f"{number}.jpg": 5 for number in range(22)}
    joined = Reconciliation(
        lists(source),
        lambda prefix: reversed([*lists(image)(prefix)]),
        lists({}),
        same=False,
        makes=never,
        folder=tmp_path,
    )
    assert [item["key"] for item, _ in joined.lost([""])] == ["20.jpg", "21.jpg"]
    assert joined.counts["pictures"] == 22
    assert "listing again" in caplog.text


def test_a_bucket_lists_with_times_in_nanoseconds(
    s3_client: Any, new_bucket: Callable[[str], str]
) -> None:
    bucket = Bucket(new_bucket("source"), s3_client)
    put(bucket, "d/ü 図.jpg")
    put(bucket, "e/b.jpg")
    (found,) = listing(bucket)("d/")
    assert found.key == "d/ü 図.jpg"
    assert found.modified == int(bucket.head(found.key).modified.timestamp()) * SECOND


# Against a slow model

KEYS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "d/", "d/../", "e//"]),
    st.sampled_from(["a", "b", "a.b", ".h", "a b", "x" * 1_000]),
    st.sampled_from([".jpg", ".png", ".tif", ".TIF", ".xml", ""]),
)
TIMES = st.dictionaries(KEYS, st.integers(0, 4), max_size=12)


def model(
    source: Times, image: Times, quarantined: Times, current: Times, makers: dict[str, str]
) -> dict[str, str]:
    """As the documentation says it, picture by picture."""
    rivals: dict[str, list[str]] = {}
    for key in filter(looks_like_picture, source):
        if quarantined.get(key, -1) < source[key]:
            rivals.setdefault(target_key(picture_or_refusal(key)), []).append(key)
    found = {}
    for target, keys in rivals.items():
        made = image.get(target)
        why = {
            key: NO_PYRAMID if made is None else OLDER
            for key in keys
            if made is None or source[key] > max(made, current.get(key, -1))
        }
        if not why and len(keys) > 1:
            why = {key: CLASH for key in keys if makers.get(target) != key}
        found |= why
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sorted")


@example({"d/a.jpg": 2, "d/a.png": 1}, {"d/a.tif": 2}, {}, {}, {"d/a.tif": "d/a.jpg"}, 1)
@given(
    TIMES,
    st.dictionaries(KEYS | KEYS.map(lambda key: f"{key}.tif"), st.integers(0, 4), max_size=12),
    TIMES,
    TIMES,
    st.dictionaries(st.sampled_from(["a.tif", "d/a.tif", "d/b.tif"]), KEYS, max_size=3),
    st.integers(1, 2_000),
)
def test_it_finds_what_the_slow_model_finds(
    folder: Path,
    source: Times,
    image: Times,
    quarantined: Times,
    current: Times,
    makers: dict[str, str],
    run: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extsort, "SORT_BYTES", run)
        found = reconciled(
            folder, source, image, quarantined=quarantined, current=current, makers=makers
        )
    assert found == model(source, image, quarantined, current, makers)


@pytest.mark.parametrize("pyramids", [True, False], ids=["nothing lost", "everything lost"])
def test_memory_does_not_grow_with_the_number_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pyramids: bool
) -> None:
    monkeypatch.setattr(extsort, "SORT_BYTES", 200_000)
    monkeypatch.setattr(extsort, "BLOCK", 16)

    def many(extension: str, count: int) -> Callable[[str], Iterator[Listed]]:
        return lambda prefix: (
            Listed(f"{prefix}{number:08}.{extension}", 1, SECOND, "") for number in range(count)
        )

    joined = Reconciliation(
        many("jpg", 20_000),
        many("tif", 20_000 if pyramids else 0),
        lambda prefix: (),
        same=False,
        makes=never,
        folder=tmp_path,
    )
    tracemalloc.start()
    found = sum(1 for _ in joined.lost(["digital/"]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == (0 if pyramids else 20_000)
    assert peak < 1_000_000  # the keys of all of them alone would take 1,400,000
