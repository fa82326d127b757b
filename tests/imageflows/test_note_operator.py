"""Messages of uploads become notes: the real operator, on moto's S3."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest

from devstack.samples import client
from imagecore.errors import InfrastructureError, PlanRefused
from imagecore.notes import note_key
from imageflows.operators.note import PyramidNoteOperator
from tests.faults import FaultProxy, drop, status
from tests.integration.dag_runs import connection
from tests.uploadevents import TEST_EVENT, message, record

NOON = pendulum.datetime(2026, 11, 21, 12)


def event(*bodies: str, at: int = 0, taken_by: str | None = None) -> SimpleNamespace:
    """An asset event as the watcher of a queue makes it, `at` seconds after noon."""
    batch = [{"MessageId": "1", "ReceiptHandle": "2", "Body": body} for body in bodies]
    return SimpleNamespace(
        extra={"from_trigger": True, "payload": {"status": "success", "message_batch": batch}},
        timestamp=NOON.add(seconds=at),
        created_dagruns=[SimpleNamespace(dag_id=taken_by)] if taken_by else [],
    )


class Recorded(list):
    """The asset's events on record, as Airflow lets a task ask for them."""

    def after(self, when: str) -> "Recorded":
        return Recorded(each for each in self if each.timestamp >= pendulum.parse(when))

    def ascending(self, ascending: bool) -> "Recorded":
        return self if ascending else Recorded(self[::-1])

    def limit(self, limit: int) -> "Recorded":
        return self


@dataclass
class Notes:
    """A process bucket, and what a run of `note` makes of asset events."""

    s3: Any
    process: str
    xcom: dict[str, Any] = field(default_factory=dict)

    def run(self, *triggering: Any, recorded: Any = (), **conf: Any) -> dict[str, Any]:
        """Run the task, with the asset's events on record; its counts."""
        for own in triggering:
            own.created_dagruns = [SimpleNamespace(dag_id="pyramid_note")]
        params = {"source_prefixes": ["digital/"]}
        context: Any = {
            "dag": SimpleNamespace(params=params),
            "dag_run": SimpleNamespace(dag_id="pyramid_note", conf=conf),
            "params": params,
            "ti": SimpleNamespace(xcom_push=lambda key, value: self.xcom.update({key: value})),
            "triggering_asset_events": {"uploads": list(triggering)} if triggering else {},
            "inlet_events": {"uploads": Recorded([*triggering, *recorded])},
        }
        PyramidNoteOperator(
            task_id="note",
            aws_conn_id="imageflows_s3",
            source_bucket="uploads",
            process_bucket=self.process,
        ).execute(context)
        return self.xcom["counts"]

    def keys(self) -> set[str]:
        listing = self.s3.list_objects_v2(Bucket=self.process)
        return {entry["Key"] for entry in listing.get("Contents", ())}

    def of(self, key: str) -> dict[str, Any]:
        body = self.s3.get_object(Bucket=self.process, Key=note_key(key))["Body"]
        return json.loads(body.read())


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def notes(
    proxy: FaultProxy,
    s3_endpoint: str,
    new_bucket: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Notes:
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_S3", connection(proxy.url))
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    return Notes(client(s3_endpoint), new_bucket("process"))


ALL_WELL = {"known": 0, "failed": 0, "ignored": {}}


def test_all_records_of_all_messages_of_all_events_become_notes(notes: Notes):
    names = [f"digital/{number}.jpg" for number in range(6)]
    a, b, c, d, e, f = map(record, names)
    counts = notes.run(event(message(a, b), message(c)), event(message(d, e, f), at=1))
    assert counts == {"messages": 3, "records": 6, "written": 6, **ALL_WELL}
    assert notes.keys() == {note_key(name) for name in names}
    assert notes.of(names[0]) == {
        "key": names[0], "path": "digital/", "eTag": "d41d8c", "sequencer": "0055AED6DCD90281E5",
    }  # fmt: skip


def test_what_is_ignored_is_counted_and_logged_by_its_reason(
    notes: Notes, capsys: pytest.CaptureFixture[str]
):
    outside = [record("a.jpg"), record("b.jpg")]
    counts = notes.run(event(TEST_EVENT, "hello", message(record(), *outside)))
    ignored = {
        "message: test event": 1, "message: not JSON": 1, "record: outside the prefixes": 2,
    }  # fmt: skip
    assert counts == {"messages": 3, "records": 3, "written": 1, **ALL_WELL, "ignored": ignored}
    log = capsys.readouterr().out
    assert "3 messages, 3 records: 1 notes written, 0 known, 0 failed, 4 ignored" in log
    for reason, count in ignored.items():
        assert f"Ignored: {count} × {reason}" in log


def test_of_a_key_the_newest_counts_whatever_the_order_and_in_whatever_run(notes: Notes):
    uploads = {number: message(record(sequencer=f"00F{number}")) for number in range(5)}
    counts = notes.run(event(uploads[1], uploads[3], uploads[2]), event(uploads[3], at=1))
    assert counts == {"messages": 4, "records": 4, "written": 1, **ALL_WELL, "known": 3}
    assert notes.of("digital/a.jpg")["sequencer"] == "00F3"
    assert notes.run(event(uploads[2]))["known"] == 1
    assert notes.run(event(uploads[4]))["written"] == 1
    assert notes.of("digital/a.jpg")["sequencer"] == "00F4"


def test_a_run_done_again_changes_nothing(notes: Notes):
    told = event(message(record(), record("digital/b c+ü.jpg")))
    assert notes.run(told)["written"] == 2
    before = notes.s3.head_object(Bucket=notes.process, Key=note_key("digital/a.jpg"))
    again = notes.run(told)
    assert (again["written"], again["known"]) == (0, 2)
    after = notes.s3.head_object(Bucket=notes.process, Key=note_key("digital/a.jpg"))
    assert after["LastModified"] == before["LastModified"]


@pytest.mark.parametrize("code", [403, 500])
def test_a_note_that_cannot_be_written_stops_no_other_and_is_written_by_the_next_try(
    notes: Notes, proxy: FaultProxy, code: int
):
    names = [f"digital/{number}.jpg" for number in range(20)]
    told = event(message(*map(record, names)))
    with (
        proxy.fault("PutObject", status(code), key=note_key(names[3])),
        pytest.raises(InfrastructureError, match=r"1 notes could not(.|\n)*digital/3\.jpg\.json"),
    ):
        notes.run(told)
    assert notes.xcom["counts"] == {
        "messages": 1, "records": 20, "written": 19, **ALL_WELL, "failed": 1,
    }  # fmt: skip
    assert len(notes.keys()) == 19
    again = notes.run(told)
    assert (again["written"], again["known"], again["failed"]) == (1, 19, 0)


def test_a_server_that_is_away_is_tried_again_later(notes: Notes, proxy: FaultProxy):
    told = event(message(*(record(f"digital/{number}.jpg") for number in range(50))))
    with proxy.fault("PutObject", drop()), pytest.raises(InfrastructureError, match="reached"):
        notes.run(told)
    tried = {request.key for request in proxy.requests.select("PutObject")}
    assert len(tried) < 50, "not every note has to be tried in vain"
    assert notes.run(told)["written"] == 50


def test_a_bucket_that_is_not_there_is_refused_by_name(notes: Notes):
    notes.process = "no-such-bucket"
    with pytest.raises(PlanRefused, match="no-such-bucket"):
        notes.run(event(message(record())))


def test_an_unknown_parameter_is_refused(notes: Notes):
    with pytest.raises(PlanRefused, match="source_prefix"):
        notes.run(event(message(record())), source_prefix="digital/")


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"payload": None},
        {"payload": ["message_batch"]},
        {"payload": {"message_batch": {"Body": "{}"}}},
        {"payload": {"message_batch": ["hello", None, {}, {"Body": 7}]}},
    ],
)
def test_an_event_made_by_a_person_may_hold_anything(notes: Notes, extra: dict[str, Any]):
    odd = event()
    odd.extra = extra
    counts = notes.run(odd, event(message(record()), at=1))
    assert (counts["written"], counts["records"]) == (1, 1)
    assert counts["messages"] == 1 + sum(counts["ignored"].values())


