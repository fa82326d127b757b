"""Outcomes are on record at once, and no try, however it ends, loses another's or its own."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Barrier, Lock
from time import sleep

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from imagecore.errors import InfrastructureError
from imagecore.outcome import Outcome, OutcomeLog, State, now, read_outcomes
from imagecore.workstore import WorkStore, local_work_store

FOLDER = "dag/run/plan-1/outcomes/0007"
ENDS = [State.DONE, State.SKIPPED, State.QUARANTINED]


@dataclass(frozen=True)
class FaultyStore(WorkStore):
    """A work store in memory; a test may put a fault before each of its uses."""

    url: str = "memory://"
    store: MemoryStore = field(default_factory=MemoryStore)
    before: dict[str, Callable[[], None]] = field(default_factory=dict)

    def put(self, path: str, data: bytes | Path) -> str:
        self.before.get("put", lambda: None)()
        return super().put(path, data)

    def get(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        self.before.get("get", lambda: None)()
        return super().get(path, offset, length)

    def delete(self, paths: list[str]) -> None:
        self.before.get("delete", lambda: None)()
        super().delete(paths)


def once(action: Callable[[], None]) -> Callable[[], None]:
    turns = iter([action])
    return lambda: next(turns, lambda: None)()


def unreachable() -> None:
    raise InfrastructureError("the store is away")


class Killed(BaseException):
    """The process ended here."""


def kill() -> None:
    raise Killed


TICK = count()


def outcome(key: str, state: State = State.DONE, reason: str = "") -> Outcome:
    return Outcome(key, state, reason, 0.5, f"2026-01-01T00:00:{next(TICK):012}Z", {"n": 1})


def states(store: WorkStore, folder: str = FOLDER) -> dict[str, State]:
    return {key: o.state for key, o in read_outcomes(store, folder)[0].items()}


def recorded_lines(store: WorkStore) -> Counter[str]:
    lines = [line for path in store.paths(FOLDER) for line in store.get(path).splitlines()]
    return Counter(json.loads(line)["key"] for line in lines)


READER = """
import sys
from imagecore.outcome import read_outcomes
from imagecore.workstore import local_work_store
found = read_outcomes(local_work_store(sys.argv[1]), sys.argv[2])[0]
print(*(f"{o.key}={o.state.value}:{o.reason}" for o in found.values()))
"""


def test_another_process_reads_an_outcome_as_soon_as_it_is_recorded(work_store: WorkStore) -> None:
    log = OutcomeLog(work_store, FOLDER)
    for n, state in enumerate(State):
        log.record(outcome(f"{n}.jpg", state, f"why-{n}"))
    command = [sys.executable, "-c", READER, work_store.url, FOLDER]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    expected = {f"{n}.jpg={state.value}:why-{n}" for n, state in enumerate(State)}
    assert set(shown.split()) == expected


@given(
    st.text(st.characters(), min_size=1).filter(lambda s: json.loads(json.dumps(s)) == s),
    st.sampled_from(State),
    st.text(),
)
def test_an_outcome_is_read_back_as_it_was(key: str, state: State, reason: str) -> None:
    store = FaultyStore()
    told = Outcome(key, state, reason, 1.25, now(), {"bytes": 3, "target": key})
    assert told.line().count(b"\n") == 1
    OutcomeLog(store, FOLDER).record(told)
    assert read_outcomes(store, FOLDER)[0] == {key: told}


def test_a_batch_without_outcomes_has_none(work_store: WorkStore) -> None:
    assert read_outcomes(work_store, FOLDER) == ({}, set(), [])
    assert OutcomeLog(work_store, FOLDER).settled == {}


def test_batches_are_kept_apart(work_store: WorkStore) -> None:
    for folder in (FOLDER, f"{FOLDER}1"):
        OutcomeLog(work_store, folder).record(outcome(folder))
        log = OutcomeLog(work_store, folder)
        log.finish()
        assert states(work_store, folder) == {folder: State.DONE}


def record_from_many_threads(log: OutcomeLog, threads: int, each: int) -> list[Exception]:
    barrier, errors = Barrier(threads), list[Exception]()

    def work(thread: int) -> None:
        barrier.wait()
        for n in range(each):
            try:
                log.record(outcome(f"{thread}-{n}"))
            except InfrastructureError as error:
                errors.append(error)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return errors


def test_many_threads_lose_nothing_and_double_nothing(work_store: WorkStore) -> None:
    log = OutcomeLog(work_store, FOLDER)
    assert record_from_many_threads(log, 16, 40) == []
    expected = {f"{thread}-{n}" for thread in range(16) for n in range(40)}
    assert recorded_lines(work_store) == Counter(expected)
    log.finish()
    assert recorded_lines(work_store) == Counter(expected)
    assert {o.key for o in log.outcomes()} == expected


def test_outcomes_that_wait_for_a_slow_store_are_written_together() -> None:
    store, threads = FaultyStore(), 12
    log, puts = OutcomeLog(store, FOLDER), []

    def others_come_meanwhile() -> None:
        puts.append(1)
        for _ in range(2_000) if len(puts) == 1 else ():
            if len(log._waiting) == threads - 1:
                return
            sleep(0.005)

    store.before["put"] = others_come_meanwhile
    assert record_from_many_threads(log, threads, 1) == []
    assert len(puts) == 2
    assert recorded_lines(store) == Counter(f"{n}-0" for n in range(threads))


@pytest.mark.parametrize("turn", [1, 2, 7, 30])
def test_when_the_store_fails_once_the_caller_is_told_and_nothing_is_lost(turn: int) -> None:
    store, turns, lock = FaultyStore(), count(1), Lock()

    def fail_in_turn() -> None:
        with lock:
            now_it_is = next(turns)
        if now_it_is == turn:
            unreachable()

    store.before["put"] = fail_in_turn
    log = OutcomeLog(store, FOLDER)
    errors = [error for _ in range(turn) for error in record_from_many_threads(log, 8, 20)]
    assert [str(error) for error in errors] == ["the store is away"]
    log.record(outcome("last"))
    expected = {"last", *(f"{thread}-{n}" for thread in range(8) for n in range(20))}
    assert set(states(store)) == expected
    log.finish()
    assert recorded_lines(store) == Counter(expected)


def test_an_outcome_that_could_not_be_written_waits_for_the_next_write() -> None:
    store = FaultyStore()
    log = OutcomeLog(store, FOLDER)
    store.before["put"] = once(unreachable)
    with pytest.raises(InfrastructureError):
        log.record(outcome("a"))
    assert states(store) == {}
    log.finish()
    assert states(store) == {"a": State.DONE}


def test_everything_an_interrupted_try_recorded_stands_also_what_failed(
    work_store: WorkStore,
) -> None:
    interrupted = OutcomeLog(work_store, FOLDER)
    for state in State:
        interrupted.record(outcome(state.value, state))
    assert {key: o.state for key, o in OutcomeLog(work_store, FOLDER).settled.items()} == {
        state.value: state for state in State
    }


def test_a_new_try_opens_again_what_failed_in_a_finished_one_and_nothing_else(
    work_store: WorkStore,
) -> None:
    finished = OutcomeLog(work_store, FOLDER)
    for state in State:
        finished.record(outcome(state.value, state))
    finished.finish()
    again = OutcomeLog(work_store, FOLDER)
    assert set(again.settled) == {state.value for state in ENDS}
    assert states(work_store) == {state.value: state for state in State}, "still reported"
    again.record(outcome("failed", State.DONE))
    assert states(work_store)["failed"] is State.DONE
    again.finish()
    assert set(OutcomeLog(work_store, FOLDER).settled) == {state.value for state in State}


def test_a_later_failure_never_covers_a_good_end(work_store: WorkStore) -> None:
    zombie, successor = OutcomeLog(work_store, FOLDER), OutcomeLog(work_store, FOLDER)
    successor.record(good := outcome("a"))
    successor.finish()
    zombie.record(outcome("a", State.FAILED, "later"))
    assert read_outcomes(work_store, FOLDER)[0] == {"a": good}
    assert OutcomeLog(work_store, FOLDER).settled == {"a": good}
    zombie.finish()
    assert read_outcomes(work_store, FOLDER)[0] == {"a": good}
    assert OutcomeLog(work_store, FOLDER).settled == {"a": good}


def test_a_finished_try_leaves_one_file(work_store: WorkStore) -> None:
    interrupted = OutcomeLog(work_store, FOLDER)
    interrupted.record(outcome("a"))
    log = OutcomeLog(work_store, FOLDER)
    log.record(outcome("b"))
    log.record(outcome("c"))
    assert len(work_store.paths(FOLDER)) == 3
    log.finish()
    assert len(work_store.paths(FOLDER)) == 1
    assert set(states(work_store)) == {"a", "b", "c"}


def test_killed_between_its_file_and_its_segments_a_try_counts_once() -> None:
    store = FaultyStore()
    OutcomeLog(store, FOLDER).record(outcome("a", State.FAILED))
    log = OutcomeLog(store, FOLDER)
    log.record(outcome("b", State.FAILED))
    log.record(outcome("c"))
    store.before["delete"] = once(kill)
    with pytest.raises(Killed):
        log.finish()
    assert len(store.paths(FOLDER)) == 4
    assert states(store) == {"a": State.FAILED, "b": State.FAILED, "c": State.DONE}
    after = OutcomeLog(store, FOLDER)
    assert set(after.settled) == {"c"}, "that try was finished: what failed in it is open again"
    after.finish()
    assert recorded_lines(store) == Counter(dict.fromkeys("abc", 2))
    assert len(store.paths(FOLDER)) == 2


@pytest.mark.parametrize("first", ["zombie", "successor"])
def test_two_tries_at_once_do_not_erase_each_other(work_store: WorkStore, first: str) -> None:
    zombie = OutcomeLog(work_store, FOLDER)
    zombie.record(outcome("a"))
    successor = OutcomeLog(work_store, FOLDER)
    successor.record(outcome("b"))
    zombie.record(outcome("c"))
    ends = [zombie.finish, successor.finish]
    for finish in ends if first == "zombie" else ends[::-1]:
        finish()
        assert set(states(work_store)) == {"a", "b", "c"}


@pytest.mark.parametrize("segments", [1, 5])
def test_a_try_that_finishes_while_another_begins_is_read_whole(segments: int) -> None:
    store = FaultyStore()
    zombie = OutcomeLog(store, FOLDER)
    for n in range(segments):
        zombie.record(outcome(str(n)))
    store.before["get"] = once(zombie.finish)
    assert set(OutcomeLog(store, FOLDER).settled) == {str(n) for n in range(segments)}


TRIES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(State), max_size=6),
        st.sampled_from(["finished", "killed", "killed while finishing"]),
    ),
    max_size=6,
)


@settings(max_examples=200)
@given(TRIES)
def test_however_tries_end_an_item_is_open_or_stands_as_the_rules_say(
    tries: list[tuple[list[State], str]],
) -> None:
    store = FaultyStore()
    stands: dict[str, State] = {}
    open_again: set[str] = set()
    for results, end in tries:
        log = OutcomeLog(store, FOLDER)
        assert {k: o.state for k, o in log.settled.items()} == {
            key: state for key, state in stands.items() if key not in open_again
        }
        todo = [key for key in "abcdef" if key not in log.settled]
        for key, state in zip(todo, results, strict=False):
            log.record(outcome(key, state))
            stands[key] = state
            open_again.discard(key)
            assert states(store) == stands
        if end != "killed":
            if end == "killed while finishing":
                store.before["delete"] = once(kill)
                with pytest.raises(Killed):
                    log.finish()
            else:
                log.finish()
            open_again = {key for key, state in stands.items() if state is State.FAILED}
        assert states(store) == stands


ACTS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["record", "open", "finish"])))


@settings(max_examples=200)
@given(ACTS)
def test_whatever_tries_do_at_once_nothing_on_record_is_lost(acts: list[tuple[int, str]]) -> None:
    store, told = FaultyStore(), dict[str, State]()
    logs = [OutcomeLog(store, FOLDER) for _ in range(3)]
    for number, (who, act) in enumerate(acts):
        if act == "open":
            logs[who] = OutcomeLog(store, FOLDER)
        elif act == "finish":
            logs[who].finish()
            logs[who] = OutcomeLog(store, FOLDER)
        else:
            logs[who].record(outcome(f"{number}", list(State)[number % 4]))
            told[f"{number}"] = list(State)[number % 4]
        assert states(store) == told


def test_the_store_is_opened_by_its_url_alone(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/work"
    OutcomeLog(local_work_store(url), FOLDER).record(outcome("a"))
    assert set(OutcomeLog(local_work_store(url), FOLDER).settled) == {"a"}
