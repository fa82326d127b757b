"""Uploads through a real queue, triggerer and scheduler: none is lost, none is made twice."""

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import skimage

from devstack.environment import NOTES_QUEUE, S3_CONNECTION, SCHEDULES
from devstack.events import ACCOUNT, QUEUE, make_queue, notify
from devstack.samples import aws
from devstack.stack import dead_services
from imagecore.notes import note_key
from tests.integration.airflow_stack import ENDED, AirflowStack, airflow_stack, until
from tests.integration.dag_runs import connection
from tests.uploadevents import TEST_EVENT, message, record

ROCKET = (Path(skimage.__file__).parent / "data" / "rocket.jpg").read_bytes()
SOURCE, PROCESS, IMAGE = (f"imageflows-{role}" for role in ("source", "process", "image"))
NOTE, TIFF = "pyramid_note", "pyramid_tiff"
TRIGGERER = "airflow-triggerer"


@dataclass(frozen=True)
class Uploads:
    """A running stack whose source bucket tells a queue of uploads."""

    stack: AirflowStack
    sqs: Any
    queue: str

    def put(self, key: str, data: bytes = ROCKET) -> None:
        self.stack.s3.put_object(Bucket=SOURCE, Key=key, Body=data)

    def send(self, body: str) -> None:
        """A message that is not the bucket's own."""
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)

    def keys(self, bucket: str, prefix: str = "") -> set[str]:
        listing = self.stack.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
        return {entry["Key"] for entry in listing.get("Contents", ())}

    def queued(self, state: str = "") -> int:
        """How many messages are in the queue: nobody took them, or "NotVisible", taken and kept."""
        name = f"ApproximateNumberOfMessages{state}"
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=[name])
        return int(found["Attributes"][name])

    def taken(self, text: str, *, with_run: bool = False) -> bool:
        """Whether Airflow knows a message with this text, by its triggerer, or made its run."""
        return any(text in body for body in self.stack.api.messages(with_run=with_run))

    def counts(self) -> list[dict[str, Any]]:
        """What each run of `pyramid_note` that has ended counted."""
        runs = self.stack.runs(NOTE)
        found = [self.stack.api.xcom(NOTE, run, "note", "counts") for run in runs]
        return [counts for counts in found if counts]

    def settle(self) -> None:
        """Wait until all that was sent before has been read: a message behind it becomes a note.

        What somebody took who died before he deleted it comes again, later than that message.
        """
        until(lambda: not self.queued() and not self.queued("NotVisible"))
        without_run = f"/api/v2/dags/{NOTE}/assets/queuedEvents"
        names: list[str] = []
        # A run reads what came behind its own messages too. That has no run, so that the next run
        # reads it again, and would write a note that was deleted in between.
        while not names or not self.taken(names[-1], with_run=True):
            names.append(uuid.uuid4().hex)
            key = f"digital/{names[-1]}.jpg"
            self.send(message(record(key, bucket=SOURCE)))
            until(lambda key=key: self.keys(PROCESS, note_key(key)))
            until(lambda: not self.stack.api._all(without_run, "queued_events"))
            until(lambda: set(self.stack.runs(NOTE).values()) <= ENDED)
        for name in names:
            self.stack.s3.delete_object(Bucket=PROCESS, Key=note_key(f"digital/{name}.jpg"))

    def pyramids(self, **conf: Any) -> dict[str, str]:
        """Run `pyramid_tiff`; what became of each picture."""
        run = self.stack.api.trigger(TIFF, {"images_per_task": 100, **conf})
        assert self.stack.ended(TIFF, run) == "success"
        found = self.stack.outcomes(TIFF, run)
        assert self.stack.report(TIFF, run)["planned"] == len(found)
        return {key: outcome["state"] for key, outcome in found.items()}


@pytest.fixture(scope="module")
def uploads(
    s3_endpoint: str, s3_client: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Uploads]:
    for bucket in (SOURCE, PROCESS, IMAGE):
        s3_client.create_bucket(Bucket=bucket)
    sqs = aws("sqs", s3_endpoint)
    make_queue(sqs)
    queue = f"{s3_endpoint}/{ACCOUNT}/{QUEUE}"
    settings = {
        NOTES_QUEUE: queue,
        S3_CONNECTION: connection(s3_endpoint),  # for a triggerer that is started again
        SCHEDULES: "True",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        # A triggerer that was killed is believed to live for so many seconds.
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
    }
    folder = tmp_path_factory.mktemp("stack")
    with airflow_stack(folder, s3_endpoint, s3_client, **settings) as stack:
        for dag_id in (TIFF, NOTE):
            until(lambda dag_id=dag_id: stack.api.dag(dag_id))
            stack.api.unpause(dag_id)
        until(lambda: set(stack.runs(TIFF).values()) == {"success"})  # the one it missed
        yield Uploads(stack, sqs, queue)


