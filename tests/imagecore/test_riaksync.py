"""References become present, uploaded, or something with a name; nothing is stored unverified."""

import base64
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from threading import Event, Lock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from devstack.riakserver import RiakServer
from imagecore import riaksync
from imagecore.adler import HASH_PREFIX, adler32
from imagecore.assets import AssetIndex, build_index
from imagecore.batch import run_batch
from imagecore.errors import DiskFull, InfrastructureError
from imagecore.imagedocument import ImageDocument, NoDocument, decode, encoded_bytes
from imagecore.outcome import Outcome, OutcomeLog
from imagecore.riak import RiakBucket, RiakClient
from imagecore.riakhttp import Limits, Node, RiakNodes
from imagecore.riaklogs import write_logs
from imagecore.riaksync import RiakImages
from imagecore.sandbox import picture_workers
from imagecore.workstore import local_work_store
from tests.faults import FaultProxy, drop, drop_after_upstream, status
from tests.faultwire import Fault, Request, Response
from tests.imagecore.pictures import data_of, quarters

QUICK = Limits(connect=1, read=2, request=4, tries=2)
JPEG, PNG = data_of(quarters(), "JPEG", quality=95), data_of(quarters(40, 30), "PNG")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[RiakServer]:
    with RiakServer(tmp_path_factory.mktemp("riak")) as started:
        yield started


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    limits = {"timeout_s": 60, "memory_mb": 1_024, "file_mb": None}
    with picture_workers(1, temp_dir=tmp_path_factory.mktemp("workers"), **limits) as made:
        yield made


def bucket_at(port: int, name: str) -> RiakBucket:
    return RiakClient(RiakNodes([Node("127.0.0.1", port)], limits=QUICK)).bucket(name)


class Sync:
    """An assets folder, a bucket, and runs between them."""

    def __init__(self, folder: Path, bucket: RiakBucket, workers) -> None:
        self.assets, self.bucket = folder / "assets", bucket
        self.folder, self._workers, self.runs = folder, workers, 0
        self.assets.mkdir()

    def file(self, path: str | bytes, data: bytes = JPEG) -> str:
        """Write a file below the assets; its reference."""
        path = os.fsencode(path)
        file = Path(os.fsdecode(os.fsencode(self.assets) + path))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        name = os.fsdecode(path.rpartition(b"/")[2])
        return f"{adler32(HASH_PREFIX.encode() + path)}-{name}"

    def run(self, *keys: str, again: bool = False, **options) -> dict[str, Outcome]:
        """Bring references to Riak; `again`: as another try of the last run."""
        self.runs += not again
        bucket = options.pop("bucket", self.bucket)
        build_index(self.assets, self.folder / "index")
        record = OutcomeLog(local_work_store(f"file://{self.folder}/work"), f"{self.runs}")
        with AssetIndex(self.folder / "index") as index:
            images = RiakImages(bucket, self.assets, index, self._workers, self.folder, **options)
            items = [{"key": key} for key in dict.fromkeys(keys)]
            run_batch(items, images.process, record, threads=4, stop=Event())
        return {outcome.key: outcome for outcome in record.outcomes()}


@pytest.fixture
def sync(tmp_path, server, workers, request) -> Sync:
    return Sync(tmp_path, bucket_at(server.port, request.node.name), workers)


@pytest.fixture
def proxy(server) -> Iterator[FaultProxy]:
    with FaultProxy(f"http://127.0.0.1:{server.port}") as proxy:
        yield proxy


def behind(sync: Sync, proxy: FaultProxy) -> RiakBucket:
    return bucket_at(int(proxy.url.rpartition(":")[2]), sync.bucket.name)


def puts(proxy: FaultProxy) -> list[str]:
    return [request.target for request in proxy.requests if request.method == "PUT"]


