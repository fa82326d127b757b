"""Syncs as real runs: what must never happen to a destination, and how a run is taken back."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from imagecore.s3 import Bucket
from tests.faults import FaultProxy, call, cut_listing, denied
from tests.integration.conftest import Ran, connection, run_dag
from tests.objects import put, snapshot


class Shop:
    """Two buckets and a trash on one server, and the runs that sync them."""

    def __init__(self, dags, defaults, client, new_bucket, work: Path) -> None:
        self._dags, self._defaults, self._work = dags, defaults, work
        self.source = Bucket(new_bucket("source"), client)
        self.destination = Bucket(new_bucket("destination"), client)
        self.trash = Bucket(new_bucket("trash"), client)

    def run(self, dag: str = "store_bucket_sync", /, **conf: Any) -> Ran:
        where = {
            "source_bucket": self.source.name,
            "destination_bucket": self.destination.name,
            "trash_bucket": self.trash.name,
        }
        known = self._defaults[dag]
        given = {name: value for name, value in where.items() if name in known}
        return run_dag(
            self._dags[dag], self._work, known | given | {"images_per_task": 1_000} | conf
        )

    def remove(self, **conf: Any) -> Ran:
        """A run that may delete as much as it wants."""
        limits = {"max_delete": 10_000, "max_delete_ratio": 1.0}
        return self.run(**({"mode": "sync", "delete": True} | limits | conf))

    def fill(self) -> None:
        """The same in both, but for one that is new, one modified, and one no longer needed."""
        for number in range(20):
            for bucket in (self.source, self.destination):
                put(bucket, f"x/{number:02d}.jpg", b"same", ContentType="image/jpeg")
        put(self.source, "x/new.jpg", b"new", Metadata={"by": "us"}, Tagging="a=1")
        put(self.source, "x/changed.jpg", b"changed since")
        put(self.destination, "x/changed.jpg", b"before", Metadata={"by": "them"})
        put(self.destination, "x/gone.jpg", b"gone", CacheControl="no-store", Tagging="c=3")


@pytest.fixture
def shop(dags, defaults, s3_client, s3_endpoint, new_bucket, tmp_path, monkeypatch) -> Shop:
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_S3", connection(s3_endpoint))
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", f"file://{tmp_path}/work")
    return Shop(dags, defaults, s3_client, new_bucket, tmp_path / "work")


@pytest.fixture
def proxy(s3_endpoint, monkeypatch):
    """The runs' connection leads through a proxy that can break things."""
    with FaultProxy(s3_endpoint) as between:
        monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_S3", connection(between.url))
        yield between


def test_a_sync_makes_the_destination_equal_and_undo_gives_it_back(shop):
    shop.fill()
    before = snapshot(shop.destination)
    ran = shop.remove(compare="size")
    assert ran.state == "success"
    assert snapshot(shop.destination) == snapshot(shop.source)
    kept = snapshot(shop.trash)
    assert sorted(key.rpartition("/")[2] for key in kept) == ["changed.jpg", "gone.jpg"]
    undone = shop.run("sync_undo", mode="undo", run_id=ran.run_id)
    assert undone.state == "success"
    assert snapshot(shop.destination) == before
    again = shop.run("sync_undo", mode="undo", dag_id="sync_undo", run_id=undone.run_id)
    assert again.state == "success"
    assert snapshot(shop.destination) == snapshot(shop.source)


def test_undo_leaves_alone_what_someone_changed_since(shop):
    shop.fill()
    ran = shop.remove(compare="size")
    put(shop.destination, "x/changed.jpg", b"by hand, after the run")
    undone = shop.run("sync_undo", mode="undo", run_id=ran.run_id)
    assert undone.state == "failed"
    assert undone.outcomes["x/changed.jpg"]["state"] == "failed"
    now = snapshot(shop.destination)
    assert now["x/changed.jpg"].data == b"by hand, after the run"
    assert "x/new.jpg" in now  # nothing is withdrawn when something could not be restored


