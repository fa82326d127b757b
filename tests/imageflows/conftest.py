"""A run of a workflow without a scheduler: the real operators, called one after the other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest

from imagecore.outcome import Result
from imageflows.operators.batch import ImageBatchOperator
from imageflows.operators.plan import PlanOperator
from imageflows.operators.report import ReportOperator
from imageflows.params import shared_params


class ListPlanOperator(PlanOperator):
    """Plans the items it is given."""

    def __init__(self, *, planned: list[dict], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.planned = planned

    def items(self, context, remark):
        remark("folder/", "a folder marker")
        return iter(self.planned)


class CallOperator(ImageBatchOperator):
    """Processes items by calling a function."""

    def __init__(self, *, function: Callable[[dict], Result], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    @contextmanager
    def processor(self, context) -> Iterator[Callable[[dict], Result]]:
        yield self.function


class Run:
    """One DAG run: its parameters, its XComs, and the three steps."""

    def __init__(self, run_type: str = "manual", **params: Any) -> None:
        self.params = {name: p.value for name, p in shared_params().items()} | params
        self.conf = dict(params)
        self.run_type = run_type
        self.run_id = f"{run_type}__2026-11-21T05:30:00+00:00"
        self.xcom: dict[tuple[str, str], Any] = {}
        self.plan_try = 0

    def context(self, task_id: str, try_number: int = 1) -> dict[str, Any]:
        """What Airflow hands to `execute`."""
        ti = SimpleNamespace(
            try_number=try_number,
            max_tries=3,
            xcom_push=lambda key, value: self.xcom.update({(task_id, key): value}),
            xcom_pull=lambda task_ids, key="return_value": self.xcom.get((task_ids, key)),
        )
        date = pendulum.datetime(2026, 11, 21, 5, 30)
        dag_run = SimpleNamespace(
            dag_id="toy",
            run_id=self.run_id,
            conf=self.conf,
            logical_date=date.subtract(days=1) if self.run_type == "scheduled" else None,
            run_after=date,
            run_type=self.run_type,
        )
        dag = SimpleNamespace(params=shared_params())
        return {"ti": ti, "dag_run": dag_run, "dag": dag, "params": self.params}

    def plan(self, items: list[dict], **kwargs: Any) -> list[dict]:
        self.plan_try += 1
        operator = ListPlanOperator(task_id="plan", planned=items, **kwargs)
        batches = operator.execute(self.context("plan", self.plan_try))
        self.xcom["plan", "return_value"] = batches
        return batches

    def batch(
        self,
        batch: dict,
        function: Callable[[dict], Result],
        *,
        try_number: int = 1,
        **kwargs: Any,
    ) -> dict:
        self.last = self.context("batch", try_number)
        operator = CallOperator(task_id="batch", batch=batch, function=function, **kwargs)
        return operator.execute(self.last)

    def report(self) -> None:
        ReportOperator(task_id="report").execute(self.context("report"))


@pytest.fixture
def new_run(work_store) -> type[Run]:
    """Makes runs in an empty work store."""
    return Run
