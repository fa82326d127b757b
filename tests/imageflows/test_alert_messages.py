"""What a message says, and who is called with it."""

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.bases.notifier import BaseNotifier

from imagecore.errors import PlanRefused
from imagecore.report import write_json
from imagecore.workstore import run_folder
from imageflows.alerts import alerts, run_failed, run_late

RUN_ID = "manual__2026-11-21T05:30:00+00:00"
AT = datetime(2026, 11, 21, 6, tzinfo=timezone.utc)
SENT: list[str] = []


class Kept(BaseNotifier):
    """Keeps what it is to send."""

    template_fields = ("text",)

    def __init__(self, text: str = "{{ alert.text }}") -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Any) -> None:
        SENT.append(self.text)


kept = Kept("{{ alert.subject }}|{{ alert.text }}")


def function(context):
    SENT.append(context["alert"]["text"])


def named(name, monkeypatch):
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__FAILURE_NOTIFIER", f"{__name__}.{name}")


@pytest.fixture(autouse=True)
def _set_up(monkeypatch):
    SENT.clear()
    named("Kept", monkeypatch)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://flow.example/air/")


def context(part="", started=AT - timedelta(minutes=5)):
    return {
        "dag": DAG("toy", schedule=None),
        "run_id": RUN_ID,
        "reason": "task_failure",
        "dag_run": SimpleNamespace(start_date=started),
        "ti": SimpleNamespace(task_id="report", task=SimpleNamespace(part=part)),
    }


def report(store, part="", **fields):
    problems = [{"key": f"{n}.jpg", "state": "failed", "reason": "r" * 500} for n in range(7)]
    document = {
        "planned": 9, "counts": {"done": 1, "skipped": 0, "failed": 7, "quarantined": 0},
        "missing": 1, "problems": problems, "at": AT.isoformat(), "run_again": ["do it again"],
    }  # fmt: skip
    folder = "/".join(filter(None, (run_folder("toy", RUN_ID), part)))
    return write_json(store, f"{folder}/report.json", document | fields)


def test_nothing_is_set_up_by_default(monkeypatch):
    monkeypatch.delenv("AIRFLOW__IMAGEFLOWS__FAILURE_NOTIFIER")
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__DEADLINE_HOURS", "6")
    assert alerts(daily=True) == {}


def test_a_deadline_is_for_daily_dags_and_a_number(monkeypatch):
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__DEADLINE_HOURS", "6")
    assert alerts(daily=True)["deadline"].interval == timedelta(hours=6)
    assert alerts().keys() == {"on_failure_callback"}
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__DEADLINE_HOURS", "six")
    with pytest.raises(ValueError, match="deadline_hours is 'six'"):
        alerts(daily=True)


def test_a_message_is_short_and_says_what_to_do(work_store):
    uri = report(work_store)
    run_failed(context())
    [text] = SENT
    subject, link, counts, *items, more, where, again = text.splitlines()
    assert subject == "Imageflows: toy failed"
    assert link == (
        "Run: https://flow.example/air/dags/toy/runs/manual__2026-11-21T05%3A30%3A00%2B00%3A00"
    )
    assert counts == "9 planned: 1 done, 7 failed, 1 missing"
    assert len(items) == 5
    assert all(len(item) < 250 for item in items)
    assert (more, where) == ("  … and more, in the report", f"Report: {uri}")
    assert again == "To run them again: do it again"


def test_the_report_of_an_earlier_start_of_the_run_does_not_count(work_store):
    report(work_store)
    run_failed(context(started=AT + timedelta(minutes=5)))
    [text] = SENT
    assert "It came to no report: the log of task report says why (task_failure)." in text
    assert f"airflow dags clear toy --run-id {RUN_ID} --only-failed -y" in text


def test_the_report_is_that_of_the_part_that_failed(work_store):
    report(work_store, counts={"done": 9})
    report(work_store, "verify", counts={"failed": 3})
    run_failed(context(part="verify"))
    assert "3 failed" in SENT[0]


def test_a_message_is_sent_although_the_work_store_cannot_be_reached(monkeypatch):
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", "ftp://nowhere")
    run_failed(context())
    assert "Its report cannot be read: The work store 'ftp://nowhere'" in SENT[0]


def test_airflow_may_know_no_more_than_the_run(work_store):
    run_failed({"dag": DAG("toy", schedule=None), "run_id": RUN_ID, "reason": "timed_out"})
    assert "the log of its last task says why (timed_out)" in SENT[0]


def test_a_notifier_that_is_used_twice_sends_both_messages(work_store, monkeypatch):
    named("kept", monkeypatch)
    run_failed(context())
    report(work_store)
    run_failed(context())
    assert SENT[0].startswith("Imageflows: toy failed|Imageflows: toy failed\n")
    assert "9 planned" in SENT[1]


def test_a_function_is_called_with_the_text(work_store, monkeypatch):
    named("function", monkeypatch)
    run_failed(context())
    assert SENT[0].startswith("Imageflows: toy failed\n")


@pytest.mark.parametrize("path", ["nothing", "no_such.module", f"{__name__}.no_such", "."])
def test_a_notifier_that_is_not_there_is_named(work_store, monkeypatch, path):
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__FAILURE_NOTIFIER", path)
    with pytest.raises(PlanRefused, match=r"failure_notifier .* cannot be imported"):
        run_failed(context())


@pytest.mark.parametrize(
    ("run_type", "state", "told"),
    [
        ("scheduled", "running", True),
        ("scheduled", "queued", True),
        ("scheduled", "failed", False),
        ("scheduled", "success", False),
        ("backfill", "queued", False),
        ("manual", "running", False),
    ],
)
def test_only_a_scheduled_run_that_has_not_ended_is_late(run_type, state, told):
    run = {"dag_id": "toy", "dag_run_id": RUN_ID, "run_type": run_type, "state": state}
    run_late({"dag_run": run})
    assert bool(SENT) is told
