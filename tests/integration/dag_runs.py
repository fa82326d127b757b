"""One run of a DAG by Airflow's real task runner, and what came of it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.sdk import DAG
from jsonschema import Draft202012Validator

from imagecore.workstore import run_folder


@dataclass
class Ran:
    """A run that ended: its state, its folder in the work store, and the outcome of each key."""

    state: str
    run_id: str
    folder: Path
    outcomes: dict[str, dict[str, Any]]


def run_dag(dag: DAG, work: Path, conf: dict[str, Any], **options: Any) -> Ran:
    """Run a DAG, with all of its parameters: DAG.test leaves a run's behind for the next one.

    Without what DAG.test spends most of its time on: parsing all DAGs again, holding the schemas
    of their parameters (not the values) against JSON Schema at every look, and waiting.
    """
    with (
        patch.object(DagBundlesManager, "get_all_dag_bundles", return_value=[]),  # parsed anew
        patch.object(Draft202012Validator, "check_schema"),  # done when the DAGs were loaded
        patch("time.sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.01))),
    ):
        run = dag.test(run_conf=conf, **options)
    folder = work / run_folder(dag.dag_id, run.run_id)
    try:
        lines = (folder / "outcomes.jsonl").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    outcomes = {(outcome := json.loads(line))["key"]: outcome for line in lines}
    return Ran(str(run.state), run.run_id, folder, outcomes)


def connection(endpoint: str) -> str:
    """An Airflow connection to an S3 server, as its environment variable holds it."""
    extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    return json.dumps({"conn_type": "aws", "login": "test", "password": "test", "extra": extra})
