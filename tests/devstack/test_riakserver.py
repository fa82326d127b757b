"""The devstack's Riak answers as the real one did, keeps what it is given, and stays alive."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from calendar import timegm
from collections.abc import Iterator
from email.utils import parsedate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.layout import ROOT
from devstack.riakserver import SERVER, RiakServer
from tests.riakrecordings import (
    Message,
    exchange,
    has_response,
    names,
    read,
    request_bytes,
    response_bytes,
)

BROKEN = {"content-length", "content-type", "date", "server", "vary"}
"""Header names of Riak's 500 with a stack trace, which is not imitated."""

NAMED = {"etag", "x-riak-vclock", "last-modified"}
BIG = b"\0" * 2 * 2**20


class Clock:
    """Goes as the recordings' did."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Translation:
    """Riak's names of versions, clocks and keys, and what the server under test calls the same."""

    def __init__(self) -> None:
        self._ours: dict[bytes, bytes] = {}

    def learn(self, recorded: Message, ours: Message) -> None:
        for name in NAMED:
            self._add(recorded.header(name).strip('"'), ours.header(name).strip('"'))
        self._add(_key(recorded), _key(ours))
        theirs = {_plain(part): part for part in _parts(recorded)}
        for part in _parts(ours):
            if _plain(part) in theirs:
                self._add(_vtag(theirs[_plain(part)]), _vtag(part))

    def _add(self, theirs: str, ours: str) -> None:
        if theirs and ours:
            self._ours[theirs.encode()] = ours.encode()

    def __call__(self, data: bytes) -> bytes:
        for theirs, ours in self._ours.items():
            data = data.replace(theirs, ours)
        return data


def _key(message: Message) -> str:
    """The key that a POST was given."""
    return message.header("Location").rpartition("/")[2]


def _parts(message: Message) -> list[bytes]:
    boundary = re.search(r"boundary=(\w+)", message.header("Content-Type"))
    if not boundary:
        return []
    return message.body.split(b"\r\n--" + boundary[1].encode())[1:-1]


def _vtag(part: bytes) -> str:
    found = re.search(rb"Etag: (\w+)", part)
    assert found
    return found[1].decode()


def _plain(part: bytes) -> bytes:
    return re.sub(rb"(Etag|Last-Modified): [^\r]+", rb"\1", part)


def _body(message: Message) -> object:
    """The body in a form that can be compared: names of versions and the order of lists vary."""
    if _parts(message):
        return sorted(map(_plain, _parts(message)))
    if message.body.startswith(b"Siblings:\n"):
        return len(message.body.split())
    if message.body.startswith(b"{"):
        pieces = json.loads("[" + message.body.decode().replace("}{", "},{") + "]")
        listed = [key for piece in pieces for key in piece.get("keys", [])]
        return sorted(listed) if "keys" in pieces[0] else pieces
    return re.sub(rb"too_large,\d+", b"too_large", message.body)


def _comparable(message: Message) -> object:
    varying = {"server", "date", "content-length", *NAMED}
    fixed = {
        name.lower(): re.sub(r"boundary=\w+", "", value)
        for name, value in message.headers
        if name.lower() not in varying
    }
    return message.first, message.names, fixed, _body(message)


def _sent(name: str) -> bytes:
    if name == "217-too-large-60m":  # of its body only the beginning was kept
        head = request_bytes(name).partition(b"\r\n\r\n")[0]
        return head + b"\r\n\r\n" + bytes(60 * 2**20)
    return request_bytes(name)


def test_every_recording_in_scope_is_answered_as_riak_did(tmp_path):
    clock, translate = Clock(), Translation()
    with RiakServer(tmp_path, bucket_types=["photos"], clock=clock) as server:
        address = ("127.0.0.1", server.port)
        for name in names():
            if name.startswith("110-"):  # 108 put this key, and was not kept byte for byte
                with socket.create_connection(address) as client:
                    put = b"PUT /buckets/ez/keys/big HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\n"
                    exchange(client, put + b"Content-Length: %d\r\n\r\n" % len(BIG) + BIG, "PUT")
            request = translate(_sent(name))
            if has_response(name):
                recorded = read(response_bytes(name))
                clock.now = timegm(parsedate(recorded.header("Date")))
            with socket.create_connection(address) as client:
                ours = read(exchange(client, request, request.split()[0].decode()))
            if not has_response(name):
                assert (ours.status, set(ours.names)) == (500, BROKEN), name
                continue
            translate.learn(recorded, ours)
            if name == "111-keepalive-two":
                continue
            if name == "112-connection-close":
                ours.headers.remove(("Connection", "close"))
            expected = read(translate(response_bytes(name)))
            assert _comparable(ours) == _comparable(expected), name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RiakServer]:
    with RiakServer(tmp_path_factory.mktemp("riak")) as started:
        yield started


