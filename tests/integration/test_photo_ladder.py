"""The photo ladder from bucket to bucket: every picture in its widths, whole, or as it was."""

import io
from contextlib import contextmanager
from datetime import timedelta

import moto.s3.models
import pytest
from PIL import Image

from tests.faults import status
from tests.imagecore.pictures import data_of, photo
from tests.integration.sync_runs import REMOVE
from tests.objects import snapshot, versions

LADDER = {"transform": "photo_ladder", "mapping": "width_folders", "compare": "newer"}
ONE, TWO = "stores/1-x/photos/1.jpg", "stores/1-x/photos/2.jpg"


def jpeg(width: int, height: int = 90) -> bytes:
    return data_of(photo(width, height), "JPEG")


@pytest.fixture
def ladders(syncs):
    syncs.always = LADDER
    return syncs


@pytest.fixture
def an_hour_ago(monkeypatch):
    """moto's clock of an hour ago, so that what is written afterwards is newer."""
    utcnow = moto.s3.models.utcnow

    @contextmanager
    def earlier():
        with monkeypatch.context() as patch:
            patch.setattr(moto.s3.models, "utcnow", lambda: utcnow() - timedelta(hours=1))
            yield

    return earlier


def placed(name: str, *widths: int) -> set[str]:
    """The keys of a picture in its widths."""
    folder, _, file = name.rpartition("/")
    named = "".join(f"-{width}" for width in widths)
    return {f"{folder}/__w{named}__/{file}", *(f"{folder}/w{width}/{file}" for width in widths)}


def kept_in_trash(syncs, run) -> set[str]:
    return set(snapshot(syncs.trash, run.plan()["sync"]["trash"]["folder"]))


def test_each_picture_is_laid_out_in_its_widths_and_is_then_up_to_date(any_syncs):
    syncs = any_syncs
    syncs.always = LADDER
    syncs.fill(syncs.source, "stores/1-x/photos/1.jpg", data=jpeg(1_700))
    syncs.fill(syncs.source, "stores/1-x/photos/2.jpg", data=jpeg(501))
    syncs.fill(syncs.source, "stores/1-x/photos/3.jpg", data=jpeg(300))
    syncs.fill(syncs.source, "stores/1-x/menus/1.png", data=data_of(photo(901, 90), "PNG"))
    syncs.fill(syncs.source, "chains/1-x/menus/1.jpg", data=jpeg(301))
    syncs.fill(syncs.source, "readme.txt", "stores/1-x/films/1.jpg")
    run = syncs.sync(**REMOVE)
    assert (run.state, run.ends) == (
        "success",
        dict.fromkeys(
            [
                "1-x/menus/1.png",
                "1-x/photos/1.jpg",
                "1-x/photos/2.jpg",
                "1-x/photos/3.jpg",
                "chains/1-x/menus/1.jpg",
            ],
            "done",
        ),
    )
    assert len(run.lines("error")) == 2
    made = snapshot(syncs.destination)
    assert made.keys() == (
        placed("1-x/photos/1.jpg", 200, 400, 600, 800, 1000, 1200, 1400)
        | placed("1-x/photos/2.jpg", 200, 400)
        | placed("1-x/photos/3.jpg")
        | placed("1-x/menus/1.png", 200, 800)
        | placed("chains/1-x/menus/1.jpg", 200)
    )
    full = {"1-x/photos/1.jpg": 1_600, "1-x/photos/2.jpg": 501, "1-x/photos/3.jpg": 300}
    full |= {"1-x/menus/1.png": 901, "chains/1-x/menus/1.jpg": 301}
    for key, found in made.items():
        folder, name = key.split("/")[-2:]
        picture = Image.open(io.BytesIO(found.data))
        rung = folder.removeprefix("w")
        name = "/".join([*key.split("/")[:-2], name])
        assert picture.width == (int(rung) if rung.isdecimal() else full[name])
        assert found.content_type == ("image/png" if key.endswith(".png") else "image/jpeg")
    again = syncs.sync(**REMOVE)
    assert (again.state, again.ends) == ("success", {})
    assert len([line for line in again.lines("combined") if line[0] == "="]) == 5
    assert snapshot(syncs.destination) == made


