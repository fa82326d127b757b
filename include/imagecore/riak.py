"""Objects in Riak KV over its HTTP API.

    client = RiakClient(RiakNodes([Node("riak1"), Node("riak2")]))
    ez = client.bucket("ez")
    ez.put("1a2b3c4d-photo.jpg", document, "application/json")

Sources: "HTTP API", Riak KV documentation (https://docs.riak.com/riak/kv/latest/developing/api/http),
and exchanges with a Riak KV 3.2.3, some of which are in tests/data/riak.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from imagecore.riakanswer import (
    VCLOCK,
    RiakNotFound,
    RiakObject,
    RiakRefused,
    RiakServerError,
    error_of,
    expect,
    is_absent,
    json_object,
    metadata_headers,
    read_object,
    read_siblings,
    siblings_error,
)
from imagecore.riakhttp import Answer, RiakNodes, RiakTooLarge, RiakUnavailable
from imagecore.text import printable

OBJECT_BYTES = 50 * 2**20
"""Riak's default `object.size.maximum`, over which it refuses an object."""

_ACCEPT = {"Accept": "multipart/mixed, */*;q=0.5"}
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Quorums:
    """How many replicas must answer; None leaves it to the bucket. Each is a number up to the
    bucket's `n_val`, or `one`, `quorum`, `all` or `default`.

    `r`, `pr`: for reading; `w`, `pw`, `dw`: for writing; those with `p` count the nodes that own
    the key, `dw` those that have it on disk. `timeout`: the milliseconds Riak itself waits.
    """

    r: int | str | None = None
    pr: int | str | None = None
    w: int | str | None = None
    pw: int | str | None = None
    dw: int | str | None = None
    timeout: int | None = None

    def __post_init__(self) -> None:
        for name in ("r", "pr", "w", "pw", "dw"):
            value = getattr(self, name)
            number = isinstance(value, int) and not isinstance(value, bool) and value > 0
            if not number and value not in (None, "one", "quorum", "all", "default"):
                raise ValueError(
                    f"{name} is {value!r}: it must be a positive number, or one, quorum, all or "
                    "default"
                )
        if self.timeout is not None and not (type(self.timeout) is int and self.timeout > 0):
            raise ValueError(f"timeout is {self.timeout!r}: it must be milliseconds above 0")

    def query(self, *names: str, **more: str) -> str:
        """The part of a URL that asks for them, with `more`; empty where there is nothing."""
        values = {name: getattr(self, name) for name in (*names, "timeout")}
        given = {name: value for name, value in values.items() if value is not None} | more
        return f"?{urlencode(given)}" if given else ""


class RiakClient:
    """A Riak cluster. Threads may share it. Every method raises what `RiakBucket` lists."""

    def __init__(self, nodes: RiakNodes, quorums: Quorums = Quorums()) -> None:
        self.nodes = nodes
        self.quorums = quorums

    def __repr__(self) -> str:
        return f"RiakClient({self.nodes!r})"

    def close(self) -> None:
        """Close the idle connections."""
        self.nodes.close()

    def bucket(self, name: str, kind: str = "default") -> RiakBucket:
        """The bucket of that name and bucket type."""
        return RiakBucket(self, name, kind)

    def ping(self) -> None:
        """Raise unless a node is alive."""
        answer = self.nodes.request("GET", "/ping", "riak")
        if answer.status == 404 or (answer.status == 200 and answer.body.strip() != b"OK"):
            raise RiakUnavailable(
                f"What answers is no Riak ({answer.status}: {answer.text()}). Check the "
                f"connection's hosts and port: {self.nodes!r}."
            )
        expect(answer, "riak", 200)

    def stats(self) -> dict[str, Any]:
        """The statistics of one node."""
        headers = {"Accept": "application/json"}
        answer = self.nodes.request("GET", "/stats", "riak: stats", headers=headers)
        expect(answer, "riak: stats", 200)
        return json_object(answer, "riak: stats")


