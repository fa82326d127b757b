"""Objects in S3: what arrives and what is stored is what it should be, or it is said.

The server is moto's; damage comes from a proxy in front of it.
"""

import hashlib
import http.client
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagecore import s3
from imagecore.errors import ImageflowsError, InfrastructureError, ItemFailed
from imagecore.s3 import (
    Bucket,
    ObjectChanged,
    ObjectDamaged,
    ObjectDenied,
    ObjectMissing,
    ServerFault,
    etag_of,
)

BodyChange = Callable[[bytes], bytes]


@dataclass
class Fault:
    """What goes wrong with the requests of one method."""

    method: str = "GET"
    status: int | None = None
    code: str | None = None
    hang_up: bool = False
    cut: int | None = None
    answer: BodyChange = bytes
    sent: BodyChange = bytes
    drop_sent_headers: str | None = None
    drop_answer_headers: str | None = None
    answer_headers: dict[str, str] = field(default_factory=dict)


class FaultyProxy:
    """Passes requests on to `endpoint`, with `fault` when one is set."""

    def __init__(self, endpoint: str) -> None:
        proxy, target = self, urlsplit(endpoint).netloc
        self.fault: Fault | None = None
        self.seen: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                proxy.seen.append(f"{self.command} {self.path}")
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault = proxy.fault if proxy.fault and proxy.fault.method == self.command else None
                fault = fault or Fault()
                if fault.hang_up:
                    self.close_connection = True
                    return
                if fault.status:
                    self._answer(fault.status, {}, error_document(fault.code))
                    return
                sent = fault.sent(sent)
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if not name.lower().startswith(fault.drop_sent_headers or "-")
                } | {"Content-Length": str(len(sent))}
                connection = http.client.HTTPConnection(target)
                connection.request(self.command, self.path, sent, headers)
                response = connection.getresponse()
                body = response.read()
                connection.close()
                known = {
                    name.lower(): value
                    for name, value in response.getheaders()
                    if not name.lower().startswith(fault.drop_answer_headers or "-")
                }
                length = known.pop("content-length", "0")
                known.pop("connection", None)
                known.pop("transfer-encoding", None)
                known |= fault.answer_headers
                if self.command == "HEAD":
                    self._answer(response.status, known, b"", length)
                else:
                    self._answer(response.status, known, fault.answer(body), cut=fault.cut)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on

            def _answer(
                self,
                status: int,
                headers: dict[str, str],
                body: bytes,
                length: str | None = None,
                cut: int | None = None,
            ) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[:cut])
                self.close_connection = self.close_connection or cut is not None

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def error_document(code: str | None) -> bytes:
    if code is None:
        return b"<html>not S3's own words</html>"
    return f"<Error><Code>{code}</Code><Message>so it is</Message></Error>".encode()


def client_of(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            s3={"addressing_style": "path"},
        ),
    )


@pytest.fixture(scope="module")
def shared_proxy(s3_endpoint: str) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(s3_endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(shared_proxy: FaultyProxy) -> Iterator[FaultyProxy]:
    yield shared_proxy
    shared_proxy.fault = None
    shared_proxy.seen.clear()


@pytest.fixture
def bucket(s3_client: Any, new_bucket: Callable[[str], str]) -> Bucket:
    return Bucket(new_bucket("source"), s3_client)


@pytest.fixture
def behind(bucket: Bucket, proxy: FaultyProxy) -> Bucket:
    """The same bucket as `bucket`, through the proxy."""
    return Bucket(bucket.name, client_of(proxy.url))


def put(bucket: Bucket, key: str, data: bytes, **more: Any) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=data, **more)


