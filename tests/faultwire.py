"""HTTP/1.1 as `faults.FaultProxy` passes it on: requests, answers, and connections.

A request's head is forwarded as the bytes that came, since signatures cover them, `Host` included.
Trailers are dropped (S3 has none), and each request has its own connection to the server.
"""

from __future__ import annotations

import re
import select
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from io import BufferedReader
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

PIECE = 2**18
"""Bodies are passed on in pieces of at most this many bytes."""

_OPERATIONS = {
    ("GET", ""): "ListObjects",
    ("HEAD", ""): "HeadBucket",
    ("PUT", ""): "CreateBucket",
    ("DELETE", ""): "DeleteBucket",
    ("GET", "list-type"): "ListObjectsV2",
    ("POST", "delete"): "DeleteObjects",
    ("GET", "/"): "GetObject",
    ("HEAD", "/"): "HeadObject",
    ("PUT", "/"): "PutObject",
    ("DELETE", "/"): "DeleteObject",
    ("POST", "/uploads"): "CreateMultipartUpload",
    ("PUT", "/uploadId"): "UploadPart",
    ("POST", "/uploadId"): "CompleteMultipartUpload",
    ("DELETE", "/uploadId"): "AbortMultipartUpload",
    ("GET", "/uploadId"): "ListParts",
}
_SUBRESOURCE = re.compile(
    r"acl|attributes|cors|delete|encryption|legal-hold|lifecycle|list-type|location|logging|"
    r"object-lock|policy|retention|tagging|uploadId|uploads|versioning|versions"
)


class Dropped(ConnectionError):
    """The client's connection ends here."""


@dataclass(eq=False)
class Request:
    """A request as the client sent it, and what became of it.

    `bucket`, `key` and `query` are decoded; `headers` have names in lower case. `status` is what
    the client was answered and `upstream_status` what the server answered, None if nothing;
    `received` and `sent` count the bytes of the bodies from and to the client.
    """

    method: str
    target: str
    headers: dict[str, str] = field(repr=False)
    stop: threading.Event = field(repr=False)
    status: int | None = None
    upstream_status: int | None = None
    received: int = 0
    sent: int = 0
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        path, _, query = self.target.partition("?")
        bucket, _, key = path[1:].partition("/")
        self.bucket, self.key = unquote(bucket), unquote(key, errors="surrogateescape")
        self.query = dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))

    @property
    def operation(self) -> str:
        """The S3 API's name of the request, such as `UploadPart`; else such as `GET ?tagging`."""
        part = next((name for name in self.query if _SUBRESOURCE.fullmatch(name)), "")
        name = _OPERATIONS.get((self.method, f"{'/' if self.key else ''}{part}"))
        if name in ("PutObject", "UploadPart") and "x-amz-copy-source" in self.headers:
            return "CopyObject" if name == "PutObject" else "UploadPartCopy"
        return name or f"{self.method} ?{part}"


@dataclass(eq=False)
class Response:
    """An answer; its body is read while it is passed on, and has no framing."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: Iterable[bytes]

    def header(self, name: str) -> str:
        """A header's value, or an empty text."""
        return next((value for known, value in self.headers if known.lower() == name.lower()), "")

    def set_header(self, name: str, value: str | None) -> None:
        """Replace a header, or remove it."""
        self.headers = [pair for pair in self.headers if pair[0].lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))

    def set_body(self, body: bytes) -> None:
        """Replace the body, and what the headers say of its length."""
        self.body = [body]
        self.set_header("Transfer-Encoding", None)
        self.set_header("Content-Length", str(len(body)))


def nothing(*_: object) -> None:
    """What a fault does where it does nothing."""


@dataclass(frozen=True)
class Fault:
    """What happens before a request is forwarded, to its body on the way, and to its answer.

    An answer that `before` returns goes to the client, and the server hears nothing. Any of them
    may raise Dropped. What else they raise goes to `FaultProxy.errors`, and the client hears
    nothing more.
    """

    name: str
    before: Callable[[Request], Response | None] = nothing
    upload: Callable[[Iterable[bytes]], Iterable[bytes]] = iter
    after: Callable[[Request, Response], None] = nothing


class Proxy(Protocol):
    """What a connection needs of its proxy."""

    upstream: str
    stop: threading.Event

    def faults_for(self, request: Request) -> tuple[Fault, ...]:
        """Log a request, and say what happens to it."""

    def using(self, connection: socket.socket) -> AbstractContextManager[socket.socket]:
        """A socket that is closed with the proxy."""


