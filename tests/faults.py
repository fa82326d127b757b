"""A proxy between an S3 client and an S3 server that fails, damages and lies on demand.

    with FaultProxy(s3_endpoint) as proxy:
        s3 = client(proxy.url)
        with proxy.fault("PutObject", drop_after_upstream(), key="a.jpg", times=1):
            s3.put_object(Bucket=bucket, Key="a.jpg", Body=b"...")
        assert proxy.requests.count("PutObject", key="a.jpg") == 2

What no fault touches passes as it is. Plain HTTP/1.1 and path-style addresses only.
"""

from __future__ import annotations

import itertools
import random
import re
import socket
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from xml.sax.saxutils import escape

from tests.faultwire import Connection, Dropped, Fault, Request, Response, nothing

_ERRORS = {
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    500: "InternalError",
    503: "ServiceUnavailable",
}
_CONTENTS = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)


def drop() -> Fault:
    """Close the connection; the server never hears of the request."""

    def before(request: Request) -> None:
        raise Dropped

    return Fault("drop", before=before)


def drop_after_upstream() -> Fault:
    """Close the connection when the server has done what was asked: its answer is lost."""

    def after(request: Request, response: Response) -> None:
        for _ in response.body:
            pass
        raise Dropped

    return Fault("drop_after_upstream", after=after)


def truncate(size: int) -> Fault:
    """Close the connection after the answer's headers and `size` bytes of its body."""

    def cut(body: Iterable[bytes]) -> Iterator[bytes]:
        left = size
        for piece in body:
            yield piece[:left]
            left -= len(piece)
            if left < 0:
                raise Dropped
        raise ValueError(f"truncate({size}): the body is not longer than that")

    def after(request: Request, response: Response) -> None:
        response.body = cut(response.body)

    return Fault("truncate", after=after)


def status(code: int, error: str | None = None) -> Fault:
    """Answer with an S3 error. `status(200, "InternalError")` is how copies may fail in S3."""
    error = error or _ERRORS.get(code, HTTPStatus(code).phrase.replace(" ", ""))

    def before(request: Request) -> Response:
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{error}</Code><Message>Made by '
            f"a test</Message><Resource>{escape(request.target.partition('?')[0])}</Resource>"
            "<RequestId>FAULTPROXY</RequestId></Error>"
        )
        answer = Response(code, HTTPStatus(code).phrase, [("Content-Type", "application/xml")], [])
        answer.set_header("x-amz-request-id", "FAULTPROXY")
        answer.set_body(b"" if code in (204, 304) else text.encode())
        return answer

    return Fault(f"status({code}, {error})", before=before)


def denied() -> Fault:
    """Answer 403 AccessDenied."""
    return status(403)


def header(name: str, value: str | None) -> Fault:
    """Replace a header of the answer, such as `ETag`; None removes it."""
    return Fault(f"header({name})", after=lambda _, response: response.set_header(name, value))


def corrupt_response(at: int = 0) -> Fault:
    """Turn all bits of byte `at` of the answer's body."""

    def after(request: Request, response: Response) -> None:
        response.body = _flipped(response.body, at)

    return Fault("corrupt_response", after=after)


def corrupt_request(at: int = 0) -> Fault:
    """Turn all bits of byte `at` of the request's body."""
    return Fault("corrupt_request", upload=lambda body: _flipped(body, at))


def _flipped(body: Iterable[bytes], at: int) -> Iterator[bytes]:
    start = 0
    for piece in body:
        if 0 <= at - start < len(piece):
            changed = bytearray(piece)
            changed[at - start] ^= 0xFF
            piece = bytes(changed)
        start += len(piece)
        yield piece
    if start <= at:
        raise ValueError(f"byte {at} cannot be damaged: the body has {start}")


def delay(seconds: float) -> Fault:
    """Forward the request later."""
    return Fault(f"delay({seconds})", before=lambda request: nothing(request.stop.wait(seconds)))


def call(function: Callable[[Request], object], *, after_upstream: bool = False) -> Fault:
    """Call a function before the request is forwarded, or before the answer is.

    Where it speaks to the server, let it use `FaultProxy.upstream`: through the proxy it would
    meet the same rules.
    """

    def called(request: Request, *_: Response) -> None:
        try:
            function(request)
        except OSError as error:  # which would else be taken for the end of a connection
            raise RuntimeError(f"The callback failed: {error!r}") from error

    if after_upstream:
        return Fault("call", after=called)
    return Fault("call", before=called)


def cut_listing(size: int) -> Fault:
    """Of a listing's page leave the first `size` objects, and say that this is all there is."""

    def change(xml: bytes) -> bytes:
        number = itertools.count()
        kept = _CONTENTS.sub(lambda found: found[0] if next(number) < size else b"", xml)
        entries = len(_CONTENTS.findall(kept)) + kept.count(b"<CommonPrefixes>")
        kept = re.sub(rb"<KeyCount>\d*<", b"<KeyCount>%d<" % entries, kept)
        return _without_token(kept, truncated=b"false")

    return _listing("cut_listing", change)


def no_token() -> Fault:
    """Say of a listing's page that more follow, and not how to ask for them."""
    return _listing("no_token", lambda xml: _without_token(xml, truncated=b"true"))


def unsorted() -> Fault:
    """Turn round the order of the objects in a listing's page."""

    def change(xml: bytes) -> bytes:
        backwards = reversed(_CONTENTS.findall(xml))
        return _CONTENTS.sub(lambda _: next(backwards), xml)

    return _listing("unsorted", change)


