"""The report: its sums are the manifest's, or it says what is missing and what is stray."""

import json
import tempfile
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from imagecore.errors import DiskFull, PlanRefused
from imagecore.manifest import Batch, Item, decode, write_manifest
from imagecore.outcome import Outcome, OutcomeLog, State
from imagecore.report import NAMED, Report, make_report, write_json
from imagecore.workstore import WorkStore

PLAN = "dag/run/plan-1"
KEYS = st.lists(
    st.text(st.characters() | st.sampled_from('"\\\n\0\ud800é'), min_size=1).filter(
        lambda key: json.loads(json.dumps(key)) == key
    ),
    max_size=60,
    unique=True,
)


def memory() -> WorkStore:
    return WorkStore("memory://", MemoryStore())


def plan(store: WorkStore, keys: list[str], size: int = 7) -> list[Batch]:
    items: list[Item] = [{"key": key, "path": f"to/{key}"} for key in keys]
    return write_manifest(items, store, f"{PLAN}/manifest.jsonl", lambda count: size)[1]


def keys_of(store: WorkStore, batch: Batch) -> list[str]:
    data = store.get(f"{PLAN}/manifest.jsonl", batch.offset, batch.length)
    return [item["key"] for item in decode(data, "x")]


def record(store: WorkStore, batch: Batch, outcomes: list[Outcome], finish: bool = True) -> None:
    log = OutcomeLog(store, f"{PLAN}/outcomes/{batch.batch_id}")
    for outcome in outcomes:
        log.record(outcome)
    if finish:
        log.finish()


def written(store: WorkStore, name: str) -> list[Item]:
    return decode(store.get(f"dag/run/{name}"), name)


ENDS = st.none() | st.sampled_from(State)


@settings(max_examples=80)
@given(KEYS, st.integers(1, 20), st.data())
def test_every_planned_item_is_counted_once_and_the_files_say_the_same(
    keys: list[str], size: int, data: st.DataObject
) -> None:
    store = memory()
    batches = plan(store, keys, size)
    ends: dict[str, State | None] = {}
    strays = 0
    for batch in batches:
        outcomes = []
        for key in keys_of(store, batch):
            ends[key] = data.draw(ENDS)
            if (state := ends[key]) is not None:
                outcomes.append(Outcome(key, state, "why", 0.25, "2026", {"bytes": 10}))
        for number in range(data.draw(st.integers(0, 2))):
            stray = f"never planned {batch.batch_id} {number}"
            if stray not in keys:
                strays += 1
                outcomes.append(stray_of(stray))
        record(store, batch, outcomes, finish=data.draw(st.booleans()))

    report = make_report(store, batches, "dag/run", PLAN)

    assert report.planned == len(keys)
    assert report.counts == Counter(state for state in ends.values() if state is not None)
    assert report.missing == sum(state is None for state in ends.values())
    assert report.counts.total() + report.missing == report.planned
    assert report.stray == strays
    assert report.complete == (not report.missing and not strays)
    assert report.seconds == 0.25 * report.counts.total()
    assert report.bytes == 10 * report.counts.total()

    order = [item["key"] for item in written_manifest(store)]
    assert [each["key"] for each in written(store, "outcomes.jsonl")] == [
        key for key in order if ends[key] is not None
    ]
    bad = [key for key in order if ends[key] not in (State.DONE, State.SKIPPED)]
    assert written(store, "failed.jsonl") == [{"key": key, "path": f"to/{key}"} for key in bad]
    assert len(report.problems) == min(len(bad), NAMED)
    assert [state for _, state, _ in report.problems] == [
        "missing" if (end := ends[key]) is None else end.value for key in bad[:NAMED]
    ]


def stray_of(key: str) -> Outcome:
    return Outcome(key, State.DONE, "", 5.0, "2026", {"bytes": 1_000})


def written_manifest(store: WorkStore) -> list[Item]:
    return decode(store.get(f"{PLAN}/manifest.jsonl"), "manifest")


