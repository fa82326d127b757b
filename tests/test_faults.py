"""The fault proxy passes everything as it is, and each fault does what it says and no more."""

import hashlib
import http.client
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import boto3
import obstore
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    FlexibleChecksumError,
    IncompleteReadError,
    ResponseStreamingError,
)
from obstore.store import S3Store

from devstack.samples import client
from tests.faults import (
    FaultProxy,
    call,
    corrupt_request,
    corrupt_response,
    cut_listing,
    delay,
    denied,
    drop,
    drop_after_upstream,
    header,
    no_token,
    status,
    truncate,
    unsorted,
)

ODD_KEYS = [
    "a//b.jpg",
    "/a.jpg",
    "a/./b.jpg",
    "a/../b.jpg",
    "..",
    "a%2Fb.jpg",
    "a+b c.jpg",
    "ä ☃ 🖼.jpg",
    "a?b=c&d#e.jpg",
    "tab\t\x01.jpg",
]


def once(endpoint: str):
    """A client that tries each request once."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(
            s3={"addressing_style": "path"},
            proxies={},
            retries={"total_max_attempts": 1},
            max_pool_connections=20,
        ),
    )


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def s3(proxy: FaultProxy):
    return once(proxy.url)


@pytest.fixture
def bucket(new_bucket: Callable[[str], str]) -> str:
    return new_bucket("faults")


@pytest.fixture(params=["s3_endpoint", "rclone_endpoint"])
def any_proxy(request: pytest.FixtureRequest) -> Iterator[FaultProxy]:
    """A proxy of each of the two servers."""
    with FaultProxy(request.getfixturevalue(request.param)) as proxy:
        yield proxy


@pytest.fixture
def any_bucket(any_proxy: FaultProxy) -> str:
    name = f"faults-{uuid.uuid4().hex[:12]}"
    client(any_proxy.upstream).create_bucket(Bucket=name)
    return name


def put(s3, bucket: str, keys: str, body: bytes = b"picture") -> None:
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=body)


def read(s3, bucket: str, key: str) -> bytes:
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def keys_of(page: dict) -> list[str]:
    return [entry["Key"] for entry in page.get("Contents", ())]


class Canned:
    """A server of one answer, which remembers the bytes it was sent."""

    def __init__(self, answer: bytes, *, ends: bytes = b"\r\n\r\n") -> None:
        self.heard = b""
        self._answer, self._ends = answer, ends
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            while not self.heard.endswith(self._ends) and (data := connection.recv(2**16)):
                self.heard += data
            connection.sendall(self._answer)


def said(proxy: FaultProxy, request: bytes) -> bytes:
    """What the proxy answers to these bytes, up to the end of the connection."""
    port = int(proxy.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            return answer.read()


# What passes


def test_a_request_arrives_byte_by_byte_as_it_was_sent():
    request = (
        b"PUT //b//..%2f/%2e/a+b%20%C3%A4?x-id=%7E&=&a+b HTTP/1.1\r\nhOsT: client.example:1\r\n"
        b"x-ODD:   spaces \t kept\r\nX-Twice: 1\r\nX-Twice: 2\r\nContent-Length: 4\r\n\r\n\r\n\r\n"
    )
    server = Canned(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "a"\r\n\r\nhi')
    with FaultProxy(server.url) as proxy:
        answer = said(proxy, request)
    assert server.heard.startswith(request[:-4])
    assert answer == b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "a"\r\n\r\nhi'


def test_a_chunked_upload_and_a_chunked_answer_arrive_whole():
    server = Canned(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhe\r\n3;x=1\r\nllo\r\n0\r\n\r\n",
        ends=b"0\r\n\r\n",
    )
    with FaultProxy(server.url) as proxy:
        head = b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = said(proxy, head + b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n")
        assert proxy.requests[0].received == 13
    assert server.heard == head + b"3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n"
    assert answer.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nup to the end",
    ],
)
def test_answers_without_a_body_or_a_length_pass(answer: bytes):
    with FaultProxy(Canned(answer).url) as proxy:
        assert said(proxy, b"GET /b/k HTTP/1.1\r\nHost: a\r\n\r\n") == answer


def test_an_answer_that_ends_early_ends_early_for_the_client():
    server = Canned(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")
    with FaultProxy(server.url) as proxy:
        assert said(proxy, b"GET /b/k HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\nshort")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 100 Continue", b"HTTP/1.1 403 Forbidden"])
def test_a_client_that_waits_to_go_on_is_told_what_the_server_says(answer: bytes):
    server = Canned(answer + b"\r\n\r\n")
    head = b"PUT /b/k HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    with FaultProxy(server.url) as proxy:
        port = int(proxy.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head)
            assert connection.recv(len(answer)) == answer
    assert server.heard == head


def test_one_connection_serves_many_requests(proxy: FaultProxy, s3, bucket: str):
    put(client(proxy.upstream), bucket, "a")
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"))
    with closing(connection):
        connection.connect()
        used = connection.sock
        for method, path in [("HEAD", "a"), ("GET", "a"), ("DELETE", "a"), ("GET", "a")] * 3:
            connection.request(method, f"/{bucket}/{path}", headers={"Authorization": "AWS test:x"})
            connection.getresponse().read()
            assert connection.sock is used
    statuses = [(request.method, request.status) for request in proxy.requests]
    assert statuses[:4] == [("HEAD", 200), ("GET", 200), ("DELETE", 204), ("GET", 404)]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_an_odd_key_is_the_same_with_and_without_the_proxy(proxy: FaultProxy, s3, bucket, key):
    direct = client(proxy.upstream)
    s3.put_object(Bucket=bucket, Key=key, Body=b"picture")
    assert keys_of(direct.list_objects_v2(Bucket=bucket)) == [key]
    assert keys_of(s3.list_objects_v2(Bucket=bucket, Prefix=key)) == [key]
    assert read(s3, bucket, key) == read(direct, bucket, key) == b"picture"
    assert proxy.requests.count("PutObject", bucket=bucket, key=key) == 1
    assert proxy.requests.count("ListObjectsV2", key="", query={"prefix": key}) == 1


def test_20_mb_arrive_whole_in_both_directions(any_proxy: FaultProxy, any_bucket: str):
    data = os.urandom(20 * 2**20)
    s3 = once(any_proxy.url)
    s3.put_object(Bucket=any_bucket, Key="large", Body=data)
    assert hashlib.sha256(read(s3, any_bucket, "large")).digest() == hashlib.sha256(data).digest()
    sent, fetched = any_proxy.requests
    assert (sent.operation, sent.received) == ("PutObject", len(data))
    assert (fetched.operation, fetched.sent) == ("GetObject", len(data))
    assert sent.headers["expect"] == "100-continue"


def test_parts_are_known_by_their_operations(any_proxy: FaultProxy, any_bucket: str):
    s3, target = once(any_proxy.url), {"Bucket": any_bucket, "Key": "parts"}
    upload = s3.create_multipart_upload(**target)["UploadId"]
    part = s3.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"a")
    s3.complete_multipart_upload(
        **target,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    s3.copy_object(Bucket=any_bucket, Key="copy", CopySource=f"{any_bucket}/parts")
    assert [request.operation for request in any_proxy.requests] == [
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "CopyObject",
    ]


def test_200_requests_by_16_threads_all_pass(any_proxy: FaultProxy, any_bucket: str):
    s3 = once(any_proxy.url)

    def there_and_back(number: int) -> bool:
        data = str(number).encode() * 1000
        s3.put_object(Bucket=any_bucket, Key=f"{number}", Body=data)
        return read(s3, any_bucket, f"{number}") == data

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(there_and_back, range(200)))
    assert any_proxy.requests.count("PUT") == any_proxy.requests.count("GET") == 200
    assert {request.status for request in any_proxy.requests} == {200}


def test_obstore_passes_too(any_proxy: FaultProxy, any_bucket: str):
    store = S3Store(
        any_bucket,
        endpoint=any_proxy.url,
        region="us-east-1",
        access_key_id="test",
        secret_access_key="test",
        client_options={"allow_http": True},
    )
    data = os.urandom(12 * 2**20)
    obstore.put(store, "some where/ä.bin", data, chunk_size=5 * 2**20)
    assert obstore.get(store, "some where/ä.bin").bytes() == data
    assert any_proxy.requests.count("UploadPart", key="some where/ä.bin") == 3


# What fails


def test_dropped_requests_never_reach_the_server(proxy: FaultProxy, s3, bucket: str):
    with proxy.fault("PutObject", drop()), pytest.raises(ConnectionClosedError):
        put(s3, bucket, "a")
    assert keys_of(s3.list_objects_v2(Bucket=bucket)) == []
    assert (proxy.requests[0].status, proxy.requests[0].upstream_status) == (None, None)


def test_a_lost_answer_leaves_the_effect(proxy: FaultProxy, s3, bucket: str):
    with proxy.fault("PutObject", drop_after_upstream()), pytest.raises(ConnectionClosedError):
        put(s3, bucket, "a")
    assert read(s3, bucket, "a") == b"picture"
    assert (proxy.requests[0].status, proxy.requests[0].upstream_status) == (None, 200)


def test_boto3_sends_again_what_was_dropped_once(proxy: FaultProxy, bucket: str):
    proxy.on("PutObject", drop_after_upstream(), times=1)
    put(client(proxy.url), bucket, "a")
    assert [request.status for request in proxy.requests] == [None, 200]


@pytest.mark.parametrize("size", [0, 3, 6])
def test_a_truncated_answer_holds_so_many_bytes(proxy: FaultProxy, s3, bucket: str, size: int):
    put(s3, bucket, "a")
    with proxy.fault("GetObject", truncate(size)):
        body = s3.get_object(Bucket=bucket, Key="a")["Body"]
        with pytest.raises((IncompleteReadError, ResponseStreamingError)):
            body.read()
    assert proxy.requests[-1].sent == size


@pytest.mark.parametrize(
    ("fault", "code", "error"),
    [
        (status(500), 500, "InternalError"),
        (status(503, "SlowDown"), 503, "SlowDown"),
        (denied(), 403, "AccessDenied"),
        (status(403, "InvalidAccessKeyId"), 403, "InvalidAccessKeyId"),
    ],
)
def test_an_error_is_one_of_s3(proxy: FaultProxy, s3, bucket: str, fault, code: int, error: str):
    with proxy.fault(None, fault):
        for attempt in (
            lambda: put(s3, bucket, "a", b"x" * 2**20),
            lambda: s3.list_objects_v2(Bucket=bucket),
        ):
            with pytest.raises(ClientError) as caught:
                attempt()
            assert caught.value.response["Error"]["Code"] == error
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == code
        with pytest.raises(ClientError) as caught:
            s3.head_object(Bucket=bucket, Key="a")
        assert caught.value.response["Error"]["Code"] == str(code)
    assert not any(request.upstream_status for request in proxy.requests)
    assert keys_of(s3.list_objects_v2(Bucket=bucket)) == []


def test_a_copy_can_fail_with_status_200(proxy: FaultProxy, s3, bucket: str):
    put(s3, bucket, "a")
    proxy.on("CopyObject", status(200, "InternalError"))
    with pytest.raises(ClientError, match="InternalError"):
        s3.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/a")


def test_a_damaged_answer_keeps_length_and_headers(proxy: FaultProxy, s3, bucket: str):
    put(s3, bucket, "a")
    with proxy.fault("GetObject", corrupt_response(at=2)):
        damaged = s3.get_object(Bucket=bucket, Key="a", ChecksumMode="DISABLED")
        assert damaged["Body"].read() == b"pi\x9cture"
        assert damaged["ETag"] == s3.head_object(Bucket=bucket, Key="a")["ETag"]
        with pytest.raises(FlexibleChecksumError):
            s3.get_object(Bucket=bucket, Key="a", ChecksumMode="ENABLED")["Body"].read()


def test_damage_on_the_way_up_is_stored_by_a_server_that_does_not_look(proxy, s3, bucket):
    with proxy.fault("PutObject", corrupt_request(at=6)):
        put(s3, bucket, "a")
    body = s3.get_object(Bucket=bucket, Key="a", ChecksumMode="DISABLED")["Body"].read()
    assert body == b"pictur\x9a"


def test_headers_of_the_answer_can_lie(proxy: FaultProxy, s3, bucket: str):
    put(s3, bucket, "a")
    with proxy.fault("HeadObject", header("ETag", '"0"'), header("Last-Modified", None)):
        found = s3.head_object(Bucket=bucket, Key="a")
    assert found["ETag"] == '"0"'
    assert "LastModified" not in found
    with (
        proxy.fault("GetObject", header("x-amz-checksum-crc32", "AAAAAA==")),
        pytest.raises(FlexibleChecksumError),
    ):
        s3.get_object(Bucket=bucket, Key="a", ChecksumMode="ENABLED")["Body"].read()


def test_a_delayed_request_arrives_and_does_not_keep_the_proxy_open(proxy, s3, bucket: str):
    with proxy.fault("PutObject", delay(0.01)):
        put(s3, bucket, "a")
    arrived = threading.Event()
    proxy.on("GetObject", call(lambda _: arrived.set()), delay(10**6))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(read, s3, bucket, "a")
        assert arrived.wait(60)
        proxy.close()
        assert isinstance(waiting.exception(), ConnectionClosedError)


def test_a_foreign_writer_acts_in_exactly_that_instant(proxy: FaultProxy, s3, bucket: str):
    foreign = client(proxy.upstream)
    writes = call(lambda request: put(foreign, bucket, "a", b"theirs"))
    late = call(lambda request: put(foreign, bucket, "a", b"theirs"), after_upstream=True)
    put(s3, bucket, "a", b"before")
    with proxy.fault("GetObject", writes, times=1):
        assert read(s3, bucket, "a") == b"theirs"
    with proxy.fault("PutObject", writes):
        put(s3, bucket, "a", b"ours")
    assert read(s3, bucket, "a") == b"ours"
    with proxy.fault("PutObject", late):
        put(s3, bucket, "a", b"ours")
    assert read(s3, bucket, "a") == b"theirs"


def test_faults_of_one_rule_act_one_after_the_other(proxy: FaultProxy, s3, bucket: str):
    seen = []
    proxy.on("PutObject", call(seen.append), drop_after_upstream(), times=1)
    with pytest.raises(ConnectionClosedError):
        put(s3, bucket, "a")
    assert seen == [proxy.requests[0]]
    assert proxy.requests[0].faults == ("call", "drop_after_upstream")
    assert read(s3, bucket, "a") == b"picture"


# Listings


def test_a_cut_listing_claims_to_be_whole(any_proxy: FaultProxy, any_bucket: str):
    s3 = once(any_proxy.url)
    put(s3, any_bucket, "abcde")
    with any_proxy.fault("ListObjectsV2", cut_listing(2)):
        page = s3.list_objects_v2(Bucket=any_bucket, MaxKeys=4)
    assert keys_of(page) == ["a", "b"]
    assert (page["IsTruncated"], page["KeyCount"]) == (False, 2)
    assert "NextContinuationToken" not in page


def test_a_listing_without_a_token_claims_that_more_follow(any_proxy, any_bucket: str):
    s3 = once(any_proxy.url)
    put(s3, any_bucket, "abcde")
    with any_proxy.fault("ListObjectsV2", no_token()):
        page = s3.list_objects_v2(Bucket=any_bucket, MaxKeys=3)
    assert keys_of(page) == ["a", "b", "c"]
    assert page["IsTruncated"]
    assert "NextContinuationToken" not in page


def test_an_unsorted_listing_is_backwards(any_proxy: FaultProxy, any_bucket: str):
    s3 = once(any_proxy.url)
    put(s3, any_bucket, "abc")
    with any_proxy.fault("ListObjectsV2", unsorted()):
        assert keys_of(s3.list_objects_v2(Bucket=any_bucket)) == ["c", "b", "a"]


# Rules


def test_a_rule_acts_after_so_many_and_so_many_times(proxy: FaultProxy, s3, bucket: str):
    rule = proxy.on("HeadBucket", status(500), after=1, times=2, bucket=bucket)
    proxy.on("HeadBucket", status(503))
    for _ in range(4):
        with pytest.raises(ClientError):
            s3.head_bucket(Bucket=bucket)
    assert [request.status for request in proxy.requests] == [503, 500, 500, 503]
    assert rule.acted == 2
    proxy.rules.clear()
    s3.head_bucket(Bucket=bucket)


def test_chance_is_the_same_in_each_run_whatever_the_order(s3_endpoint: str, bucket: str):
    def failed(keys: list[str], seed: int) -> set[str]:
        with FaultProxy(s3_endpoint) as proxy:
            proxy.on("HEAD", status(500), probability=0.3, seed=seed)
            s3 = once(proxy.url)
            for key in keys:
                with pytest.raises(ClientError):
                    s3.head_object(Bucket=bucket, Key=key)
            return {request.key for request in proxy.requests if request.status == 500}

    keys = [str(number) for number in range(60)]
    assert len(failed(keys, 1)) == 20
    assert failed(keys, 1) == failed(keys[::-1], 1) != failed(keys, 2)


@pytest.mark.parametrize(
    "broken",
    [
        call(lambda request: 1 / 0),
        call(lambda request: 1 / 0, after_upstream=True),
        call(lambda request: os.stat("/no such file")),
        corrupt_request(at=100),
    ],
)
def test_a_broken_fault_ends_its_connection_only_and_is_raised_at_the_end(
    s3_endpoint: str, bucket: str, broken
):
    def run() -> None:
        with FaultProxy(s3_endpoint) as proxy:
            s3 = once(proxy.url)
            with proxy.fault("PutObject", broken), pytest.raises(ConnectionClosedError):
                put(s3, bucket, "a")
            put(s3, bucket, "b")
            assert read(s3, bucket, "b") == b"picture"

    with pytest.raises((ZeroDivisionError, RuntimeError, ValueError)):
        run()


def test_close_ends_all_threads_and_connections(s3_endpoint: str, bucket: str):
    before = set(threading.enumerate())
    with FaultProxy(s3_endpoint) as proxy:
        port = int(proxy.url.rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        once(proxy.url).head_bucket(Bucket=bucket)
    ours = set(threading.enumerate()) - before
    assert [thread for thread in ours if thread.name == "fault proxy"] == []
    for connection in idle:
        with connection:
            assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
