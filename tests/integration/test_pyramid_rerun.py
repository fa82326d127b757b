"""Notes written again: the pictures that are meant, no others, and pyramid_tiff makes those."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import skimage
from airflow.sdk import DAG

from devstack.samples import client
from imagecore import rerun
from imagecore.errors import InfrastructureError, PlanRefused
from imagecore.notes import note_key
from imagecore.s3 import Bucket, ObjectDenied
from imageflows.operators.rerun import selection_of
from tests.integration.dag_runs import Ran, connection, run_dag

ROCKET = (Path(skimage.__file__).parent / "data" / "rocket.jpg").read_bytes()
PICTURES = (
    "collections/ead_xml/images/e.png",
    "digital/a/1.jpg",
    "digital/a/2.TIF",
    "digital/a/sub/3.jpg",
    "digital/b/4.jpeg",
)
OTHERS = ("digital/a/.hidden.jpg", "digital/a/list.xml", "elsewhere/5.jpg")


@dataclass
class Reruns:
    """Runs of `pyramid_rerun` on the buckets of a `Pyramids`."""

    pyramids: Any
    dag: DAG
    defaults: dict[str, Any]

    def run(self, **conf: Any) -> Ran:
        where = {
            "source_bucket": self.pyramids.source,
            "process_bucket": self.pyramids.process,
            "mode": "copy",
        }
        self.ran = run_dag(self.dag, self.pyramids.work, self.defaults | where | conf)
        return self.ran

    def put(self, *keys: str) -> None:
        for key in keys:
            self.pyramids.put(key, ROCKET)

    def notes(self) -> set[str]:
        """The sources that the waiting notes name."""
        return {self.note(key)["key"] for key in self.pyramids.keys(self.pyramids.process)}

    def note(self, key: str) -> dict[str, Any]:
        found = self.pyramids.client.get_object(Bucket=self.pyramids.process, Key=key)
        return json.loads(found["Body"].read())

    def report(self) -> dict[str, Any]:
        return json.loads((self.ran.folder / "report.json").read_text())

    def manifest(self, *items: dict[str, Any]) -> str:
        """The address of a manifest of these items."""
        path = self.pyramids.work / "given.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{json.dumps(item)}\n" for item in items))
        return f"file://{path}"


@pytest.fixture
def reruns(pyramids: Any, dags: dict[str, DAG], defaults: dict[str, dict[str, Any]]) -> Reruns:
    return Reruns(pyramids, dags["pyramid_rerun"], defaults["pyramid_rerun"])


@pytest.fixture
def no_retries(reruns: Reruns, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be tried again after a while fails at once."""
    for task in reruns.dag.tasks:
        if task.is_mapped:
            monkeypatch.setitem(task.partial_kwargs, "retries", 0)
        else:
            monkeypatch.setattr(task, "retries", 0)


@pytest.mark.parametrize(
    ("chosen", "meant"),
    [
        pytest.param({}, PICTURES, id="everything below the source prefixes"),
        pytest.param({"prefix": "digital/a/"}, PICTURES[1:4], id="a prefix"),
        pytest.param(
            {"source_prefixes": ["digital/b", "digital/a/sub/", "digital/b/"]},
            PICTURES[3:], id="several prefixes",
        ),
        pytest.param({"glob": "*/[12].*"}, PICTURES[1:3], id="a glob"),
        pytest.param({"extensions": ["tif", ".JPEG"]}, (PICTURES[2], PICTURES[4]), id="extensions"),
        pytest.param({"changed_to": "2020-01-01T00:00:00Z"}, (), id="a window that is over"),
        pytest.param(
            {"changed_from": "2020-01-01T00:00:00+01:00"}, PICTURES, id="a window that is open"
        ),
        pytest.param(
            {"prefix": "digital/", "glob": "*/a/*", "extensions": ["jpg"],
             "changed_from": "2020-01-01T00:00:00Z", "changed_to": "2120-01-01T00:00:00Z"},
            (PICTURES[1], PICTURES[3]), id="all of them",
        ),
        pytest.param({"prefix": "digital/", "limit": 2}, PICTURES[1:3], id="the first by name"),
    ],
)  # fmt: skip
def test_notes_are_written_for_what_is_meant(
    reruns: Reruns, chosen: dict[str, Any], meant: tuple[str, ...]
) -> None:
    reruns.put(*PICTURES, *OTHERS)
    ran = reruns.run(**chosen)
    assert ran.state == "success"
    assert {key: each["state"] for key, each in ran.outcomes.items()} == dict.fromkeys(
        meant, "done"
    )
    assert reruns.notes() == set(meant)


