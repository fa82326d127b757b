"""A Redis database or cluster: listed by SCAN, never by KEYS; many commands in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from redis.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from imagecore.errors import InfrastructureError, PlanRefused
from imagecore.text import printable

if TYPE_CHECKING:
    from redis import Redis

    Client = Redis | RedisCluster

SCAN_COUNT = 1_000
"""About how many keys a server looks at for one answer; it serves nobody else meanwhile."""

Command = tuple[Any, ...]
Row = TypeVar("Row")

_NOT_ALLOWED = (AuthenticationError, AuthorizationError, NoPermissionError)
_FOR_ALL = (*_NOT_ALLOWED, OutOfMemoryError, ReadOnlyError)
"""Answers to one command that every other one would get as well."""


class Unusable(InfrastructureError):
    """Redis cannot be reached, or cannot serve now."""


def key_text(key: bytes) -> str:
    """A key as manifests have it. Bytes that are no UTF-8 become lone surrogates, so that none
    is lost."""
    return key.decode("utf-8", "surrogateescape")


def key_bytes(text: str) -> bytes:
    """The key of `key_text`."""
    return text.encode("utf-8", "surrogateescape")


def pages(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """`rows` in lists of `size`, the last one shorter."""
    source = iter(rows)
    while page := list(islice(source, size)):
        yield page


def chunks(sized: Iterable[tuple[bytes, int]], most: int) -> Iterator[list[bytes]]:
    """Keys in lists whose sizes add up to `most` bytes at most; a larger one is alone."""
    chunk: list[bytes] = []
    total = 0
    for key, size in sized:
        if chunk and total + size > most:
            yield chunk
            chunk, total = [], 0
        chunk.append(key)
        total += size
    if chunk:
        yield chunk


@dataclass(frozen=True)
class Database:
    """What a client reaches, under the name people know it by: an Airflow connection's.

    Every method raises Unusable when Redis cannot be reached or cannot serve, and PlanRefused
    when it does not let us in.
    """

    client: Client
    name: str

    def check(self) -> None:
        """Refuse a node of a cluster by itself: it has only some of the keys.

        Raises:
            PlanRefused: it is one, or does not let us in.
        """
        if isinstance(self.client, RedisCluster):
            return
        with self.reaching():
            enabled: Any = self.client.info("cluster")
        if enabled.get("cluster_enabled"):
            raise PlanRefused(
                f"The connection {self.name} is to one node of a cluster, which has only some of "
                'the keys: add {"cluster": true} to its extra.'
            )

    def servers(self) -> frozenset[str]:
        """What tells servers apart, whatever their addresses: the run ids of those with keys.

        A server that starts again has another one.
        """
        return frozenset(str(info["run_id"]) for info in self._info("server"))

    def datasets(self) -> frozenset[tuple[str, int]]:
        """What tells databases apart: the server's run id, and the replication id that it shares
        with its replicas; each with the number of the database."""
        ids = self.servers() | {str(info["master_replid"]) for info in self._info("replication")}
        return frozenset((name, self._number()) for name in ids)

    def scan(self, pattern: str) -> Iterator[bytes]:
        """Keys that match a pattern (`*`, `?`, `[abc]`), of all primaries of a cluster.

        A key may come more than once. Those there from beginning to end come at least once.

        Raises:
            Unusable: also when a server started again or a cluster changed meanwhile, so that
                keys may be missing.
        """
        with self.reaching():
            before = self._layout()
            yield from self.client.scan_iter(match=pattern.encode(), count=SCAN_COUNT)
            if self._layout() != before:
                raise Unusable(
                    f"Redis {self.name} started again or changed its cluster while it was listed, "
                    "so keys may be missing from the list. The next try begins anew."
                )

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands sent together; what is wrong with one is its answer, a
        ResponseError."""
        if not commands:
            return []
        with self.reaching():
            pipeline: Any = self.client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, _FOR_ALL) or (
                    isinstance(answer, Exception) and not isinstance(answer, ResponseError)
                ):
                    raise answer
        return answers

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The strings of keys; None where there is none now."""
        if isinstance(self.client, RedisCluster):  # MGET there is for keys of one slot
            found = self.run([("GET", key) for key in keys])
            return [value if isinstance(value, bytes) else None for value in found]
        with self.reaching():
            values: Any = self.client.mget(keys)
        return list(values)

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turn the client's errors into ours."""
        try:
            yield
        except _NOT_ALLOWED as error:
            raise PlanRefused(
                f"Redis {self.name} does not let us in: {printable(error)}. Correct the user and "
                "password of the connection, or that user's rights."
            ) from error
        except (RedisError, OSError) as error:
            raise Unusable(
                f"Redis {self.name} cannot be used: {printable(error)}. Check that it runs and the "
                "connection's address."
            ) from error

    def _layout(self) -> object:
        """What a scan relies on staying as it is."""
        servers = self.servers()
        if not isinstance(self.client, RedisCluster):
            return servers
        slots: Any = self.client.cluster_slots()
        return servers, sorted((slot, node["primary"]) for slot, node in slots.items())

    def _info(self, section: str) -> list[dict[str, Any]]:
        client: Any = self.client
        with self.reaching():
            if isinstance(client, RedisCluster):
                nodes: list[Any] = client.get_primaries()
                return [client.info(section, target_nodes=node) for node in nodes]
            return [client.info(section)]

    def _number(self) -> int:
        if isinstance(self.client, RedisCluster):
            return 0
        return int(self.client.connection_pool.connection_kwargs.get("db") or 0)
