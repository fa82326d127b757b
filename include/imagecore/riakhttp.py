"""HTTP to the nodes of a Riak cluster: pools, time limits, another try, another node.

urllib3 and not httpx: given a path, urllib3 sends it as it is, but for making `%c3` of it `%C3`;
httpx 0.28 takes `.` and `..` for steps in a folder, and they are keys like any other.
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool, Timeout
from urllib3.exceptions import (
    ConnectTimeoutError,
    EmptyPoolError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.util import make_headers

from imagecore.deadline import BoundedConnection, BoundedSecureConnection, within
from imagecore.errors import InfrastructureError, ItemFailed
from imagecore.riakglance import Glances
from imagecore.text import printable

BUSY = {429, 502, 503, 504}
"""Answers of a node, or of a balancer before it, that cannot serve anybody now."""

_UNSENT = (NewConnectionError, ConnectTimeoutError, EmptyPoolError)
_PIECE = 2**20
_ERROR_BYTES = 10_000


class RiakUnavailable(InfrastructureError):
    """No node of the cluster answered."""


class RiakTooLarge(ItemFailed):
    """The object is larger than Riak takes, or the answer than we take."""


@dataclass(frozen=True)
class Node:
    """One node. `port` is that of Riak's HTTP (8098) or HTTPS listener."""

    host: str
    port: int = 8098

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Limits:
    """How long and how often. Times are seconds.

    `connect` is for a connection, `read` for silence of the server, and `request` for one request
    and all of its answer, however its bytes drip in. `tries` are the requests a call may make in
    all, on whatever nodes; so a call ends after about `tries * request` at the latest. Between
    rounds of all nodes it waits a random time of up to `backoff`, doubled each round, at most 5.
    A node that failed is asked last for `avoid`. `answer` is the size in bytes above which an
    answer is not read.
    """

    connect: float = 5
    read: float = 30
    request: float = 60
    tries: int = 4
    backoff: float = 0.2
    avoid: float = 10
    answer: int = 128 * 2**20


