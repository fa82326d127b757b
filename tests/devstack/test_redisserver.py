"""The embedded Redis: a real server, on this machine only, that keeps what it was given."""

import psutil
import pytest

from devstack.errors import DevstackError, PortTaken
from devstack.processes import is_alive
from devstack.redisserver import start_redis
from tests.redistools import NewRedis, client_of

pytest_plugins = ("tests.redisfixtures",)


def test_it_listens_on_this_machine_only(redis_server):
    connections = psutil.Process(redis_server.process.pid).net_connections("tcp")
    listening = {c.laddr for c in connections if c.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", redis_server.port)}


def test_what_was_written_is_there_after_a_restart_and_in_its_folder(new_redis: NewRedis, tmp_path):
    server = new_redis(folder="state")
    client_of(server).set("k", b"\x00")
    server.stop()
    assert not is_alive(server.process)
    again = new_redis(folder="state", port=server.port)
    assert client_of(again).get("k") == b"\x00"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_port_that_is_taken_is_said_to_be(redis_server, tmp_path):
    with pytest.raises(PortTaken, match=f"Port {redis_server.port} is taken"):
        start_redis(tmp_path, port=redis_server.port)


def test_a_server_that_does_not_start_shows_its_log(tmp_path):
    with pytest.raises(DevstackError, match=r"(?s)does not start .* Its log ends:.*Bad directive"):
        start_redis(tmp_path, "--no-such-option", "1")