def results(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {key: outcome.detail.get("result", "failed") for key, outcome in outcomes.items()}


# The document


def test_a_picture_is_stored_as_the_legacy_document_all_of_whose_values_are_text(sync):
    key = sync.file("/media/foo/bar.jpg")
    assert key == "ccb51262-bar.jpg"
    outcome = sync.run(key)[key]
    stored = sync.bucket.get(key)
    fields = json.loads(stored.data)
    created = fields.pop("createdAt")
    assert fields == {
        "id": "ccb51262-bar.jpg",
        "title": "bar.jpg",
        "size": str(len(JPEG)),
        "width": "64",
        "height": "48",
        "mimeType": "image/jpeg",
        "imageBinary": base64.b64encode(JPEG).decode(),
        "type": "image",
        "origin": "Python ImageSync",
    }
    assert created.isdecimal()
    assert stored.content_type == "application/json"
    assert outcome.detail["sha256"] == hashlib.sha256(JPEG).hexdigest()


def test_the_type_is_that_of_the_content_not_of_the_name(sync):
    key = sync.file("/a.jpg", PNG)
    sync.run(key)
    document = decode(sync.bucket.get(key).data)
    assert (document.media_type, document.width, document.height) == ("image/png", 40, 30)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_reencoded_it_keeps_its_format_and_size_and_loses_its_metadata(sync, kind, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    key = sync.file("/a.bin", data_of(quarters(), kind, exif=exif))
    sync.run(key, payload="reencode")
    document = decode(sync.bucket.get(key).data)
    (tmp_path / "again").write_bytes(document.picture)
    with Image.open(tmp_path / "again") as again:
        assert (again.format, again.size) == (kind, (64, 48))
        assert 0x010E not in again.getexif()
    assert document.picture != (sync.assets / "a.bin").read_bytes()


@given(st.binary(), st.text(), st.integers(0), st.integers(1), st.integers(1), st.integers(0))
def test_a_document_is_read_back_as_it_was_written(picture, key, size, width, height, created):
    document = ImageDocument(key, key, size, width, height, "image/png", picture, created)
    assert decode(document.encode()) == document
    assert len(document.encode()) >= encoded_bytes(len(picture)) - 4


@pytest.mark.parametrize("stored", [b"", b"[]", b"{}", b"null", JPEG, b'{"imageBinary": "%"}'])
def test_what_is_no_document_is_not_taken_for_one(stored):
    with pytest.raises(NoDocument):
        decode(stored)


# What becomes of a reference


def test_every_reference_ends_in_exactly_one_result(sync):
    there, new = sync.file("/there.jpg"), sync.file("/a/new.png", PNG)
    sync.run(there)
    wrong = f"00000001-{sync.file('/wrong.jpg').partition('-')[2]}"
    broken = sync.file("/broken.jpg", JPEG[:-200])
    other = sync.file("/letter.jpg", b"a letter")
    expected = {
        there: "present",
        new: "uploaded",
        "12345678-nowhere.jpg": "missing",
        wrong: "hash_mismatch",
        broken: "unreadable",
        other: "unreadable",
        "no reference": "bad_reference",
    }
    outcomes = sync.run(*expected)
    assert results(outcomes) == expected
    assert Counter(outcome.state.value for outcome in outcomes.values()) == {
        "skipped": 1,
        "done": 1,
        "quarantined": 5,
    }
    assert all(outcome.reason for key, outcome in outcomes.items() if key != new)
    assert not any(map(sync.bucket.exists, (broken, other, wrong)))


def same_hash() -> tuple[str, str]:
    """Two folders whose files of one name have one hash: Adler-32 sums bytes, weighted by place,
    so that +1, -2, +1 in a row change neither sum."""
    return "/media/aca/b", "/media/bab/b"


def test_of_several_files_with_the_same_hash_none_is_taken_and_all_are_named(sync):
    one, other = (sync.file(f"{folder}/x.jpg") for folder in same_hash())
    assert one == other
    outcome = sync.run(one)[one]
    assert outcome.detail["result"] == "ambiguous"
    assert outcome.detail["candidates"] == [f"{folder}/x.jpg" for folder in same_hash()]
    assert not sync.bucket.exists(one)


def test_of_several_files_of_one_name_the_one_with_the_hash_is_taken(sync):
    sync.file("/a/x.jpg", PNG)
    key = sync.file("/b/x.jpg")
    sync.file("/c/x.jpg", PNG)
    assert sync.run(key)[key].detail["path"] == "/b/x.jpg"
    assert decode(sync.bucket.get(key).data).picture == JPEG


def test_a_hash_whose_zeros_were_left_out_is_the_same_hash(sync):
    folders = (f"/{'a' * length}{number}" for length in range(100) for number in range(100))
    hashed = (
        folder for folder in folders if adler32(f"{HASH_PREFIX}{folder}/x.jpg".encode())[:2] == "00"
    )
    short = sync.file(f"{next(hashed)}/x.jpg").lstrip("0")
    assert len(short) <= len("123456-x.jpg")
    assert results(sync.run(short)) == {short: "uploaded"}
    assert sync.bucket.exists(short)


@pytest.mark.parametrize(
    "name",
    ["[a]*?.jpg", "a+b%41 c.jpg", "\u00fc.jpg", "u\u0308.jpg", "'\"&<>#.jpg", "..jpg", "x-y-z.jpg"],
)
def test_any_name_is_found_and_stored_under_itself(sync, name):
    key = sync.file(f"/some/{name}")
    assert results(sync.run(key)) == {key: "uploaded"}
    assert decode(sync.bucket.get(key).data).title == name


def test_a_picture_that_riak_cannot_hold_is_refused_unread(sync):
    key = sync.file("/large.jpg")
    os.truncate(sync.assets / "large.jpg", 45_000_000)
    outcomes = sync.run(key)
    assert results(outcomes) == {key: "too_large"}
    assert "larger than Riak takes" in outcomes[key].reason


def test_a_large_picture_that_is_small_when_saved_again_is_stored(sync, monkeypatch):
    monkeypatch.setattr(riaksync, "OBJECT_BYTES", 60_000)
    key = sync.file("/noisy.png", data_of(quarters(200, 200), "PNG") + bytes(60_000))
    assert results(sync.run(key)) == {key: "too_large"}
    assert results(sync.run(key, payload="reencode")) == {key: "uploaded"}


def test_a_file_that_is_gone_or_a_link_since_it_was_indexed_fails_alone(sync, monkeypatch):
    gone, link, other = (sync.file(f"/{name}.jpg") for name in ("gone", "link", "other"))
    real, changed, lock = AssetIndex.match, [], Lock()

    def late(self, reference):
        with lock:
            if not changed:
                changed.append(True)
                (sync.assets / "gone.jpg").unlink()
                (sync.assets / "link.jpg").unlink()
                (sync.assets / "link.jpg").symlink_to(sync.assets / "other.jpg")
        return real(self, reference)

    monkeypatch.setattr(AssetIndex, "match", late)
    assert results(sync.run(gone, link, other)) == {
        gone: "failed",
        link: "failed",
        other: "uploaded",
    }


# Again, after faults


def test_run_again_everything_is_present_and_nothing_is_written(sync, proxy):
    keys = [sync.file(f"/{number}/x.jpg") for number in range(5)]
    sync.run(*keys)
    again = sync.run(*keys, bucket=behind(sync, proxy))
    assert set(results(again).values()) == {"present"}
    assert {request.method for request in proxy.requests} == {"HEAD"}
    assert sum(request.sent for request in proxy.requests) == 0


def killed(self, outcome):
    raise KeyboardInterrupt


def test_what_was_stored_by_a_try_that_was_killed_is_not_stored_again(sync, proxy, monkeypatch):
    key = sync.file("/x.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(OutcomeLog, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            sync.run(key)
    again = sync.run(key, again=True, bucket=behind(sync, proxy))
    assert results(again) == {key: "present"}
    assert puts(proxy) == []


@pytest.mark.parametrize("fault", [drop(), status(503), drop_after_upstream()])
def test_a_write_whose_answer_is_lost_is_done(sync, proxy, fault):
    key = sync.file("/x.jpg")
    proxy.on(lambda request: request.method == "PUT", fault, times=1)
    assert results(sync.run(key, bucket=behind(sync, proxy))) == {key: "uploaded"}
    assert decode(sync.bucket.get(key).data).picture == JPEG


@pytest.mark.parametrize("fault", [drop(), status(503)])
def test_a_riak_that_is_away_ends_the_batch_and_the_next_try_goes_on(sync, proxy, fault):
    keys = [sync.file(f"/{number}/x.jpg") for number in range(6)]
    rule = proxy.on(lambda request: True, fault, after=6)
    with pytest.raises(InfrastructureError):
        sync.run(*keys, bucket=behind(sync, proxy))
    proxy.rules.remove(rule)
    outcomes = sync.run(*keys, again=True, bucket=behind(sync, proxy))
    assert set(results(outcomes)) == set(keys)
    assert set(results(outcomes).values()) <= {"uploaded", "present"}
    assert all(decode(sync.bucket.get(key).data).picture == JPEG for key in keys)


def replaced(old: bytes, new: bytes) -> Fault:
    """Other bytes in the body on the way to the server, as many."""

    def change(request: Request, response: Response) -> None:
        response.set_body(b"".join(response.body).replace(old, new))

    return Fault("replaced", after=change)


def test_what_comes_back_damaged_is_deleted_again_and_failed(sync, proxy):
    key = sync.file("/x.jpg")
    proxy.on(lambda request: request.method == "GET", replaced(b"imageBinary", b"imagebinary"))
    outcome = sync.run(key, bucket=behind(sync, proxy))[key]
    assert (outcome.state.value, outcome.detail) == ("failed", {})
    assert "deleted again" in outcome.reason
    assert not sync.bucket.exists(key)


def test_what_comes_back_as_another_picture_is_failed_and_stays(sync, proxy):
    key = sync.file("/x.jpg")
    proxy.on(
        lambda request: request.method == "GET",
        replaced(b'"imageBinary": "/', b'"imageBinary": "A'),
    )
    outcome = sync.run(key, bucket=behind(sync, proxy))[key]
    assert "another picture" in outcome.reason
    assert decode(sync.bucket.get(key).data).picture == JPEG


def test_what_has_siblings_is_there(sync):
    key = sync.file("/x.jpg")
    sync.bucket.set_properties(allow_mult=True)
    for data in (b"1", b"2"):
        sync.bucket.put(key, data, "text/plain", repeatable=False)
    assert results(sync.run(key, keeps_siblings=True)) == {key: "siblings"}


def test_by_force_siblings_become_one_picture(sync):
    key = sync.file("/x.jpg")
    sync.bucket.set_properties(allow_mult=True)
    for data in (b"1", b"2"):
        sync.bucket.put(key, data, "text/plain", repeatable=False)
    assert results(sync.run(key, keeps_siblings=True, force=True)) == {key: "uploaded"}
    assert decode(sync.bucket.get(key).data).picture == JPEG


def test_a_picture_stored_where_one_was_deleted_a_moment_ago_has_no_siblings(sync):
    key = sync.file("/x.jpg")
    sync.bucket.set_properties(allow_mult=True)
    sync.bucket.put(key, b"1", "text/plain", repeatable=False)
    sync.bucket.delete(key)
    assert results(sync.run(key, keeps_siblings=True)) == {key: "uploaded"}
    assert decode(sync.bucket.get(key).data).picture == JPEG


def test_by_force_a_bad_document_is_mended(sync):
    key = sync.file("/x.jpg")
    sync.bucket.put(key, b"{}", "application/json")
    assert results(sync.run(key)) == {key: "present"}
    assert results(sync.run(key, force=True)) == {key: "uploaded"}
    assert decode(sync.bucket.get(key).data).picture == JPEG


def test_a_full_disk_ends_the_batch(sync, monkeypatch):
    key = sync.file("/x.jpg")
    monkeypatch.setattr(riaksync, "temp_file", lambda folder, name: nullcontext(Path("/dev/full")))
    with pytest.raises(DiskFull):
        sync.run(key)


# The logs


def test_the_logs_have_the_legacy_lines(sync):
    uploaded, wrong = (
        sync.file("/x\N{NO-BREAK SPACE}y.jpg"),
        f"1-{sync.file('/y.jpg').partition('-')[2]}",
    )
    broken = sync.file("/broken.jpg", JPEG[:-200])
    bad = "b\nad"
    outcomes = sync.run(uploaded, wrong, "1-nowhere.jpg", broken, bad)
    store = local_work_store(f"file://{sync.folder}/work")
    store.put("outcomes.jsonl", b"".join(outcome.line() for outcome in outcomes.values()))
    logs = write_logs(store, "outcomes.jsonl", sync.folder)
    assert logs["upload.log"].read_text() == f"{uploaded}\n"
    assert sorted(logs["error.log"].read_text().splitlines()) == sorted(
        [
            "ERROR - Error could not find match for 1-nowhere.jpg",
            "WARNING - Error could not match hashes of 1-y.jpg",
            f"ERROR - {broken}: {outcomes[broken].reason}",
            f"ERROR - b\\nad: {outcomes[bad].reason}",
        ]
    )


def test_what_was_there_is_in_neither_log(sync):
    key = sync.file("/x.jpg")
    sync.run(key)
    [again] = sync.run(key).values()
    store = local_work_store(f"file://{sync.folder}/work")
    store.put("outcomes.jsonl", again.line())
    logs = write_logs(store, "outcomes.jsonl", sync.folder)
    assert {name: log.read_text() for name, log in logs.items()} == {
        "upload.log": "",
        "error.log": "",
    }
