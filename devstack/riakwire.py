"""HTTP/1.1 as `devstack.riakserver` speaks it: one connection, one request after the other."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

HEAD_BYTES = 64 * 2**10
OBJECT_BYTES = 50 * 2**20
BODY_BYTES = 2**30
"""Longer bodies end the connection; those over OBJECT_BYTES are read, counted and forgotten."""

REASONS = {
    200: "OK",
    201: "Created",
    204: "No Content",
    300: "Multiple Choices",
    304: "Not Modified",
    400: "Bad Request",
    404: "Object Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    412: "Precondition Failed",
    415: "Unsupported Media Type",
    500: "Internal Server Error",
    501: "Not Implemented",
}
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"/[!-~\x80-\xff]*")
_LENGTH = re.compile(r"[0-9]{1,10}")
_HEX = re.compile(rb"[0-9A-Fa-f]{1,8}")


class BadRequest(Exception):
    """What came is not HTTP/1.1 as RFC 9112 has it."""


@dataclass(frozen=True)
class Request:
    """A request. Names in `headers` are in lower case; repeated ones are joined by commas.

    `size` is that of the body as it came; `body` is empty when it was over OBJECT_BYTES.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    size: int
    lasts: bool


@dataclass(frozen=True)
class Answer:
    """An answer. A body of pieces is sent in chunks; 204 and 304 have none."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | Iterable[bytes] = b""
    size: int | None = None
    """The length to tell, where the body itself was left out for a HEAD."""


class Connection:
    """A client's connection. `handle` gives each request's answer; `date` the Date header."""

    def __init__(
        self,
        client: socket.socket,
        handle: Callable[[Request], Answer],
        server: str,
        date: Callable[[], str],
    ) -> None:
        self._client, self._handle, self._server, self._date = client, handle, server, date
        self._buffer = b""

    def run(self) -> None:
        """Serve until either side ends it."""
        try:
            while (head := self._head()) is not None:
                request = self._request(head)
                self._send(self._handle(request), request.method == "HEAD", request.lasts)
                if not request.lasts:
                    return
        except BadRequest as error:
            text = str(error).encode("latin-1", "replace") + b"\n"
            self._send(Answer(400, (("Content-Type", "text/plain"),), text), False, False)

    def _head(self) -> bytes | None:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_BYTES:
                raise BadRequest("The header is too long")
            if not self._receive():
                if self._buffer:
                    raise BadRequest("The header is cut off")
                return None
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        return head

    def _request(self, head: bytes) -> Request:
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ")
        if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not _TARGET.fullmatch(words[1]):
            raise BadRequest("The request line is malformed")
        if words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise BadRequest("The version is not HTTP/1.1")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not _TOKEN.fullmatch(name) or b"\0" in value or b"\n" in value:
                raise BadRequest("A header is malformed")
            known, text = name.decode().lower(), value.strip(b" \t").decode("latin-1")
            headers[known] = f"{headers[known]}, {text}" if known in headers else text
        asked = headers.get("connection", "").lower()
        lasts = "close" not in asked if words[2] == b"HTTP/1.1" else "keep-alive" in asked
        body, size = self._body(headers)
        path, _, query = words[1].decode("latin-1").partition("?")
        return Request(words[0].decode(), path, query, headers, body, size, lasts)

    def _body(self, headers: dict[str, str]) -> tuple[bytes, int]:
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is None and length is None:
            return b"", 0
        if coding is not None and (length is not None or coding.lower() != "chunked"):
            raise BadRequest("The length of the body cannot be told")
        if length is not None and not (
            length.isascii() and length.isdecimal() and len(length) < 11
        ):
            raise BadRequest("The length of the body is malformed")
        if headers.get("expect", "").lower() == "100-continue":
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = _Body()
        if length is not None:
            self._take(int(length), body)
        else:
            while size := self._chunk_size():
                self._take(size, body)
                if self._line():
                    raise BadRequest("A chunk is malformed")
            while self._line():
                pass  # trailers
        return b"".join(body.pieces), body.size

    def _chunk_size(self) -> int:
        size = self._line().partition(b";")[0].strip()
        if not _HEX.fullmatch(size):
            raise BadRequest("A chunk is malformed")
        return int(size, 16)

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > HEAD_BYTES or not self._receive():
                raise BadRequest("The body is cut off")
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _take(self, size: int, body: _Body) -> None:
        if body.size + size > BODY_BYTES:
            raise BadRequest("The body is too long")
        while size:
            if not self._buffer and not self._receive(2**18):
                raise BadRequest("The body is cut off")
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(piece)
            body.add(piece)

    def _receive(self, size: int = 2**16) -> bool:
        piece = self._client.recv(size)
        self._buffer = self._buffer + piece if self._buffer else piece
        return bool(piece)

    def _send(self, answer: Answer, bodiless: bool, lasts: bool) -> None:
        lines = [f"HTTP/1.1 {answer.status} {REASONS[answer.status]}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        lines += [f"Server: {self._server}", f"Date: {self._date()}"]
        body = answer.body
        if not isinstance(body, bytes):
            lines.append("Transfer-Encoding: chunked")
        elif answer.status not in (204, 304):
            lines.append(f"Content-Length: {len(body) if answer.size is None else answer.size}")
        if not lasts:
            lines.append("Connection: close")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if bodiless or body == b"":
            self._client.sendall(head)
        elif isinstance(body, bytes):
            self._client.sendall(head + body)
        else:
            self._client.sendall(head)
            for piece in body:
                self._client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            self._client.sendall(b"0\r\n\r\n")


@dataclass
class _Body:
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size <= OBJECT_BYTES:
            self.pieces.append(piece)
        else:
            self.pieces.clear()
