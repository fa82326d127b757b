"""The page as Airflow's API server serves it, and runs with pictures for it to show.

A test module has the fixtures with `pytest_plugins = ("tests.webapp",)`.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow.api_fastapi.app import create_app, get_auth_manager, purge_cached_app
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.utils.db import initdb
from PIL import Image
from skimage import data
from starlette.testclient import TestClient

from imagecore.manifest import Item, read_batch, write_manifest
from imagecore.outcome import Outcome, OutcomeLog, State, now
from imagecore.pyramid import make_pyramid
from imagecore.recipe import PRESETS
from imagecore.report import make_report, write_json
from imagecore.workstore import WorkStore, run_folder
from imageflows.web import runs
from imageflows_plugin import PREFIX
from tests.integration.dag_runs import connection

ROLES = ("viewer", "user", "op", "admin")
DAG, RUN = "pyramid_tiff", "manual__2026-11-21T05:30:00+00:00"
PLAN = "plan-1-cafe"
KEY, TARGET = "digital/coffee.png", "digital/coffee.tif"


class Web:
    """The page, asked by a user of a role; by nobody where that is empty."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self._tokens = {role: self.token(role) for role in ROLES}

    @staticmethod
    def token(role: str, **options: Any) -> str:
        """What someone of that role has after signing in."""
        user = SimpleAuthManagerUser(username=role, role=role)
        token: str = get_auth_manager().generate_jwt(user, **options)
        return token

    def headers(self, role: str) -> dict[str, str]:
        """Of a request by someone of that role."""
        return {"Authorization": f"Bearer {self._tokens[role]}"} if role else {}

    def ask(
        self,
        path: str,
        /,
        by: str = "viewer",
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> httpx.Response:
        """The answer to a request for an address of the page."""
        asked = self.headers(by) | (headers or {})
        address = f"{PREFIX}{path}"
        return self.client.request(method, address, params=query or None, headers=asked)

    def json(self, path: str, /, by: str = "viewer", **query: Any) -> Any:
        """What an address answers that has something to say."""
        answer = self.ask(path, by, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="session")
def web() -> Iterator[Web]:
    """Airflow's real API server with the plugin, in this process."""
    initdb()
    with pytest.MonkeyPatch.context() as patch:
        users = ",".join(f"{role}:{role}" for role in ROLES)
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", users)
        purge_cached_app()
        app = create_app(apps="core")
        with TestClient(app, raise_server_exceptions=False) as client:
            yield Web(client)
        purge_cached_app()


def write_run(
    store: WorkStore,
    items: Iterable[Item],
    outcomes: Iterable[Outcome] = (),
    *,
    dag_id: str = DAG,
    run_id: str = RUN,
    removals: Iterable[Item] = (),
    reported: bool = True,
    size: int = 2,
    **plan: Any,
) -> str:
    """A run as its tasks leave it, reported or still at work; its folder. `plan` is what plan.json
    has besides; a batch has `size` items."""
    run = run_folder(dag_id, run_id)
    folder = f"{run}/{PLAN}"
    transfers = write_manifest(items, store, f"{folder}/manifest.jsonl", lambda count: size)[1]
    removed = write_manifest(
        removals, store, f"{folder}/removals.jsonl", lambda count: size, "removals-"
    )[1]
    batches = [*transfers, *removed]
    document = {
        "dag_id": dag_id,
        "run_id": run_id,
        "at": now(),
        "mode": "copy",
        "planned": sum(batch.count for batch in batches),
        "batches": [asdict(batch) for batch in transfers],
        "removals": [asdict(batch) for batch in removed],
        "params": {},
        "remarks": 0,
        "first_remarks": [],
        **plan,
    }
    write_json(store, f"{folder}/plan.json", document)
    recorded = {outcome.key: outcome for outcome in outcomes}
    for batch in batches:
        log = OutcomeLog(store, f"{folder}/outcomes/{batch.batch_id}")
        for item in read_batch(store, f"{folder}/{batch.uri.rpartition('/')[2]}", batch):
            if item["key"] in recorded:
                log.record(recorded[item["key"]])
        if reported:
            log.finish()
    if reported:
        report = make_report(store, batches, run, folder).as_json()
        kept = {name: document[name] for name in ("dag_id", "run_id", "mode", "remarks")}
        more = {"plan": store.uri(folder), "run_again": []}
        write_json(store, f"{run}/report.json", kept | report | more)
    return run


def ended(key: str, state: State = State.DONE, reason: str = "", **detail: Any) -> Outcome:
    """An outcome."""
    return Outcome(key, state, reason, 0.5, now(), detail)


@dataclass
class Gallery:
    """The buckets of the pyramids, as the settings name them, and runs over what lies in them."""

    client: Any
    store: WorkStore
    source: str
    image: str

    def params(self, **more: Any) -> dict[str, Any]:
        """Of a run of `pyramid_tiff`."""
        buckets = {"source_bucket": self.source, "image_bucket": self.image}
        return {"aws_conn_id": "imageflows_s3", **buckets, **more}

    def put(self, key: str, body: bytes, bucket: str = "", **more: Any) -> None:
        """Put an object into a bucket, the source's unless another is named."""
        self.client.put_object(Bucket=bucket or self.source, Key=key, Body=body, **more)

    def show(self, *keys: str, dag_id: str = DAG, **plan: Any) -> dict[str, str]:
        """A run that quarantined these pictures of the source: its DAG and name, for a query."""
        outcomes = [ended(key, State.QUARANTINED, "unreadable") for key in keys]
        plan = {"params": self.params(), **plan}
        write_run(self.store, [{"key": key} for key in keys], outcomes, dag_id=dag_id, **plan)
        return {"dag_id": dag_id, "run_id": RUN}

    def pyramid_run(self, dag_id: str = DAG, run_id: str = RUN, **plan: Any) -> dict[str, str]:
        """A run that made a pyramid of a photograph, with a list and a contact sheet."""
        self.put(KEY, photograph())
        self.put(TARGET, pyramid(), self.image)
        outcomes = [ended(KEY, target=TARGET, bytes=len(pyramid()))]
        plan = {"params": self.params(), **plan}
        run = write_run(self.store, [{"key": KEY}], outcomes, dag_id=dag_id, run_id=run_id, **plan)
        self.store.put(f"{run}/success.txt", f"{dag_id}\n".encode())
        self.store.put(f"{run}/contact_sheet/front-1.jpg", photograph("JPEG"))
        return {"dag_id": dag_id, "run_id": run_id}


@pytest.fixture
def gallery(
    work_store: WorkStore,
    s3_client: Any,
    s3_endpoint: str,
    new_bucket: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Gallery:
    """Empty buckets of their own, as the settings name them."""
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_S3", connection(s3_endpoint))
    runs._found.cache_clear()
    made = Gallery(s3_client, work_store, new_bucket("source"), new_bucket("image"))
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__PYRAMID_SOURCE_BUCKET", made.source)
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__PYRAMID_IMAGE_BUCKET", made.image)
    return made


@cache
def photograph(kind: str = "PNG", **options: Any) -> bytes:
    """The coffee cup, 600 x 400 pixels, as a file."""
    file = io.BytesIO()
    Image.fromarray(data.coffee()).save(file, kind, **options)
    return file.getvalue()


@cache
def pyramid() -> bytes:
    """A pyramid of the coffee cup, as the project makes it, with tiles of 128 pixels."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "coffee.png"), Path(folder, "coffee.tif")
        source.write_bytes(photograph())
        make_pyramid(source, target, replace(PRESETS["lossless"], tile=128))
        return target.read_bytes()
