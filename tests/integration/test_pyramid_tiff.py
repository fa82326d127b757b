"""The whole workflow, from a note to a verified pyramid: every task through Airflow's runner."""

import io
import json
import os
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import skimage
import tifffile
from moto.s3.models import s3_backends

from devstack.samples import client
from imagecore.errors import ItemFailed
from imagecore.notes import write_note
from imagecore.s3 import Bucket, ObjectDamaged, ObjectDenied, ServerFault

PICTURES = Path(skimage.__file__).parent / "data"
ROCKET = (PICTURES / "rocket.jpg").read_bytes()
COFFEE = (PICTURES / "coffee.png").read_bytes()
RETINA = (PICTURES / "retina.jpg").read_bytes()


def sizes(pyramid: bytes) -> list[tuple[int, int]]:
    with tifffile.TiffFile(io.BytesIO(pyramid)) as tiff:
        return [(page.imagewidth, page.imagelength) for page in tiff.pages]


def states(outcomes: dict) -> dict[str, str]:
    return {key: outcome["state"] for key, outcome in outcomes.items()}


def forbid_fetching(monkeypatch) -> None:
    def fetch(self, found, target):
        raise AssertionError(f"{found.key} was fetched")

    monkeypatch.setattr(Bucket, "fetch", fetch)


def test_a_noted_picture_becomes_a_pyramid_and_its_note_goes(pyramids):
    pyramids.upload("digital/space/rocket.jpg", ROCKET)
    state, outcomes = pyramids.run()
    assert state == "success"
    assert states(outcomes) == {"digital/space/rocket.jpg": "done"}
    assert sizes(pyramids.result("digital/space/rocket.tif")) == [(640, 427), (320, 213)]
    assert pyramids.keys(pyramids.process) == set()


def test_a_pyramid_carries_what_viewers_and_the_next_run_need(pyramids):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.run()
    found = pyramids.client.head_object(Bucket=pyramids.image, Key="digital/rocket.tif")
    assert found["ContentType"] == "image/tiff"
    known = {name: found["Metadata"][name] for name in ("width", "height", "pages", "tilesize")}
    assert known == {"width": "640", "height": "427", "pages": "2", "tilesize": "512"}
    source = pyramids.client.head_object(Bucket=pyramids.source, Key="digital/rocket.jpg")
    assert found["Metadata"]["source-etag"] == source["ETag"].strip('"')
    assert found["Metadata"]["bytes"] == str(found["ContentLength"])


def test_what_is_up_to_date_is_skipped_without_being_fetched(pyramids, monkeypatch):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.run()
    pyramids.upload("digital/rocket.jpg", ROCKET)
    forbid_fetching(monkeypatch)
    state, outcomes = pyramids.run()
    assert (state, states(outcomes)) == ("success", {"digital/rocket.jpg": "skipped"})
    assert pyramids.keys(pyramids.process) <= {"current/digital/rocket.jpg.json"}  # its own second