def test_a_dry_run_counts_and_writes_nothing(reruns: Reruns) -> None:
    reruns.put(*PICTURES, *OTHERS)
    before = json.dumps({"key": PICTURES[1]}).encode()
    reruns.pyramids.put_note(note_key(PICTURES[1]), before)
    ran = reruns.run(mode="dryrun", extensions=["jpg", "tif"])
    assert (ran.state, ran.outcomes) == ("success", {})
    assert reruns.pyramids.keys(reruns.pyramids.process) == {note_key(PICTURES[1])}
    assert reruns.note(note_key(PICTURES[1])) == {"key": PICTURES[1]}
    report = reruns.report()
    assert {name: report[name] for name in ("listed", "matched", "waiting", "planned")} == {
        "listed": 7, "matched": 3, "waiting": 1, "planned": 3,
    }  # fmt: skip
    assert report["skipped"] == {
        "another extension": 3, "hidden: its name begins with a dot": 1,
    }  # fmt: skip


def test_the_default_is_a_dry_run(reruns: Reruns) -> None:
    reruns.put(*PICTURES)
    reruns.run(mode=reruns.defaults["mode"])
    assert reruns.notes() == set()
    assert reruns.report()["matched"] == len(PICTURES)


def test_what_lies_below_two_prefixes_is_listed_once(reruns: Reruns) -> None:
    reruns.put(*PICTURES)
    reruns.run(mode="dryrun", source_prefixes=["digital/a/", "digital/", "digital/"])
    assert (reruns.report()["listed"], reruns.report()["matched"]) == (4, 4)


def test_a_failed_manifest_names_pictures_of_any_name(reruns: Reruns) -> None:
    reruns.put("digital/noextension", "digital/a.jpg")
    uri = reruns.manifest(
        {"key": "digital/noextension", "path": "digital/", "copyright": None, "notes": []},
        {"key": "digital/a.jpg"},
        {"key": "digital/a.jpg"},
        {"key": "rbsc/bad.json", "notes": []},
    )
    reruns.run(manifest_uri=uri)
    assert reruns.notes() == {"digital/noextension", "digital/a.jpg"}
    assert reruns.report()["remarks"] == 1
    reruns.run(mode="dryrun", manifest_uri=uri, extensions=["JPG"], glob="digital/*")
    assert reruns.report()["matched"] == 1
    assert reruns.report()["skipped"] == {"another extension": 1}


def test_a_window_holds_for_a_manifest_as_well(reruns: Reruns) -> None:
    reruns.put("digital/a.jpg")
    uri = reruns.manifest({"key": "digital/a.jpg"}, {"key": "digital/gone.jpg"})
    reruns.run(manifest_uri=uri, changed_from="2020-01-01T00:00:00Z")
    assert reruns.notes() == {"digital/a.jpg"}
    assert reruns.report()["skipped"] == {"not in the source bucket": 1}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"changed_from": "yesterday"}, "changed_from: 'yesterday' is not a 'date-time'"),
        ({"changed_to": "2026-11-21T05:30:00"}, "changed_to: '2026-11-21T05:30:00' is not"),
        (
            {"changed_from": "2026-11-21T00:00:00Z", "changed_to": "2026-11-21T01:00:00+01:00"},
            "changed_from is not before changed_to",
        ),
        ({"extensions": ["tar.gz"]}, "give them as in jpg, tif"),
        ({"manifest_uri": "file:///etc/failed.jsonl"}, "not in the work store"),
        ({"process_bucket": "no-such-bucket"}, "no-such-bucket does not exist: create it"),
        ({"globb": "*"}, "Unknown parameter globb"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    reruns: Reruns, no_retries: None, wrong: dict[str, Any], said: str, capfd: Any
) -> None:
    reruns.put(*PICTURES)
    try:
        state = reruns.run(**wrong).state
    except ValueError as error:  # the form refuses it
        state = f"refused: {error}"
    assert state != "success"
    assert said in state + "".join(capfd.readouterr())
    assert reruns.notes() == set()


@pytest.mark.parametrize(
    ("time", "said"),
    [("2026-11-21T05:30:00", "has no time zone: add Z"), ("2026-13-01T00:00:00Z", "no date")],
)
def test_a_time_that_passed_the_form_is_looked_at_again(
    reruns: Reruns, time: str, said: str
) -> None:
    with pytest.raises(PlanRefused, match=said):
        selection_of(reruns.defaults | {"changed_from": time})