def ask(server: RiakServer, data: bytes) -> bytes:
    """All that comes back for these bytes and the end of what is sent."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(2**16):
            answer += piece
        return answer


PUT = b"PUT /buckets/ez/keys/%b HTTP/1.1\r\nContent-Type: a/b\r\nContent-Length: %d\r\n\r\n%b"
GET = b"GET /buckets/ez/keys/%b HTTP/1.1\r\n\r\n"
PING = b"GET /ping HTTP/1.1\r\n\r\n"


def test_it_says_that_it_is_no_riak(server):
    assert f"Server: {SERVER}".encode() in ask(server, PING)
    assert "no Riak" in SERVER


def test_it_listens_on_this_machine_alone(server):
    assert server._listener.getsockname()[0] == "127.0.0.1"


def test_requests_sent_at_once_are_answered_one_after_the_other(server):
    answers = ask(server, PUT % (b"p", 3, b"abc") + GET % b"p" + PING * 20 + GET % b"nothing")
    statuses = re.findall(rb"HTTP/1.1 (\d+)", answers)
    assert statuses == [b"204", b"200", *[b"200"] * 20, b"404"]


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /ping\r\n\r\n",
        b"GET /ping HTTP/9.9\r\n\r\n",
        b"GET ping HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"G(T /ping HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /ping HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nX: a\0b\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nX: a\nY: b\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"PUT /buckets/b/keys/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"PUT /buckets/b/keys/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n",
        b"PUT /buckets/b/keys/k HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
        b"GET /ping HTTP/1.1\r\nX: " + b"x" * 70_000,
        b"GET /ping HTTP/1.1\r\nX: cut off",
    ],
)
def test_what_is_no_http_is_answered_400_and_hurts_nobody(server, data):
    assert ask(server, data).startswith(b"HTTP/1.1 400 ")
    assert ask(server, PING).startswith(b"HTTP/1.1 200 ")


@given(st.binary(max_size=300))
def test_any_bytes_leave_the_server_alive(server, data):
    assert re.match(rb"HTTP/1.1 \d{3} |$", ask(server, data))
    assert ask(server, PING).startswith(b"HTTP/1.1 200 ")


@given(
    st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "BREW"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["accept", "if-match", "if-modified-since", "x-riak-vclock", "content-type"]
            ),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
        )
    ),
)
def test_any_request_has_an_answer_that_is_not_the_servers_fault(server, method, path, headers):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    prefix = "" if path.startswith("types") else "buckets/b/keys/"
    answer = ask(server, f"{method} /{prefix}{path} HTTP/1.1\r\n{lines}\r\n".encode())
    status = int(answer.split()[1])
    assert status in (200, 201, 204, 300, 304, 400, 404, 405, 406, 409, 412, 415, 500, 501)
    if status == 500:  # Riak's own answer to a vclock that is none
        assert any(name == "x-riak-vclock" for name, _ in headers)


def test_many_write_the_same_key_and_each_value_is_whole(server):
    def write(number: int) -> None:
        for _ in range(20):
            ask(server, PUT % (b"same", 1000, b"%d" % number * 1000))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    body = ask(server, GET % b"same").partition(b"\r\n\r\n")[2]
    assert len(body) == 1000
    assert len(set(body)) == 1


def test_what_was_confirmed_outlives_kill_9(tmp_path):
    def start() -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-m", "devstack.riakserver", "--port", "0"]
        command += ["--folder", str(tmp_path / "riak")]
        started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert started.stdout
        found = re.search(r"http://127.0.0.1:(\d+)", started.stdout.readline())
        assert found
        return started, int(found[1])

    process, port = start()
    confirmed = 0
    with socket.create_connection(("127.0.0.1", port)) as client:
        for number in range(50):
            key = b"k%d" % number
            answer = exchange(client, PUT % (key, len(key) * 999, key * 999), "PUT")
            confirmed += answer.startswith(b"HTTP/1.1 204")
        client.sendall(PUT % (b"half", 2**20, b"half"))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert confirmed == 50
    process, port = start()
    try:
        with socket.create_connection(("127.0.0.1", port)) as client:
            for number in range(50):
                key = b"k%d" % number
                assert read(exchange(client, GET % key, "GET")).body == key * 999
            assert exchange(client, GET % b"half", "GET").startswith(b"HTTP/1.1 404")
    finally:
        process.terminate()
        process.wait()
    assert process.returncode == 0
