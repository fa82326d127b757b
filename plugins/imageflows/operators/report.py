"""The last step of every workflow: what happened, and whether that is good enough."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TriggerRule

from imagecore.errors import ImageflowsError, PlanRefused
from imagecore.manifest import Batch
from imagecore.outcome import State
from imagecore.report import OUTCOMES, Report, make_report, write_json
from imagecore.text import printable
from imageflows.work import SELECTING, folder_of_run, read_plan, work_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.workstore import WorkStore


class RunFailed(ImageflowsError):
    """More items failed than the run allows, or an item has no outcome."""


class ReportOperator(BaseOperator):
    """Joins the plan with the outcomes, writes the report, and decides the run's state.

    It runs whatever became of the batches, and fails when more than `max_failed` items failed,
    more than `max_quarantined` were quarantined, or an item is in no outcome or was never
    planned. The message names them and the commands that run them again.

    XCom `report` has the report's address and its counts, also when the task fails.

    :param plan_task_id: the task that planned.
    :param part: the folder of the run for this report, where a run has several.
    """

    outcomes = OUTCOMES

    def __init__(self, *, plan_task_id: str = "plan", part: str = "", **kwargs: Any) -> None:
        kwargs.setdefault("trigger_rule", TriggerRule.ALL_DONE)
        super().__init__(**kwargs)
        self.plan_task_id = plan_task_id
        self.part = part

    def execute(self, context: Context) -> None:
        task_instance = context["ti"]
        folder = task_instance.xcom_pull(task_ids=self.plan_task_id, key="plan")
        if folder is None:
            raise PlanRefused(
                "Nothing was planned, so nothing was done: "
                f"see the log of task {self.plan_task_id}."
            )
        store, run = work_store(), "/".join(filter(None, (folder_of_run(context), self.part)))
        self.folder = folder
        plan = read_plan(store, folder)
        if plan["mode"] == "dryrun":  # what an earlier plan of this run left undone stays known
            report = Report(planned=0)
        else:
            batches = [Batch(**batch) for batch in (*plan["batches"], *plan["removals"])]
            report = make_report(store, batches, run, folder, self.outcomes)
        again = self.commands(context, store.uri(f"{run}/failed.jsonl"))
        details = {} if plan["mode"] == "dryrun" else self.details(store, run)
        document = {
            **{name: plan[name] for name in ("dag_id", "run_id", "mode", "remarks")},
            **plan.get("summary", {}),
            **details,
            **report.as_json(),
            "planned": plan["planned"],
            "plan": store.uri(folder),
            "run_again": again if report.problems else [],
        }
        uri = write_json(store, f"{run}/report.json", document)
        task_instance.xcom_push(key="report", value={"report": uri, **document["counts"]})
        self.log.info("Report: %s\n%s", uri, summary(plan, report))
        if plan["mode"] != "dryrun":
            self.write_lists(store, run)
            self._judge(report, plan, context["params"], again)

    def details(self, store: WorkStore, run: str) -> dict[str, Any]:
        """For subclasses: what else the report says, from the outcomes.jsonl in folder `run`."""
        return {}

    def write_lists(self, store: WorkStore, run: str) -> None:
        """For subclasses: further files for the folder `run`, from the outcomes.jsonl in it.
        `self.folder` is the plan's."""

    def commands(self, context: Context, failed_uri: str) -> list[str]:
        """The ways to run again what failed."""
        return commands(context, failed_uri)

    def _judge(
        self, report: Report, plan: dict[str, Any], params: dict[str, Any], again: list[str]
    ) -> None:
        wrong = []
        for state in (State.FAILED, State.QUARANTINED):
            limit = f"max_{state.value}"
            if report.counts[state] > params[limit]:
                ended = "items failed" if state is State.FAILED else "items were quarantined"
                wrong.append(f"{report.counts[state]} {ended}, {params[limit]} allowed ({limit})")
        if not report.complete or report.planned != plan["planned"]:
            wrong.append(
                f"{plan['planned']} items were planned and {report.counts.total()} have an "
                f"outcome: {report.missing} are missing, {report.stray} were never planned"
            )
        if wrong:
            lines = [
                f"{'; '.join(wrong)}.",
                summary(plan, report),
                "To run them again, any one of:",
            ]
            raise RunFailed("\n".join([*lines, *(f"  {command}" for command in again)]))


def summary(plan: dict[str, Any], report: Report) -> str:
    """A few lines for people: the counts, and the first items that did not end well."""
    counts = ", ".join(f"{report.counts[state]} {state.value}" for state in State)
    lines = [f"{plan['planned']} planned ({plan['mode']}): {counts}, {report.missing} missing"]
    results = ", ".join(f"{count} {name}" for name, count in sorted(report.results.items()))
    lines += [f"  {results}"] if results else []
    lines += [f"  {note}" for note in plan.get("notes", ())]
    lines += [f"  {printable(key)}: {state}: {why}" for key, state, why in report.problems]
    total = report.missing + report.counts[State.FAILED] + report.counts[State.QUARANTINED]
    if total > len(report.problems):
        lines.append(f"  … and {total - len(report.problems)} more, in outcomes.jsonl")
    return "\n".join(lines)


def clear_command(dag_id: str, run_id: str, *, whole_run: bool = False) -> str:
    """The command that clears what failed in a run, or the whole of it."""
    what = "" if whole_run else " --only-failed"
    return f"airflow dags clear {shlex.quote(dag_id)} --run-id {shlex.quote(run_id)}{what} -y"


def commands(
    context: Context, failed_uri: str, *, whole_run: bool = False, mended_by: str = ""
) -> list[str]:
    """The ways to run again what failed, with the run's own parameters, ready to paste.

    A backfill reaches a run by its date, so a run by hand has only two. `completed` takes the run
    whether it failed or not; what is up to date in it is skipped.

    Parameters:
        whole_run: clear everything, where what failed cannot be done again by itself.
        mended_by: the DAG that takes `failed.jsonl`, where that is another one.
    """
    run = context["dag_run"]
    kept = {name: value for name, value in (run.conf or {}).items() if name not in SELECTING}
    conf = shlex.quote(json.dumps({**kept, "manifest_uri": failed_uri}))
    dag_id = shlex.quote(run.dag_id)
    ways = [
        clear_command(run.dag_id, run.run_id, whole_run=whole_run),
        f"airflow dags trigger {mended_by or dag_id} --conf {conf}",
    ]
    if run.run_type in ("scheduled", "backfill") and run.logical_date:
        date = run.logical_date.isoformat()
        ways.append(
            f"airflow backfill create --dag-id {dag_id} --from-date {date} --to-date {date} "
            "--reprocess-behavior completed"
        )
    return ways
