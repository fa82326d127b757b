"""A batch: each item ends on its own, whatever happens to the others or to the process."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from threading import Event, Lock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from imagecore.batch import REASON_CHARACTERS, run_batch
from imagecore.errors import (
    DiskFull,
    ImageflowsError,
    InfrastructureError,
    ItemFailed,
    ItemRefused,
    PlanRefused,
    UnreadableImage,
)
from imagecore.manifest import Item
from imagecore.outcome import Outcome, OutcomeLog, Result, State, read_outcomes
from imagecore.workstore import WorkStore

FOLDER = "dag/run/plan-1/outcomes/0000"


def memory() -> WorkStore:
    return WorkStore("memory://", MemoryStore())


def items(count: int) -> list[Item]:
    return [{"key": f"{n:03d}.jpg"} for n in range(count)]


def run(
    store: WorkStore,
    batch: list[Item],
    process: Callable[[Item], Result],
    threads: int = 4,
    stop: Event | None = None,
    progress_seconds: float = 5.0,
) -> Counter[State]:
    return run_batch(
        batch,
        process,
        OutcomeLog(store, FOLDER),
        threads=threads,
        stop=stop or Event(),
        progress_seconds=progress_seconds,
    )


def outcomes(store: WorkStore) -> dict[str, Outcome]:
    return read_outcomes(store, FOLDER)[0]


def done(item: Item) -> Result:
    return Result()


RESULTS = st.lists(
    st.sampled_from(
        [
            Result(),
            Result(State.SKIPPED, "up to date"),
            Result(State.FAILED, "told so"),
            ItemRefused("bad"),
            UnreadableImage("truncated"),
            ItemFailed("later"),
            PlanRefused("odd"),
            ImageflowsError("some"),
            ValueError("bug"),
            OSError(5, "odd"),
            RecursionError("deep"),
            MemoryError(),
        ]
    ),
    max_size=40,
)


@given(RESULTS, st.integers(1, 6))
def test_every_item_has_exactly_one_outcome_whatever_the_others_do(
    results: list[Result | Exception], threads: int
) -> None:
    store, batch = memory(), items(len(results))
    by_key = {item["key"]: result for item, result in zip(batch, results, strict=True)}

    def process(item: Item) -> Result:
        result = by_key[item["key"]]
        if isinstance(result, Exception):
            raise result
        return result

    counts = run(store, batch, process, threads)
    assert counts.total() == len(batch)
    assert set(outcomes(store)) == set(by_key)
    assert counts == Counter(outcome.state for outcome in outcomes(store).values())
    for key, outcome in outcomes(store).items():
        assert outcome.state is expected_state(by_key[key])


def expected_state(result: Result | Exception) -> State:
    if isinstance(result, Result):
        return result.state
    return State.QUARANTINED if isinstance(result, ItemRefused) else State.FAILED


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (ItemRefused("the file is empty"), State.QUARANTINED, "the file is empty"),
        (UnreadableImage("line 1\nline 2"), State.QUARANTINED, r"line 1\nline 2"),
        (ItemFailed("access denied"), State.FAILED, "access denied"),
        (ZeroDivisionError("by 0"), State.FAILED, "unexpected ZeroDivisionError: by 0"),
        (KeyError("nul\0"), State.FAILED, r"unexpected KeyError: 'nul\x00'"),
    ],
)
def test_what_an_item_raises_is_its_reason(error: Exception, state: State, reason: str) -> None:
    store = memory()

    def process(item: Item) -> Result:
        if item["key"] == "001.jpg":
            raise error
        return Result(State.DONE, "made", {"bytes": 5})

    run(store, items(3), process, threads=1)
    found = outcomes(store)
    assert (found["001.jpg"].state, found["001.jpg"].reason) == (state, reason)
    for key in ("000.jpg", "002.jpg"):
        assert (found[key].state, found[key].reason) == (State.DONE, "made")
        assert found[key].detail == {"bytes": 5}
        assert found[key].seconds >= 0
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", found[key].at)


def test_an_endless_reason_is_cut() -> None:
    store = memory()

    def process(item: Item) -> Result:
        raise ItemRefused("x" * 10**6)

    run(store, items(1), process)
    assert len(outcomes(store)["000.jpg"].reason) == REASON_CHARACTERS


@pytest.mark.parametrize("returned", [Result(detail={"path": Path("/x")}), None, "done"])
def test_a_result_that_cannot_be_recorded_fails_its_item_alone(returned: Result) -> None:
    store = memory()
    counts = run(
        store, items(9), lambda item: returned if item["key"] == "004.jpg" else Result(), threads=2
    )
    assert counts == {State.DONE: 8, State.FAILED: 1}
    assert re.match(r"unexpected (Type|Attribute)Error", outcomes(store)["004.jpg"].reason)


@pytest.mark.parametrize("error", [InfrastructureError("no connection"), DiskFull("/tmp is full")])
def test_an_infrastructure_error_stops_the_batch_and_the_next_try_goes_on(
    error: InfrastructureError,
) -> None:
    store, batch, begun, stop = memory(), items(20), list[str](), Event()
    others = Lock()

    def process(item: Item) -> Result:
        with others:
            begun.append(item["key"])
        if item["key"] == "006.jpg":
            while len(begun) < 10:
                time.sleep(0.001)
            raise error
        if item["key"] > "006.jpg":
            assert stop.wait(30), "the batch was not stopped"
        return Result()

    with pytest.raises(type(error), match=str(error)):
        run(store, batch, process, threads=4, stop=stop)
    assert sorted(begun) == [f"{n:03d}.jpg" for n in range(10)], "those in flight, and no more"
    assert set(outcomes(store)) == set(begun) - {"006.jpg"}, "those in flight are recorded"

    again: list[str] = []
    counts = run(store, batch, lambda item: again.append(item["key"]) or Result(), threads=4)  # type: ignore[func-returns-value]
    assert counts == {State.DONE: 20}
    assert sorted(again) == sorted({item["key"] for item in batch} - (set(begun) - {"006.jpg"}))


def test_nothing_new_begins_after_an_infrastructure_error_however_slow_the_log() -> None:
    begun: list[str] = []
    log_is_slow, all_begun = Event(), Event()

    class SlowLog(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log_is_slow.set()
            all_begun.wait(1)

    def process(item: Item) -> Result:
        begun.append(item["key"])
        if item["key"] == "000.jpg":
            assert log_is_slow.wait(30)
            raise InfrastructureError("no connection")
        log_is_slow.wait(30)
        time.sleep(0.01)
        if len(begun) == 50:
            all_begun.set()
        return Result()

    logger, handler = logging.getLogger("imagecore.batch"), SlowLog()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(InfrastructureError, match="no connection"):
            run(memory(), items(50), process, threads=2, progress_seconds=0.01)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert len(begun) <= 3


def test_when_the_work_store_fails_the_batch_stops_and_the_next_try_goes_on() -> None:
    class Away(WorkStore):
        def put(self, path: str, data: bytes | Path) -> str:
            if len(outcomes(store)) >= 7:
                raise InfrastructureError("the work store is away")
            return super().put(path, data)

    store, begun = memory(), Counter[str]()

    def process(item: Item) -> Result:
        begun[item["key"]] += 1
        return Result()

    with pytest.raises(InfrastructureError, match="the work store is away"):
        run(Away(store.url, store.store), items(30), process, threads=3)
    recorded = set(outcomes(store))
    assert len(recorded) >= 7
    assert set(begun) >= recorded
    assert begun.total() - len(recorded) <= 3
    run(store, items(30), process, threads=3)
    assert len(outcomes(store)) == 30
    assert all(begun[key] == 1 for key in recorded)
    assert begun.total() <= 33


def test_stopped_from_outside_a_batch_says_how_far_it_came_and_the_next_try_goes_on() -> None:
    store, stop, begun = memory(), Event(), list[str]()

    def process(item: Item) -> Result:
        begun.append(item["key"])
        if len(begun) == 3:
            stop.set()
        return Result()

    with pytest.raises(InfrastructureError, match="Stopped after 3 of 10 items"):
        run(store, items(10), process, threads=1, stop=stop)
    assert sorted(outcomes(store)) == begun == ["000.jpg", "001.jpg", "002.jpg"]
    assert run(store, items(10), process, threads=1) == {State.DONE: 10}
    assert begun == [item["key"] for item in items(10)]


def test_what_failed_in_a_finished_try_is_done_again_and_nothing_else() -> None:
    store, again = memory(), list[str]()

    def fail_some(item: Item) -> Result:
        if item["key"] in ("001.jpg", "003.jpg"):
            raise ItemFailed("not now")
        if item["key"] == "002.jpg":
            raise ItemRefused("never")
        return Result()

    counts = run(store, items(5), fail_some)
    assert counts == {State.DONE: 2, State.FAILED: 2, State.QUARANTINED: 1}
    counts = run(store, items(5), lambda item: again.append(item["key"]) or Result())  # type: ignore[func-returns-value]
    assert counts == {State.DONE: 4, State.QUARANTINED: 1}
    assert sorted(again) == ["001.jpg", "003.jpg"]


def test_a_clock_that_jumps_between_two_tries_changes_no_end(monkeypatch) -> None:
    """Whichever way it jumps, what is done stays done and what failed is done again."""

    class Clock(datetime):
        hour_of_day = 12

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return cls(2026, 11, 1, cls.hour_of_day, tzinfo=tz)

    def fail_once(item: Item) -> Result:
        begun.append(item["key"])
        if item["key"] == "001.jpg" and len(begun) <= 3:
            raise ItemFailed("not now")
        return Result()

    monkeypatch.setattr("imagecore.outcome.datetime", Clock)
    for jump in (-11, 11):
        store, begun = memory(), list[str]()
        Clock.hour_of_day = 12
        assert run(store, items(3), fail_once) == {State.DONE: 2, State.FAILED: 1}
        Clock.hour_of_day += jump
        for _ in range(2):
            assert run(store, items(3), fail_once) == {State.DONE: 3}
        assert sorted(begun) == ["000.jpg", "001.jpg", "001.jpg", "002.jpg"]


@pytest.mark.parametrize("threads", [1, 4])
def test_no_more_items_are_in_work_than_there_are_threads(threads: int) -> None:
    working, most, lock = 0, 0, Lock()

    def process(item: Item) -> Result:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        time.sleep(0.002)
        with lock:
            working -= 1
        return Result()

    run(memory(), items(30), process, threads=threads)
    assert 1 <= most <= threads


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_smaller_than_its_threads_is_done(count: int) -> None:
    assert run(memory(), items(count), done, threads=8).total() == count


def test_a_long_batch_logs_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "imagecore.batch")

    def shown(text: str) -> bool:
        return any(text in record.getMessage() for record in caplog.records)

    def process(item: Item) -> Result:
        waits_for = {"000.jpg": "no item finished yet", "002.jpg": "2/3 items"}
        for _ in range(3_000):
            if shown(waits_for.get(item["key"], "")):
                break
            time.sleep(0.01)
        if item["key"] == "001.jpg":
            raise ItemFailed("not now")
        return Result()

    run(memory(), items(3), process, threads=1, progress_seconds=0.01)
    assert shown("0/3 items, 0.00/s, no item finished yet (-)")
    lines = [record.getMessage() for record in caplog.records]
    line = r"2/3 items, \d+\.\d\d/s, \d+ s left \(1 done, 1 failed\)"
    assert any(re.fullmatch(line, each) for each in lines)


def test_a_retry_says_what_it_need_not_do(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "imagecore.batch")
    store = memory()
    run(store, items(4), done)
    run(store, items(5), done)
    assert "4 of 5 items have their outcome from an earlier try" in caplog.messages


def test_a_key_forges_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def process(item: Item) -> Result:
        raise ItemRefused("bad\nERROR forged")

    run(memory(), [{"key": "a\nERROR forged.jpg"}], process)
    assert all(message.isprintable() for message in caplog.messages)


CHILD = """
import os, sys, threading, time
from imagecore.batch import run_batch
from imagecore.manifest import Batch, read_batch
from imagecore.outcome import OutcomeLog, Result
from imagecore.workstore import local_work_store

