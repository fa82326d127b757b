"""One message for a run that failed, or for a daily run that is late; none unless one is set up.

Airflow calls these: `run_failed` in the DAG processor, `run_late` in a worker of the executor. What
goes wrong here is in their logs, and changes no run.
"""

from __future__ import annotations

import json
from copy import copy
from datetime import datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk.configuration import conf

from imagecore.errors import ImageflowsError, PlanRefused
from imagecore.text import printable
from imagecore.workstore import run_folder
from imageflows.operators.report import clear_command
from imageflows.params import setting
from imageflows.work import work_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAMED = 5
"""How many items a message names before it points at the report."""

REASON = 200
"""Characters of a reason, at most."""


def alerts(*, daily: bool = False) -> dict[str, Any]:
    """What a DAG takes over as `**alerts()`: nothing without `[imageflows] failure_notifier`.

    Parameters:
        daily: the DAG has a schedule, and `[imageflows] deadline_hours` is meant for it.

    Raises:
        ValueError: deadline_hours is no number.
    """
    if not setting("failure_notifier", ""):
        return {}
    given: dict[str, Any] = {"on_failure_callback": run_failed}
    if daily and (hours := deadline_hours()):
        from airflow.sdk.definitions.callback import SyncCallback
        from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

        given["deadline"] = DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(hours=hours),
            callback=SyncCallback(f"{__name__}.{run_late.__name__}"),
        )
    return given


def deadline_hours() -> float:
    """`[imageflows] deadline_hours`; 0 for none."""
    text = setting("deadline_hours", "0")
    try:
        return max(float(text), 0)
    except ValueError as error:
        raise ValueError(f"[imageflows] deadline_hours is {text!r}: it must be hours") from error


def run_failed(context: Mapping[str, Any]) -> None:
    """Airflow's `on_failure_callback`: once for every time a run ends as failed."""
    dag_id, run_id = context["dag"].dag_id, context["run_id"]
    failed = context.get("ti")
    part = getattr(failed.task, "part", "") if failed else ""
    run = context.get("dag_run")
    lines = _outcome(dag_id, run_id, part, getattr(run, "start_date", None))
    if not lines:
        where = f"the log of task {failed.task_id}" if failed else "the log of its last task"
        lines = [f"It came to no report: {where} says why ({context.get('reason')})."]
        lines.append(f"To run it again: {clear_command(dag_id, run_id)}")
    _send(context, f"Imageflows: {dag_id} failed", [f"Run: {_link(dag_id, run_id)}", *lines])


def run_late(context: Mapping[str, Any]) -> None:
    """The callback of the deadline: for a scheduled run that has not ended.

    Airflow 3.3.2 also calls it for runs that failed in time, and for waiting runs of a backfill.
    """
    run = context["dag_run"]
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    if run["run_type"] != "scheduled" or run["state"] not in ("queued", "running"):
        return
    lines = [
        f"Run: {_link(dag_id, run_id)}",
        f"It is {run['state']} {deadline_hours():g} hours after it was due. Look at the states and "
        "logs of its tasks; nothing was stopped.",
    ]
    _send(context, f"Imageflows: {dag_id} is late", lines)


def _send(context: Mapping[str, Any], subject: str, lines: list[str]) -> None:
    alert = {"subject": subject, "text": "\n".join([subject, *lines])}
    _notifier()({**context, "alert": alert})


def _notifier() -> Callable[[dict[str, Any]], object]:
    """What `[imageflows] failure_notifier` names: a function, a notifier, or a notifier's class."""
    path = setting("failure_notifier", "")
    module, _, name = path.rpartition(".")
    try:
        found: Any = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PlanRefused(
            f"[imageflows] failure_notifier {path} cannot be imported ({printable(error)}): name "
            "something in Airflow's config folder or in an installed package."
        ) from error
    # A notifier's templates are filled in in place: a copy for each message.
    notifier: Callable[[dict[str, Any]], object]
    notifier = found() if isinstance(found, type) else copy(found)
    return notifier


def _outcome(dag_id: str, run_id: str, part: str, since: datetime | None) -> list[str]:
    """The report in a few lines; none where the run has not come so far since it was started."""
    folder = "/".join(filter(None, (run_folder(dag_id, run_id), part)))
    try:
        store = work_store()
        report = json.loads(store.get(f"{folder}/report.json"))
    except FileNotFoundError:
        return []
    except (ImageflowsError, ValueError) as error:
        return [f"Its report cannot be read: {printable(error, REASON)}"]
    if since is not None and datetime.fromisoformat(report["at"]) < since:
        return []
    counts = ", ".join(f"{count} {state}" for state, count in report["counts"].items() if count)
    missing = f", {report['missing']} missing" if report["missing"] else ""
    lines = [f"{report['planned']} planned: {counts or 'none ended'}{missing}"]
    problems = report["problems"]
    for problem in problems[:NAMED]:
        reason = printable(problem["reason"], REASON)
        lines.append(f"  {printable(problem['key'], REASON)}: {problem['state']}: {reason}")
    if len(problems) > NAMED:
        lines.append("  … and more, in the report")
    lines.append(f"Report: {store.uri(folder)}/report.json")
    again = report["run_again"][:1] or [clear_command(dag_id, run_id)]
    return [*lines, f"To run them again: {again[0]}"]


def _link(dag_id: str, run_id: str) -> str:
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    return f"{base}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"
