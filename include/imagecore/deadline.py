"""Connections on which no exchange lasts longer than it may, however its bytes drip in.

The time limits of urllib3 and http.client are for each wait alone: a server that sends a byte a
second, be it in the header, would hold a thread for ever.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection


class _Deadline(threading.local):
    """When this thread's exchange has to be over, by `time.monotonic`."""

    at = float("inf")


_deadline = _Deadline()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What this thread sends and receives in here, on connections of this module, ends in time.

    Raises:
        TimeoutError: (from the connection's methods) it did not.
    """
    before, _deadline.at = _deadline.at, time.monotonic() + seconds
    try:
        yield
    finally:
        _deadline.at = before


class BoundedConnection(HTTPConnection):
    """Plain HTTP."""

    def connect(self) -> None:
        super().connect()
        self.sock = _Bounded(self.sock)


class BoundedSecureConnection(HTTPSConnection):
    """HTTP over TLS."""

    def connect(self) -> None:
        super().connect()
        self.sock = _Bounded(self.sock)


class _Bounded:
    """A socket that ends an exchange at the thread's deadline."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._timeout: float | None = sock.gettimeout()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def bound(self) -> None:
        left = _deadline.at - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        seconds = left if self._timeout is None else min(left, self._timeout)
        if seconds != self._sock.gettimeout():  # setting it is a system call
            self._sock.settimeout(seconds)

    def sendall(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        while view:
            self.bound()
            view = view[self._sock.send(view) :]

    def recv(self, size: int) -> bytes:
        self.bound()
        piece: bytes = self._sock.recv(size)
        return piece

    def makefile(self, mode: str, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self, self._sock.makefile(mode, buffering=0)))


class _Reader(io.RawIOBase):
    def __init__(self, socket: _Bounded, raw: io.RawIOBase) -> None:
        self._socket, self._raw = socket, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.bound()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
