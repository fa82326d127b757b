"""Real Redis servers for tests: one, a second one, ones to harm, and a cluster.

A test module has them with `pytest_plugins = ("tests.redisfixtures",)`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.cluster import RedisCluster

from devstack.redisserver import RedisServer, start_redis
from tests.redistools import NewRedis, client_of

SLOTS = 16_384


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that do it no harm."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A second one."""
    server = start_redis(tmp_path_factory.mktemp("other-redis"))
    yield server
    server.stop()


@pytest.fixture
def source(redis_server: RedisServer) -> redis.Redis:
    """An empty database."""
    client = client_of(redis_server)
    client.flushall()
    return client


@pytest.fixture
def target(other_server: RedisServer) -> redis.Redis:
    """An empty database of the second server."""
    client = client_of(other_server)
    client.flushall()
    return client


@pytest.fixture
def new_redis(tmp_path: Path) -> Iterator[NewRedis]:
    """Starts servers that a test may harm."""
    servers: list[RedisServer] = []

    def make(*options: str, folder: str = "redis", port: int | None = None) -> RedisServer:
        servers.append(start_redis(tmp_path / folder, *options, port=port))
        return servers[-1]

    yield make
    for server in reversed(servers):  # a primary waits for its replicas
        server.stop()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster of three servers, each with a third of the keys."""
    options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
    servers = [start_redis(tmp_path_factory.mktemp("node"), *options) for _ in range(3)]
    clients = [client_of(server) for server in servers]
    for number, client in enumerate(clients):
        first, end = SLOTS * number // 3, SLOTS * (number + 1) // 3
        client.execute_command("CLUSTER", "ADDSLOTS", *range(first, end))
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
    deadline = time.monotonic() + 30
    while not all(_whole(client) for client in clients):
        assert time.monotonic() < deadline, "the cluster does not come up"
        time.sleep(0.1)
    yield RedisCluster(host="127.0.0.1", port=servers[0].port)
    for server in servers:
        server.stop()


def _whole(client: redis.Redis) -> bool:
    state = client.execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in state and len(client.cluster("NODES")) == 3
