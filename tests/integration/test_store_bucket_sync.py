"""store_bucket_sync, from two buckets to a destination that is as it should be."""

import json
from datetime import timedelta

import pytest

from tests.faults import status
from tests.integration.sync_runs import DRESSED
from tests.objects import kept, put, snapshot, versions


def test_a_sync_brings_the_destination_into_line(any_three):
    syncs = any_three
    before = snapshot(syncs.destination)
    run = syncs.sync(mode="sync", delete=True)
    assert (run.state, run.report()["counts"]["done"]) == ("success", 3)
    assert run.ends == dict.fromkeys(("changed.jpg", "gone.jpg", "new.jpg"), "done")
    source = snapshot(syncs.source)
    assert snapshot(syncs.destination) == source | {"same.jpg": before["same.jpg"]}
    folder = run.plan()["sync"]["trash"]["folder"]
    del before["same.jpg"]
    assert snapshot(syncs.trash, folder) == before
    assert syncs.sync(mode="sync", delete=True).ends == {}


def test_between_connections_of_two_names_objects_are_streamed_with_all_they_have(three):
    put(three.source, "new.jpg", **DRESSED, Tagging="rights=free")
    run = three.sync(source_conn_id="imageflows_other")
    assert run.state == "success"
    assert kept(three.destination, "new.jpg") == kept(three.source, "new.jpg")


def test_copy_never_deletes(three):
    run = three.sync(mode="copy", delete=True)
    assert (run.state, set(run.ends)) == ("success", {"changed.jpg", "new.jpg"})
    assert "gone.jpg" in versions(three.destination)


def test_sync_without_delete_never_deletes(three):
    run = three.sync(mode="sync", delete=False)
    assert (run.state, set(run.ends)) == ("success", {"changed.jpg", "new.jpg"})
    assert "gone.jpg" in versions(three.destination)


def test_a_limited_run_never_deletes(three):
    run = three.sync(mode="sync", delete=True, limit=1)
    assert (run.state, list(run.ends)) == ("success", ["changed.jpg"])
    assert "gone.jpg" in versions(three.destination)


def test_nothing_is_removed_when_a_transfer_failed(three):
    with three.faults() as proxy:
        proxy.on("CopyObject", status(403), key="new.jpg")
        run = three.sync(mode="sync", delete=True)
    assert run.state == "failed"
    assert run.ends == {"changed.jpg": "done", "new.jpg": "failed"}
    assert "access denied" in run.reason("new.jpg")
    assert run.report()["missing"] == 1
    assert set(versions(three.destination)) == {"changed.jpg", "gone.jpg", "same.jpg"}


def test_without_a_trash_what_is_deleted_is_gone(three):
    run = three.sync(mode="sync", delete=True, trash_bucket=None)
    assert run.state == "success"
    assert set(versions(three.destination)) == {"changed.jpg", "new.jpg", "same.jpg"}
    assert versions(three.trash) == {}


# Dry runs and approved plans


def test_a_dry_run_writes_to_no_bucket(three):
    before = three.everything()
    run = three.sync(mode="dryrun", delete=True)
    assert (run.state, run.ends, three.everything()) == ("success", {}, before)
    assert run.lines("combined") == ["* changed.jpg", "- gone.jpg", "+ new.jpg", "= same.jpg"]
    assert run.report()["planned"] == 3


def test_a_dry_run_tells_what_would_be_refused(three):
    run = three.sync(mode="dryrun", delete=True, max_delete=0)
    assert run.state == "success"
    assert "would be refused: The plan would delete 1 of 3" in run.said
    assert '{"max_delete": 1, "max_delete_ratio": 0.3334}' in run.said


def test_an_approved_plan_is_carried_out_exactly(three):
    dry = three.sync(mode="dryrun", delete=True)
    put(three.source, "later.jpg")
    run = three.sync(mode="sync", delete=True, approved_plan=dry.approval())
    assert (run.state, set(run.ends)) == ("success", {"changed.jpg", "new.jpg", "gone.jpg"})
    assert set(versions(three.destination)) == {"changed.jpg", "new.jpg", "same.jpg"}


def edit_plan(run, **changed):
    run.plan_file.write_text(json.dumps(run.plan() | changed))