# Events that have no run


def told_of(name: str, at: int, taken_by: str | None = None) -> SimpleNamespace:
    return event(message(record(f"digital/{name}.jpg")), at=at, taken_by=taken_by)


def test_events_that_came_since_and_have_no_run_are_taken_with_the_runs_own(notes: Notes):
    own = told_of("own", at=10, taken_by="pyramid_note")
    others = [
        told_of("of-an-earlier-run", at=5),
        told_of("late", at=11),
        told_of("of-another-run", at=12, taken_by="pyramid_note"),
        told_of("of-another-dag", at=13, taken_by="someone_elses"),
    ]
    assert notes.run(own, recorded=others)["written"] == 3
    assert notes.keys() == {
        note_key(f"digital/{name}.jpg") for name in ("own", "late", "of-another-dag")
    }


def test_a_run_by_hand_takes_the_events_that_have_no_run(notes: Notes):
    left = [told_of("a", at=1), told_of("b", at=2, taken_by="pyramid_note"), told_of("c", at=3)]
    assert notes.run(recorded=left)["written"] == 2
    assert notes.keys() == {note_key(f"digital/{name}.jpg") for name in "ac"}


def test_a_run_by_hand_with_nothing_left_says_so(notes: Notes, capsys: pytest.CaptureFixture[str]):
    counts = notes.run()
    assert counts == {"messages": 0, "records": 0, "written": 0, **ALL_WELL}
    assert "No messages: there are none that no run has taken." in capsys.readouterr().out