def test_a_broken_picture_is_set_aside_alone_and_what_the_shop_shows_stays(ladders, an_hour_ago):
    with an_hour_ago():
        ladders.fill(ladders.source, ONE, data=jpeg(301))
        assert ladders.sync().state == "success"
    shown = snapshot(ladders.destination)
    ladders.fill(ladders.source, ONE, data=jpeg(600)[:-500])
    ladders.fill(ladders.source, TWO, data=jpeg(301))
    ladders.fill(ladders.source, "stores/1-x/photos/3.jpg", data=b"no picture")
    run = ladders.sync(**REMOVE)
    assert run.state == "success"  # up to max_quarantined
    assert run.ends == {
        "1-x/photos/1.jpg": "quarantined",
        "1-x/photos/2.jpg": "done",
        "1-x/photos/3.jpg": "quarantined",
    }
    assert "not a picture of any known kind" in run.reason("1-x/photos/3.jpg")
    assert run.reason("1-x/photos/1.jpg")
    now = snapshot(ladders.destination)
    assert now.keys() == shown.keys() | placed("1-x/photos/2.jpg", 200)
    assert shown.items() <= now.items()
    assert ladders.sync(max_quarantined=1).state == "failed"


def test_a_modified_picture_replaces_all_its_copies_and_the_next_run_removes_widths_it_lost(
    ladders, an_hour_ago
):
    with an_hour_ago():
        ladders.fill(ladders.source, ONE, data=jpeg(701))
        ladders.sync()
    before = snapshot(ladders.destination)
    assert before.keys() == placed("1-x/photos/1.jpg", 200, 400, 600)
    ladders.fill(ladders.source, ONE, data=jpeg(310))
    changed = ladders.sync(**REMOVE)
    now = snapshot(ladders.destination)
    assert now.keys() == before.keys() | placed("1-x/photos/1.jpg", 200)
    assert kept_in_trash(ladders, changed) == {"1-x/photos/w200/1.jpg"}
    copying = ladders.sync(mode="copy")
    assert (copying.ends, snapshot(ladders.destination)) == ({}, now)
    cleaned = ladders.sync(**REMOVE)
    assert cleaned.state == "success"
    lost = {f"1-x/photos/{folder}/1.jpg" for folder in ("__w-200-400-600__", "w400", "w600")}
    assert set(cleaned.lines("duplicate_stores")) == lost == kept_in_trash(ladders, cleaned)
    assert set(versions(ladders.destination)) == placed("1-x/photos/1.jpg", 200)
    assert ladders.undo(cleaned).state == "success"
    assert snapshot(ladders.destination) == now
    assert ladders.undo(changed).state == "success"
    assert snapshot(ladders.destination) == before


def test_what_is_interrupted_between_copies_is_not_taken_for_done_and_converges(ladders):
    ladders.fill(ladders.source, ONE, data=jpeg(701))
    ladders.fill(ladders.source, TWO, data=jpeg(301))
    with ladders.faults() as proxy:
        proxy.on("PutObject", status(403), key="1-x/photos/w600/1.jpg")
        run = ladders.sync()
    assert run.state == "failed"
    assert run.ends == {"1-x/photos/1.jpg": "failed", "1-x/photos/2.jpg": "done"}
    assert "access denied" in run.reason("1-x/photos/1.jpg")
    parts = {"1-x/photos/w200/1.jpg", "1-x/photos/w400/1.jpg"}
    assert set(versions(ladders.destination)) == parts | placed("1-x/photos/2.jpg", 200)
    again = ladders.sync()
    assert (again.state, again.ends) == ("success", {"1-x/photos/1.jpg": "done"})
    whole = placed("1-x/photos/1.jpg", 200, 400, 600) | placed("1-x/photos/2.jpg", 200)
    assert set(versions(ladders.destination)) == whole
    assert ladders.undo(again).state == "success"
    assert set(versions(ladders.destination)) == parts | placed("1-x/photos/2.jpg", 200)
    assert ladders.undo(run).state == "success"
    assert versions(ladders.destination) == {}


def test_undo_gives_the_destination_of_a_ladder_back_exactly(ladders, an_hour_ago):
    gone = "stores/1-x/menus/9.jpg"
    with an_hour_ago():
        ladders.fill(ladders.source, ONE, data=jpeg(310))
        ladders.fill(ladders.source, gone, data=jpeg(310))
        ladders.sync()
    ladders.fill(ladders.destination, "1-x/logo.png")
    before = snapshot(ladders.destination)
    ladders.fill(ladders.source, ONE, data=jpeg(510))
    ladders.fill(ladders.source, TWO, data=jpeg(310))
    ladders.source.delete(gone)
    run = ladders.sync(**REMOVE)
    after = snapshot(ladders.destination)
    assert (run.state, len(run.ends)) == ("success", 3)
    assert {"1-x/photos/w400/1.jpg", "1-x/logo.png"} <= after.keys()
    assert "1-x/menus/__w-200__/9.jpg" not in after
    undone = ladders.undo(run)
    assert undone.state == "success"
    assert snapshot(ladders.destination) == before
    assert ladders.undo(undone).state == "success"
    assert snapshot(ladders.destination) == after