HOSTILE = (
    "digital/ü ñ 図.jpg",
    "digital//double.jpg",
    "digital/a/../up.jpg",
    "digital/per%2Fcent.jpg",
    "digital/a+b c&d=e.jpg",
    "digital/<img src=x onerror=alert(1)>.jpg",
    "digital/tab\tbell\x07.jpg",
    "digital/" + "x" * 1_000 + ".jpg",
    "digital/[1]*?.jpg",
)


def test_hostile_names_get_a_note_each(reruns: Reruns) -> None:
    reruns.put(*HOSTILE)
    ran = reruns.run(images_per_task=20)
    assert ran.state == "success"
    assert set(ran.outcomes) == set(HOSTILE)
    assert reruns.notes() == set(HOSTILE)


def test_another_kind_of_s3_server_serves_as_well(
    reruns: Reruns, rclone_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_S3", connection(rclone_endpoint))
    pyramids = replace(reruns.pyramids, client=client(rclone_endpoint))
    here = replace(reruns, pyramids=pyramids)
    for bucket in (pyramids.source, pyramids.process):
        pyramids.client.create_bucket(Bucket=bucket)
    here.put(*PICTURES, *OTHERS)
    here.run(glob="*/a/*")
    assert here.notes() == set(PICTURES[1:4])
    here.run(mode="dryrun")
    assert here.report()["waiting"] == 3


def test_a_run_that_breaks_off_goes_on_where_it_stopped(
    reruns: Reruns, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"digital/{number:02}.jpg" for number in range(40)]
    reruns.put(*keys)
    write_again, written = rerun.write_again, []

    def break_once(process: Bucket, key: str, *, force: bool) -> Any:
        if key == keys[30] and key not in written:
            written.append(key)
            raise InfrastructureError("the server is away")
        written.append(key)
        return write_again(process, key, force=force)

    monkeypatch.setattr(rerun, "write_again", break_once)
    ran = reruns.run(images_per_task=40)
    assert (ran.state, len(ran.outcomes)) == ("success", 40)
    assert reruns.notes() == set(keys)
    assert sorted(written) == sorted([*keys, keys[30]])


def test_a_note_that_cannot_be_written_fails_alone_and_failed_jsonl_writes_it(
    reruns: Reruns, monkeypatch: pytest.MonkeyPatch
) -> None:
    reruns.put(*PICTURES)
    write = Bucket.write

    def deny_one(self: Bucket, key: str, *rest: Any) -> None:
        if key == note_key(PICTURES[1]):
            raise ObjectDenied(f"{self.url(key)}: access denied")
        write(self, key, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "write", deny_one)
        ran = reruns.run(glob="digital/*")
    assert ran.state == "failed"
    assert ran.outcomes[PICTURES[1]]["state"] == "failed"
    assert reruns.notes() == set(PICTURES[2:])
    assert any("pyramid_rerun" in line for line in reruns.report()["run_again"])
    ran = reruns.run(manifest_uri=f"file://{ran.folder}/failed.jsonl", glob="digital/*")
    assert {*ran.outcomes} == {PICTURES[1]}
    assert reruns.notes() == set(PICTURES[1:])


@pytest.mark.parametrize(("force", "state"), [(True, "done"), (False, "skipped")])
def test_pyramid_tiff_then_makes_exactly_those(reruns: Reruns, force: bool, state: str) -> None:
    pyramids = reruns.pyramids
    reruns.put("digital/a/1.jpg", "digital/a/2.jpg", "digital/b/3.jpg")
    pyramids.run()
    reruns.run(prefix="digital/a/", force=force)
    assert all(reruns.note(key).get("force", False) is force for key in notes_of(pyramids))
    _, outcomes = pyramids.run()
    assert {key: each["state"] for key, each in outcomes.items()} == dict.fromkeys(
        ("digital/a/1.jpg", "digital/a/2.jpg"), state
    )
    assert notes_of(pyramids) == set()
    assert pyramids.run() == ("success", {})


def notes_of(pyramids: Any) -> set[str]:
    return {key for key in pyramids.keys(pyramids.process) if key.startswith("rbsc/")}


def test_what_failed_for_good_reason_stays_forced_until_it_is_made(
    reruns: Reruns, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyramids = reruns.pyramids
    reruns.put("digital/a.jpg")
    pyramids.run()
    reruns.run(prefix="digital/")
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "deliver", denied)
        state, _ = pyramids.run()
    assert state == "failed"
    _, outcomes = pyramids.run(manifest_uri=f"file://{pyramids.folder}/failed.jsonl")
    assert outcomes["digital/a.jpg"]["state"] == "done"


def denied(*_: Any) -> None:
    raise ObjectDenied("access denied")