def edit_manifest(run):
    file = run.plan_file.with_name("manifest.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"new.jpg"', b'"own.jpg"'))


TAMPERED = {
    "plan": (lambda run: edit_plan(run, compared_at="2026-01-01T00:00:00+00:00"), "fingerprint"),
    "sides": (
        lambda run: edit_plan(run, sync=run.plan()["sync"] | {"trash": None}),
        "fingerprint differs",
    ),
    "removals dropped": (lambda run: edit_plan(run, removals=[]), "could not be taken over"),
    "fingerprint": (lambda run: edit_plan(run, fingerprint="0" * 64), "not the plan that was"),
    "manifest": (edit_manifest, "is not what was planned (its SHA-256 differs)"),
    "gone": (lambda run: run.plan_file.unlink(), "does not exist"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_plan_that_is_not_what_was_approved_is_refused(three, how):
    dry = three.sync(mode="dryrun", delete=True)
    approval, before = dry.approval(), three.everything()
    change, said = TAMPERED[how]
    change(dry)
    run = three.sync(mode="sync", delete=True, approved_plan=approval)
    assert (run.state, run.ends) == ("failed", {})
    assert said in run.said
    assert three.everything() == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mode": "copy"}, "approve it in mode sync with delete"),
        ({"delete": False}, "approve it in mode sync with delete"),
        ({"limit": 1}, "approved_plan is carried out whole"),
        ({"prefix": "a"}, "approved_plan is carried out whole"),
        ({"max_plan_age": 0.000001}, "max_plan_age allows"),
    ],
)
def test_an_approval_that_contradicts_the_run_is_refused(three, wrong, said):
    approval, before = three.sync(mode="dryrun", delete=True).approval(), three.everything()
    run = three.sync(**{"mode": "sync", "delete": True, "approved_plan": approval} | wrong)
    assert (run.state, run.ends) == ("failed", {})
    assert said in run.said
    assert three.everything() == before


def test_an_approval_of_another_fingerprint_is_refused(three):
    approval, before = three.sync(mode="dryrun").approval(), three.everything()
    run = three.sync(approved_plan=approval[:-64] + "0" * 64)
    assert (run.state, three.everything()) == ("failed", before)
    assert "is not the plan that was approved" in run.said


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        (25, "The sides were compared 25.0 hours ago, and max_plan_age allows 24"),
        (-1, "which is yet to come by this machine's clock"),
    ],
    ids=["too old", "the clock was set back"],
)
def test_a_plan_that_is_too_old_or_of_no_known_age_is_not_applied(three, monkeypatch, hours, said):
    import imageflows.operators.sync as sync

    before = three.everything()
    other = sync.datetime.now(sync.timezone.utc) + timedelta(hours=hours)

    class Clock(sync.datetime):
        @classmethod
        def now(cls, tz=None):
            return other

    monkeypatch.setattr(sync, "datetime", Clock)
    run = three.sync()
    assert (run.state, run.ends) == ("failed", {})
    assert said in run.said
    assert three.everything() == before


# What a run is told to do


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"delet": True}, "Unknown parameter delet"),
        ({"transform": "photo_ladder"}, "set mapping to width_folders and compare to newer"),
        ({"source_bucket": "no-such-bucket"}, "no-such-bucket does not exist"),
        ({"destination_bucket": "no-such-bucket"}, "no-such-bucket does not exist"),
        ({"trash_bucket": "no-such-bucket"}, "no-such-bucket does not exist"),
        ({"source_conn_id": "no_such_connection"}, "no_such_connection"),
        ({"manifest_uri": "file:///etc/failed.jsonl"}, "is not in the work store"),
        ({"mode": "move"}, "'move' is not one of"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_touched(three, wrong, said):
    before, refused = three.everything(), ""
    try:
        run = three.sync(**wrong)
    except ValueError as error:  # by Airflow, before there is a run
        refused = str(error)
    else:
        assert (run.state, run.ends) == ("failed", {})
        refused = run.said
    assert said in refused
    assert three.everything() == before


def test_another_content_of_the_same_size_is_found_by_etag_and_checksum_and_not_by_size(syncs):
    syncs.fill(syncs.source, "a.jpg", data=b"one")
    syncs.fill(syncs.destination, "a.jpg", data=b"two")
    assert syncs.sync(compare="size").ends == {}
    assert syncs.sync(compare="checksum", mode="dryrun").lines("modified") == ["a.jpg"]
    assert syncs.sync(compare="etag").ends == {"a.jpg": "done"}
    assert kept(syncs.destination, "a.jpg").data == b"one"
    assert syncs.sync(compare="checksum").ends == {}


def test_a_source_of_the_same_second_is_not_newer_and_one_of_the_next_is(syncs, monkeypatch):
    import moto.s3.models

    start = moto.s3.models.utcnow().replace(microsecond=0) - timedelta(hours=1)

    def at(seconds, bucket, key):
        with monkeypatch.context() as patch:
            patch.setattr(moto.s3.models, "utcnow", lambda: start + timedelta(seconds=seconds))
            put(bucket, key, bucket.name.encode())

    for key, then in {"same.jpg": 0.9, "next.jpg": 1.0, "older.jpg": -5}.items():
        at(0.1, syncs.destination, key)
        at(then, syncs.source, key)
    run = syncs.sync(compare="newer")
    assert run.ends == {"next.jpg": "done"}


def test_force_does_again_what_is_up_to_date_and_keeps_what_it_replaces(three):
    run = three.sync(force=True, prefix="same")
    assert run.ends == {"same.jpg": "done"}
    assert kept(three.destination, "same.jpg").content_type == "image/gif"
    assert [key.rpartition("/")[2] for key in versions(three.trash)] == ["same.jpg"]


def test_what_failed_is_done_again_alone_by_its_manifest(three):
    with three.faults() as proxy:
        proxy.on("CopyObject", status(403), key="new.jpg")
        run = three.sync()
    put(three.source, "later.jpg")
    again = three.sync(manifest_uri=f"file://{run.ran.folder}/failed.jsonl")
    assert (again.state, again.ends) == ("success", {"new.jpg": "done"})
    assert "later.jpg" not in versions(three.destination)
