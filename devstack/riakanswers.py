"""What `devstack.riakserver` says: routes, checks and pages in the words of Riak KV 3.2.3.

Sources: as in `devstack.riakserver`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any
from urllib.parse import quote_plus, unquote_to_bytes

from devstack.riakstore import Place, Version, is_vclock
from devstack.riakwire import Answer, Request

VARY = ("Vary", "Accept-Encoding")
VARY_ALL = ("Vary", "Accept, Accept-Encoding")
TEXT = ("Content-Type", "text/plain")
HTML = ("Content-Type", "text/html")
JSON = ("Content-Type", "application/json")
N_VAL = 3


class Refused(Exception):
    """The request ends with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True)
class Route:
    """What a request is about. `up` is the path of the bucket in the API that was used."""

    resource: str
    kind: str = "default"
    bucket: bytes = b""
    key: bytes = b""
    up: str = ""

    @property
    def place(self) -> Place:
        return Place(self.kind, self.bucket, self.key)


def route_of(path: str) -> Route:
    """What a path, not yet decoded, is about.

    Raises:
        Refused: nothing here.
    """
    parts = path.split("/")[1:]
    kind = "default"
    if parts[0] == "riak" and len(parts) == 3 and all(parts):  # Riak's first API, still served
        return Route("object", kind, _decoded(parts[1]), _decoded(parts[2]), f"/riak/{parts[1]}")
    if parts[0] == "types" and len(parts) > 2:
        kind, parts = _decoded(parts[1]).decode("utf-8", "replace"), parts[2:]
        if parts == ["props"]:
            return Route("properties", kind)
    if parts in (["ping"], ["stats"]):
        return Route(parts[0])
    if len(parts) < 3 or parts[0] != "buckets" or not parts[1]:
        raise Refused(no_page())
    bucket = _decoded(parts[1])
    up = f"/buckets/{_encoded(bucket)}"
    if parts[2] == "props" and len(parts) == 3:
        return Route("properties", kind, bucket)
    if parts[2] == "keys" and parts[3:] in ([], [""]):
        return Route("list", kind, bucket, b"", up)
    if parts[2] == "keys" and len(parts) == 4:
        return Route("object", kind, bucket, _decoded(parts[3]), up)
    if parts[2] == "keys":
        raise refused(
            400,
            "Invalid link walk query submitted. Valid link walk query format is: "
            "/riak/some_bucket/some_key/<bucket>,<riaktag>,0|1/...",
        )
    raise Refused(no_page())


def _decoded(part: str) -> bytes:
    return unquote_to_bytes(part.replace("+", " ").encode("latin-1"))


_encoded = lru_cache(maxsize=1024)(quote_plus)


def check_options(query: dict[str, str]) -> None:
    for name in ("r", "w", "dw", "rw", "pr", "pw"):
        value = query.get(name, "default")
        if value not in ("one", "quorum", "all", "default") and not _is_number(value):
            raise refused(
                400,
                f"{name} query parameter must be an integer or one of the following words: "
                "'one', 'quorum' or 'all'\n",
            )
    if not _is_number(query.get("timeout", "1")):
        raise refused(400, f'Bad timeout value "{query["timeout"]}"\n')


def check_quorums(
    query: dict[str, str], names: tuple[str, ...], headers: tuple[tuple[str, str], ...]
) -> None:
    numbers = [int(query[name]) for name in names if _is_number(query.get(name, ""))]
    if max(numbers, default=0) > N_VAL:
        said = f"Specified w/dw/pw/node_confirms values invalid for bucket n value of {N_VAL}\n"
        raise Refused(Answer(400, headers, said.encode()))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def seen_vclock(request: Request) -> str | None:
    seen = request.headers.get("x-riak-vclock")
    if seen is not None and not is_vclock(seen):
        raise Refused(page(500, VARY))
    return seen


def etag_matches(header: str, etag: str) -> bool:
    known = [part.strip() for part in header.split(",")]
    return bool(etag) and ("*" in known or etag in known)


def is_newer(headers: dict[str, str], found: list[Version]) -> bool:
    since = _seconds(headers["if-unmodified-since"])
    return since is not None and int(max(version.modified for version in found)) > since


def is_unmodified(request: Request, etag: str, modified: float) -> bool:
    if "if-none-match" in request.headers:
        return etag_matches(request.headers["if-none-match"], etag)
    since = _seconds(request.headers.get("if-modified-since", ""))
    return since is not None and modified < since + 1


def _seconds(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return None


def accepts(accept: str, media: str) -> bool:
    ranges = {part.partition(";")[0].strip() for part in accept.lower().split(",")}
    return bool(ranges & {"*/*", f"{media.partition('/')[0]}/*", media.lower()})


def object_headers(
    version: Version, route: Route, vary: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    coding = version.headers.get("Content-Encoding", "identity")
    return (
        ("X-Riak-Vclock", version.vclock),
        *metadata_of(version),
        *vary,
        ("Link", f'<{route.up}>; rel="up"'),
        ("Last-Modified", http_date(version.modified)),
        ("ETag", f'"{version.vtag}"'),
        ("Content-Type", version.headers["Content-Type"]),
        *((("Content-Encoding", coding),) if coding != "identity" else ()),
    )


def metadata_of(version: Version) -> list[tuple[str, str]]:
    return [pair for pair in version.headers.items() if pair[0].startswith("X-Riak-Meta-")]


def capitalised(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


def etag_of(found: list[Version]) -> str:
    if len(found) == 1:
        return found[0].vtag
    return sha256("".join(version.vtag for version in found).encode()).hexdigest()[:22]


def json_answer(
    content: Any, vary: tuple[tuple[str, str], ...] = (VARY,), *, status: int = 200
) -> Answer:
    return Answer(status, (*vary, JSON), json.dumps(content, separators=(",", ":")).encode())


def refused(status: int, text: str, *headers: tuple[str, str]) -> Refused:
    return Refused(Answer(status, (*headers, TEXT), text.encode("latin-1", "replace")))


_TITLES = {405: "Method Not Allowed", 406: "Not Acceptable", 409: "Conflict"} | {
    412: "Precondition Failed",
    415: "Unsupported Media Type",
    500: "Internal Server Error",
}


def page(status: int, *headers: tuple[str, str]) -> Answer:
    title = _TITLES[status]
    text = (
        f"<html><head><title>{status} {title}</title></head><body><h1>{title}</h1><p><hr>"
        "<address>mochiweb+webmachine web server</address></body></html>"
    )
    return Answer(status, (*headers, HTML), text.encode())


def no_page(*headers: tuple[str, str]) -> Answer:
    text = (
        "<HTML><HEAD><TITLE>404 Not Found</TITLE></HEAD><BODY><H1>Not Found</H1>The requested "
        "document was not found on this server.<P><HR><ADDRESS>mochiweb+webmachine web server"
        "</ADDRESS></BODY></HTML>"
    )
    return Answer(404, (*headers, HTML), text.encode())


def unknown_method(method: str) -> Answer:
    text = (
        "<html><head><title>501 Not Implemented</title></head><body><h1>Not Implemented</h1>The "
        f'server does not support the "{method}" method.<br><P><HR><ADDRESS>mochiweb+webmachine '
        "web server</ADDRESS></body></html>"
    )
    return Answer(501, (HTML,), text.encode())


def http_date(seconds: float) -> str:
    return _http_date_of(int(seconds))


@lru_cache(maxsize=1024)
def _http_date_of(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
