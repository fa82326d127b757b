"""Exchanges with a Riak KV 3.2.3, byte for byte, in the order in which they were recorded.

tests/data/riak/NNN-name.request.raw, NNN-name.response.raw
"""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "riak"


@dataclass(frozen=True)
class Message:
    """A request or an answer: its first line, headers (names as they were), and body."""

    first: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.first.split()[1])

    @property
    def names(self) -> list[str]:
        """The names of the headers, in lower case and sorted."""
        return sorted(name.lower() for name, _ in self.headers)

    def header(self, name: str) -> str:
        return next((value for known, value in self.headers if known.lower() == name.lower()), "")


def read(data: bytes) -> Message:
    """A message from its bytes; what came before the last answer, such as 100, is left out."""
    while data.startswith(b"HTTP/1.1 100 "):
        data = data.partition(b"\r\n\r\n")[2]
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = [(name, value.strip()) for name, _, value in pairs]
    message = Message(first, headers, body)
    if message.header("Transfer-Encoding") == "chunked" and first.startswith("HTTP/"):
        message = Message(first, headers, _unchunked(body))
    return message


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while size := int(body.partition(b"\r\n")[0], 16):
        body = body.partition(b"\r\n")[2]
        whole, body = whole + body[:size], body[size + 2 :]
    return whole


def names() -> list[str]:
    """The recordings, such as `007-put-jpeg`, in their order."""
    return sorted(path.name.removesuffix(".request.raw") for path in FOLDER.glob("*.request.raw"))


def request_bytes(name: str) -> bytes:
    return (FOLDER / f"{name}.request.raw").read_bytes()


def response_bytes(name: str) -> bytes:
    return (FOLDER / f"{name}.response.raw").read_bytes()


def has_response(name: str) -> bool:
    """Riak's answers with a stack trace were not kept."""
    return (FOLDER / f"{name}.response.raw").exists()


def exchange(client: socket.socket, request: bytes, method: str) -> bytes:
    """Send a request, and the bytes of the answer as they came; the connection stays open."""
    client.sendall(request)
    data = b""
    while not _is_whole(data, method):
        piece = client.recv(2**18)
        if not piece:
            return data
        data += piece
    return data


def _is_whole(data: bytes, method: str) -> bool:
    while data.startswith(b"HTTP/1.1 100 ") and b"\r\n\r\n" in data:
        data = data.partition(b"\r\n\r\n")[2]
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    if method == "HEAD" or re.match(rb"HTTP/1.1 (204|304)", head):
        return True
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    return body.endswith(b"0\r\n\r\n") if length is None else len(body) >= int(length[1])


class Replay:
    """A server that gives the recorded answers, byte for byte, to requests for the same things.

    Each request is answered by the next of the recordings; `asked` are the requests as they came,
    and `surprises` those whose method or target was not that of the recording.
    """

    def __init__(self, *recordings: str) -> None:
        self._left = list(recordings)
        self.asked: list[Message] = []
        self.surprises: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends `accept`
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with suppress(OSError), client, client.makefile("rb") as reader:
            while self._left and self._answer(client, reader):
                pass

    def _answer(self, client, reader) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = reader.readline()
            if not line:
                return False
            head += line
        asked = read(head)
        asked = Message(
            asked.first, asked.headers, reader.read(int(asked.header("Content-Length") or 0))
        )
        self.asked.append(asked)
        name = self._left.pop(0)
        recorded = read(request_bytes(name))
        if asked.first.lower() != recorded.first.lower():
            self.surprises.append(f"{name}: {asked.first} in place of {recorded.first}")
        client.sendall(response_bytes(name))
        return True
