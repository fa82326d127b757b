"""A small server that answers as Riak KV 3.2.3 does over HTTP. For demo and tests; it is no Riak.

    python -m devstack.riakserver --port 8098 --folder .devstack/riak

One process, one disk, no replicas: quorums are checked for their form and mean nothing. It listens
on 127.0.0.1 alone and asks nobody who they are. docs/RIAK.md says what it leaves out.

Sources: "HTTP API", Riak KV documentation, and the recordings in tests/data/riak.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from devstack.processes import HOST
from devstack.riakanswers import (
    HTML,
    JSON,
    N_VAL,
    TEXT,
    VARY,
    VARY_ALL,
    Refused,
    Route,
    accepts,
    capitalised,
    check_options,
    check_quorums,
    etag_matches,
    etag_of,
    http_date,
    is_newer,
    is_unmodified,
    json_answer,
    metadata_of,
    no_page,
    object_headers,
    page,
    refused,
    route_of,
    seen_vclock,
    unknown_method,
)
from devstack.riakstore import Replaced, Store, Version, random_name
from devstack.riakwire import OBJECT_BYTES, Answer, Connection, Request

SERVER = "imageflows-devstack (for demo and tests, no Riak)"
IDLE_SECONDS = 120
CONNECTIONS = 1000
LISTED = 500
"""How many keys a piece of a streamed list has."""

_MEDIA = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHARSET = re.compile(r";\s*charset=([^;\s]+)", re.IGNORECASE)
_DEFAULTS: dict[str, Any] = {
    "allow_mult": False,
    "basic_quorum": False,
    "big_vclock": 50,
    "chash_keyfun": {"mod": "riak_core_util", "fun": "chash_std_keyfun"},
    "dvv_enabled": False,
    "dw": "quorum",
    "last_write_wins": False,
    "linkfun": {"mod": "riak_kv_wm_link_walker", "fun": "mapreduce_linkfun"},
    "n_val": N_VAL,
    "node_confirms": 0,
    "notfound_ok": True,
    "old_vclock": 86400,
    "postcommit": [],
    "pr": 0,
    "precommit": [],
    "pw": 0,
    "r": "quorum",
    "rw": "quorum",
    "small_vclock": 50,
    "sync_on_write": "backend",
    "w": "quorum",
    "write_once": False,
    "young_vclock": 20,
}
_OF_TYPES = {"allow_mult": True, "dvv_enabled": True, "active": True, "claimant": "riak@127.0.0.1"}


class RiakServer:
    """The server, from its making until `close` or the end of `with`.

    Arguments:
        folder: keeps the objects; made when missing.
        port: 0 takes a free one; `port` then has it.
        bucket_types: those that exist besides `default`.
        clock: the seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        bucket_types: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = Store(folder, clock)
        self._kinds = {"default", *bucket_types}
        self._clock = clock
        self._counts = {"node_gets_total": 0, "node_puts_total": 0}
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, port), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True, name="riak")
        self._thread.start()

    def __enter__(self) -> RiakServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and end all connections."""
        for shut in (self._listener, *tuple(self._open)):
            with suppress(OSError):
                shut.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def handle(self, request: Request) -> Answer:
        """A request's answer."""
        try:
            answer = self._answer(request)
        except Refused as refused:
            answer = refused.answer
        except Exception:  # noqa: BLE001 -- one request's trouble is not the server's
            traceback.print_exc()
            answer = page(500)
        if request.method != "HEAD" or answer.size is not None:
            return answer
        body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
        return Answer(answer.status, answer.headers, b"", len(body))

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if len(self._open) >= CONNECTIONS:
                    client.close()
                    continue
                self._open.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.settimeout(IDLE_SECONDS)
                Connection(client, self.handle, SERVER, lambda: http_date(self._clock())).run()
                client.shutdown(socket.SHUT_WR)
                client.settimeout(2)
                while client.recv(2**16):
                    pass  # what is unread at `close` would take the last answer from the client
        finally:
            self._store.leave()
            self._open.discard(client)

    def _answer(self, request: Request) -> Answer:
        if request.method not in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"):
            return unknown_method(request.method)
        route = route_of(request.path)
        if route.kind not in self._kinds:
            raise refused(404, f"Unknown bucket type: {route.kind}")
        allowed, answers = {
            "ping": ("GET, HEAD", self._ping),
            "stats": ("GET, HEAD", self._stats),
            "list": ("GET, HEAD", self._list),
            "properties": ("GET, HEAD, PUT, DELETE", self._properties),
            "object": ("HEAD, GET, POST, PUT, DELETE", self._object),
        }[route.resource]
        if route.resource == "list" and request.method == "POST":
            return self._post(request, route)
        if request.method not in allowed.split(", "):
            return page(405, ("Allow", allowed))
        return answers(request, route)

    def _ping(self, request: Request, route: Route) -> Answer:
        return Answer(200, (HTML,), b"OK")

    def _stats(self, request: Request, route: Route) -> Answer:
        return json_answer({"nodename": SERVER, "ring_members": [SERVER], **self._counts}, ())

    def _object(self, request: Request, route: Route) -> Answer:
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        check_options(query)
        if request.method in ("GET", "HEAD"):
            self._counts["node_gets_total"] += 1
            check_quorums(query, ("r", "pr"), ())
            return whole(lambda: self._read(request, route, query))
        self._counts["node_puts_total"] += 1
        if request.method == "DELETE":
            check_quorums(query, ("r", "pr", "w", "pw", "dw", "rw"), (VARY,))
            return self._delete(request, route)
        return self._put(request, route, query)

    # -- reading

    def _read(self, request: Request, route: Route, query: dict[str, str]) -> Answer:
        found = self._store.find(route.place)
        if not found:
            raise refused(404, "not found\n")
        if all(version.deleted for version in found):
            gone = (("X-Riak-Vclock", found[0].vclock), ("X-Riak-Deleted", "true"))
            raise refused(404, "not found\n", *gone)
        if "vtag" in query and len(found) > 1:
            chosen = [version for version in found if version.vtag == query["vtag"]]
            if not chosen:
                return no_page(VARY_ALL)
            return self._one(request, route, chosen[0])
        if len(found) > 1:
            return self._several(request, route, found)
        return self._one(request, route, found[0])

    def _one(self, request: Request, route: Route, version: Version) -> Answer:
        media = version.headers["Content-Type"].partition(";")[0]
        if not accepts(request.headers.get("accept", "*/*"), media):
            return page(406)
        vary = () if "Content-Encoding" in version.headers else (VARY,)
        etag = f'"{version.vtag}"'
        if is_unmodified(request, etag, version.modified):
            return Answer(304, (*vary, ("ETag", etag)))
        data = b"" if request.method == "HEAD" else self._store.data(route.place, version.vtag)
        return Answer(200, object_headers(version, route, vary), data, version.size)

    def _several(self, request: Request, route: Route, found: list[Version]) -> Answer:
        etag = f'"{etag_of(found)}"'
        common = (
            ("X-Riak-Vclock", found[0].vclock),
            VARY_ALL,
            ("Last-Modified", http_date(max(version.modified for version in found))),
            ("ETag", etag),
        )
        accept = request.headers.get("accept", "*/*")
        if not (accepts(accept, "text/plain") or accepts(accept, "multipart/mixed")):
            return page(406)
        if is_unmodified(request, etag, float("inf")):
            return Answer(304, (VARY_ALL, ("ETag", etag)))
        if "multipart/mixed" in accept:
            return self._multipart(route, found, common)
        listed = "".join(f"{version.vtag}\n" for version in found)
        return Answer(300, (*common, TEXT), f"Siblings:\n{listed}".encode())

    def _multipart(
        self, route: Route, found: list[Version], common: tuple[tuple[str, str], ...]
    ) -> Answer:
        boundary, parts = random_name(27), []
        for version in found:
            lines = [
                f"Content-Type: {version.headers['Content-Type']}",
                f'Link: <{route.up}>; rel="up"',
                f"Etag: {version.vtag}",
                f"Last-Modified: {http_date(version.modified)}",
                *(f"{name}: {value}" for name, value in metadata_of(version)),
                *(["X-Riak-Deleted: true"] if version.deleted else []),
            ]
            head = "\r\n".join([f"\r\n--{boundary}", *lines, "", ""]).encode("latin-1")
            parts.append(head + self._store.data(route.place, version.vtag))
        body = b"".join([*parts, f"\r\n--{boundary}--\r\n".encode()])
        kind = ("Content-Type", f"multipart/mixed; boundary={boundary}")
        return Answer(300, (*common, kind), body)

    # -- writing

    def _post(self, request: Request, route: Route) -> Answer:
        key = random_name(27)
        query = dict(parse_qsl(request.query))
        at = Route("object", route.kind, route.bucket, key.encode(), route.up)
        answer = self._put(request, at, query)
        headers = (*answer.headers, ("Location", f"{route.up}/keys/{key}"))
        return Answer(201, headers, answer.body) if answer.status in (200, 204) else answer

    def _put(self, request: Request, route: Route, query: dict[str, str]) -> Answer:
        sent = request.headers.get("content-type", "")
        if not sent:
            raise refused(400, "Missing Content-Type request header")
        self._check_conditions(request, route)
        media = sent.partition(";")[0].strip()
        if not _MEDIA.fullmatch(media):
            said = f'"{sent}" is not a valid media type for the Content-type header.\n'
            raise refused(415, said, VARY)
        charset = _CHARSET.search(sent)
        kind = ("Content-Type", f"{media}; charset={charset[1]}" if charset else media)
        check_quorums(query, ("w", "pw", "dw", "r", "pr"), (VARY, kind))
        if request.size > OBJECT_BYTES:  # 186 bytes: what Riak 3.2.3 counted beside the value
            raise refused(500, f"Error:\n{{too_large,{request.size + 186}}}\n", VARY)
        headers = dict([kind])
        if "content-encoding" in request.headers:
            headers["Content-Encoding"] = request.headers["content-encoding"]
        for name, value in request.headers.items():
            if name.startswith("x-riak-meta-"):
                headers["X-Riak-Meta-" + capitalised(name[len("x-riak-meta-") :])] = value
        self._store.write(
            route.place,
            seen_vclock(request),
            headers,
            request.body,
            siblings=bool(self._bucket(route)["allow_mult"]),
        )
        if query.get("returnbody") != "true":
            return Answer(204, (VARY, kind))
        return whole(lambda: self._written(route, kind))

    def _written(self, route: Route, kind: tuple[str, str]) -> Answer:
        found = self._store.find(route.place)
        if len(found) == 1:
            data = self._store.data(route.place, found[0].vtag)
            return Answer(200, object_headers(found[0], route, (VARY,)), data)
        common = (
            ("X-Riak-Vclock", found[0].vclock),
            VARY,
            ("Last-Modified", http_date(max(version.modified for version in found))),
            ("ETag", f'"{etag_of(found)}"'),
        )
        return self._multipart(route, found, common)

    def _check_conditions(self, request: Request, route: Route) -> None:
        """Source: "Conditional requests", RFC 9110, 13, and Riak's `X-Riak-If-Not-Modified`."""
        headers = request.headers
        found = self._store.find(route.place)
        there = bool(found) and not all(version.deleted for version in found)
        etag = f'"{etag_of(found)}"' if there else ""
        known = [part.strip() for part in headers.get("if-none-match", "").split(",")]
        fails = (
            ("if-match" in headers and not etag_matches(headers["if-match"], etag))
            or (there and ("*" in known or etag in known))
            or ("if-unmodified-since" in headers and there and is_newer(headers, found))
        )
        if fails:
            raise Refused(page(412, VARY))
        unchanged = headers.get("x-riak-if-not-modified")
        if unchanged is not None and (not found or unchanged != found[0].vclock):
            raise Refused(page(409, VARY))

    def _delete(self, request: Request, route: Route) -> Answer:
        found = self._store.find(route.place)
        if not found or all(version.deleted for version in found):
            raise refused(404, "not found\n", VARY)
        self._store.write(
            route.place,
            seen_vclock(request) or found[0].vclock,
            {"Content-Type": "application/octet-stream"},
            b"",
            siblings=bool(self._bucket(route)["allow_mult"]),
            deleted=True,
        )
        return Answer(204, (VARY, HTML))

    # -- buckets

    def _bucket(self, route: Route) -> dict[str, Any]:
        common = _DEFAULTS if route.kind == "default" else {**_DEFAULTS, **_OF_TYPES}
        if route.kind != "default":
            del common["write_once"]
        return {**common, **self._store.properties(route.kind, route.bucket)}

    def _properties(self, request: Request, route: Route) -> Answer:
        if request.method == "DELETE":
            self._store.set_properties(route.kind, route.bucket, {})
            return Answer(204, (VARY, JSON))
        if request.method == "PUT":
            return self._set_properties(request, route)
        name = {"name": route.bucket.decode("utf-8", "replace")} if route.bucket else {}
        return json_answer({"props": {**name, **self._bucket(route)}})

    def _set_properties(self, request: Request, route: Route) -> Answer:
        if request.headers.get("content-type") != "application/json":
            return page(415, VARY)
        try:
            given = json.loads(request.body)["props"].items()
        except (ValueError, TypeError, KeyError, AttributeError):
            raise refused(
                400,
                "bucket PUT must be a JSON object of the form:\n"
                '{"props":{...bucket properties...}}',
            ) from None
        for name, value in given:
            if name not in _DEFAULTS:
                return page(500, VARY)
            if isinstance(_DEFAULTS[name], bool) and not isinstance(value, bool):
                return json_answer({name: "not_boolean"}, status=400)
            if name == "n_val" and (type(value) is not int or value < 1):
                return json_answer({name: "not_integer"}, status=400)
        self._store.set_properties(route.kind, route.bucket, dict(given))
        return Answer(204, (VARY, JSON))

    def _list(self, request: Request, route: Route) -> Answer:
        asked = dict(parse_qsl(request.query)).get("keys")
        if asked not in ("true", "stream"):
            return json_answer({})
        try:
            keys = [key.decode() for key in self._store.keys(route.kind, route.bucket)]
        except UnicodeDecodeError:
            return page(500, VARY)
        if asked == "true":
            return json_answer({"keys": keys})
        return Answer(200, (VARY, JSON), _pieces(keys))


def whole(read: Callable[[], Answer]) -> Answer:
    """What `read` gives, of one value throughout."""
    while True:
        with suppress(Replaced):
            return read()


def _pieces(keys: list[str]) -> Iterator[bytes]:
    for start in range(0, len(keys) + 1, LISTED):
        yield json.dumps({"keys": keys[start : start + LISTED]}, separators=(",", ":")).encode()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m devstack.riakserver")
    parser.add_argument("--port", type=int, default=8098)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--bucket-type", action="append", default=[], metavar="NAME")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with RiakServer(options.folder, port=options.port, bucket_types=options.bucket_type) as server:
        print(f"{SERVER}: http://{HOST}:{server.port}, objects in {options.folder}", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