@dataclass(frozen=True)
class RiakBucket:
    """One bucket. Keys are any text but the empty one; bytes that are not UTF-8 are held as
    Python's `surrogateescape` holds them.

    Methods raise:
        RiakUnavailable, RiakDenied: nothing can be done there now; both end a batch.
        RiakNotFound, RiakSiblings, RiakTooLarge, RiakPreconditionFailed, RiakRefused,
            RiakServerError: this object alone.
    """

    client: RiakClient
    name: str
    kind: str = "default"

    def url(self, key: str) -> str:
        """The object's address, for messages."""
        kind = "" if self.kind == "default" else f"{printable(self.kind)}/"
        return f"riak://{kind}{printable(self.name)}/{printable(key)}"

    def head(self, key: str) -> RiakObject:
        """Look at an object, without its data."""
        return self._look("HEAD", key)

    def exists(self, key: str) -> bool:
        """Whether there is an object. Siblings are an error, as everywhere."""
        found = self.client.nodes.exists(self._path(key) + self.client.quorums.query("r", "pr"))
        if found is None:
            try:
                self.head(key)
            except RiakNotFound:
                return False
        return found is not False

    def get(self, key: str) -> RiakObject:
        """Read an object."""
        return self._look("GET", key)

    def put(
        self,
        key: str,
        data: bytes,
        content_type: str,
        *,
        metadata: Mapping[str, str] | None = None,
        vclock: str = "",
        repeatable: bool = True,
    ) -> None:
        """Write an object.

        An answer that did not come is asked for again by writing again. That changes nothing
        where the bucket keeps one value (`allow_mult` false, as in the default bucket type):
        pass `repeatable` False where it keeps siblings, as each repetition may be one more.

        Arguments:
            metadata: replaces all there was.
            vclock: of the object that was read before, where there was one.
        """
        headers = {VCLOCK: vclock} if vclock else {}
        self._write(key, data, content_type, metadata, headers, repeatable)

    def create(
        self,
        key: str,
        data: bytes,
        content_type: str,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write an object unless there is one; Riak does not promise that of two at the same
        time only one succeeds. Never repeated once a node may have it: the second would find
        what the first wrote.

        Raises:
            RiakPreconditionFailed: there is one.
        """
        self._write(key, data, content_type, metadata, {"If-None-Match": "*"}, repeatable=False)

    def delete(self, key: str, *, vclock: str = "") -> None:
        """Delete an object; one that is gone already is no error.

        Arguments:
            vclock: of the object that was read; without it Riak looks itself, and deletes siblings
                as well.
        """
        headers = {VCLOCK: vclock} if vclock else {}
        path = self._path(key) + self.client.quorums.query("r", "pr", "w", "pw", "dw")
        answer = self.client.nodes.request("DELETE", path, self.url(key), headers=headers)
        expect(answer, self.url(key), 204, 404)
        if answer.status == 404 and not is_absent(answer):
            raise error_of(answer, self.url(key))

    def properties(self) -> dict[str, Any]:
        """The bucket's properties, such as `allow_mult` and `n_val`."""
        answer = self.client.nodes.request("GET", f"{self._root()}/props", self.url(""))
        expect(answer, self.url(""), 200)
        properties = json_object(answer, self.url("")).get("props")
        if not isinstance(properties, dict):
            raise RiakServerError(f"{self.url('')}: the answer has no properties: {answer.text()}")
        return properties

    def set_properties(self, **properties: Any) -> None:
        """Set some of the bucket's properties, and leave the others."""
        body = json.dumps({"props": properties}).encode()
        answer = self.client.nodes.request(
            "PUT",
            f"{self._root()}/props",
            self.url(""),
            headers={"Content-Type": "application/json"},
            body=body,
        )
        expect(answer, self.url(""), 204)

    def keys_by_reading_the_whole_cluster(self) -> Iterator[str]:
        """Every key, in no order, as they come.

        Riak reads every key of every bucket for it: not for a cluster that serves somebody. A key
        that was deleted a moment ago may be among them, and keys written meanwhile may not.
        """
        path = f"{self._root()}/keys?keys=stream"
        parts = self.client.nodes.stream(path, self.url(""))
        answer = next(parts)
        assert isinstance(answer, Answer)
        expect(answer, self.url(""), 200)
        decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        text = ""
        for part in parts:
            assert isinstance(part, bytes)
            text += decode(part)
            while text:
                try:
                    found, end = _DECODER.raw_decode(text)
                except ValueError:  # the rest of it is in the next part
                    break
                text = text[end:].lstrip()
                yield from self._listed(found)
        if text:
            raise RiakServerError(
                f"{self.url('')}: the list of keys is damaged at {printable(text, 80)!r}"
            )

    def _listed(self, found: Any) -> list[str]:
        if isinstance(found, dict) and isinstance(found.get("keys"), list):
            keys: list[str] = found["keys"]
            return keys
        raise RiakUnavailable(
            f"{self.url('')}: Riak could not list all keys: {printable(found, 200)}. Try again "
            "when the cluster is less busy."
        )

    def _look(self, method: str, key: str) -> RiakObject:
        path = self._path(key) + self.client.quorums.query("r", "pr")
        what = self.url(key)
        answer = self.client.nodes.request(method, path, what, headers=_ACCEPT)
        if answer.status == 300:
            vclock = answer.headers.get(VCLOCK, "")
            raise siblings_error(
                what, vclock, read_siblings(answer, what) if method == "GET" else ()
            )
        expect(answer, what, 200)
        return read_object(answer.headers, answer.body, size=answer.headers.get("Content-Length"))

    def _write(
        self,
        key: str,
        data: bytes,
        content_type: str,
        metadata: Mapping[str, str] | None,
        headers: Mapping[str, str],
        repeatable: bool,
    ) -> None:
        what = self.url(key)
        if len(data) > OBJECT_BYTES:
            raise RiakTooLarge(
                f"{what}: {len(data):,} bytes are more than the {OBJECT_BYTES:,} that Riak takes. "
                "Store a smaller picture."
            )
        answer = self.client.nodes.request(
            "PUT",
            self._path(key) + self.client.quorums.query("w", "pw", "dw"),
            what,
            headers={
                "Content-Type": content_type,
                **metadata_headers(metadata or {}, what),
                **headers,
            },
            body=data,
            repeatable=repeatable,
        )
        expect(answer, what, 204)

    def _root(self) -> str:
        kind = "" if self.kind == "default" else f"/types/{_quoted(self.kind)}"
        return f"{kind}/buckets/{_quoted(self.name)}"

    def _path(self, key: str) -> str:
        return f"{self._root()}/keys/{_quoted(key)}"


def _quoted(name: str) -> str:
    """A part of a path: all but letters, digits and `-._~` encoded (a `+` would be a blank)."""
    if not name:
        raise RiakRefused("Riak has no empty names for buckets and keys: name one.")
    try:
        return quote(name.encode("utf-8", "surrogateescape"), safe="")
    except UnicodeEncodeError as error:
        raise RiakRefused(
            f"{printable(name)} cannot be a name in Riak: it holds half of a character "
            "(a lone surrogate). Correct it at its source."
        ) from error
