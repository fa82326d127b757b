"""Riak KV through an Airflow connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow.sdk import BaseHook

from imagecore.errors import ImageflowsError, PlanRefused
from imagecore.text import printable

if TYPE_CHECKING:
    from imagecore.riak import Quorums, RiakBucket, RiakClient
    from imagecore.riakhttp import Limits, Node

PORT = 8098
_QUORUMS = ("r", "pr", "w", "pw", "dw")
_SECONDS = {"connect_timeout": "connect", "read_timeout": "read", "request_timeout": "request"}
_FIELDS = {"tls", "ca_file", "pool_size", "tries", "server_timeout_ms", *_QUORUMS, *_SECONDS}

T = TypeVar("T")


class RiakHook(BaseHook):
    """Riak KV over its HTTP API.

    The connection: `host` is a node, or several divided by commas, each with a port of its own or
    not; `port` is that of the others (8098); `login` and `password` for a Riak with security. Its
    extra is JSON, all of it optional:

    - `tls` (true or false) speaks HTTPS, checked with `ca_file`, a file on the workers, or with
      the system's authorities;
    - `r`, `pr`, `w`, `pw`, `dw`: how many replicas must answer, a number or `one`, `quorum`,
      `all`, `default`; `server_timeout_ms`: how long Riak itself waits for them;
    - `connect_timeout` (5), `read_timeout` (30), `request_timeout` (60): seconds for a connection,
      without a byte, and for a request with its whole answer;
    - `tries` (4): requests at most for one call; `pool_size` (16): connections to each node.

    :param riak_conn_id: the connection of type `riak`.
    """

    conn_name_attr = "riak_conn_id"
    default_conn_name = "riak_default"
    conn_type = "riak"
    hook_name = "Riak KV"

    def __init__(self, riak_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.riak_conn_id = riak_conn_id

    def get_conn(self) -> RiakClient:
        """A client, which threads may share; close it in the end.

        Raises:
            PlanRefused: there is no such connection, or a field of it is wrong, which is named.
        """
        from airflow.sdk.exceptions import AirflowNotFoundException

        from imagecore.riak import RiakClient
        from imagecore.riakhttp import RiakNodes

        try:
            connection = self.get_connection(self.riak_conn_id)
        except AirflowNotFoundException as error:
            raise PlanRefused(
                f"The connection {self.riak_conn_id} cannot be used: {printable(error)}"
            ) from error
        fields = _Fields(self.riak_conn_id, connection.extra_dejson)
        login = (connection.login, connection.password or "") if connection.login else None
        if login and ":" in login[0]:
            raise _wrong(self.riak_conn_id, "login", "holds a colon, which HTTP does not allow")
        nodes = RiakNodes(
            _nodes(self.riak_conn_id, connection.host, connection.port),
            pool=fields.number("pool_size", 16, int),
            limits=fields.limits(),
            tls=fields.tls(),
            login=login,
        )
        return RiakClient(nodes, fields.quorums())

    def bucket(self, name: str, kind: str = "default") -> RiakBucket:
        """A bucket of that name and bucket type, with a client of its own."""
        return self.get_conn().bucket(name, kind)

    def test_connection(self) -> tuple[bool, str]:
        """Ask a node whether it is alive, and who it is: what the "Test" button shows."""
        try:
            client = self.get_conn()
            try:
                client.ping()
                node = client.stats().get("nodename", "a node without a name")
            finally:
                client.close()
        except ImageflowsError as error:
            return False, str(error)
        return True, f"Riak answers: {node}"


class _Fields:
    """The connection's extra."""

    def __init__(self, conn_id: str, extra: Mapping[str, Any]) -> None:
        self._conn_id = conn_id
        self._extra = {name: value for name, value in extra.items() if value not in (None, "")}
        unknown = sorted(self._extra.keys() - _FIELDS)
        if unknown:
            raise _wrong(
                conn_id, unknown[0], f"is not known; there are {', '.join(sorted(_FIELDS))}"
            )

    def number(self, name: str, default: T, kind: Callable[[Any], T]) -> T:
        """A number above 0; forms may give it as text."""
        given = self._extra.get(name, default)
        try:
            number: Any = kind(given) if not isinstance(given, bool) else 0
        except (TypeError, ValueError):
            number = 0
        if not 0 < number < 10**9:
            raise _wrong(self._conn_id, name, f"is {given!r}: it must be a number above 0")
        return cast("T", number)

    def limits(self) -> Limits:
        from imagecore.riakhttp import Limits

        usual = Limits()
        seconds = {
            limit: self.number(name, getattr(usual, limit), float)
            for name, limit in _SECONDS.items()
        }
        return Limits(**seconds, tries=self.number("tries", usual.tries, int))

    def quorums(self) -> Quorums:
        from imagecore.riak import Quorums

        given: dict[str, Any] = {
            name: int(value) if isinstance(value, str) and value.isdecimal() else value
            for name, value in self._extra.items()
            if name in _QUORUMS
        }
        if "server_timeout_ms" in self._extra:
            given["timeout"] = self.number("server_timeout_ms", 0, int)
        try:
            return Quorums(**given)
        except ValueError as error:
            raise PlanRefused(f"The connection {self._conn_id}: {error}") from error

    def tls(self) -> ssl.SSLContext | None:
        wanted = self._extra.get("tls", False)
        wanted = {"true": True, "false": False}.get(wanted, wanted)  # a connection's URI has text
        if not isinstance(wanted, bool):
            raise _wrong(self._conn_id, "tls", f"is {wanted!r}: it must be true or false")
        ca_file = self._extra.get("ca_file")
        if not wanted:
            if ca_file:
                raise _wrong(self._conn_id, "ca_file", "is only for tls: true")
            return None
        try:
            return ssl.create_default_context(cafile=ca_file)
        except (OSError, TypeError) as error:
            raise _wrong(self._conn_id, "ca_file", f"cannot be used: {error}") from error


def _nodes(conn_id: str, hosts: str | None, port: int | None) -> list[Node]:
    from imagecore.riakhttp import Node

    nodes = []
    for host in (hosts or "").split(","):
        name, colon, own = host.strip().rpartition(":")
        if host.count(":") > 1 and not host.strip().startswith("["):  # an IPv6 address alone
            name, colon, own = "", "", host.strip()
        if not colon or own.endswith("]"):
            name, own = host.strip(), str(port or PORT)
        name = name.removeprefix("[").removesuffix("]")
        if not name or "/" in name or not own.isdecimal() or not 0 < int(own) < 65536:
            raise _wrong(
                conn_id, "host", f"is {hosts!r}: it must be as riak1 or riak1:8098,riak2:8098"
            )
        nodes.append(Node(name, int(own)))
    return list(dict.fromkeys(nodes))


def _wrong(conn_id: str, field: str, what: str) -> PlanRefused:
    return PlanRefused(f"The connection {conn_id}: {field} {what}. Correct the connection.")