@pytest.mark.parametrize("conf", [{"mode": "copy", "delete": True}, {"mode": "sync"}])
def test_nothing_is_deleted_unless_asked_for_twice(shop, conf):
    shop.fill()
    assert shop.run(compare="size", **conf).state == "success"
    assert {"x/gone.jpg", "x/new.jpg"} <= snapshot(shop.destination).keys()


def test_a_dry_run_writes_nothing_and_its_plan_can_be_approved(shop):
    shop.fill()
    before = [snapshot(bucket) for bucket in (shop.source, shop.destination, shop.trash)]
    dry = shop.remove(compare="size", mode="dryrun")
    assert dry.state == "success"
    assert [snapshot(bucket) for bucket in (shop.source, shop.destination, shop.trash)] == before
    assert (dry.folder / "new.txt").read_text() == "x/new.jpg\n"
    assert (dry.folder / "duplicate_stores.txt").read_text() == "x/gone.jpg\n"
    (plan,) = dry.folder.glob("plan-*/plan.json")
    print_ = json.loads(plan.read_text())["fingerprint"]
    put(shop.source, "x/later.jpg", b"after the plan")
    forged = shop.remove(approved_plan=f"file://{plan}#{'0' * 64}")
    assert forged.state == "failed"
    assert snapshot(shop.destination) == before[1]
    assert shop.remove(approved_plan=f"file://{plan}#{print_}").state == "success"
    source = snapshot(shop.source)
    del source["x/later.jpg"]
    assert snapshot(shop.destination) == source


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        pytest.param({"source_prefix": "typo"}, "no picture", id="mistyped prefix"),
        pytest.param({"source_bucket": "no-such-bucket"}, "does not exist", id="missing bucket"),
        pytest.param({"destination_prefix": "x/"}, "overlap", id="destination inside source"),
        pytest.param({"max_delete_ratio": 0.01}, "would delete 1 of 22", id="too large a share"),
        pytest.param({"max_delete": 0}, '"max_delete": 1', id="too many"),
    ],
)
def test_a_plan_that_would_destroy_is_refused_with_its_reason(shop, caplog, conf, reason):
    shop.fill()
    if "destination_prefix" in conf:
        conf = conf | {"destination_bucket": shop.source.name}
    before = snapshot(shop.destination)
    ran = shop.remove(compare="size", **conf)
    assert ran.state == "failed"
    assert snapshot(shop.destination) == before
    assert snapshot(shop.trash) == {}


def test_an_empty_source_bucket_is_refused(shop):
    put(shop.destination, "x/1.jpg")
    assert shop.remove().state == "failed"
    assert snapshot(shop.destination).keys() == {"x/1.jpg"}


def test_a_listing_that_lies_removes_nothing_that_the_source_still_has(shop, proxy):
    shop.fill()
    before = snapshot(shop.destination)
    with proxy.fault("ListObjectsV2", cut_listing(3), bucket=shop.source.name):
        ran = shop.remove(compare="size")
    assert ran.state == "failed"
    assert before.keys() - snapshot(shop.destination).keys() <= {"x/gone.jpg"}
    failed = [o for o in ran.outcomes.values() if o["state"] == "failed"]
    assert len(failed) >= 17
    assert all("is in the source (again)" in outcome["reason"] for outcome in failed)


def test_credentials_revoked_half_way_lose_nothing(shop, proxy):
    shop.fill()
    for number in range(10):
        put(shop.source, f"y/{number}.jpg", b"new")
    before = snapshot(shop.destination)
    proxy.on("CopyObject", denied(), after=5, bucket=shop.destination.name)
    ran = shop.remove(compare="size")
    assert ran.state == "failed"
    now = snapshot(shop.destination)
    assert before.keys() <= now.keys()
    assert all(now[key].data in {before[key].data, b"changed since"} for key in before)


