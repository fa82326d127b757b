"""What all tests share: an Airflow home of their own, a work store, and a real S3 over HTTP."""

import atexit
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]


def _own_airflow() -> None:
    """Before anything imports Airflow: nothing of the machine's own installation may count."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    home = tempfile.mkdtemp(prefix="imageflows-tests-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ |= {
        "AIRFLOW_HOME": home,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("include", "plugins")),
    }


_own_airflow()
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
sys.path[:0] = [str(ROOT / "include"), str(ROOT / "plugins"), str(ROOT)]

# These imports come after the environment is set.
from imagecore.workstore import WorkStore, local_work_store  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where IMAGEFLOWS_NO_SKIPS is set, a skipped test is a failure: something is not installed."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("IMAGEFLOWS_NO_SKIPS"):
        terminalreporter.write_line(f"{len(skipped)} tests were skipped, and none may be", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        os.environ.get("IMAGEFLOWS_NO_SKIPS")
        and reporter is not None
        and reporter.stats.get("skipped")
        and session.exitstatus == pytest.ExitCode.OK
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def work_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkStore:
    """An empty work store, which is also the one the operators use."""
    url = f"file://{tmp_path}/work"
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", url)
    return local_work_store(url)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """moto's S3 server, spoken to over HTTP."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str):
    """A boto3 client of `s3_endpoint`."""
    from devstack.samples import client

    return client(s3_endpoint)


@pytest.fixture(scope="session")
def rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A second S3 server, wrong in other ways than moto: it ignores conditions, for instance."""
    import httpx

    from devstack.processes import free_port

    port = free_port(5700 + os.getpid() % 200)
    folder = tmp_path_factory.mktemp("rclone")
    command = [Path(sys.executable).with_name("rclone"), "serve", "s3", folder]
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", "test,test", "--config", os.devnull]
    options += ["--no-unicode-normalization"]  # or it finds "é" where only "e" and an accent is
    server = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    try:
        while True:
            try:
                httpx.get(url)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, "rclone does not answer"
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def new_bucket(s3_client, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes an empty bucket with a name of its own, from a role such as `source`."""
    import uuid

    def make(role: str) -> str:
        name = f"{role}-{uuid.uuid4().hex[:12]}"
        s3_client.create_bucket(Bucket=name)
        return name

    return make