def test_a_result_that_was_never_compared_is_compared_before_it_is_skipped(pyramids):
    """A try was killed between the upload and the comparison, and the upload was damaged."""
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.run()
    where = {"Bucket": pyramids.image, "Key": "digital/rocket.tif"}
    good = pyramids.client.get_object(**where)
    body = bytearray(good["Body"].read())
    body[len(body) // 2] ^= 1
    pyramids.client.put_object(**where, Body=bytes(body), Metadata=good["Metadata"])
    _, outcomes = pyramids.run(prefix="digital/")
    assert states(outcomes) == {"digital/rocket.jpg": "done"}
    assert pyramids.client.head_object(**where)["ETag"] == good["ETag"]


def test_another_kind_of_s3_server_serves_as_well(pyramids, rclone_endpoint, monkeypatch):
    here = replace(pyramids, client=client(rclone_endpoint))
    connection = json.loads(os.environ["AIRFLOW_CONN_IMAGEFLOWS_S3"])
    connection["extra"]["endpoint_url"] = rclone_endpoint
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_S3", json.dumps(connection))
    for bucket in (here.source, here.process, here.image):
        here.client.create_bucket(Bucket=bucket)
    here.upload("digital/rocket.jpg", ROCKET)
    here.upload("digital/cut.jpg", ROCKET[:9_000])
    ends = {"digital/rocket.jpg": "done", "digital/cut.jpg": "quarantined"}
    state, outcomes = here.run()
    assert (state, states(outcomes)) == ("success", ends)
    _, outcomes = here.run(prefix="digital/")
    assert states(outcomes) == ends | {"digital/rocket.jpg": "skipped"}


@pytest.mark.parametrize("change", [{"force": True}, {"preset": "iiif"}, {"tile": 256}])
def test_force_or_another_recipe_makes_it_again(pyramids, change):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.run()
    _, outcomes = pyramids.run(prefix="digital/", **change)
    assert states(outcomes) == {"digital/rocket.jpg": "done"}


def test_a_changed_source_is_made_again(pyramids):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.run()
    pyramids.upload("digital/rocket.jpg", RETINA)
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/rocket.jpg": "done"}
    assert sizes(pyramids.result("digital/rocket.tif"))[0] == (1411, 1411)


def test_a_truncated_picture_is_quarantined_with_its_reason_and_the_others_are_made(pyramids):
    pyramids.upload("digital/cut.jpg", ROCKET[: len(ROCKET) // 2])
    pyramids.upload("digital/rocket.jpg", ROCKET)
    state, outcomes = pyramids.run()
    assert state == "success"
    assert states(outcomes) == {"digital/cut.jpg": "quarantined", "digital/rocket.jpg": "done"}
    assert pyramids.keys(pyramids.process) == {"quarantine/digital/cut.jpg.json"}
    note = pyramids.client.get_object(
        Bucket=pyramids.process, Key="quarantine/digital/cut.jpg.json"
    )["Body"].read()
    assert json.loads(note)["reason"] == outcomes["digital/cut.jpg"]["reason"]
    assert pyramids.keys(pyramids.image) == {"digital/rocket.tif"}


def test_a_mended_picture_leaves_quarantine(pyramids):
    pyramids.upload("digital/cut.jpg", ROCKET[: len(ROCKET) // 2])
    pyramids.run()
    pyramids.upload("digital/cut.jpg", ROCKET)
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/cut.jpg": "done"}
    assert pyramids.keys(pyramids.process) == set()


def test_a_failed_picture_keeps_its_note_and_failed_jsonl_runs_it_again(pyramids, monkeypatch):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.upload("digital/coffee.png", COFFEE)
    with monkeypatch.context() as patch:
        deliver = Bucket.deliver

        def refuse_one(self, source, key, *rest):
            if "coffee" in key:
                raise ItemFailed("the bucket is read-only today")
            deliver(self, source, key, *rest)

        patch.setattr(Bucket, "deliver", refuse_one)
        state, outcomes = pyramids.run()
    assert state == "failed"
    assert states(outcomes) == {"digital/coffee.png": "failed", "digital/rocket.jpg": "done"}
    assert pyramids.keys(pyramids.process) == {"rbsc/coffee.json"}
    assert pyramids.report()["problems"] == [
        {
            "key": "digital/coffee.png",
            "state": "failed",
            "reason": "the bucket is read-only today",
        }
    ]
    state, outcomes = pyramids.run(manifest_uri=f"file://{pyramids.folder}/failed.jsonl")
    assert (state, states(outcomes)) == ("success", {"digital/coffee.png": "done"})
    assert pyramids.keys(pyramids.process) == set()


def test_two_sources_of_one_result_are_both_refused_by_name(pyramids):
    pyramids.put("digital/a.jpg", ROCKET)
    pyramids.put("digital/a.png", COFFEE)
    for number, key in enumerate(("digital/a.jpg", "digital/a.png")):
        note = {"key": key, "path": "digital/"}
        pyramids.put_note(f"rbsc/{number}.json", json.dumps(note).encode())
    _, outcomes = pyramids.run()
    assert states(outcomes) == dict.fromkeys(("digital/a.jpg", "digital/a.png"), "quarantined")
    for outcome in outcomes.values():
        assert "digital/a.jpg, digital/a.png would all become digital/a.tif" in outcome["reason"]
    assert pyramids.keys(pyramids.image) == set()


def test_a_result_of_another_living_picture_is_not_overwritten(pyramids):
    pyramids.upload("digital/a.jpg", ROCKET)
    pyramids.run()
    before = pyramids.result("digital/a.tif")
    pyramids.upload("digital/a.png", COFFEE)
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/a.png": "quarantined"}
    assert "the pyramid of another picture, digital/a.jpg" in outcomes["digital/a.png"]["reason"]
    assert pyramids.result("digital/a.tif") == before
    pyramids.client.delete_object(Bucket=pyramids.source, Key="digital/a.jpg")
    _, outcomes = pyramids.run(prefix="digital/")
    assert states(outcomes) == {"digital/a.png": "done"}


def test_a_pyramid_never_overwrites_an_uploaded_picture(pyramids):
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, tifffile.imread(PICTURES / "multipage_rgb.tif")[0])
    pyramids.upload("digital/scan.tif", tiff.getvalue())
    _, outcomes = pyramids.run(image_bucket=pyramids.source)
    assert states(outcomes) == {"digital/scan.tif": "quarantined"}
    pyramids.upload("digital/scan.jpg", ROCKET)
    _, outcomes = pyramids.run(image_bucket=pyramids.source)
    assert states(outcomes) == {"digital/scan.jpg": "quarantined"}
    assert (
        pyramids.client.get_object(Bucket=pyramids.source, Key="digital/scan.tif")["Body"].read()
        == tiff.getvalue()
    )


def test_folder_markers_are_remarked_and_unreadable_notes_quarantined_unharmed(pyramids):
    pyramids.put_note("rbsc/", b"")
    pyramids.put_note("rbsc/readme.txt", b"hello")
    pyramids.put_note("rbsc/bad.json", b"{key: 'no quotes'}")
    pyramids.upload("digital/rocket.jpg", ROCKET)
    state, outcomes = pyramids.run()
    assert state == "success"
    assert states(outcomes) == {"digital/rocket.jpg": "done", "rbsc/bad.json": "quarantined"}
    assert pyramids.report()["remarks"] == 2
    assert pyramids.keys(pyramids.process) == {
        "rbsc/", "rbsc/readme.txt", "quarantine/rbsc/bad.json", "quarantine/rbsc/bad.json.json",
    }  # fmt: skip


def test_a_note_that_cannot_be_fetched_fails_alone_and_stays(pyramids, monkeypatch):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.upload("digital/coffee.png", COFFEE)
    read = Bucket.read

    def deny_one(self, key):
        if key == "rbsc/coffee.json":
            raise ObjectDenied(f"{self.url(key)}: access denied")
        return read(self, key)

    monkeypatch.setattr(Bucket, "read", deny_one)
    state, outcomes = pyramids.run()
    assert state == "failed"
    assert states(outcomes) == {"digital/rocket.jpg": "done", "rbsc/coffee.json": "failed"}
    assert pyramids.keys(pyramids.process) == {"rbsc/coffee.json"}


def test_a_deleted_source_is_quarantined_not_forgotten(pyramids):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.client.delete_object(Bucket=pyramids.source, Key="digital/rocket.jpg")
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/rocket.jpg": "quarantined"}
    assert "does not exist" in outcomes["digital/rocket.jpg"]["reason"]
    assert pyramids.keys(pyramids.process) == {"quarantine/digital/rocket.jpg.json"}


def test_copyright_limits_hold_also_when_a_later_run_has_no_note(pyramids):
    pyramids.upload("digital/retina.jpg", RETINA, copyrightStatus="Copyright")
    pyramids.run()
    assert sizes(pyramids.result("digital/retina.tif"))[0] == (560, 560)
    _, outcomes = pyramids.run(prefix="digital/", force=True)
    assert states(outcomes) == {"digital/retina.jpg": "done"}
    assert sizes(pyramids.result("digital/retina.tif"))[0] == (560, 560)


def test_copyright_stays_when_a_new_note_does_not_speak_of_it(pyramids):
    pyramids.upload("digital/retina.jpg", RETINA, copyrightStatus="copyright")
    pyramids.run()
    pyramids.upload("digital/retina.jpg", RETINA + b" ")
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/retina.jpg": "done"}
    assert sizes(pyramids.result("digital/retina.tif"))[0] == (560, 560)


def test_copyright_survives_quarantine(pyramids):
    pyramids.upload("digital/retina.jpg", RETINA[:9_000], copyrightStatus="copyright")
    pyramids.run()
    pyramids.upload("digital/retina.jpg", RETINA[:8_000])
    pyramids.run()
    pyramids.put("digital/retina.jpg", RETINA)
    _, outcomes = pyramids.run(prefix="digital/")
    assert states(outcomes) == {"digital/retina.jpg": "done"}
    assert sizes(pyramids.result("digital/retina.tif"))[0] == (560, 560)


def test_an_object_at_which_the_server_breaks_fails_alone(pyramids, monkeypatch):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.upload("digital/coffee.png", COFFEE)
    fetch = Bucket.fetch

    def break_at_one(self, found, target):
        if "coffee" in found.key:
            raise ServerFault("InternalError")
        fetch(self, found, target)

    monkeypatch.setattr(Bucket, "fetch", break_at_one)
    state, outcomes = pyramids.run()
    assert state == "failed"
    assert states(outcomes) == {"digital/coffee.png": "failed", "digital/rocket.jpg": "done"}


def test_a_connection_that_breaks_once_is_no_failure(pyramids, monkeypatch):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    fetch, broken = Bucket.fetch, []

    def break_once(self, found, target):
        if not broken:
            broken.append(found.key)
            raise ObjectDamaged("cut off")
        fetch(self, found, target)

    monkeypatch.setattr(Bucket, "fetch", break_once)
    _, outcomes = pyramids.run()
    assert (states(outcomes), len(broken)) == ({"digital/rocket.jpg": "done"}, 1)


def test_a_note_written_anew_meanwhile_stays(pyramids, monkeypatch):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    deliver = Bucket.deliver

    def renote(self, *arguments):
        deliver(self, *arguments)
        pyramids.put_note("rbsc/rocket.json", b'{"key": "digital/rocket.jpg", "path": "digital/" }')

    monkeypatch.setattr(Bucket, "deliver", renote)
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/rocket.jpg": "done"}
    assert pyramids.keys(pyramids.process) == {"rbsc/rocket.json"}


def test_a_source_replaced_while_it_is_made_fails_and_keeps_its_note(pyramids, monkeypatch):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    deliver = Bucket.deliver

    def replace(self, *arguments):
        deliver(self, *arguments)
        pyramids.put("digital/rocket.jpg", RETINA)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "deliver", replace)
        state, outcomes = pyramids.run()
    assert (state, states(outcomes)) == ("failed", {"digital/rocket.jpg": "failed"})
    assert "changed meanwhile" in outcomes["digital/rocket.jpg"]["reason"]
    assert pyramids.keys(pyramids.process) == {"rbsc/rocket.json"}
    _, outcomes = pyramids.run()
    assert sizes(pyramids.result("digital/rocket.tif"))[0] == (1411, 1411)


def test_a_dry_run_changes_no_bucket(pyramids):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.put_note("rbsc/bad.json", b"{")
    state, outcomes = pyramids.run(mode="dryrun")
    assert (state, outcomes) == ("success", {})
    assert pyramids.report()["planned"] == 2
    assert pyramids.keys(pyramids.image) == set()
    assert pyramids.keys(pyramids.process) == {"rbsc/rocket.json", "rbsc/bad.json"}
    plan = json.loads(next(pyramids.folder.glob("plan-1-*/plan.json")).read_text())
    assert plan["first_remarks"] == [
        {
            "key": "rbsc/bad.json",
            "remark": "would be quarantined: unreadable note: the note is not JSON",
        }
    ]


def test_a_prefix_takes_every_picture_below_it_and_a_limit_the_first(pyramids):
    for key in ("digital/a/1.jpg", "digital/a/2.JPG", "digital/b/3.jpg", "digital/a/.4.jpg"):
        pyramids.put(key, ROCKET)
    pyramids.put("digital/a/list.xml", b"<list/>")
    _, outcomes = pyramids.run(prefix="digital/a/")
    assert states(outcomes) == {"digital/a/1.jpg": "done", "digital/a/2.JPG": "done"}
    assert pyramids.report()["remarks"] == 2
    _, outcomes = pyramids.run(prefix="digital/", limit=1)
    assert list(outcomes) == ["digital/a/1.jpg"]


@pytest.fixture
def no_retries(pyramids, monkeypatch):
    """What would be tried again after a while fails at once."""
    for task in pyramids.dag.tasks:
        if task.is_mapped:
            monkeypatch.setitem(task.partial_kwargs, "retries", 0)
        else:
            monkeypatch.setattr(task, "retries", 0)


@pytest.fixture
def full_disk(monkeypatch):
    """Every temporary file lies on a disk without space, as the kernel says it."""
    full = nullcontext(Path("/dev/full"))
    monkeypatch.setattr("imagecore.pyramid_item.temp_file", lambda folder, name: full)


def test_a_picture_that_alone_fills_the_disk_fails_alone(pyramids, full_disk):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    state, outcomes = pyramids.run()
    assert (state, states(outcomes)) == ("failed", {"digital/rocket.jpg": "failed"})
    assert "It was this picture alone" in outcomes["digital/rocket.jpg"]["reason"]
    assert pyramids.keys(pyramids.process) == {"rbsc/rocket.json"}


def test_a_full_disk_stops_the_batch_and_changes_nothing(
    pyramids, full_disk, no_retries, monkeypatch, capfd
):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    monkeypatch.setattr("imagecore.pyramid_item.ROOM_BYTES", 2**80)
    state, outcomes = pyramids.run()
    assert (state, outcomes) == ("failed", {})
    said = "".join(capfd.readouterr())
    assert "No space left in" in said
    assert "1 items were planned and 0 have an outcome: 1 are missing" in said
    assert pyramids.keys(pyramids.image) == set()
    assert pyramids.keys(pyramids.process) == {"rbsc/rocket.json"}


def test_a_source_bucket_that_vanishes_quarantines_no_picture(pyramids, no_retries, monkeypatch):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    head = Bucket.head

    def too_late(self, key):
        if self.name == pyramids.source:
            pyramids.client.delete_object(Bucket=pyramids.source, Key=key)
            pyramids.client.delete_bucket(Bucket=pyramids.source)
        return head(self, key)

    monkeypatch.setattr(Bucket, "head", too_late)
    state, outcomes = pyramids.run()
    assert (state, outcomes) == ("failed", {})
    assert pyramids.keys(pyramids.process) == {"rbsc/rocket.json"}


HOSTILE_KEYS = [
    "digital/ü ñ 図.jpg",
    "digital//double.jpg",
    "digital/a/../up.jpg",
    "digital/./here.jpg",
    "/leading.jpg",
    "digital/per%2Fcent.jpg",
    "digital/a+b c&d=e.jpg",
    "digital/quote'\".jpg",
    "digital/<img src=x onerror=alert(1)>.jpg",
    "digital/tab\tbell\x07.jpg",
    "digital/back\\slash.jpg",
    "digital/" + "x" * 900 + ".jpg",
    "digital/.hidden.jpg",
    "digital/noextension",
    "digital/..",
    "digital/rocket.jpg/",
]


def test_every_hostile_key_ends_in_exactly_one_outcome(pyramids):
    for number, key in enumerate(HOSTILE_KEYS):
        pyramids.put(key, ROCKET)
        folder = key.rpartition("/")[0]
        note = {"key": key, "path": f"{folder}/" if folder else ""}
        pyramids.put_note(f"rbsc/{number}.json", json.dumps(note).encode())
    state, outcomes = pyramids.run()
    assert state == "success"
    refused = {
        "digital/a/../up.jpg", "digital/./here.jpg", "digital/..", "digital/rocket.jpg/",
    }  # fmt: skip
    ends = states(outcomes)
    assert {key for key, end in ends.items() if end == "done"} == set(HOSTILE_KEYS) - refused
    assert {end for key, end in ends.items() if key not in HOSTILE_KEYS} == {"quarantined"}
    assert not [key for key in pyramids.keys(pyramids.process) if key.startswith("rbsc/")]
    assert len(pyramids.keys(pyramids.image)) == len(HOSTILE_KEYS) - len(refused)


def test_the_work_store_may_lie_in_s3(pyramids, new_bucket, monkeypatch):
    bucket = new_bucket("work")
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", f"s3://imageflows_s3@{bucket}/some/work")
    pyramids.upload("digital/rocket.jpg", ROCKET)
    state, _ = pyramids.run()
    assert state == "success"
    names = {key.rpartition("/")[2] for key in pyramids.keys(bucket)}
    assert {"manifest.jsonl", "plan.json", "report.json", "outcomes.jsonl"} <= names
    assert all(key.startswith("some/work/pyramid_tiff/") for key in pyramids.keys(bucket))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prefix": "digital/", "manifest_uri": "file:///x/failed.jsonl"}, "both set"),
        ({"manifest_uri": "file:///etc/failed.jsonl"}, "not in the work store"),
        ({"image_bucket": "no-such-bucket"}, "no-such-bucket does not exist: create it"),
        ({"prefx": "digital/"}, "Unknown parameter prefx"),
        ({"aws_conn_id": "no_such_connection"}, "no_such_connection"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_touched(pyramids, no_retries, wrong, said, capfd):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    state, outcomes = pyramids.run(**wrong)
    assert (state, outcomes) == ("failed", {})
    assert said in "".join(capfd.readouterr())
    assert pyramids.keys(pyramids.image) == set()
    assert pyramids.keys(pyramids.process) == {"rbsc/rocket.json"}


# What events lost


def written_at(pyramids, bucket: str, key: str, hours: int) -> None:
    """Let an object have been written so many hours ago."""
    for account in s3_backends.values():
        for backend in account.values():
            if bucket in backend.buckets:
                written = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(hours=hours)
                backend.buckets[bucket].keys[key].last_modified = written


def remarks(pyramids) -> dict[str, str]:
    plan = json.loads(next(pyramids.folder.glob("plan-1-*/plan.json")).read_text())
    return {each["key"]: each["remark"] for each in plan["first_remarks"]}


def test_what_events_lost_is_found_and_a_second_day_plans_nothing(pyramids, monkeypatch):
    pyramids.upload("digital/noted.jpg", ROCKET)
    pyramids.put("digital/lost.jpg", ROCKET)
    pyramids.put("digital/list.xml", b"<list/>")
    pyramids.put("collections/ead_xml/images/cut.jpg", ROCKET[:9_000])
    pyramids.put("elsewhere/other.jpg", ROCKET)
    state, outcomes = pyramids.run()
    assert state == "success"
    assert states(outcomes) == {
        "digital/noted.jpg": "done",
        "digital/lost.jpg": "done",
        "collections/ead_xml/images/cut.jpg": "quarantined",
    }
    assert pyramids.report()["reconciled"] == {
        "listed": {"pictures": 3, "not pictures": 1}, "found": {"no pyramid": 2},
    }  # fmt: skip
    assert pyramids.report()["remarks"] == 0
    assert pyramids.keys(pyramids.process) == {"quarantine/collections/ead_xml/images/cut.jpg.json"}
    forbid_heads(monkeypatch)
    state, outcomes = pyramids.run()
    assert (state, outcomes, pyramids.report()["planned"]) == ("success", {}, 0)


def forbid_heads(monkeypatch) -> None:
    def head(self, key):
        raise AssertionError(f"{key} was looked at")

    monkeypatch.setattr(Bucket, "head", head)


def test_a_replaced_picture_whose_event_was_lost_is_made_again(pyramids):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.run()
    written_at(pyramids, pyramids.image, "digital/rocket.tif", 2)
    pyramids.put("digital/rocket.jpg", RETINA)
    _, outcomes = pyramids.run(mode="dryrun")
    assert remarks(pyramids) == {
        "digital/rocket.jpg": "found without a note: its pyramid is older than its source"
    }
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/rocket.jpg": "done"}
    assert sizes(pyramids.result("digital/rocket.tif"))[0] == (1411, 1411)
    assert pyramids.run() == ("success", {})


def test_a_picture_in_quarantine_is_found_when_it_is_newer_than_its_note_there(pyramids):
    pyramids.put("digital/cut.jpg", ROCKET[:9_000])
    pyramids.run()
    assert pyramids.run() == ("success", {})
    written_at(pyramids, pyramids.process, "quarantine/digital/cut.jpg.json", 2)
    pyramids.put("digital/cut.jpg", ROCKET)
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/cut.jpg": "done"}
    assert pyramids.keys(pyramids.process) == set()


def test_a_picture_whose_note_cannot_be_read_waits_until_it_is_mended(pyramids):
    note, kept = "rbsc/digital/retina.jpg.json", "quarantine/rbsc/digital/retina.jpg.json"
    pyramids.put("digital/retina.jpg", RETINA)
    broken = b'{"key": "digital/retina.jpg", "copyrightStatus": "copyright"'
    pyramids.put_note(note, broken)
    assert states(pyramids.run()[1]) == {note: "quarantined"}
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/retina.jpg": "quarantined"}
    assert f"mend {kept}, and move it to {note}" in outcomes["digital/retina.jpg"]["reason"]
    assert pyramids.run() == ("success", {})
    pyramids.client.delete_object(Bucket=pyramids.process, Key=kept)
    pyramids.put_note(note, broken + b"}")
    assert states(pyramids.run()[1]) == {"digital/retina.jpg": "done"}
    assert sizes(pyramids.result("digital/retina.tif"))[0] == (560, 560)  # the limit of copyright


def test_an_upload_without_a_change_is_found_once(pyramids, monkeypatch):
    pyramids.put("digital/rocket.jpg", ROCKET)
    pyramids.run()
    written_at(pyramids, pyramids.image, "digital/rocket.tif", 2)
    pyramids.put("digital/rocket.jpg", ROCKET)
    forbid_fetching(monkeypatch)
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/rocket.jpg": "skipped"}
    assert pyramids.keys(pyramids.process) == {"current/digital/rocket.jpg.json"}
    assert pyramids.run() == ("success", {})


def test_lost_pictures_of_one_result_are_refused_once_naming_each_other(pyramids):
    pyramids.put("digital/a.jpg", ROCKET)
    pyramids.put("digital/a.png", COFFEE)
    _, outcomes = pyramids.run()
    assert states(outcomes) == dict.fromkeys(("digital/a.jpg", "digital/a.png"), "quarantined")
    for outcome in outcomes.values():
        assert "digital/a.jpg, digital/a.png would all become digital/a.tif" in outcome["reason"]
    assert pyramids.run() == ("success", {})


def test_a_lost_rival_of_a_finished_picture_is_refused_once_and_the_picture_stays(pyramids):
    pyramids.upload("digital/a.jpg", ROCKET)
    pyramids.put("digital/b.png", COFFEE)
    pyramids.run()
    pyramids.put("digital/a.png", COFFEE)
    written_at(pyramids, pyramids.source, "digital/a.png", 2)
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/a.png": "quarantined"}
    assert "the pyramid of another picture, digital/a.jpg" in outcomes["digital/a.png"]["reason"]
    assert pyramids.run() == ("success", {})


def test_a_key_that_is_refused_is_quarantined_once(pyramids):
    pyramids.put("digital/a/../up.jpg", ROCKET)
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/a/../up.jpg": "quarantined"}
    assert pyramids.run() == ("success", {})


def test_what_has_a_note_is_no_find_and_its_note_is_what_counts(pyramids):
    pyramids.upload("digital/retina.jpg", RETINA, copyrightStatus="copyright")
    pyramids.run()
    assert sizes(pyramids.result("digital/retina.tif"))[0] == (560, 560)
    assert pyramids.report()["reconciled"]["found"] == {}


def test_without_reconcile_only_notes_count(pyramids):
    pyramids.put("digital/lost.jpg", ROCKET)
    assert pyramids.run(reconcile=False) == ("success", {})


def test_source_and_image_bucket_may_be_one(pyramids):
    here = replace(pyramids, image=pyramids.source)
    here.put("digital/rocket.jpg", ROCKET)
    _, outcomes = here.run()
    assert states(outcomes) == {"digital/rocket.jpg": "done"}
    assert here.keys(here.source) == {"digital/rocket.jpg", "digital/rocket.tif"}
    assert here.run() == ("success", {})


def test_a_lost_picture_that_is_replaced_while_it_is_made_gets_a_note(pyramids, monkeypatch):
    """Its pyramid is newer than the source, though made of the older one: no listing shows it."""
    pyramids.put("digital/rocket.jpg", ROCKET)
    deliver = Bucket.deliver

    def replaced(self, *arguments):
        deliver(self, *arguments)
        pyramids.put("digital/rocket.jpg", RETINA)
        written_at(pyramids, pyramids.source, "digital/rocket.jpg", 1)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "deliver", replaced)
        state, outcomes = pyramids.run()
    assert (state, states(outcomes)) == ("failed", {"digital/rocket.jpg": "failed"})
    assert pyramids.keys(pyramids.process) == {"rbsc/digital/rocket.jpg.json"}
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/rocket.jpg": "done"}
    assert sizes(pyramids.result("digital/rocket.tif"))[0] == (1411, 1411)


def test_a_bad_picture_that_is_mended_while_it_is_read_is_not_quarantined(pyramids, monkeypatch):
    pyramids.put("digital/rocket.jpg", ROCKET[:9_000])
    fetch = Bucket.fetch

    def mended(self, found, target):
        fetch(self, found, target)
        pyramids.put(found.key, ROCKET)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "fetch", mended)
        _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/rocket.jpg": "failed"}
    assert "changed meanwhile" in outcomes["digital/rocket.jpg"]["reason"]
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/rocket.jpg": "done"}
    assert pyramids.keys(pyramids.process) == set()


def test_a_note_may_ask_to_make_again_what_is_up_to_date(pyramids):
    pyramids.upload("digital/rocket.jpg", ROCKET)
    pyramids.run()
    write_note(Bucket(pyramids.process, pyramids.client), "digital/rocket.jpg", force=True)
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/rocket.jpg": "done"}
    assert pyramids.run() == ("success", {})


def test_a_folder_that_a_note_chose_is_that_of_later_uploads_too(pyramids):
    process = Bucket(pyramids.process, pyramids.client)
    chosen = {"key": "digital/r.jpg", "path": "public/", "copyrightStatus": "copyright"}
    pyramids.put("digital/r.jpg", RETINA)
    pyramids.put_note("rbsc/r.json", json.dumps(chosen).encode())
    write_note(process, "digital/r.jpg", sequencer="01")
    _, outcomes = pyramids.run()
    assert states(outcomes) == {"digital/r.jpg": "done"}
    assert pyramids.run() == ("success", {})
    written_at(pyramids, pyramids.process, "elsewhere/digital/r.jpg.json", 2)
    for number in range(3):  # found by reconcile, told by an event, listed by prefix
        pyramids.put("digital/r.jpg", RETINA + bytes(number + 1))
        if number == 1:
            write_note(process, "digital/r.jpg", sequencer="02")
        _, outcomes = pyramids.run(**{"prefix": "digital/"} if number == 2 else {})
        assert states(outcomes) == {"digital/r.jpg": "done"}
        written_at(pyramids, pyramids.process, "elsewhere/digital/r.jpg.json", 2)
    assert pyramids.keys(pyramids.image) == {"public/r.tif"}
    assert sizes(pyramids.result("public/r.tif"))[0] == (560, 560)


def test_copyright_told_of_a_picture_in_quarantine_holds_when_it_is_mended(pyramids):
    pyramids.upload("digital/r.jpg", RETINA)
    pyramids.run()
    pyramids.upload("digital/r.jpg", RETINA[:9_000], copyrightStatus="copyright")
    pyramids.run()
    pyramids.upload("digital/r.jpg", RETINA + b"\0")
    pyramids.run()
    assert sizes(pyramids.result("digital/r.tif"))[0] == (560, 560)


def test_where_source_and_image_bucket_are_one_a_pyramid_is_no_upload(pyramids):
    pyramids.put("digital/r.jpg", RETINA)
    pyramids.run(image_bucket=pyramids.source)
    write_note(Bucket(pyramids.process, pyramids.client), "digital/r.tif", sequencer="0A")
    _, outcomes = pyramids.run(image_bucket=pyramids.source)
    assert states(outcomes) == {"digital/r.tif": "skipped"}
    assert pyramids.keys(pyramids.process) == set()
