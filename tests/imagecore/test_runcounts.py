"""Live counts are those of the outcomes on record, and nothing is read twice to know them."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecore import runcounts
from imagecore.errors import InfrastructureError
from imagecore.outcome import OutcomeLog, State, read_outcomes
from imagecore.runcounts import LiveCounts
from imagecore.runrecords import planned_batches
from tests.imagecore.runs import PLAN, CountingStore, outcome, planned

FOLDERS = {batch: f"{PLAN}/outcomes/{batch}" for batch in ("0000", "0001", "removals-0000")}


def expected(store: CountingStore, plan: dict[str, Any]) -> dict[str, int]:
    """What `read_outcomes` says of all batches, in one dictionary."""
    states: Counter[State] = Counter()
    for batch in planned_batches(plan):
        recorded = read_outcomes(store, f"{PLAN}/outcomes/{batch.batch_id}")[0]
        states.update(each.state for each in recorded.values())
    return {state.value: states[state] for state in State}


def ends(counts: dict[str, int]) -> dict[str, int]:
    return {state.value: counts[state.value] for state in State}


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["0000", "0001", "removals-0000"]),
        st.integers(0, 1),
        st.sampled_from(["record", "record", "finish", "open", "look"]),
        st.sampled_from("abc"),
        st.sampled_from(State),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(ACTS)
def test_whatever_tries_do_the_counts_are_those_on_record(
    acts: list[tuple[str, int, str, str, State]],
) -> None:
    store, live = CountingStore(), LiveCounts()
    plan = planned(store, "abcdef", "z")
    logs: dict[tuple[str, int], OutcomeLog] = {}
    for batch, who, act, key, state in acts:
        if (batch, who) not in logs or act == "open":
            logs[batch, who] = OutcomeLog(store, FOLDERS[batch])
        if act == "record":
            logs[batch, who].record(outcome(key, state))
        elif act == "finish":
            logs.pop((batch, who)).finish()
        elif act == "look":
            assert ends(live.counts(store, PLAN, plan)) == expected(store, plan)
    assert ends(live.counts(store, PLAN, plan)) == expected(store, plan)
    assert live.counts(store, PLAN, plan) == LiveCounts().counts(store, PLAN, plan)


def test_batches_are_counted_as_they_begin_and_finish() -> None:
    store, live = CountingStore(), LiveCounts()
    plan = planned(store, "abcdef", "z")
    none = {"done": 0, "skipped": 0, "failed": 0, "quarantined": 0, "planned": 7, "batches": 3}
    assert live.counts(store, PLAN, plan) == {**none, "begun": 0, "finished": 0}
    log = OutcomeLog(store, FOLDERS["0001"])
    log.record(outcome("d", State.FAILED))
    assert live.counts(store, PLAN, plan) == {**none, "failed": 1, "begun": 1, "finished": 0}
    log.finish()
    assert live.counts(store, PLAN, plan) == {**none, "failed": 1, "begun": 1, "finished": 1}
    again = OutcomeLog(store, FOLDERS["0001"])
    again.record(outcome("d", State.SKIPPED))
    assert live.counts(store, PLAN, plan) == {**none, "skipped": 1, "begun": 1, "finished": 0}
    assert live.counts(store, PLAN, plan, "verified") == {**none, "begun": 0, "finished": 0}


def test_outcomes_of_a_batch_that_was_not_planned_do_not_count() -> None:
    store, live = CountingStore(), LiveCounts()
    plan = planned(store, "abc")
    for batch in ("0000", "0009"):
        OutcomeLog(store, f"{PLAN}/outcomes/{batch}").record(outcome("a"))
    assert live.counts(store, PLAN, plan)["done"] == 1


def test_a_file_is_read_once_and_a_call_lists_once() -> None:
    store, live = CountingStore(), LiveCounts()
    plan = planned(store, "abcdef")
    first, second = OutcomeLog(store, FOLDERS["0000"]), OutcomeLog(store, FOLDERS["0001"])
    store.reads.clear()
    for n, key in enumerate("abc", 1):
        first.record(outcome(key))
        second.record(outcome(key))
        live.counts(store, PLAN, plan)
        live.counts(store, PLAN, plan)
        assert store.reads.pop("list") == 2
        assert len(store.reads) == 2 * n
    second.finish()
    first.finish()
    assert live.counts(store, PLAN, plan)["done"] == 6
    assert live.counts(store, PLAN, plan)["finished"] == 2
    assert len(store.reads) == 2 * 3 + 2 + 1
    del store.reads["list"]
    assert set(store.reads.values()) == {1}


def test_of_a_finished_batch_only_the_counts_are_kept() -> None:
    store, live = CountingStore(), LiveCounts()
    plan = planned(store, "abcdef")
    for batch in ("0000", "0001"):
        log = OutcomeLog(store, FOLDERS[batch])
        log.record(outcome("a"))
    log.finish()
    live.counts(store, PLAN, plan)
    (run,) = live._runs.values()
    assert {name: len(batch._read) for name, batch in run.batches.items()} == {"0000": 1, "0001": 0}


def test_only_the_runs_asked_for_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runcounts, "RUNS", 2)
    store, live = CountingStore(), LiveCounts()
    plan = planned(store, "abc")
    for step in "xyz":
        OutcomeLog(store, f"{PLAN}/{step}/0000").record(outcome("a"))
    for step in "xyxzxy":
        assert live.counts(store, PLAN, plan, step)["done"] == 1
        assert len(live._runs) <= 2
    reads = {path.split("/")[3]: n for path, n in store.reads.items() if "/0000/" in path}
    assert reads == {"x": 1, "y": 2, "z": 1}


def test_a_try_that_finishes_while_it_is_counted_is_counted_whole() -> None:
    store, live = CountingStore(), LiveCounts()
    plan = planned(store, "abc")
    log = OutcomeLog(store, FOLDERS["0000"])
    for key in "abc":
        log.record(outcome(key))
    store.before["get"] = log.finish
    counts = live.counts(store, PLAN, plan)
    assert (counts["done"], counts["finished"]) == (3, 1)


def test_outcomes_that_never_hold_still_are_an_error_that_says_so() -> None:
    store, live = CountingStore(), LiveCounts()
    plan = planned(store, "abc")

    def vanish() -> None:
        log = OutcomeLog(store, FOLDERS["0000"])
        log.record(outcome("a"))
        store.delete([path for path in store.paths(FOLDERS["0000"])])
        OutcomeLog(store, FOLDERS["0000"]).record(outcome("a"))
        store.before["get"] = vanish

    OutcomeLog(store, FOLDERS["0000"]).record(outcome("a"))
    store.before["get"] = vanish
    with pytest.raises(InfrastructureError, match=r"outcomes change while they are read"):
        live.counts(store, PLAN, plan)


def test_many_who_ask_at_once_read_each_file_once() -> None:
    store, live = CountingStore(), LiveCounts()
    plan = planned(store, (f"{n:03d}" for n in range(90)))
    for batch in planned_batches(plan):
        OutcomeLog(store, f"{PLAN}/outcomes/{batch.batch_id}").record(outcome("a"))
    store.reads.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(live.counts, store, PLAN, plan) for _ in range(24)]
    assert {each.result()["done"] for each in asked} == {30}
    assert store.reads.pop("list") == 24
    assert set(store.reads.values()) == {1}
