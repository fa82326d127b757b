"""Whether an object is there, asked at an eighth of what urllib3 takes.

A run looks for every reference, and finds nearly all of them. urllib3 spends 0.4 ms of CPU on a
HEAD, most of it on reading headers nobody asks about. Here one regular expression reads an answer;
whatever is not plainly yes or no is asked again through urllib3, whose errors and retries count.
"""

from __future__ import annotations

import re
import ssl
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from imagecore.deadline import BoundedConnection, BoundedSecureConnection, within

if TYPE_CHECKING:
    from imagecore.riakhttp import Limits, Node

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_VCLOCK = re.compile(rb"\r\nx-riak-vclock:", re.IGNORECASE)
"""All objects have one: without it, what answers 200 is no Riak."""

_LAST = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"
_PIECE = 65_536


class Glances:
    """HEAD requests to one node. Threads may share it; each uses a connection of its own."""

    def __init__(
        self, node: Node, tls: ssl.SSLContext | None, headers: Mapping[str, str], limits: Limits
    ) -> None:
        self._node = node
        self._tls = tls
        self._limits = limits
        lines = "".join(
            f"{name}: {value}\r\n" for name, value in {"Host": str(node), **headers}.items()
        )
        self._head = f" HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
        self._idle: deque[BoundedConnection | BoundedSecureConnection] = deque()

    def status(self, path: str) -> int:
        """What a HEAD of `path` (percent-encoded, with the query) is answered; 0 where that is
        not known.

        Raises:
            HTTPError, OSError: the node cannot be reached, or does not answer in time.
        """
        with within(self._limits.request):
            try:
                connection, kept = self._idle.pop(), True
            except IndexError:
                connection, kept = self._connected(), False
            try:
                answer = self._answer(connection, path)
            except OSError as error:
                connection.close()
                if kept and not isinstance(error, TimeoutError):
                    return 0  # it was closed while nobody used it
                raise
        if answer.endswith(_END) and not _LAST.search(answer):
            self._idle.append(connection)
        else:
            connection.close()
        found = _STATUS.match(answer) if _END in answer else None
        status = int(found[1]) if found else 0
        return 0 if status == 200 and not _VCLOCK.search(answer) else status

    def _answer(self, connection: BoundedConnection | BoundedSecureConnection, path: str) -> bytes:
        connection.sock.sendall(b"HEAD %b%b" % (path.encode("ascii"), self._head))
        answer = b""
        while _END not in answer and len(answer) < _PIECE:
            piece = connection.sock.recv(_PIECE)
            if not piece:
                raise ConnectionResetError
            answer += piece
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _connected(self) -> BoundedConnection | BoundedSecureConnection:
        node, seconds = self._node, self._limits.connect
        connection = (
            BoundedConnection(node.host, node.port, timeout=seconds)
            if self._tls is None
            else BoundedSecureConnection(
                node.host, node.port, timeout=seconds, ssl_context=self._tls
            )
        )
        connection.connect()
        connection.sock.settimeout(self._limits.read)
        return connection
