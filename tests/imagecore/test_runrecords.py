"""A run's records: its newest plan, an item by its key, and rows while it is at work."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecore import runrecords, runrows
from imagecore.manifest import read_batch
from imagecore.outcome import OutcomeLog, State
from imagecore.report import make_report, write_json
from imagecore.runrecords import (
    find_item,
    find_outcome,
    latest_plan,
    live_rows,
    planned_batches,
)
from imagecore.runrows import Page, RecordsDamaged, Wanted, looks
from imagecore.workstore import WorkStore
from tests.imagecore.runs import PLAN, RUN, CountingStore, outcome, planned

KEYS = st.lists(
    st.text(
        st.sampled_from('ab! "\\/\n\0\x7f#é😀\ud800') | st.characters(), min_size=1, max_size=6
    ).filter(lambda key: json.loads(json.dumps(key)) == key),
    max_size=40,
    unique=True,
)


def test_the_newest_plan_is_the_one_planned_last(work_store: WorkStore) -> None:
    assert latest_plan(work_store, RUN) is None
    for name, at in [("plan-1-0000", "20"), ("plan-1-ffff", "30"), ("plan-2-aaaa", "10")]:
        write_json(work_store, f"{RUN}/{name}/plan.json", {"at": f"2026-01-01T00:00:{at}"})
    work_store.put(f"{RUN}/plan-3-bbbb/manifest.jsonl", b"")
    write_json(work_store, f"{RUN}/verify/plan.json", {"at": "2027"})
    write_json(work_store, f"{RUN}2/plan-1-eeee/plan.json", {"at": "2027"})
    assert latest_plan(work_store, RUN) == f"{RUN}/plan-1-ffff"
    assert latest_plan(work_store, f"{RUN}/verify") == f"{RUN}/plan-1-ffff", "a part has the run's"


def test_a_folder_whose_plan_is_not_written_yet_is_no_plan(work_store: WorkStore) -> None:
    work_store.put(f"{RUN}/plan-1-cafe/manifest.jsonl", b"")
    assert latest_plan(work_store, RUN) is None


# Items


@settings(max_examples=200)
@given(KEYS, st.integers(1, 9), st.sampled_from([1, 100]), st.data())
def test_every_item_is_found_and_no_other(
    keys: list[str], size: int, small: int, data: Any
) -> None:
    kept = data.draw(st.integers(0, len(keys)))
    removed, absent = keys[kept : kept + 10], keys[kept + 10 :]
    store = CountingStore()
    plan = planned(store, keys[:kept], removed, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runrecords, "_BLOCK", small)
        patch.setattr(runrecords, "_LOOK", small)
        for key in keys[: kept + 10]:
            found = find_item(store, PLAN, plan, key)
            assert found is not None
            item, batch = found
            assert item == {"key": key, "path": f"to/{key}"}
            name = "manifest" if key in keys[:kept] else "removals"
            assert item in read_batch(store, f"{PLAN}/{name}.jsonl", batch)
        for key in (*absent, "", *(f"{key}!" for key in keys), *(key[:-1] for key in keys)):
            if key not in keys[: kept + 10]:
                assert find_item(store, PLAN, plan, key) is None


def test_a_large_manifest_takes_few_and_small_reads() -> None:
    store = CountingStore()
    plan = planned(store, (f"photos/{n:06d}.jpg" for n in range(60_000)), size=100)
    whole = len(store.get(f"{PLAN}/manifest.jsonl"))
    store.reads.clear()
    store.sizes.clear()
    found = find_item(store, PLAN, plan, "photos/012345.jpg")
    assert found is not None
    assert (found[0]["key"], found[1].batch_id) == ("photos/012345.jpg", "0123")
    assert store.reads == {f"{PLAN}/manifest.jsonl": len(store.sizes)}
    assert len(store.sizes) <= 10
    assert sum(store.sizes) < whole / 20


@pytest.mark.parametrize("odd", [0, 1])
def test_long_lines_are_stepped_over(odd: int) -> None:
    store = CountingStore()
    keys = [letter * 200_000 if n % 2 else letter for n, letter in enumerate("abcdefgh", odd)]
    plan = planned(store, keys, size=3)
    assert [find_item(store, PLAN, plan, key)[0]["key"] for key in keys] == keys  # type: ignore[index]
    assert find_item(store, PLAN, plan, "bb") is None


def test_a_manifest_that_is_no_longer_what_was_planned_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runrows, "LINE_BYTES", 1 << 16)
    monkeypatch.setattr(runrecords, "LINE_BYTES", 1 << 16)
    store = CountingStore()
    plan = planned(store, (f"{n:06d}" for n in range(9_000)))
    for data in (b"short\n", b"x" * 400_000):
        store.put(f"{PLAN}/manifest.jsonl", data)
        with pytest.raises(RecordsDamaged, match=r"manifest.jsonl is damaged near byte"):
            find_item(store, PLAN, plan, "000001")
    store.delete([f"{PLAN}/manifest.jsonl"])
    with pytest.raises(FileNotFoundError):
        find_item(store, PLAN, plan, "000001")


def test_an_item_is_found_with_what_became_of_it_in_each_step() -> None:
    store = CountingStore()
    plan = planned(store, "abcdef", "xyz")
    for step, batch, key in [
        ("outcomes", "0001", "e"),
        ("outcomes", "removals-0000", "y"),
        ("verified", "0001", "e"),
    ]:
        OutcomeLog(store, f"{PLAN}/{step}/{batch}").record(outcome(key, reason=f"{step} {key}"))

    def reason(key: str, step: str = "outcomes") -> str | None:
        found = find_outcome(store, PLAN, plan, key, step)
        assert found is not None
        assert found[0]["key"] == key
        return found[1] and found[1].reason

    assert reason("e") == "outcomes e"
    assert reason("e", "verified") == "verified e"
    assert reason("y") == "outcomes y"
    assert reason("d") is None
    assert reason("y", "verified") is None
    assert find_outcome(store, PLAN, plan, "none") is None


# Rows of a run at work


def pages(store: WorkStore, plan: dict[str, Any], limit: int, **asked: Any) -> list[Page]:
    wanted, seconds = asked.pop("wanted", Wanted()), asked.pop("seconds", 60)
    found = [live_rows(store, PLAN, plan, wanted, None, limit, seconds, **asked)]
    while (cursor := found[-1].next) is not None:
        found.append(live_rows(store, PLAN, plan, wanted, cursor, limit, seconds, **asked))
    return found


def keys_of(found: list[Page]) -> list[str]:
    return [row["key"] for page in found for row in page.rows]


@given(KEYS, st.integers(1, 9), st.integers(1, 12), st.data())
def test_rows_of_a_run_at_work_are_those_its_report_will_have(
    keys: list[str], size: int, limit: int, data: Any
) -> None:
    store = CountingStore()
    removed = data.draw(st.integers(0, len(keys)))
    plan = planned(store, keys[removed:], keys[:removed], size)
    for batch in planned_batches(plan):
        log = OutcomeLog(store, f"{PLAN}/outcomes/{batch.batch_id}")
        path = f"{PLAN}/{batch.uri.rpartition('/')[2]}"
        ended = data.draw(st.lists(st.sampled_from([*State, None]), max_size=batch.count))
        for item, state in zip(read_batch(store, path, batch), reversed(ended), strict=False):
            if state:
                log.record(outcome(item["key"], state, state.value))
        if data.draw(st.booleans()):
            log.finish()
    wanted = Wanted(data.draw(st.sampled_from([frozenset(), frozenset(["done", "failed"])])))
    make_report(store, planned_batches(plan), RUN, PLAN)
    expected = [row for row in looks(store, f"{RUN}/outcomes.jsonl", wanted) if row]
    for seconds in (60, 0):
        found = pages(store, plan, limit, wanted=wanted, seconds=seconds)
        assert [row for page in found for row in page.rows] == expected
        assert all(len(page.rows) <= limit for page in found)
    assert all(type(row["state"]) is str for page in found for row in page.rows)


def at_work() -> tuple[CountingStore, dict[str, Any]]:
    """Three batches and one of removals; the second one's task has not begun."""
    store = CountingStore()
    plan = planned(store, "abcdefghi", "z")
    for batch, keys in [("0000", "cab"), ("0002", "ig"), ("removals-0000", "z")]:
        log = OutcomeLog(store, f"{PLAN}/outcomes/{batch}")
        for key in keys:
            log.record(outcome(key))
    OutcomeLog(store, f"{PLAN}/verified/0001").record(outcome("e"))
    return store, plan