@pytest.fixture(autouse=True)
def _empty_buckets(uploads: Uploads) -> Iterator[None]:
    notify(uploads.stack.s3, SOURCE)
    yield
    notify(uploads.stack.s3, SOURCE, events=False)
    uploads.settle()
    for bucket in (SOURCE, PROCESS, IMAGE):
        for key in uploads.keys(bucket):
            uploads.stack.s3.delete_object(Bucket=bucket, Key=key)


def test_an_upload_becomes_a_note_by_itself_and_a_pyramid(uploads):
    keys = {"digital/Käse + Brot 100%.jpg", "digital/l/1.jpg", "digital/r/1.jpg"}
    for key in keys:
        uploads.put(key)
    uploads.put("digital/read me.txt")
    uploads.put("elsewhere/1.jpg")
    for foreign in ("hello", "[]", message(record("digital/2.jpg", bucket="someone-elses"))):
        uploads.send(foreign)
    uploads.settle()
    assert uploads.keys(PROCESS) == {note_key(key) for key in keys}
    counts = uploads.counts()
    ignored = [reason for each in counts for reason in each["ignored"]]
    assert {"message: test event", "message: not JSON", "message: no records"} <= {*ignored}
    assert {"record: outside the prefixes", "record: another bucket"} <= {*ignored}
    assert {"record: not a picture by its name"} <= {*ignored}
    assert sum(each["written"] for each in counts) >= len(keys)
    for each in counts:
        of_records = sum(n for why, n in each["ignored"].items() if why.startswith("record: "))
        assert each["records"] == each["written"] + each["known"] + of_records

    assert uploads.pyramids(reconcile=False) == dict.fromkeys(keys, "done")
    assert uploads.keys(IMAGE) == {key.replace(".jpg", ".tif") for key in keys}
    assert uploads.keys(PROCESS, "rbsc/") == set()


def test_what_comes_while_a_run_waits_for_the_scheduler_needs_no_further_upload(uploads):
    # Airflow gives the run the events until the first one: the second one has no run.
    uploads.settle()
    scheduler = uploads.stack.scheduler
    scheduler.suspend()
    try:
        for name in ("first", "second"):
            uploads.put(f"digital/{name}.jpg")
            until(lambda name=name: uploads.taken(f"{name}.jpg"))
    finally:
        scheduler.resume()
    expected = {note_key(f"digital/{name}.jpg") for name in ("first", "second")}
    until(lambda: uploads.keys(PROCESS) == expected)


def kill_triggerer(stack: AirflowStack) -> None:
    """End it and all that it started, at once."""
    process = psutil.Process(stack.state.services[TRIGGERER].pid)
    for member in [process, *process.children(recursive=True)]:
        member.kill()
    until(lambda: dead_services(stack.layout, stack.state) == [TRIGGERER])


def test_lost_doubled_and_reordered_events_and_a_killed_triggerer_lose_no_picture(uploads):
    stack = uploads.stack
    notify(stack.s3, SOURCE, events=False)
    keys = [f"digital/{number:02d}.jpg" for number in range(20)]
    bad, lost = {*keys[3::8]}, {*keys[::5]}
    for key in keys:
        uploads.put(key, ROCKET[:9_000] if key in bad else ROCKET)
    told = [
        message(record(key, bucket=SOURCE, sequencer=f"00F{turn}"))
        for key in keys
        if key not in lost
        for turn in range(3)
    ]
    told += [*told[:20], TEST_EVENT, "hello"]
    random.Random(6).shuffle(told)
    for body in told[:40]:
        uploads.send(body)
    until(lambda: uploads.queued() < 40)
    kill_triggerer(stack)
    for body in told[40:]:
        uploads.send(body)
    # As much as it may have taken, and not yet deleted, when it died.
    uploads.sqs.receive_message(QueueUrl=uploads.queue, MaxNumberOfMessages=10)
    assert stack.revive() == [TRIGGERER]
    uploads.settle()
    noted = uploads.keys(PROCESS, "rbsc/")
    assert noted
    assert noted <= {note_key(key) for key in keys if key not in lost}

    ends = uploads.pyramids()
    assert ends == {key: "quarantined" if key in bad else "done" for key in keys}
    whole = {key for key in keys if key not in bad}
    assert uploads.keys(IMAGE) == {key.replace(".jpg", ".tif") for key in whole}
    assert uploads.keys(PROCESS, "rbsc/") == set()
    quarantine = uploads.keys(PROCESS, "quarantine/")
    assert {json.loads(stack.s3.get_object(Bucket=PROCESS, Key=key)["Body"].read())["key"]
            for key in quarantine} == bad  # fmt: skip
    assert uploads.pyramids() == {}, "all have ended"

    for key in sorted(whole)[:5]:  # what comes again when all is done
        uploads.send(message(record(key, bucket=SOURCE, sequencer="00F0")))
    uploads.settle()
    assert uploads.pyramids() == dict.fromkeys(sorted(whole)[:5], "skipped")
