"""Every DAG: it loads, says what it is, and asks for nothing that is not there."""

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pendulum
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import TriggerRule
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from docs.generate import load_dags
from imageflows.operators.report import ReportOperator
from imageflows.retry import RETRY_POLICY

ROOT = Path(__file__).resolve().parents[2]
DAGS = load_dags()
POOLS = json.loads((ROOT / "config" / "pools.json").read_text())

every_dag = pytest.mark.parametrize("dag", DAGS.values(), ids=DAGS.keys())


def test_every_file_is_one_dag_of_its_name():
    assert sorted(DAGS) == sorted(path.stem for path in (ROOT / "dags").glob("*.py"))


def test_without_a_queue_there_is_no_dag_that_watches_one():
    bag = DagBag(ROOT / "dags" / "pyramid_note.py", safe_mode=False)
    assert (bag.import_errors, bag.dags) == ({}, {})


@every_dag
def test_a_dag_fits_on_a_screen_below_its_docstring(dag):
    text = Path(dag.fileloc).read_text()
    assert len(text.split('"""', 2)[2].splitlines()) < 60


@every_dag
def test_a_dag_explains_itself_and_the_three_ways_to_run_again(dag):
    assert "--only-failed" in dag.doc_md
    if not any(isinstance(task, ReportOperator) for task in dag.tasks):
        return  # it plans nothing that could be left
    assert "manifest_uri" in dag.doc_md
    if dag.timetable.can_be_scheduled:
        assert "airflow backfill create" in dag.doc_md


@every_dag
def test_every_parameter_is_described_and_has_a_valid_default(dag):
    dag.params.validate()
    for name in dag.params:
        schema = dag.params.get_param(name).schema
        assert dag.params.get_param(name).description, name
        assert {"title", "section", "type"} <= schema.keys(), name
        # The form takes an empty text for a missing one, and lets nobody trigger the DAG.
        assert "null" in schema["type"] or dag.params[name] != "", name


def test_no_source_prefix_is_not_the_whole_bucket_but_refused():
    for name in ("pyramid_note", "pyramid_rerun", "pyramid_tiff"):
        with pytest.raises(ParamValidationError, match=r"too short|non-empty"):
            DAGS[name].params.get_param("source_prefixes").resolve([])


@every_dag
def test_a_dag_never_starts_by_itself_for_the_past(dag):
    assert dag.catchup is False


@every_dag
def test_every_task_waits_in_a_pool_that_exists_and_knows_what_to_retry(dag):
    for task in dag.tasks:
        kwargs = getattr(task, "partial_kwargs", {})
        assert (kwargs.get("pool") or task.pool) in {"default_pool", *POOLS}, task.task_id
        assert (kwargs.get("retry_policy") or task.retry_policy) is RETRY_POLICY, task.task_id


@every_dag
def test_what_a_parameter_holds_is_neither_a_template_nor_a_file_to_read(dag):
    hostile = "{{ conn.imageflows_s3.password }}{% raw %}"
    context = {"params": dict.fromkeys(dag.params, hostile), "run_id": "manual"}
    for task in dag.tasks:
        given = getattr(task, "partial_kwargs", None) or vars(task)
        assert not task.template_ext, task.task_id
        templates = [given[name] for name in task.template_fields if name in given]
        for template in filter(re.compile(r"\bparams\b").search, map(str, templates)):
            rendered = task.render_template(template, context, dag.get_template_env())
            assert hostile in rendered, template


@every_dag
def test_a_report_waits_for_every_batch_it_counts(dag):
    """A task that a failure cuts off ends before what it waits for; what waits for all does not."""

    def waits_for(task, batch):
        through = (each for each in task.upstream_list if each.trigger_rule == TriggerRule.ALL_DONE)
        return batch in task.upstream_task_ids or any(waits_for(each, batch) for each in through)

    for report in (task for task in dag.tasks if isinstance(task, ReportOperator)):
        batches = [task for task in report.get_flat_relatives(upstream=True) if task.is_mapped]
        assert batches
        assert all(waits_for(report, batch.task_id) for batch in batches), report.task_id


def test_the_generated_page_is_what_the_dags_say():
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("run_after", "hours"),
    [
        pytest.param("2026-03-07T12:00", 24, id="an ordinary day"),
        pytest.param("2026-03-08T12:00", 23, id="clocks go forward"),
        pytest.param("2026-11-01T12:00", 25, id="clocks go back"),
    ],
)
def test_pyramids_are_made_at_half_past_five_in_new_york_all_year(run_after, hours):
    new_york = pendulum.timezone("America/New_York")
    serialized = DagSerialization.from_dict(DagSerialization.to_dict(DAGS["pyramid_tiff"]))
    day = pendulum.parse(run_after, tz="America/New_York")
    interval = serialized.timetable.infer_manual_data_interval(run_after=day)
    for end in (interval.start, interval.end):
        local = end.astimezone(new_york)
        assert (local.hour, local.minute) == (5, 30)
    assert interval.end - interval.start == timedelta(hours=hours)
