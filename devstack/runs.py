"""One run of a DAG through the real scheduler, from trigger to end."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from devstack.api import Api, TaskInstance
from devstack.errors import DevstackError, UsageError
from devstack.layout import Layout, State

SETTLED_SECONDS = 5
PARSE_SECONDS = 60
SHOWN_ERRORS = 5
ENDED = {"success", "failed"}
WITH_ERROR = {"failed", "up_for_retry"}


@dataclass(frozen=True)
class Run:
    """A run that has ended. `report` is the address of its report, or of its work folder."""

    dag_id: str
    run_id: str
    state: str
    folder: str
    report: str

    @property
    def local_folder(self) -> Path | None:
        """The run's work folder when the work store is on this machine's disk."""
        parts = urlsplit(self.folder)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None


def parse_conf(text: str) -> dict[str, Any]:
    """A run's conf: a JSON object; nothing means the defaults.

    Raises:
        UsageError: it is something else.
    """
    try:
        conf = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise UsageError(
            f"CONF is not JSON ({error}): {text}\n"
            """It looks like this: make run DAG=pyramid_tiff CONF='{"prefix": "digital/"}'"""
        ) from error
    if not isinstance(conf, dict):
        raise UsageError(f'CONF has to be a JSON object such as {{"limit": 10}}, not {text}')
    return conf


def run_dag(
    layout: Layout, state: State, dag_id: str, conf: dict[str, Any], seconds: float | None = None
) -> Run:
    """Trigger one run, follow it to its end and print what happens.

    Raises:
        UsageError: there is no such DAG, or its params refuse the conf.
        DevstackError: Airflow cannot be reached, or the run takes longer than `seconds`.
    """
    api = Api(state.url("airflow"))
    dag = _wait_until_parsed(api, dag_id)
    run_id = api.trigger(dag_id, conf)
    if dag["is_paused"]:
        _say_what_unpausing_does(dag)
        api.unpause(dag_id)
    print(f"{dag_id}: run {run_id}", flush=True)
    ended = _follow(layout, api, dag_id, run_id, seconds)
    folder = f"{state.work_store.rstrip('/')}/{_run_folder(dag_id, run_id)}"
    pushed = api.xcom(dag_id, run_id, "report", "report")
    report = pushed.get("report", folder) if isinstance(pushed, dict) else folder
    return Run(dag_id, run_id, ended, folder, report)


def keep(layout: Layout, run: Run, target: Path) -> Path:
    """Copy a run's work folder and task logs out of the stack's state, which is to go."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if run.local_folder is not None and run.local_folder.is_dir():
        shutil.copytree(run.local_folder, target, dirs_exist_ok=True)
    logs = _log_folder(layout, run.dag_id, run.run_id)
    if logs.is_dir():
        shutil.copytree(logs, target / "logs")
    return target


def kept_folder(layout: Layout, run: Run) -> Path:
    """Where `keep` puts a single run."""
    return layout.build / "runs" / _run_folder(run.dag_id, run.run_id)


def _wait_until_parsed(api: Api, dag_id: str) -> dict[str, Any]:
    """The DAG; or an error as soon as all files seem to have been parsed without it."""
    start = monotonic()
    seen: tuple[list[str], list[tuple[str, str]]] = ([], [])
    changed = start
    while (dag := api.dag(dag_id)) is None:
        known = (api.dag_ids(), api.import_errors())
        if known != seen:
            seen, changed = known, monotonic()
        settled = any(seen) and monotonic() - changed > SETTLED_SECONDS
        if settled or monotonic() - start > PARSE_SECONDS:
            raise UsageError(_unknown(dag_id, *seen))
        sleep(0.5)
    if dag["has_import_errors"]:
        raise UsageError(_unknown(dag_id, api.dag_ids(), api.import_errors()))
    return dag


def _unknown(dag_id: str, dag_ids: list[str], import_errors: list[tuple[str, str]]) -> str:
    others = [known for known in dag_ids if known != dag_id]
    lines = [f"There is no DAG {dag_id} that can be run."]
    lines.append(f"DAGs there are: {', '.join(others)}." if others else "There are no other DAGs.")
    lines += [f"{file} cannot be imported: {error}" for file, error in import_errors]
    return "\n".join(lines)