@dataclass(frozen=True)
class Answer:
    """An answer, its body read. `tries` is how many requests it took."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    tries: int

    def text(self) -> str:
        """The beginning of the body, for messages."""
        return printable(" ".join(self.body[:300].decode("utf-8", "replace").split()))


class RiakNodes:
    """The nodes of a cluster. Threads may share it.

    Arguments:
        pool: connections kept to each node, and as many at a time at most; a thread waits for one
            up to `limits.request` seconds.
        tls: what the nodes' certificates are checked with; None speaks plain HTTP.
        login: user name and password, for HTTP's basic authentication (Riak asks for it over TLS
            alone).
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        *,
        pool: int = 16,
        limits: Limits = Limits(),
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        if not nodes:
            raise ValueError("A Riak cluster has one node at least")
        self.nodes = tuple(nodes)
        self.limits = limits
        headers = {"User-Agent": "imageflows"}
        if login:
            headers |= make_headers(basic_auth=":".join(login).encode().decode("latin-1"))
        self._pools = {node: _pool(node, pool, tls, headers) for node in self.nodes}
        self._glances = {node: Glances(node, tls, headers, limits) for node in self.nodes}
        self._headers = headers
        self._lock = threading.Lock()
        self._turn = random.randrange(len(self.nodes))  # noqa: S311 -- no secret, only a spread
        self._avoided: dict[Node, float] = {}

    def __repr__(self) -> str:
        return f"RiakNodes({', '.join(map(str, self.nodes))})"

    def close(self) -> None:
        """Close the idle connections."""
        for node in self.nodes:
            self._pools[node].close()
            self._glances[node].close()

    def exists(self, path: str) -> bool | None:
        """Whether an object is at `path`, by one HEAD to one node; None: only `request` can tell.
        It takes a connection of its own, beside those of the pool."""
        node = next(self._order())
        try:
            status = self._glances[node].status(path)
        except (HTTPError, OSError):
            self._avoid(node)
            return None
        if status in BUSY:
            self._avoid(node)
        return {200: True, 404: False}.get(status)

    def request(
        self,
        method: str,
        path: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        repeatable: bool = True,
    ) -> Answer:
        """One request's answer, from whichever node gives one.

        What never reached a node (no connection) is tried again in any case. Only what is
        `repeatable` is tried again when its answer did not come (whole), or was 500 or one of
        `BUSY`. Of the last try the answer is returned, 500 and `BUSY` included.

        Arguments:
            path: percent-encoded, with the query.
            what: names the subject in messages.

        Raises:
            RiakUnavailable: the last try brought no answer.
            RiakTooLarge: the answer has more than `limits.answer` bytes.
        """
        for number, node in enumerate(self._order(), 1):
            last = number == self.limits.tries
            try:
                with (
                    within(self.limits.request),
                    _ended(self._open(node, method, path, headers, body)) as response,
                ):
                    answer = self._read(response, what, number)
            except (HTTPError, OSError) as error:
                self._avoid(node)
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise RiakUnavailable(
                        f"{what}: {node} cannot be trusted: {_reason(error, self.limits)}. Check "
                        "the connection's CA file and that its hosts are named as in the "
                        "certificate."
                    ) from error
                unsent = isinstance(error, _UNSENT)
                if last or not (repeatable or unsent):
                    raise self._unavailable(what, method, node, error, number, unsent) from error
                continue
            fault = answer.status in BUSY or (answer.status == 500 and _is_a_fault(answer))
            if not fault or last or not repeatable:
                return answer
            self._avoid(node)
        raise AssertionError("unreachable")

    def stream(
        self, path: str, what: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[Answer | bytes]:
        """An answer with its body as it comes: first the Answer (with its body when it is not
        200), then the pieces. One try, on one node; each piece has `limits.request` seconds.

        Raises:
            RiakUnavailable: the node did not answer, or not to the end.
        """
        node = next(self._order())
        try:
            with within(self.limits.request):
                response = self._open(node, "GET", path, headers, None)
            with _ended(response):
                if response.status != 200:
                    with within(self.limits.request):
                        answer = self._read(response, what, 1)
                    yield answer
                    return
                yield Answer(response.status, response.headers, b"", 1)
                pieces = response.stream(_PIECE, decode_content=False)
                while True:
                    with within(self.limits.request):
                        piece = next(pieces, None)
                    if piece is None:
                        return
                    yield piece
        except (HTTPError, OSError) as error:
            self._avoid(node)
            raise self._unavailable(what, "GET", node, error, 1, unsent=False) from error

    def _order(self) -> Iterator[Node]:
        """The nodes to try, in turns, those that failed lately last; with pauses between rounds."""
        with self._lock:
            self._turn = (self._turn + 1) % len(self.nodes)
            turned = self.nodes[self._turn :] + self.nodes[: self._turn]
            now = time.monotonic()
            order = sorted(turned, key=lambda node: self._avoided.get(node, 0) > now)
        for number in range(self.limits.tries):
            rounds, place = divmod(number, len(order))
            if rounds and place == 0:
                longest = min(5.0, self.limits.backoff * 2 ** (rounds - 1))
                time.sleep(random.uniform(0, longest))  # noqa: S311 -- no secret, only a spread
            yield order[place]

    def _avoid(self, node: Node) -> None:
        with self._lock:
            self._avoided[node] = time.monotonic() + self.limits.avoid

    def _open(
        self,
        node: Node,
        method: str,
        path: str,
        headers: Mapping[str, str] | None,
        body: bytes | None,
    ) -> HTTPResponse:
        response = self._pools[node].urlopen(
            method,
            path,
            body=body,
            headers={**self._headers, **(headers or {})},
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=Timeout(connect=self.limits.connect, read=self.limits.read),
            pool_timeout=ceil(self.limits.request),
            preload_content=False,
            decode_content=False,
        )
        assert isinstance(response, HTTPResponse)
        return response

    def _read(self, response: HTTPResponse, what: str, tries: int) -> Answer:
        pieces, size = [], 0
        # That of HEAD, too, which has no body: the next request on the connection waits for it.
        for piece in response.stream(_PIECE, decode_content=False):
            size += len(piece)
            if size > self.limits.answer:
                raise RiakTooLarge(
                    f"{what}: the answer is larger than {self.limits.answer:,} bytes, the most "
                    "that is read into memory. Raise the connection's limit, or resolve the key's "
                    "siblings."
                )
            pieces.append(piece)
        return Answer(response.status, response.headers, b"".join(pieces), tries)

    def _unavailable(
        self, what: str, method: str, node: Node, error: Exception, tries: int, unsent: bool
    ) -> RiakUnavailable:
        doubt = method not in ("GET", "HEAD") and not unsent
        return RiakUnavailable(
            f"{what}: no answer of Riak after {tries} {'try' if tries == 1 else 'tries'}; last "
            f"{node}: {_reason(error, self.limits)}. "
            + ("Whether the node did it all the same is not known. " if doubt else "")
            + f"Check the cluster and the connection's hosts ({', '.join(map(str, self.nodes))})."
        )


@contextmanager
def _ended(response: HTTPResponse) -> Iterator[HTTPResponse]:
    """Give the connection back; close it where the answer was not read to its end."""
    try:
        yield response
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()


def _is_a_fault(answer: Answer) -> bool:
    """Whether a 500 may be the node's own trouble: that an object is too large is not."""
    return b"too_large" not in answer.body[:_ERROR_BYTES]


def _reason(error: BaseException, limits: Limits) -> str:
    """What happened, without urllib3's addresses of objects in memory."""
    if isinstance(error, EmptyPoolError):
        return f"all connections of the pool were in use for {limits.request:g} s"
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        return f"no connection within {limits.connect:g} s"
    if isinstance(error, (ReadTimeoutError, OSError)) and "timed out" in str(error):
        return (
            f"no whole answer in time ({limits.read:g} s without a byte, or {limits.request:g} s "
            "in all)"
        )
    cause = error.__cause__ or error.__context__
    if isinstance(error, NewConnectionError) and cause:
        return printable(cause)
    inner = next((part for part in reversed(error.args) if isinstance(part, Exception)), None)
    text = str(inner if inner is not None else error)
    return printable(text.rpartition(">: ")[2] or type(error).__name__)


def _pool(
    node: Node, size: int, tls: ssl.SSLContext | None, headers: Mapping[str, str]
) -> HTTPConnectionPool:
    options: dict[str, Any] = {"maxsize": size, "block": True}
    if tls is None:
        pool = HTTPConnectionPool(node.host, node.port, **options)
        pool.ConnectionCls = BoundedConnection
        return pool
    secure = HTTPSConnectionPool(node.host, node.port, ssl_context=tls, **options)
    secure.ConnectionCls = BoundedSecureConnection
    return secure
