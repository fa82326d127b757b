"""Whole runs of the project's DAGs: the real task runner, on moto's S3."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dagbundle import DagBundleModel
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.db import initdb
from airflow.utils.session import create_session

from docs.generate import load_dags
from tests.integration.dag_runs import connection, run_dag
from tests.integration.sync_runs import Syncs, make_syncs, three_of


@pytest.fixture(scope="session")
def dags() -> dict[str, DAG]:
    """The project's DAGs, known to an Airflow database of this test session."""
    initdb()
    found = load_dags()
    with create_session() as session:
        session.merge(DagBundleModel(name="testing"))
        session.flush()
        for dag in found.values():
            lazy = LazyDeserializedDAG.from_dag(dag)
            SerializedDAG.bulk_write_to_db("testing", None, [lazy], session=session)
            SerializedDagModel.write_dag(lazy, bundle_name="testing", session=session)
    return found


@pytest.fixture(scope="session")
def defaults(dags: dict[str, DAG]) -> dict[str, dict[str, Any]]:
    """The parameters' defaults of each DAG."""
    return {dag_id: dag.params.dump() for dag_id, dag in dags.items()}


@dataclass
class Pyramids:
    """Three buckets, and what a run of `pyramid_tiff` makes of them."""

    client: Any
    dag: DAG
    work: Path
    source: str
    process: str
    image: str
    defaults: dict[str, Any]

    def upload(self, key: str, data: bytes, **note: str) -> None:
        """Put a picture into the source bucket, and the note that its upload would have made."""
        self.put(key, data)
        folder, _, name = key.rpartition("/")
        text = {"key": key, "path": f"{folder}/"} | note
        self.put_note(f"rbsc/{name.rpartition('.')[0]}.json", json.dumps(text).encode())

    def put(self, key: str, data: bytes) -> None:
        """Put a picture into the source bucket, without a note."""
        self.client.put_object(Bucket=self.source, Key=key, Body=data)

    def put_note(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.process, Key=key, Body=data)

    def run(self, **conf: Any) -> tuple[str, dict[str, dict[str, Any]]]:
        """Run the DAG; its state, and the outcome of each key."""
        where = {
            "source_bucket": self.source,
            "process_bucket": self.process,
            "image_bucket": self.image,
        }
        ran = run_dag(self.dag, self.work, self.defaults | where | conf)
        self.folder = ran.folder
        return ran.state, ran.outcomes

    def keys(self, bucket: str) -> set[str]:
        listing = self.client.list_objects_v2(Bucket=bucket)
        return {entry["Key"] for entry in listing.get("Contents", ())}

    def result(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.image, Key=key)["Body"].read()

    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_text())


@pytest.fixture
def pyramids(
    dags: dict[str, DAG],
    defaults: dict[str, dict[str, Any]],
    s3_client: Any,
    s3_endpoint: str,
    new_bucket: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Pyramids:
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_S3", connection(s3_endpoint))
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", f"file://{tmp_path}/work")
    return Pyramids(
        s3_client,
        dags["pyramid_tiff"],
        tmp_path / "work",
        new_bucket("source"),
        new_bucket("process"),
        new_bucket("image"),
        defaults["pyramid_tiff"],
    )


@pytest.fixture
def new_syncs(
    dags: dict[str, DAG],
    defaults: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[[str], Syncs]:
    """Makes runs of the syncs, on the server of an endpoint."""
    return lambda endpoint: make_syncs(endpoint, dags, defaults, tmp_path, monkeypatch, capfd)


@pytest.fixture
def syncs(new_syncs: Callable[[str], Syncs], s3_endpoint: str) -> Syncs:
    """Runs of the syncs, on moto."""
    return new_syncs(s3_endpoint)


@pytest.fixture(params=["s3_endpoint", "rclone_endpoint"], ids=["moto", "rclone"])
def any_syncs(new_syncs: Callable[[str], Syncs], request: pytest.FixtureRequest) -> Syncs:
    """Runs of the syncs, on either server."""
    return new_syncs(request.getfixturevalue(request.param))


@pytest.fixture
def three(syncs: Syncs) -> Syncs:
    """One picture that is new, one that is modified, one that is to go; and one that is as is."""
    return three_of(syncs)


@pytest.fixture
def any_three(any_syncs: Syncs) -> Syncs:
    """The same, on either server."""
    return three_of(any_syncs)