class Connection:
    """A client's connection, and one request after the other on it."""

    def __init__(self, proxy: Proxy, client: socket.socket, reader: BufferedReader) -> None:
        self.proxy, self.client, self.reader = proxy, client, reader

    def run(self) -> None:
        """Serve until either side ends it, and then hear the client out: else it gets RST."""
        try:
            while (head := _head(self.reader)) and self._exchange(head):
                pass
        finally:
            with suppress(OSError):
                self.client.shutdown(socket.SHUT_WR)
                self.client.settimeout(2)
                while self.client.recv(PIECE):
                    pass

    def _exchange(self, head: list[bytes]) -> bool:
        """Answer one request. Whether another may follow on this connection."""
        method, target, version = head[0].decode("latin-1").split()
        pairs = (line.decode("latin-1").partition(":") for line in head[1:-1])
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        request = Request(method, target, headers, self.proxy.stop)
        body = _Upload(self.reader, request)
        faults = self.proxy.faults_for(request)
        answer = next(filter(None, (fault.before(request) for fault in faults)), None)
        if answer is None:
            lasts = self._forward(head, request, body, faults)
        else:
            if "expect" not in headers:
                list(map(len, body))
            lasts = self._answer(request, answer, body)
        return lasts and version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"

    def _forward(
        self, head: list[bytes], request: Request, body: _Upload, faults: tuple[Fault, ...]
    ) -> bool:
        address = urlsplit(self.proxy.upstream)
        connection = socket.create_connection((address.hostname, address.port or 80))
        with (
            self.proxy.using(connection) as server,
            HTTPResponse(server, method=request.method) as got,
        ):
            server.sendall(b"".join(head))
            if "expect" not in request.headers or self._is_to_continue(server):
                data: Iterable[bytes] = body
                for fault in faults:
                    data = fault.upload(data)
                _send(server, _framed(data, body.chunked))
            got.begin()
            request.upstream_status = got.status
            answer = Response(got.status, got.reason, got.getheaders(), _download(got))
            for fault in faults:
                fault.after(request, answer)
            return self._answer(request, answer, body)

    def _is_to_continue(self, server: socket.socket) -> bool:
        """Whether the body is wanted; a client that waits to be told is told.

        A server may say nothing, and a client may not wait: after a second the body is sent.
        """
        if server not in select.select([server, self.client], [], [], 1)[0]:
            return True
        start = server.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL)
        wanted = start.endswith(b" 100")
        if wanted:
            self.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return wanted

    def _answer(self, request: Request, answer: Response, body: _Upload) -> bool:
        """Send an answer. Whether the connection can be used again."""
        chunked = "chunked" in answer.header("Transfer-Encoding").lower()
        bodiless = request.method == "HEAD" or answer.status in (204, 304)
        lasts = body.done and (bodiless or chunked or answer.header("Content-Length") != "")
        answer.set_header("Keep-Alive", None)
        answer.set_header("Connection", None if lasts else "close")
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        request.status = answer.status
        self.client.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if not bodiless:
            for piece in _framed(_counted(answer.body, request), chunked):
                self.client.sendall(piece)
        return lasts


class _Upload:
    """A request's body without its framing, read as it arrives; `done` when all of it was."""

    def __init__(self, reader: BufferedReader, request: Request) -> None:
        self.chunked = "chunked" in request.headers.get("transfer-encoding", "").lower()
        self._length = int(request.headers.get("content-length", 0))
        self._reader, self._request = reader, request
        self.done = not self.chunked and not self._length

    def __iter__(self) -> Iterator[bytes]:
        if self.chunked:
            while size := int(self._reader.readline().split(b";")[0], 16):
                yield from self._read(size)
                self._reader.readline()
            _head(self._reader)
        else:
            yield from self._read(self._length)
        self.done = True

    def _read(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._reader.read1(min(size, PIECE))
            if not piece:
                raise Dropped
            size -= len(piece)
            self._request.received += len(piece)
            yield piece


def _download(response: HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := response.read(PIECE):
            yield piece
    except HTTPException as error:
        raise Dropped from error
    if response.length:
        raise Dropped


def _counted(data: Iterable[bytes], request: Request) -> Iterator[bytes]:
    for piece in data:
        request.sent += len(piece)
        yield piece


def _framed(data: Iterable[bytes], chunked: bool) -> Iterator[bytes]:
    for piece in filter(None, data):
        yield b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
    if chunked:
        yield b"0\r\n\r\n"


def _send(server: socket.socket, data: Iterable[bytes]) -> None:
    for piece in data:
        try:
            server.sendall(piece)
        except OSError:
            return  # it wants no more; what it has answered can still be read


def _head(reader: BufferedReader) -> list[bytes]:
    """A message's lines up to the empty one, as they are; none where the connection has ended."""
    lines = []
    while line := reader.readline(PIECE):
        lines.append(line)
        if not line.strip():
            return lines
    if lines:
        raise Dropped
    return []