def test_what_a_foreign_writer_changes_after_the_plan_is_reported_and_stays(shop, proxy):
    for number in range(60):
        put(shop.source, f"{number:02d}.jpg", b"from the source")
        put(shop.destination, f"{number:02d}.jpg", b"before")
    theirs = [f"{number:02d}.jpg" for number in range(0, 60, 6)]

    def interfere(*_: object) -> None:
        for key in theirs:
            put(shop.destination, key, b"from somebody else")

    proxy.on("CopyObject", call(interfere), times=1, bucket=shop.trash.name)
    first = "00.jpg"
    ran = shop.run(compare="size", limit=None)
    assert ran.state == "failed"
    now = snapshot(shop.destination)
    lost = [key for key in theirs if key != first and now[key].data != b"from somebody else"]
    done = {key for key, outcome in ran.outcomes.items() if outcome["state"] == "done"}
    # Those that were in work at that very instant may have been done just before.
    assert set(lost) <= done
    assert len(lost) <= 3
    for key, outcome in ran.outcomes.items():
        if outcome["state"] == "failed":
            assert key in theirs
            assert "was to be replaced" in outcome["reason"] or "someone else" in outcome["reason"]


@pytest.fixture
def drive(tmp_path, monkeypatch, dags):
    """The folder that uploads may read, which the DAG knew when it was loaded."""
    folder = tmp_path / "drive"
    folder.mkdir()
    operator = dags["store_photo_upload"].get_task("plan")
    monkeypatch.setattr(operator, "local_root", str(folder))
    monkeypatch.setattr(operator, "source", f"file://{folder}/{{{{ params.folder }}}}")
    return folder


def write(folder: Path, name: str | bytes, data: bytes = b"\xff\xd8\xff picture") -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name))))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def upload(shop: Shop, **conf: Any) -> Ran:
    return shop.run("store_photo_upload", **conf)


def test_a_drive_is_uploaded_by_name_and_errors_are_written_with_their_reasons(shop, drive):
    write(drive, "stores/1-x/photos/0.jpg")
    write(drive, "stores/1-x/photos/IMG.JPG")
    write(drive, "stores/1-x/photos/desktop.ini")
    ran = upload(shop)
    assert ran.state == "success"
    assert snapshot(shop.destination)["stores/1-x/photos/0.jpg"].content_type == "image/jpeg"
    assert (ran.folder / "success.txt").read_text() == "stores/1-x/photos/0.jpg\n"
    assert (ran.folder / "error.txt").read_text() == (
        "stores/1-x/photos/IMG.JPG\tits extension is not .jpg (lower case counts)\n"
    )
    (drive / "stores/1-x/photos/IMG.JPG").unlink()
    assert (upload(shop).folder / "error.txt").read_text() == ""


def test_any_name_is_carried_through_or_rejected_with_a_reason(shop, drive):
    good = ["a b.jpg", "quote'\".jpg", "100%.jpg", "a+b.jpg", "ü.jpg", "u\u0308.jpg", "%2F.jpg"]
    for name in good:
        write(drive, name)
    write(drive, b"latin-\xe9.jpg")
    (drive / "link.jpg").symlink_to(drive / "a b.jpg")
    (drive / "loop").symlink_to(drive)
    ran = upload(shop, naming="none")
    assert ran.state == "success"
    assert snapshot(shop.destination).keys() == set(good)
    errors = (ran.folder / "error.txt").read_text()
    assert "its name is not UTF-8" in errors
    assert errors.count("it is a symbolic link, which is not followed") == 2


@pytest.mark.parametrize("case", ["empty", "missing", "outside"])
def test_a_folder_that_is_not_there_fails_the_run(shop, drive, case):
    put(shop.destination, "stores/1-x/photos/0.jpg")
    folder = {"empty": "", "missing": "not-mounted", "outside": "../"}[case]
    assert upload(shop, folder=folder).state == "failed"
    assert snapshot(shop.destination).keys() == {"stores/1-x/photos/0.jpg"}


def test_a_large_file_goes_up_in_parts_and_leaves_no_upload_open(shop, drive):
    data = os.urandom(20 * 2**20)
    write(drive, "stores/1-x/photos/0.jpg", data)
    assert upload(shop).state == "success"
    assert snapshot(shop.destination)["stores/1-x/photos/0.jpg"].data == data
    left = shop.destination.client.list_multipart_uploads(Bucket=shop.destination.name)
    assert "Uploads" not in left