def test_a_step_or_a_batch_alone_can_be_asked_for() -> None:
    store, plan = at_work()
    assert keys_of(pages(store, plan, 2)) == [*"abcgiz"]
    assert keys_of(pages(store, plan, 2, step="verified")) == ["e"]
    assert keys_of(pages(store, plan, 2, batch_id="0002")) == ["g", "i"]
    assert keys_of(pages(store, plan, 2, batch_id="0001")) == []
    assert keys_of(pages(store, plan, 2, step="nothing")) == []
    with pytest.raises(ValueError, match="has no batch '0009'"):
        pages(store, plan, 2, batch_id="0009")


def test_batches_that_have_not_begun_cost_nothing() -> None:
    store, plan = at_work()
    store.reads.clear()
    pages(store, plan, 100)
    assert store.reads["list"] == 3


def test_a_page_goes_on_in_the_middle_of_a_batch() -> None:
    store, plan = at_work()
    first = live_rows(store, PLAN, plan, Wanted(), None, 2, 60)
    assert (first.next, first.looked_at) == ("0:2", 2)
    second = live_rows(store, PLAN, plan, Wanted(), first.next, 2, 60)
    assert (keys_of([second]), second.next) == (["c", "g"], "2:1")


def test_a_page_whose_time_is_over_ends_where_it_is() -> None:
    store, plan = at_work()
    assert [page.next for page in pages(store, plan, 9, seconds=0)][:3] == ["0:1", "0:2", "0:3"]
    assert live_rows(store, PLAN, plan, Wanted(key="none"), None, 9, 0) == Page([], "0:1", 1)


@pytest.mark.parametrize(
    "cursor",
    ["", "0", "-1:0", "0:4", "1:1", "4:0", "0:999999999", "9999999999:0", "0:0:0", "0:0\n", "٠:٠"],
)
def test_a_cursor_that_is_no_place_in_the_run_is_refused(cursor: str) -> None:
    store, plan = at_work()
    with pytest.raises(ValueError, match="is no place in the run's outcomes"):
        live_rows(store, PLAN, plan, Wanted(), cursor, 2, 60)


def test_a_plan_of_nothing_has_no_rows() -> None:
    store = CountingStore()
    plan = planned(store, "")
    assert live_rows(store, PLAN, plan, Wanted(), None, 2, 60) == Page([], None, 0)
    assert find_item(store, PLAN, plan, "a") is None
    with pytest.raises(ValueError, match="no place"):
        live_rows(store, PLAN, plan, Wanted(), "0:0", 2, 60)
