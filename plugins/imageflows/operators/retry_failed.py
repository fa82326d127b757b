"""Clears what failed, and nothing else, in one run or in all failed runs of a window."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Param

from imagecore.errors import PlanRefused
from imagecore.text import printable
from imagecore.workstore import run_folder
from imageflows.hooks.airflow_api import AirflowApiHook
from imageflows.params import conn_param, moment, refuse_unknown
from imageflows.work import whole_run, work_store

if TYPE_CHECKING:
    from airflow.sdk import Context

TAG = "imageflows"
"""The tag of every DAG of this project; others are not cleared."""

SHOWN = 20
"""How many instances of a run the log names; all are counted."""

ENDED = ("success", "failed")


def retry_failed_params() -> dict[str, Param]:
    """The parameters of `retry_failed_images`."""

    def text(title: str, description: str, **schema: Any) -> Param:
        return Param(
            None,
            type=["null", "string"],
            title=title,
            description=description,
            section="What to do",
            **schema,
        )

    return {
        "mode": Param(
            "dryrun",
            type="string",
            enum=["dryrun", "clear"],
            title="Mode",
            description="`dryrun` lists what would be cleared; `clear` clears it.",
            section="What to do",
        ),
        "dag_id": text(
            "DAG",
            "Runs of this DAG. Empty, with a window: of all Imageflows DAGs.",
            pattern=r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,250}$",
        ),
        "run_id": text(
            "Run",
            "Just this run of the DAG, as its page has it.",
            pattern=r"^(?!\.{1,2}$)[^\x00-\x1f/]{1,250}$",
        ),
        "window_from": text(
            "From",
            "Failed runs that were due at this time or later; by hand: were started.",
            format="date-time",
        ),
        "window_to": text("To", "… and before this time.", format="date-time"),
        "limit": Param(
            100,
            type="integer",
            minimum=1,
            maximum=10_000,
            title="Limit",
            description="At most this many runs, the oldest first.",
            section="What to do",
        ),
        **conn_param(
            "airflow_api_conn_id",
            "Connection",
            "The Airflow connection to Airflow's own REST API.",
            installed="airflow_api_conn_id",
            default="airflow_api",
        ),
    }


class RetryFailedOperator(BaseOperator):
    """Clears the failed instances of runs, so that the scheduler runs just those again.

    Those that did not run because of a failure, and the report that failed with it, are cleared
    too: the run ends anew. A run that has not ended, one of a paused DAG (it would wait for ever)
    and one that can only be run again as a whole are left, each with its reason.

    Returns `{"mode", "runs": [{"dag_id", "run_id", "cleared"}], "left": [{…, "reason"}],
    "over_limit"}`; in a dry run `cleared` is what would be.

    :param airflow_api_conn_id: the connection to Airflow's REST API (templated).
    """

    template_fields = ("airflow_api_conn_id",)

    def __init__(self, *, airflow_api_conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.airflow_api_conn_id = airflow_api_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        params, dag = context["params"], context["dag"]
        refuse_unknown(context["dag_run"].conf, dag.params)
        begin, end = _window(params)
        self.api = AirflowApiHook(self.airflow_api_conn_id)
        self.clears = params["mode"] == "clear"
        self.runs: list[dict[str, Any]] = []
        self.left: list[dict[str, Any]] = []
        dags = self._dags(params["dag_id"], dag.dag_id)
        over = 0
        if params["run_id"]:
            self._take(params["dag_id"], params["run_id"], self._state(params), dags)
        elif begin and end:
            awake = sorted(dag for dag, paused in dags.items() if not paused) or sorted(dags)
            if paused := sorted(dags.keys() - set(awake)):
                self.log.warning("Left, as they are paused: %s", ", ".join(paused))
            found, total = self.api.failed_runs(awake, begin, end, params["limit"])
            for run in found:
                self._take(run.dag_id, run.dag_run_id, str(run.state.value), dags)
            over = total - len(found)
        self._tell(over)
        return {
            "mode": params["mode"], "runs": self.runs, "left": self.left, "over_limit": over,
        }  # fmt: skip

    def _dags(self, dag_id: str | None, own: str) -> dict[str, bool]:
        """The DAGs whose runs are meant, and whether each is paused."""
        if dag_id is None:
            return {dag.dag_id: dag.is_paused for dag in self.api.dags(TAG) if dag.dag_id != own}
        if dag_id == own:
            raise PlanRefused(f"{own} does not clear runs of its own.")
        dag = self.api.dag(dag_id)
        if dag is None:
            raise PlanRefused(f"There is no DAG {printable(dag_id)}: correct dag_id.")
        if TAG not in {tag.name for tag in dag.tags}:
            raise PlanRefused(
                f"{dag_id} is not one of the Imageflows DAGs, which have the tag {TAG}."
            )
        return {dag_id: dag.is_paused}

    def _state(self, params: dict[str, Any]) -> str:
        run = self.api.run(params["dag_id"], params["run_id"])
        if run is None:
            raise PlanRefused(
                f"{params['dag_id']} has no run {printable(params['run_id'])}: correct run_id; "
                f"`airflow dags list-runs {params['dag_id']}` shows them."
            )
        return str(run.state.value)

    def _take(self, dag_id: str, run_id: str, state: str, dags: dict[str, bool]) -> None:
        """Clear what failed in a run, or say why it is left."""
        run = {"dag_id": dag_id, "run_id": printable(run_id)}
        reason = ""
        if state not in ENDED:
            reason = f"it is {state}"
        elif state == "success":
            reason = "it ended well, so its report would not be made anew: use its failed.jsonl"
        elif dags[dag_id]:
            reason = "its DAG is paused, so it would wait for ever: unpause it first"
        elif whole := _whole_run(dag_id, run_id):
            reason = f"it can only be run again as a whole: {whole}"
        if reason:
            self.left.append({**run, "reason": reason})
            self.log.warning("%s %s is left: %s", dag_id, run["run_id"], reason)
            return
        instances = self.api.clear_failed(dag_id, run_id, dry_run=True)
        if instances and self.clears:
            self.api.clear_failed(dag_id, run_id, dry_run=False)
        names = [printable(_name(instance), 200) for instance in instances]
        self.runs.append({**run, "cleared": len(names)})
        lines = [f"  {name}" for name in names[:SHOWN]]
        if len(names) > SHOWN:
            lines.append(f"  … and {len(names) - SHOWN} more")
        did = "cleared" if self.clears else "would be cleared"
        self.log.info("%s %s: %d %s\n%s", dag_id, run["run_id"], len(names), did, "\n".join(lines))

    def _tell(self, over: int) -> None:
        count = sum(run["cleared"] for run in self.runs)
        self.log.info(
            "%d instances in %d runs %s; %d runs left, %d more beyond the limit",
            count,
            len(self.runs),
            "cleared" if self.clears else "would be cleared (dry run)",
            len(self.left),
            over,
        )


def _window(params: dict[str, Any]) -> tuple[datetime | None, datetime | None]:
    """The window's ends, both or none.

    Raises:
        PlanRefused: it is not said which runs are meant, or said twice.
    """
    given = [name for name in ("window_from", "window_to") if params[name] is not None]
    if params["run_id"] is not None:
        if given or params["dag_id"] is None:
            raise PlanRefused("run_id goes with dag_id, and without window_from and window_to.")
        return None, None
    if len(given) < 2:
        raise PlanRefused(
            "Say which runs: dag_id and run_id, or window_from and window_to, both of them."
        )
    begin, end = (moment(params, name) for name in given)
    if begin and end and begin >= end:
        raise PlanRefused("window_from is not before window_to: no run can be meant.")
    return begin, end


def _whole_run(dag_id: str, run_id: str) -> str | None:
    """The command that runs a whole run again, where its report says that only this serves."""
    try:
        report = json.loads(work_store().get(f"{run_folder(dag_id, run_id)}/report.json"))
    except FileNotFoundError:
        return None
    return whole_run(report)


def _name(instance: Any) -> str:
    label = instance.rendered_map_index
    if label is None and instance.map_index >= 0:
        label = str(instance.map_index)
    return instance.task_id if label is None else f"{instance.task_id} {label}"
