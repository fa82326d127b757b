"""How far runs at work have come, for people who watch: counts that are cheap to ask again."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock

from imagecore.errors import InfrastructureError
from imagecore.outcome import READS, Outcome, State, latest, parse_outcomes, tries
from imagecore.report import OUTCOMES
from imagecore.runrecords import Plan, planned_batches
from imagecore.workstore import WorkStore

RUNS = 8
"""How many runs are remembered, the last ones asked for."""
READERS = 8
"""How many batches are read at once."""


class LiveCounts:
    """The counts of runs at work. A call lists a run's outcomes, and reads only what is new.

    Files of outcomes are written once, under names of their own. Of a batch at work every outcome
    is remembered, without its detail; of others their number. So a batch is read anew when it is
    done again after its end. For many threads: those that ask for the same run take turns.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[str, str], _Run] = OrderedDict()
        self._lock = Lock()

    def counts(
        self, store: WorkStore, plan_folder: str, plan: Plan, step: str = OUTCOMES
    ) -> dict[str, int]:
        """How many items are `done`, `skipped`, `failed` and `quarantined` of those `planned`, and
        how many of the `batches` were `begun` and have `finished`.

        Raises:
            InfrastructureError: the work store cannot be read, or tries keep changing it.
        """
        folder = f"{plan_folder}/{step}"
        with self._lock:
            run = self._runs.setdefault((store.url, folder), _Run())
            self._runs.move_to_end((store.url, folder))
            if len(self._runs) > RUNS:
                self._runs.popitem(last=False)
        names = {batch.batch_id for batch in planned_batches(plan)}
        with run.lock:
            run.update(store, folder, names)
            states = sum((batch.states for batch in run.batches.values()), Counter[State]())
            return {
                **{state.value: states[state] for state in State},
                "planned": plan["planned"],
                "batches": len(names),
                "begun": len(run.batches),
                "finished": sum(batch.finished for batch in run.batches.values()),
            }


class _Run:
    """What was read of the batches of a run."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.batches: dict[str, _Batch] = {}

    def update(self, store: WorkStore, folder: str, names: set[str]) -> None:
        for _ in range(READS):
            listed: defaultdict[str, list[str]] = defaultdict(list)
            for path in store.paths(folder):
                listed[path[len(folder) + 1 :].partition("/")[0]].append(path)
            begun = names & listed.keys()
            self.batches = {name: self.batches.get(name) or _Batch() for name in begun}
            changed = [name for name in begun if self.batches[name].paths != listed[name]]
            try:
                if changed:
                    with ThreadPoolExecutor(min(READERS, len(changed))) as pool:
                        read = partial(self._read, store, folder, listed)
                        list(pool.map(read, changed))
                return
            except FileNotFoundError:
                continue  # a try finished just now: its segments are gone, its file is there
        raise InfrastructureError(
            f"The outcomes in {store.uri(folder)} change while they are read: try again."
        )

    def _read(self, store: WorkStore, folder: str, listed: dict[str, list[str]], name: str) -> None:
        self.batches[name].read(store, f"{folder}/{name}", listed[name])


class _Batch:
    """What was read of a batch: its paths, and the outcomes by path while it is at work."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.states: Counter[State] = Counter()
        self.finished = False
        self._read: dict[str, list[Outcome]] = {}

    def read(self, store: WorkStore, folder: str, paths: list[str]) -> None:
        finished, segments = tries(folder, paths)
        self._read = {path: self._read[path] for path in paths if path in self._read}
        for path in paths:
            if path not in self._read:
                outcomes = parse_outcomes(store.get(path))
                self._read[path] = [Outcome(each.key, each.state, at=each.at) for each in outcomes]
        merged = latest(each for path in (*finished, *segments) for each in self._read[path])
        self.paths = paths
        self.states = Counter(outcome.state for outcome in merged.values())
        self.finished = not segments
        if self.finished:
            self._read = {}
