"""Runs of the demo, and what had to come of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.layout import Layout, State
from devstack.results import outcomes_of
from devstack.runs import Run, keep, run_dag

RUN_SECONDS = 120


@dataclass(frozen=True)
class Row:
    """A run of the demo, what became of it, and what had to."""

    what: str
    state: str
    counts: Mapping[str, int]
    expected_state: str
    expected: Mapping[str, int]

    @property
    def right(self) -> bool:
        """Whether it is as expected."""
        return self.state == self.expected_state and self.counts == self.expected


class DemoRuns:
    """Runs of a workflow in the demo, one after the other."""

    def __init__(self, layout: Layout, state: State, target: Path) -> None:
        self._layout = layout
        self._state = state
        self._target = target
        self.rows: list[Row] = []
        self.folder = target
        """Of the last run."""

    def run(
        self, what: str, dag_id: str, conf: dict[str, Any], state: str = "success", **expected: int
    ) -> Run:
        """Run a DAG and note what came of it."""
        print(f"\n{what}", flush=True)
        run = run_dag(self._layout, self._state, dag_id, conf, RUN_SECONDS)
        number = len(self.rows) + 1
        self.folder = keep(self._layout, run, self._target / f"{number}-{dag_id}")
        counts: dict[str, int] = {}
        if expected:
            for outcome in outcomes_of(run, self.folder).values():
                counts[outcome["state"]] = counts.get(outcome["state"], 0) + 1
        self.rows.append(Row(what, run.state, counts, state, expected))
        return run

    def lines(self, name: str) -> list[str]:
        """The lines of a file of the last run."""
        return (self.folder / name).read_text().splitlines()

    def tell(self, facts: Mapping[str, bool]) -> bool:
        """Print what became of the runs, and whether all of that and of `facts` is right."""
        print(_table(self.rows, facts), flush=True)
        return all(row.right for row in self.rows) and all(facts.values())


def _table(rows: list[Row], facts: Mapping[str, bool]) -> str:
    lines = [""]
    for row in rows:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(row.counts.items()))
        wrong = "" if row.right else f"   NOT AS EXPECTED: {row.expected_state} {row.expected}"
        lines.append(f"{row.state:<8} {counts or '-':<28} {row.what}{wrong}")
    lines += [f"{'yes' if true else 'NO':<8} {what}" for what, true in facts.items()]
    return "\n".join(lines)