url, begun = sys.argv[1:]
store = local_work_store(url)
items = [{"key": f"{n:03d}.jpg"} for n in range(60)]
file = os.open(begun, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

def process(item):
    os.write(file, (item["key"] + "\\n").encode())
    time.sleep(0.01)
    return Result()

record = OutcomeLog(store, "dag/run/plan-1/outcomes/0000")
run_batch(items, process, record, threads=4, stop=threading.Event())
"""


def wait_for_lines(file: Path, count: int, child: subprocess.Popen[bytes]) -> None:
    while not file.exists() or len(file.read_bytes().splitlines()) < count:
        assert child.poll() is None, "the batch ended before it was killed"
        time.sleep(0.001)


@pytest.mark.parametrize("kill_at", [(1,), (23,), (57,), (10, 25, 45)])
def test_killed_in_the_middle_a_batch_is_carried_on_and_nothing_recorded_is_done_again(
    work_store: WorkStore, tmp_path: Path, kill_at: tuple[int, ...]
) -> None:
    begun_file = tmp_path / "begun"
    command = [sys.executable, "-c", CHILD, work_store.url, os.fspath(begun_file)]
    recorded: dict[str, Outcome] = {}
    settled: dict[str, int] = {}
    for count in kill_at:
        with subprocess.Popen(command) as child:
            wait_for_lines(begun_file, count, child)
            child.send_signal(signal.SIGKILL)
        begun = Counter(begun_file.read_text().split())
        assert {key: begun[key] for key in recorded} == settled, "done again though on record"
        earlier, recorded = recorded, outcomes(work_store)
        assert recorded.items() >= earlier.items(), "no outcome on record changes"
        assert len(set(begun) - set(recorded)) <= 4, "only those in flight are lost"
        settled = {key: begun[key] for key in recorded}

    subprocess.run(command, check=True)
    begun = Counter(begun_file.read_text().split())
    assert {key: begun[key] for key in recorded} == settled, "done again though on record"
    assert begun.total() <= 60 + 4 * len(kill_at)
    (finished,) = work_store.paths(FOLDER)
    keys = [json.loads(line)["key"] for line in work_store.get(finished).splitlines()]
    assert sorted(keys) == [item["key"] for item in items(60)]
    assert {o.state for o in outcomes(work_store).values()} == {State.DONE}
    assert outcomes(work_store).items() >= recorded.items()
