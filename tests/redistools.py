"""What the tests of Redis share."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis

from devstack.redisserver import RedisServer
from imagecore.redisdb import Database

NewRedis = Callable[..., RedisServer]


def client_of(server: RedisServer, db: int = 0, **options: Any) -> redis.Redis:
    """A client of a server."""
    return redis.Redis(host="127.0.0.1", port=server.port, db=db, **options)


def database(client: Any, name: str = "redis_test") -> Database:
    """A client as the core takes it."""
    return Database(client, name)


@contextmanager
def damaging(port: int, old: bytes, new: bytes) -> Iterator[int]:
    """The port of a wire to a server on which `old` becomes `new`, on the way back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def forward(source: socket.socket, target: socket.socket, damage: bool) -> None:
        while data := source.recv(2**20):
            target.sendall(data.replace(old, new) if damage else data)

    def serve() -> None:
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            for way in ((client, server, False), (server, client, True)):
                threading.Thread(target=forward, args=way, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
