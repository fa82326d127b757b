"""sync_undo: the destination as it was before a run, but for what someone has changed since."""

import pytest

from tests.faults import status
from tests.integration.sync_runs import REMOVE, Syncs, three_of
from tests.objects import kept, put, snapshot, versions

HERE = "stores/1-x/photos"


def replaced_drive(syncs: Syncs) -> None:
    syncs.fill(syncs.destination, f"{HERE}/1.jpg", f"{HERE}/9.jpg", data=b"was")
    syncs.file(f"{HERE}/1.jpg")
    syncs.file(f"{HERE}/2.jpg")


RUNS = {
    "copy": (three_of, lambda syncs: syncs.sync(mode="copy")),
    "sync with deletions": (three_of, lambda syncs: syncs.sync(**REMOVE)),
    "upload": (replaced_drive, Syncs.upload),
}


@pytest.mark.parametrize("what", RUNS)
def test_a_run_is_taken_back_exactly_and_so_is_taking_it_back(any_syncs, what):
    prepare, run_it = RUNS[what]
    prepare(any_syncs)
    before = snapshot(any_syncs.destination)
    run = run_it(any_syncs)
    after = snapshot(any_syncs.destination)
    assert (run.state, after == before) == ("success", False)
    undone = any_syncs.undo(run)
    assert (undone.state, set(undone.ends.values())) == ("success", {"done"})
    assert snapshot(any_syncs.destination) == before
    assert any_syncs.undo(undone).state == "success"
    assert snapshot(any_syncs.destination) == after


def test_an_approved_plan_is_taken_back_too(three):
    approval, before = three.sync(mode="dryrun", delete=True).approval(), three.everything()
    run = three.sync(mode="sync", delete=True, approved_plan=approval)
    assert three.undo(run).state == "success"
    assert snapshot(three.destination) == before[three.destination.name]


def test_it_is_a_dry_run_unless_told_otherwise(three):
    run = three.sync(**REMOVE)
    before = three.everything()
    dry = three.run("sync_undo", {"run_id": run.id})
    assert (dry.state, dry.ends, three.everything()) == ("success", {}, before)
    assert "to be brought back from the trash: 2" in dry.said
    assert "to be moved to the trash: 1" in dry.said


def test_undoing_twice_does_nothing_the_second_time_and_takes_back_nothing(any_three):
    before = snapshot(any_three.destination)
    run = any_three.sync(**REMOVE)
    assert any_three.undo(run).state == "success"
    everything = any_three.everything()
    again = any_three.undo(run)
    assert again.state == "success"
    assert again.ends == {"changed.jpg": "skipped", "new.jpg": "skipped"}
    assert again.plan()["first_remarks"] == [
        {"key": "gone.jpg", "remark": "it is there again already"}
    ]
    assert any_three.everything() == everything
    assert any_three.undo(again).state == "success"
    assert snapshot(any_three.destination) == before


def test_what_someone_changed_since_is_reported_and_stays_and_the_rest_comes_back(any_three):
    syncs = any_three
    syncs.fill(syncs.destination, "gone too.jpg", data=b"was")
    run = syncs.sync(**REMOVE)
    put(syncs.destination, "changed.jpg", b"theirs")
    put(syncs.destination, "gone.jpg", b"theirs, where the run had removed one")
    theirs = snapshot(syncs.destination)
    undone = syncs.undo(run)
    assert undone.state == "failed"
    assert undone.ends == {"changed.jpg": "failed", "gone.jpg": "failed", "gone too.jpg": "done"}
    assert "was to be replaced as" in undone.reason("changed.jpg")
    now = snapshot(syncs.destination)
    assert now.pop("gone too.jpg").data == b"was"
    assert now == theirs  # nothing is withdrawn when something could not be brought back