def test_failed_jsonl_is_a_manifest_to_plan_from() -> None:
    store = memory()
    batches = plan(store, ["a", "b", "c", "d", "e"])
    record(
        store,
        batches[0],
        [
            Outcome("a", State.DONE),
            Outcome("b", State.FAILED, "denied"),
            Outcome("c", State.SKIPPED),
            Outcome("d", State.QUARANTINED, "truncated"),
        ],
    )
    report = make_report(store, batches, "dag/run", PLAN)
    failed = written(store, "failed.jsonl")
    assert [item["key"] for item in failed] == ["b", "d", "e"]
    again = write_manifest(failed, store, "dag/run-2/plan-1/manifest.jsonl", lambda count: 1)
    assert again[0].count == 3
    assert report.problems == [
        ("b", "failed", "denied"),
        ("d", "quarantined", "truncated"),
        ("e", "missing", "its task ended before the item had an outcome"),
    ]
    assert not report.complete


def test_the_outcome_of_an_item_counts_only_in_the_batch_it_was_planned_in() -> None:
    store = memory()
    batches = plan(store, ["a", "b"], size=1)
    record(store, batches[0], [Outcome("a", State.DONE), Outcome("b", State.DONE)])
    report = make_report(store, batches, "dag/run", PLAN)
    assert (report.counts[State.DONE], report.missing, report.stray) == (1, 1, 1)
    assert not report.complete


def test_only_the_first_problems_are_named_and_all_are_in_the_file() -> None:
    store = memory()
    batches = plan(store, [f"{n:04d}" for n in range(NAMED * 3)])
    report = make_report(store, batches, "dag/run", PLAN)
    assert [key for key, _, _ in report.problems] == [f"{n:04d}" for n in range(NAMED)]
    assert len(written(store, "failed.jsonl")) == report.missing == NAMED * 3


def test_a_run_that_planned_nothing_is_complete(work_store: WorkStore) -> None:
    report = make_report(work_store, plan(work_store, []), "dag/run", PLAN)
    assert report.complete
    assert report.planned == 0
    assert written(work_store, "outcomes.jsonl") == written(work_store, "failed.jsonl") == []


def test_a_manifest_changed_since_the_plan_is_not_reported_on() -> None:
    store = memory()
    batches = plan(store, ["a"])
    with pytest.raises(PlanRefused, match="not what was planned"):
        make_report(store, [replace(batches[0], sha256="0" * 64)], "dag/run", PLAN)
    assert store.paths("dag/run") == [f"{PLAN}/manifest.jsonl"]


def test_the_report_as_a_document_names_every_count_and_is_safe_to_open() -> None:
    store = memory()
    key = "line\nbreak\0.jpg"
    batches = plan(store, [key])
    record(store, batches[0], [Outcome(key, State.FAILED, "why", 1.23456, "2026")])
    report = make_report(store, batches, "dag/run", PLAN)
    write_json(store, "dag/run/report.json", report.as_json())
    written = store.get("dag/run/report.json")
    assert set(written) <= {10, *range(32, 127)}
    document = json.loads(written)
    at = document.pop("at")
    assert at.endswith("+00:00")
    assert document == {
        "planned": 1,
        "counts": {"done": 0, "skipped": 0, "failed": 1, "quarantined": 0},
        "missing": 0,
        "stray": 0,
        "seconds": 1.235,
        "bytes": 0,
        "problems": [{"key": key, "state": "failed", "reason": "why"}],
    }


def test_sums_that_do_not_agree_are_not_complete() -> None:
    assert not Report(planned=2, counts=Counter({State.DONE: 1})).complete
    assert not Report(planned=1, counts=Counter({State.DONE: 1}), stray=1).complete
    assert not Report(planned=1, counts=Counter({State.DONE: 1}), missing=1).complete
    assert Report(planned=1, counts=Counter({State.DONE: 1})).complete


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to write to")
def test_a_disk_that_fills_up_while_reporting_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = memory()
    batches = plan(store, ["a"])
    record(store, batches[0], [Outcome("a", State.DONE)])
    before = store.paths("dag/run")
    (tmp_path / "outcomes.jsonl").symlink_to("/dev/full")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda prefix: nullcontext(tmp_path))
    with pytest.raises(DiskFull, match=f"No space left in {tmp_path}.*TMPDIR"):
        make_report(store, batches, "dag/run", PLAN)
    assert store.paths("dag/run") == before
