"""What all tests share: an Airflow home of their own, a work store, and a real S3 over HTTP."""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _own_airflow() -> None:
    """Before anything imports Airflow: nothing of the machine's own installation may count."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    home = tempfile.mkdtemp(prefix="imageflows-tests-")
    os.environ |= {
        "AIRFLOW_HOME": home,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("include", "plugins")),
    }


_own_airflow()
sys.path[:0] = [str(ROOT / "include"), str(ROOT / "plugins"), str(ROOT)]

# These imports come after the environment is set.
from imagecore.workstore import WorkStore, local_work_store  # noqa: E402


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
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )


@pytest.fixture
def new_bucket(s3_client, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes an empty bucket with a name of its own, from a role such as `source`."""
    import uuid

    def make(role: str) -> str:
        name = f"{role}-{uuid.uuid4().hex[:12]}"
        s3_client.create_bucket(Bucket=name)
        return name

    return make