def test_what_was_new_and_someone_changed_since_is_not_withdrawn(three):
    run = three.sync(mode="copy")
    put(three.destination, "new.jpg", b"theirs")
    undone = three.undo(run)
    assert undone.ends == {"changed.jpg": "done", "new.jpg": "failed"}
    assert "was to be deleted as" in undone.reason("new.jpg")
    assert kept(three.destination, "new.jpg").data == b"theirs"


def test_a_run_in_which_something_failed_is_taken_back_as_far_as_it_came(any_three):
    before = snapshot(any_three.destination)
    with any_three.faults() as proxy:
        proxy.on("CopyObject", status(403), key="new.jpg")
        run = any_three.sync(**REMOVE)
    assert run.ends == {"changed.jpg": "done", "new.jpg": "failed"}
    undone = any_three.undo(run)
    assert (undone.state, undone.ends) == ("success", {"changed.jpg": "done"})
    assert snapshot(any_three.destination) == before


def test_what_a_run_that_broke_off_has_no_receipt_of_is_named(three):
    before = snapshot(three.destination)
    with three.faults() as proxy:
        proxy.on("CopyObject", status(503), key="new.jpg")
        proxy.on("HeadBucket", status(503), after=1, bucket=three.destination.name)  # after `plan`
        run = three.sync(mode="copy")
    assert (run.state, run.ends, run.report()["missing"]) == ("failed", {"changed.jpg": "done"}, 1)
    undone = three.undo(run)
    assert (undone.state, undone.ends) == ("success", {"changed.jpg": "done"})
    assert undone.plan()["first_remarks"] == [
        {"key": "new.jpg", "remark": "it has no receipt: what became of it is not known"}
    ]
    assert snapshot(three.destination) == before


def test_only_what_is_asked_for_is_taken_back(three):
    before = snapshot(three.destination)
    run = three.sync(**REMOVE)
    undone = three.undo(run, prefix="gone")
    assert undone.ends == {"gone.jpg": "done"}
    assert kept(three.destination, "gone.jpg") == before["gone.jpg"]
    rest = three.undo(run)
    assert rest.ends == {"changed.jpg": "done", "new.jpg": "done"}
    assert snapshot(three.destination) == before


# What cannot be taken back


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"run_id": None}, "run_id is empty: name the run"),
        ({"run_id": "manual__1999"}, "run_id manual__1999 the run you mean?"),
        ({"run_id": "../store_photo_upload"}, "has no plan that was carried out"),
        ({"dag_id": "store_photo_upload"}, "is dag_id store_photo_upload and run_id"),
        ({"dag_id": "pyramid_tiff"}, "'pyramid_tiff' is not one of"),
    ],
)
def test_a_run_that_there_is_not_is_named_and_nothing_is_touched(three, wrong, said):
    run, refused = three.sync(mode="copy"), ""
    before = three.everything()
    try:
        undone = three.undo(run, **wrong)
    except ValueError as error:  # by Airflow, before there is a run
        refused = str(error)
    else:
        assert (undone.state, undone.ends) == ("failed", {})
        refused = undone.said
    assert said in refused
    assert three.everything() == before


def test_a_dry_run_has_nothing_to_take_back_and_that_is_said(three):
    undone = three.undo(three.sync(mode="dryrun"))
    assert undone.state == "failed"
    assert "has no plan that was carried out" in undone.said


def test_a_run_without_a_trash_cannot_be_taken_back_and_that_is_said(three):
    run = three.sync(trash_bucket=None)
    before = versions(three.destination)
    undone = three.undo(run)
    assert (undone.state, undone.ends) == ("failed", {})
    assert "The run had no trash" in undone.said
    assert versions(three.destination) == before


def test_what_was_removed_from_the_trash_meanwhile_fails_and_is_named(three):
    run = three.sync(mode="copy")
    after = versions(three.destination)
    for key in versions(three.trash):
        three.trash.delete(key)
    undone = three.undo(run)
    assert (undone.state, undone.ends) == ("failed", {"changed.jpg": "failed"})
    assert "does not exist" in undone.reason("changed.jpg")
    assert versions(three.destination) == after