def flip(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.tif"
    file.write_bytes(os.urandom(300_000))
    return file


# Looking


def test_head_shows_an_object_as_it_was_written(bucket: Bucket) -> None:
    put(bucket, "a.jpg", b"12345", Metadata={"width": "7"})
    found = bucket.head("a.jpg")
    assert (found.key, found.size, found.metadata) == ("a.jpg", 5, {"width": "7"})
    assert found.etag == hashlib.md5(b"12345").hexdigest()
    assert found.etag_is_hash
    assert found.modified.tzinfo is not None


def test_an_etag_that_is_no_hash_is_not_taken_for_one(behind: Bucket, proxy: FaultyProxy) -> None:
    put(behind, "a.jpg", b"12345")
    for header in (
        {"x-amz-server-side-encryption": "aws:kms"},
        {"x-amz-server-side-encryption": "aws:kms:dsse"},
        {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
    ):
        proxy.fault = Fault("HEAD", answer_headers=header)
        assert not behind.head("a.jpg").etag_is_hash
    proxy.fault = Fault("HEAD", answer_headers={"x-amz-server-side-encryption": "AES256"})
    assert behind.head("a.jpg").etag_is_hash


def test_what_is_not_there_is_found_to_be_none(bucket: Bucket) -> None:
    assert bucket.find("nothing.jpg") is None
    with pytest.raises(ObjectMissing, match=f"s3://{bucket.name}/nothing.jpg does not exist"):
        bucket.head("nothing.jpg")
    put(bucket, "something.jpg", b"x")
    assert bucket.find("something.jpg") == bucket.head("something.jpg")


def test_reading_or_copying_what_is_not_there_says_so_and_deleting_it_is_no_error(
    bucket: Bucket,
) -> None:
    with pytest.raises(ObjectMissing, match=r"nothing\.jpg"):
        bucket.read("nothing.jpg")
    with pytest.raises(ObjectMissing, match=r"nothing\.jpg"):
        bucket.copy("nothing.jpg", "b.jpg")
    bucket.delete("nothing.jpg")


def test_a_listing_goes_on_past_its_first_page(behind: Bucket, proxy: FaultyProxy) -> None:
    bucket, keys = behind, [f"digital/{n:04d}.jpg" for n in range(10)]
    for key in keys:
        put(bucket, key, b"")
    bucket.client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 3}
    )
    put(bucket, "digital", b"beside")
    put(bucket, "other/a.jpg", b"")
    assert [found.key for found in bucket.walk("digital/")] == keys
    assert sum("list-type=2" in request for request in proxy.seen) == 4


def test_a_listing_of_an_empty_prefix_is_empty(bucket: Bucket) -> None:
    assert list(bucket.walk("rbsc/")) == []


# Any key that S3 allows

ODD_KEYS = [
    "with space.jpg",
    "100%.jpg",
    "%41%2F%00.jpg",
    "a+b.jpg",
    "a&b=c?d#e;f.jpg",
    "café.jpg",
    "cafe\u0301.jpg",
    "写真/😀.jpg",
    "a//b.jpg",
    "a/./b.jpg",
    "a/../b.jpg",
    "../../etc/passwd",
    "/leading.jpg",
    "//two.jpg",
    "folder/",
    ".",
    " ",
    "'\"<>&\\`$(rm){}[]|^~*.jpg",
    "tab\there.jpg",
    "bell\x07escape\x1b.jpg",
    "del\x7f.jpg",
    "\u202egnp.exe",
    "\ufeffbom.jpg",
    "x" * 1024,
]


def keeps(bucket: Bucket, key: str, target: Path) -> None:
    data = key.encode()
    bucket.write(key, data, "image/jpeg")
    (listed,) = bucket.walk("")
    assert (listed.key, listed.size) == (key, len(data))
    found = bucket.head(key)
    assert (found.etag, found.size) == (listed.etag, listed.size)
    bucket.fetch(found, target)
    assert target.read_bytes() == bucket.read(key) == data
    assert bucket.url(key).isprintable()
    bucket.copy(key, "the copy")
    assert bucket.read("the copy") == data
    bucket.delete("the copy")
    bucket.delete(key)
    assert list(bucket.walk("")) == []


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: ascii(key[:20]))
def test_an_object_is_reached_by_whatever_key_it_has(
    bucket: Bucket, tmp_path: Path, key: str
) -> None:
    keeps(bucket, key, tmp_path / "file")


@settings(max_examples=30, suppress_health_check=[*HealthCheck])
@given(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0")
        | st.sampled_from("/.%+ "),
        min_size=1,
        max_size=30,
    )
)
def test_no_key_is_mistaken_for_another(bucket: Bucket, tmp_path: Path, key: str) -> None:
    if key != "the copy":
        keeps(bucket, key, tmp_path / "file")


# Fetching