def _say_what_unpausing_does(dag: dict[str, Any]) -> None:
    if dag["next_dagrun_run_after"]:
        print(
            f"{dag['dag_id']} was paused. Unpausing it turns its schedule on, and Airflow starts "
            "the scheduled run it missed last, if any, beside yours.",
            flush=True,
        )


def _follow(layout: Layout, api: Api, dag_id: str, run_id: str, seconds: float | None) -> str:
    """Print a line for each task whose states change, and errors; returns the final state."""
    start = monotonic()
    shown: dict[str, str] = {}
    reported: set[TaskInstance] = set()
    while True:
        asked = monotonic()
        state = api.run_state(dag_id, run_id)
        instances = api.task_instances(dag_id, run_id)
        for task_id, states in _summaries(instances):
            if shown.get(task_id) != states:
                shown[task_id] = states
                print(f"{monotonic() - start:6.1f} s  {task_id:<12} {states}", flush=True)
        for instance in instances:
            if instance.state in WITH_ERROR and instance not in reported:
                reported.add(instance)
                _show_error(_log_file(layout, dag_id, run_id, instance), instance, len(reported))
        if state in ENDED:
            print(f"{monotonic() - start:6.1f} s  {dag_id}: {state}", flush=True)
            return state
        if seconds is not None and monotonic() - start > seconds:
            raise DevstackError(
                f"The run {run_id} of {dag_id} is still {state} after {seconds:.0f} seconds."
            )
        # Thousands of task instances are many pages: asking must stay a small part of the load.
        sleep(min(max(0.5, 5 * (monotonic() - asked)), 2))


def _summaries(instances: list[TaskInstance]) -> Iterator[tuple[str, str]]:
    tasks: dict[str, list[TaskInstance]] = {}
    for instance in instances:
        tasks.setdefault(instance.task_id, []).append(instance)
    for task_id, members in tasks.items():
        if len(members) == 1:
            if members[0].state != "waiting":
                yield task_id, " ".join(filter(None, [members[0].state, members[0].label]))
            continue
        counts = Counter(member.state for member in members)
        yield task_id, ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _show_error(log: Path, instance: TaskInstance, number: int) -> None:
    """What the task's log gives as the reason; the first few are enough."""
    if number > SHOWN_ERRORS:
        return
    where = f" [{instance.label or instance.map_index}]" if instance.map_index >= 0 else ""
    print(f"          {instance.task_id}{where}: {instance.state}, because:")
    for line in _errors(log):
        print(f"              {line}")
    if number == SHOWN_ERRORS:
        print("          (errors of more tasks are in their logs)")
    print(end="", flush=True)


def _errors(log: Path) -> list[str]:
    """What a task's log says at level error: one JSON object a line."""
    try:
        records = [json.loads(line) for line in log.read_text(errors="replace").splitlines()]
    except (OSError, ValueError):
        return [f"see {log}"]
    lines = []
    for record in records:
        if record.get("level") not in {"error", "critical"}:
            continue
        causes = [f"{c['exc_type']}: {c['exc_value']}" for c in record.get("error_detail") or ()]
        lines += "\n".join(causes[:1] or [str(record.get("event", ""))]).splitlines()
    return lines or [f"see {log}"]


def _log_folder(layout: Layout, dag_id: str, run_id: str) -> Path:
    return layout.logs / "tasks" / f"dag_id={dag_id}" / f"run_id={run_id}"


def _log_file(layout: Layout, dag_id: str, run_id: str, instance: TaskInstance) -> Path:
    folder = _log_folder(layout, dag_id, run_id) / f"task_id={instance.task_id}"
    if instance.map_index >= 0:
        folder /= f"map_index={instance.map_index}"
    return folder / f"attempt={instance.try_number}.log"


def _run_folder(dag_id: str, run_id: str) -> str:
    return f"{dag_id}/{quote(run_id, safe=':+')}"
