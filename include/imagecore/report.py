"""The report: every planned item in exactly one outcome, or the run says which is not."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagecore.manifest import Batch, Item, encode, read_batch
from imagecore.outcome import Outcome, State, now, read_outcomes
from imagecore.tempspace import disk_errors
from imagecore.workstore import WorkStore

OUTCOMES = "outcomes"
"""The folder of a plan with the outcomes of its first step."""

_PIECE = 1 << 20

NAMED = 20
"""How many items a message names before it points at the file."""


@dataclass
class Report:
    """A run's summary. `results` counts what outcomes say in their detail's `result`; `problems`
    names the first items that did not end well, with reasons."""

    planned: int
    counts: Counter[State] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    stray: int = 0
    seconds: float = 0.0
    bytes: int = 0
    problems: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every planned item, and no other, is in exactly one outcome."""
        return not self.missing and not self.stray and self.counts.total() == self.planned

    def as_json(self) -> dict[str, Any]:
        """The report as the file report.json holds it."""
        return {
            "planned": self.planned,
            "counts": {state.value: self.counts[state] for state in State},
            **({"results": dict(sorted(self.results.items()))} if self.results else {}),
            "missing": self.missing,
            "stray": self.stray,
            "seconds": round(self.seconds, 3),
            "bytes": self.bytes,
            "problems": [
                dict(zip(("key", "state", "reason"), p, strict=True)) for p in self.problems
            ],
            "at": now(),
        }


def make_report(
    store: WorkStore, batches: Iterable[Batch], run: str, plan: str, step: str = OUTCOMES
) -> Report:
    """Join the manifest with its outcomes, batch by batch; memory holds one batch.

    Writes `outcomes.jsonl` (all, in the manifest's order) and `failed.jsonl` (the items that
    failed, were quarantined, or have no outcome: a manifest, to run again) into the folder `run`.
    `plan` is the folder of the plan whose batches these are, `step` the one in it whose outcomes
    are meant.
    """
    batches = list(batches)
    report = Report(planned=sum(batch.count for batch in batches))
    with (
        tempfile.TemporaryDirectory(prefix="imageflows-report-") as folder,
        disk_errors(Path(folder)),
        ExitStack() as stack,
    ):
        outcomes, failed = Path(folder, "outcomes.jsonl"), Path(folder, "failed.jsonl")
        outcomes_file = stack.enter_context(outcomes.open("wb"))
        failed_file = stack.enter_context(failed.open("wb"))
        for batch in batches:
            for item, outcome in _joined(store, batch, plan, step, report):
                _count(report, item, outcome)
                if outcome is not None:
                    outcomes_file.write(outcome.line())
                if outcome is None or outcome.state in (State.FAILED, State.QUARANTINED):
                    failed_file.write(encode(item))
        stack.close()
        store.put(f"{run}/outcomes.jsonl", outcomes)
        store.put(f"{run}/failed.jsonl", failed)
    return report


def reported(store: WorkStore, path: str) -> Iterator[dict[str, Any]]:
    """The outcomes of a file that `make_report` wrote, one by one, whatever its size."""
    offset, left = 0, b""
    while piece := store.get(path, offset, _PIECE):
        offset += len(piece)
        *lines, left = (left + piece).split(b"\n")
        yield from map(json.loads, lines)
    if left:
        yield json.loads(left)


def _joined(
    store: WorkStore, batch: Batch, plan: str, step: str, report: Report
) -> Iterator[tuple[Item, Outcome | None]]:
    recorded, _, _ = read_outcomes(store, f"{plan}/{step}/{batch.batch_id}")
    for item in read_batch(store, f"{plan}/{batch.uri.rpartition('/')[2]}", batch):
        yield item, recorded.pop(item["key"], None)
    report.stray += len(recorded)


def _count(report: Report, item: Item, outcome: Outcome | None) -> None:
    if outcome is None:
        report.missing += 1
        problem = (item["key"], "missing", "its task ended before the item had an outcome")
    else:
        report.counts[outcome.state] += 1
        if "result" in outcome.detail:
            report.results[outcome.detail["result"]] += 1
        report.seconds += outcome.seconds
        report.bytes += int(outcome.detail.get("bytes", 0))
        if outcome.state in (State.DONE, State.SKIPPED):
            return
        problem = (outcome.key, outcome.state.value, outcome.reason)
    if len(report.problems) < NAMED:
        report.problems.append(problem)


def write_json(store: WorkStore, path: str, document: dict[str, Any]) -> str:
    """Write a document people may open; return its URI."""
    return store.put(path, json.dumps(document, indent=2).encode() + b"\n")