def test_what_is_fetched_is_the_object(bucket: Bucket, tmp_path: Path, picture: Path) -> None:
    put(bucket, "a.jpg", picture.read_bytes())
    bucket.fetch(bucket.head("a.jpg"), tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == picture.read_bytes()


def test_a_body_is_fetched_as_it_is_stored_whatever_its_encoding_header_says(
    bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, "a.svgz", b"\x1f\x8b not really", ContentEncoding="gzip")
    bucket.fetch(bucket.head("a.svgz"), tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"\x1f\x8b not really"


def test_an_object_replaced_after_it_was_looked_at_is_not_fetched(
    bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, "a.jpg", b"first")
    found = bucket.head("a.jpg")
    put(bucket, "a.jpg", b"other")
    with pytest.raises(ObjectChanged, match=r"a\.jpg changed"):
        bucket.fetch(found, tmp_path / "fetched")


def test_an_object_deleted_after_it_was_looked_at_is_missing(
    bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, "a.jpg", b"first")
    found = bucket.head("a.jpg")
    bucket.delete("a.jpg")
    with pytest.raises(ObjectMissing, match=r"a\.jpg"):
        bucket.fetch(found, tmp_path / "fetched")


DAMAGE = {
    "one bit": Fault(answer=flip),
    "last byte missing": Fault(answer=lambda body: body[:-1]),
    "one byte too many": Fault(answer=lambda body: body + b"\0"),
    "nothing": Fault(answer=lambda body: b""),
    "zeros": Fault(answer=lambda body: bytes(len(body))),
    "hung up at once": Fault(cut=0),
    "hung up in the middle": Fault(cut=150_000),
    "hung up before the last byte": Fault(cut=-1),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("checksum", [True, False], ids=["with checksum", "without"])
def test_what_arrives_damaged_or_short_is_refused(
    behind: Bucket, proxy: FaultyProxy, tmp_path: Path, picture: Path, damage: str, checksum: bool
) -> None:
    put(behind, "a.jpg", picture.read_bytes(), ChecksumAlgorithm="SHA256")
    found = behind.head("a.jpg")
    proxy.fault = replace(
        DAMAGE[damage], drop_answer_headers=None if checksum else "x-amz-checksum"
    )
    with pytest.raises(ObjectDamaged, match=r"a\.jpg"):
        behind.fetch(found, tmp_path / "fetched")
    proxy.fault = None
    behind.fetch(found, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == picture.read_bytes()


@pytest.mark.parametrize("damage", ["last byte missing", "one byte too many", "nothing"])
def test_where_there_is_no_hash_at_all_the_length_is_compared(
    behind: Bucket, proxy: FaultyProxy, tmp_path: Path, picture: Path, damage: str
) -> None:
    put(behind, "a.jpg", picture.read_bytes())
    found = replace(behind.head("a.jpg"), etag_is_hash=False)
    proxy.fault = replace(DAMAGE[damage], drop_answer_headers="x-amz-checksum")
    with pytest.raises(ObjectDamaged, match=r"a\.jpg: [\d,]+ bytes arrived of 300,000"):
        behind.fetch(found, tmp_path / "fetched")


def test_a_small_object_that_arrives_short_is_refused(behind: Bucket, proxy: FaultyProxy) -> None:
    put(behind, "note.json", b'{"key": "a.jpg"}')
    proxy.fault = Fault(cut=5)
    with pytest.raises(ObjectDamaged, match=r"note\.json"):
        behind.read("note.json")


# Delivering


def test_a_delivered_file_is_there_with_its_type_and_metadata(
    bucket: Bucket, picture: Path
) -> None:
    bucket.deliver(picture, "to/a.tif", "image/tiff", {"width": "7", "source-key": "a%20b.jpg"})
    assert bucket.read("to/a.tif") == picture.read_bytes()
    found = bucket.head("to/a.tif")
    ours = {"width": "7", "source-key": "a%20b.jpg", "etag": etag_of(picture)}
    assert found.metadata == ours
    head = bucket.client.head_object(Bucket=bucket.name, Key="to/a.tif")
    assert head["ContentType"] == "image/tiff"


UPLOAD_DAMAGE = {
    "one bit": (Fault("PUT", sent=flip), "the stored bytes differ"),
    "short": (Fault("PUT", sent=lambda body: body[:-1]), "299,999 bytes were stored of 300,000"),
    "no metadata": (Fault("PUT", drop_sent_headers="x-amz-meta-"), "metadata was not stored"),
}


@pytest.mark.parametrize("damage", UPLOAD_DAMAGE)
def test_what_was_stored_wrong_is_deleted_again_and_said(
    behind: Bucket, proxy: FaultyProxy, picture: Path, damage: str
) -> None:
    proxy.fault, words = UPLOAD_DAMAGE[damage]
    with pytest.raises(ObjectDamaged, match=rf"to/a\.tif: .*{words}.*deleted again"):
        behind.deliver(picture, "to/a.tif", "image/tiff", {"width": "7"})
    assert behind.find("to/a.tif") is None


@pytest.mark.parametrize("answered", ["honest", "damaged"])
def test_where_the_etag_is_no_hash_the_bytes_are_read_back(
    behind: Bucket, proxy: FaultyProxy, picture: Path, answered: str
) -> None:
    proxy.fault = Fault("HEAD", answer_headers={"etag": '"0123456789abcdef0123456789abcdef"'})
    if answered == "honest":
        behind.deliver(picture, "a.tif", "image/tiff", {})
        assert behind.find("a.tif")
        assert any(request.startswith("GET ") for request in proxy.seen)
    else:

        class Changed(Bucket):
            def head(self, key: str) -> Any:
                metadata = {"etag": etag_of(picture)}
                put(self, key, flip(picture.read_bytes()), Metadata=metadata)
                return super().head(key)

        with pytest.raises(ObjectDamaged, match="the stored bytes differ"):
            Changed(behind.name, behind.client).deliver(picture, "a.tif", "image/tiff", {})
        assert behind.find("a.tif") is None


PART = 5 * 2**20


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 12_345])
def test_the_etag_of_a_file_is_known_before_it_is_sent(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", PART)
    file = tmp_path / "file"
    file.write_bytes(os.urandom(size))
    bucket.deliver(file, "a.tif", "image/tiff", {"width": "1"})
    assert bucket.head("a.tif").etag == etag_of(file)
    assert ("-" in etag_of(file)) == (size >= PART)


# Servers that refuse


def fetch_a(bucket: Bucket, file: Path) -> None:
    found = s3.S3Object("a.jpg", "0" * 32, 5, None, {}, etag_is_hash=True)  # type: ignore[arg-type]
    bucket.fetch(found, file.with_name("fetched"))


USES: dict[str, tuple[str, Callable[[Bucket, Path], object]]] = {
    "fetch": ("GET", fetch_a),
    "read": ("GET", lambda bucket, file: bucket.read("a.jpg")),
    "walk": ("GET", lambda bucket, file: list(bucket.walk("a"))),
    "write": ("PUT", lambda bucket, file: bucket.write("a.jpg", b"x", "image/jpeg")),
    "copy": ("PUT", lambda bucket, file: bucket.copy("a.jpg", "b.jpg")),
    "delete": ("DELETE", lambda bucket, file: bucket.delete("a.jpg")),
    "deliver": ("PUT", lambda bucket, file: bucket.deliver(file, "a.jpg", "image/tiff", {})),
}
REFUSALS: list[tuple[int, str | None, type[ImageflowsError]]] = [
    (503, "SlowDown", InfrastructureError),
    (503, None, InfrastructureError),
    (502, None, InfrastructureError),
    (500, "InternalError", ServerFault),
    (429, "TooManyRequests", InfrastructureError),
    (429, None, InfrastructureError),
    (400, "ExpiredToken", InfrastructureError),
    (403, "InvalidAccessKeyId", InfrastructureError),
    (403, "SignatureDoesNotMatch", InfrastructureError),
    (403, "RequestTimeTooSkewed", InfrastructureError),
    (404, "NoSuchBucket", InfrastructureError),
    (403, "AccessDenied", ObjectDenied),
    (404, "NoSuchKey", ObjectMissing),
    (412, "PreconditionFailed", ObjectChanged),
    (400, "InvalidRequest", ItemFailed),
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("status", "code", "expected"), REFUSALS)
def test_a_refusal_is_told_apart_by_what_to_do_next(
    behind: Bucket,
    proxy: FaultyProxy,
    picture: Path,
    use: str,
    status: int,
    code: str | None,
    expected: type[ImageflowsError],
) -> None:
    method, act = USES[use]
    proxy.fault = Fault(method, status=status, code=code)
    with pytest.raises(ImageflowsError, match=f"s3://{behind.name}") as caught:
        act(behind, picture)
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, ObjectMissing),
        (403, ItemFailed),
        (412, ObjectChanged),
        (429, InfrastructureError),
        (500, ServerFault),
        (503, InfrastructureError),
    ],
)
def test_a_refusal_of_head_which_has_no_words_is_told_by_its_number(
    behind: Bucket, proxy: FaultyProxy, status: int, expected: type[ImageflowsError]
) -> None:
    proxy.fault = Fault("HEAD", status=status)
    with pytest.raises(expected, match=rf"s3://{behind.name}/a\.jpg"):
        behind.head("a.jpg")