def _without_token(xml: bytes, truncated: bytes) -> bytes:
    xml = re.sub(rb"<(Next\w+)>.*?</\1>", b"", xml)
    return re.sub(rb"<IsTruncated>\w+<", b"<IsTruncated>%b<" % truncated, xml)


def _listing(name: str, change: Callable[[bytes], bytes]) -> Fault:
    def after(request: Request, response: Response) -> None:
        xml = b"".join(response.body)
        if b"<ListBucketResult" not in xml or b"<IsTruncated>" not in xml:
            raise ValueError(f"{name}: the answer to {request} is no listing")
        response.set_body(change(xml))

    return Fault(name, after=after)


Match = Callable[[Request], bool]


def where(
    match: Match | str | None = None,
    *,
    bucket: str | None = None,
    key: str | re.Pattern[str] | None = None,
    query: dict[str, str] | None = None,
) -> Match:
    """Requests by method or operation (or a function), bucket, key and parts of the query.

    A key as a pattern is searched for, as text it is the whole key.
    """

    def matches(request: Request) -> bool:
        if isinstance(match, str) and match not in (request.method, request.operation):
            return False
        if isinstance(key, re.Pattern) and not key.search(request.key):
            return False
        return (
            (not callable(match) or match(request))
            and bucket in (None, request.bucket)
            and (isinstance(key, re.Pattern) or key in (None, request.key))
            and (query or {}).items() <= request.query.items()
        )

    return matches


@dataclass(eq=False)
class Rule:
    """Faults for the requests that match; `acted` counts those that met them."""

    match: Match
    faults: tuple[Fault, ...]
    times: int | None
    after: int
    probability: float
    seed: int
    acted: int = 0
    _matched: int = 0
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)

    def takes(self, request: Request) -> bool:
        """Whether the rule acts on this request.

        By chance, but the same in each run: the dice are of the seed, the operation, the key, and
        how often the two have been seen. So threads, upload ids and buckets do not change them.
        """
        if not self.match(request):
            return False
        what = (request.operation, request.key)
        self._matched += 1
        self._seen[what] += 1
        dice = random.Random(repr((self.seed, what, self._seen[what]))).random()
        due = self._matched > self.after and self.acted != self.times
        acts = due and dice < self.probability
        self.acted += acts
        return acts


class RequestLog(list[Request]):
    """The requests so far, in the order in which they came; threads add to it meanwhile."""

    def select(self, match: Match | str | None = None, **which: Any) -> list[Request]:
        """The requests that `where` describes with these arguments."""
        return list(filter(where(match, **which), self))

    def count(self, match: Match | str | None = None, **which: Any) -> int:  # type: ignore[override]
        """How many requests `where` describes with these arguments."""
        return len(self.select(match, **which))


class FaultProxy:
    """The proxy, from its making until `close` or the end of `with`.

    `url` is its address and `upstream` the server's. `errors` are those of faults and callbacks;
    at the end of `with` the first of them is raised, so that no broken fault passes unseen.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.rules: list[Rule] = []
        self.requests = RequestLog()
        self.errors: list[Exception] = []
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        if kind is None and self.errors:
            raise self.errors[0]

    def on(
        self,
        match: Match | str | None,
        *faults: Fault,
        times: int | None = None,
        after: int = 0,
        probability: float = 1.0,
        seed: int = 0,
        **which: Any,
    ) -> Rule:
        """Let requests that `where(match, **which)` describes meet these faults, in this order.

        `times` at most, not the first `after` of them, and of the others a share of `probability`.
        Of several rules the first that acts is the only one.
        """
        rule = Rule(where(match, **which), faults, times, after, probability, seed)
        self.rules.append(rule)
        return rule

    @contextmanager
    def fault(self, match: Match | str | None, *faults: Fault, **options: Any) -> Iterator[Rule]:
        """A rule as `on` makes it, for the time of a `with`."""
        rule = self.on(match, *faults, **options)
        try:
            yield rule
        finally:
            with suppress(ValueError):
                self.rules.remove(rule)

    def close(self) -> None:
        """End all connections and threads; a callback that hangs is left after a few seconds."""
        self.stop.set()
        for shut in (self._listener, *self._open()):
            with suppress(OSError):
                shut.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for _ in range(2):  # the second time for those begun before the listener's thread ended
            with self._lock:
                threads = self._threads - {threading.current_thread()}
            for thread in threads:
                thread.join(3)

    def faults_for(self, request: Request) -> tuple[Fault, ...]:
        """Log a request, and say what the first rule that acts does to it."""
        with self._lock:
            self.requests.append(request)
            faults = next((rule.faults for rule in self.rules if rule.takes(request)), ())
        request.faults = tuple(fault.name for fault in faults)
        return faults

    @contextmanager
    def using(self, connection: socket.socket) -> Iterator[socket.socket]:
        """A socket that `close` interrupts."""
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets.add(connection)
            try:
                if self.stop.is_set():
                    raise Dropped
                yield connection
            finally:
                with self._lock:
                    self._sockets.discard(connection)

    def _open(self) -> tuple[socket.socket, ...]:
        with self._lock:
            return tuple(self._sockets)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                work(*arguments)
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, daemon=True, name="fault proxy")
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._start(self._serve, self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        try:
            with self.using(client), client.makefile("rb") as reader:
                Connection(self, client, reader).run()
        except OSError:
            pass  # the client or the server is gone, or `close` was called
        except Exception as error:  # noqa: BLE001 -- a fault's; raised at the end of `with`
            traceback.print_exc()
            self.errors.append(error)