@pytest.mark.parametrize("use", USES)
def test_a_server_that_hangs_up_or_is_not_there_is_named(
    behind: Bucket, proxy: FaultyProxy, picture: Path, use: str
) -> None:
    method, act = USES[use]
    proxy.fault = Fault(method, hang_up=True)
    with pytest.raises(InfrastructureError, match=f"s3://{behind.name}.*cannot be reached"):
        act(behind, picture)
    with pytest.raises(InfrastructureError, match=r"s3://nowhere.*cannot be reached.*endpoint"):
        act(Bucket("nowhere", client_of("http://127.0.0.1:9")), picture)


@pytest.mark.parametrize("answer", [b"<html>login page</html>", b"<html><p>", b"", b"\0\xff"])
def test_a_listing_that_is_none_is_not_taken_for_an_empty_one(
    behind: Bucket, proxy: FaultyProxy, answer: bytes
) -> None:
    put(behind, "a.jpg", b"x")
    proxy.fault = Fault(answer=lambda body: answer)
    with pytest.raises(InfrastructureError, match=f"s3://{behind.name}"):
        list(behind.walk(""))


def test_without_credentials_the_connection_is_named(s3_endpoint: str) -> None:
    session = boto3.Session(region_name="us-east-1")
    session._session.register_component("credential_provider", _NoCredentials())
    client = session.client("s3", endpoint_url=s3_endpoint)
    with pytest.raises(InfrastructureError, match=r"s3://b-b-b/a.jpg.*credentials"):
        Bucket("b-b-b", client).read("a.jpg")


class _NoCredentials:
    def load_credentials(self) -> None:
        return None


def test_a_key_that_cannot_be_sent_is_that_item_s_failure(bucket: Bucket) -> None:
    with pytest.raises(ItemFailed, match=f"s3://{bucket.name}"):
        bucket.write("", b"x", "text/plain")


def test_a_copy_that_fails_after_its_answer_began_is_not_taken_for_done(
    behind: Bucket, proxy: FaultyProxy
) -> None:
    put(behind, "a.jpg", b"x")
    proxy.fault = Fault("PUT", answer=lambda body: error_document("InternalError"))
    with pytest.raises(InfrastructureError, match=rf"s3://{behind.name}/a\.jpg"):
        behind.copy("a.jpg", "b.jpg")


# Checking a bucket before it is used


def test_a_bucket_that_may_be_used_passes(bucket: Bucket) -> None:
    bucket.check()


def test_a_bucket_that_does_not_exist_is_named(s3_client: Any) -> None:
    with pytest.raises(InfrastructureError, match="The bucket not-there does not exist: create it"):
        Bucket("not-there", s3_client).check()


def test_a_bucket_with_an_impossible_name_is_named(s3_client: Any) -> None:
    with pytest.raises(InfrastructureError, match="not a bucket"):
        Bucket("not a bucket", s3_client).check()


def test_a_bucket_that_these_credentials_may_not_use_is_named(
    behind: Bucket, proxy: FaultyProxy
) -> None:
    proxy.fault = Fault("HEAD", status=403)
    with pytest.raises(InfrastructureError, match=rf"{behind.name} may not be used .*credentials"):
        behind.check()


@pytest.mark.parametrize("status", [400, 405, 429, 500, 503])
def test_a_bucket_that_is_refused_in_any_other_way_is_named(
    behind: Bucket, proxy: FaultyProxy, status: int
) -> None:
    proxy.fault = Fault("HEAD", status=status)
    with pytest.raises(InfrastructureError, match=behind.name):
        behind.check()
