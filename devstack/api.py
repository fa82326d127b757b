"""Airflow's REST API, as far as starting and following a run needs it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from time import sleep
from typing import Any
from urllib.parse import quote

import httpx

from devstack.errors import DevstackError, UsageError

TRIES = 5
PAGE = 100
"""Airflow's own limit for a page, [api] maximum_page_limit."""


@dataclass(frozen=True)
class TaskInstance:
    """One task of a run, or one mapped instance of it."""

    task_id: str
    map_index: int
    state: str
    label: str
    try_number: int


class Api:
    """A session with an Airflow that lets everybody in as admin.

    Every method raises DevstackError when Airflow cannot be reached or answers with an error.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60, trust_env=False)
        token = self._call("GET", "/auth/token")["access_token"]
        self._client.headers["Authorization"] = f"Bearer {token}"

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        """A DAG that Airflow has parsed, or None."""
        answer = self._request("GET", _dag(dag_id))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        found: dict[str, Any] = self._json(answer)
        return None if found["is_stale"] else found

    def dag_ids(self) -> list[str]:
        """Every DAG there is."""
        return sorted(dag["dag_id"] for dag in self._all("/api/v2/dags", "dags"))

    def import_errors(self) -> list[tuple[str, str]]:
        """DAG files that cannot be imported, each with the end of its traceback."""
        errors = self._all("/api/v2/importErrors", "import_errors")
        return [
            (str(error["filename"]), error["stack_trace"].strip().splitlines()[-1])
            for error in errors
        ]

    def unpause(self, dag_id: str) -> None:
        """Let the DAG's runs start."""
        self._call(
            "PATCH", _dag(dag_id), params={"update_mask": "is_paused"}, json={"is_paused": False}
        )

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a run that stands for no date; returns its run id.

        Raises:
            UsageError: the DAG's params do not allow the conf.
        """
        run_id = f"manual__{datetime.now(timezone.utc).isoformat()}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        answer = self._request("POST", f"{_dag(dag_id)}/dagRuns", json=body)
        if answer.status_code in {httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY}:
            raise UsageError(f"{dag_id} cannot be run with this conf. {_detail(answer)}")
        if answer.status_code != httpx.codes.CONFLICT:  # made by a try that got no answer
            self._json(answer)
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """queued, running, success or failed."""
        return str(self._call("GET", _run(dag_id, run_id))["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Every task instance of a run."""
        rows = self._all(f"{_run(dag_id, run_id)}/taskInstances", "task_instances")
        return [
            TaskInstance(
                row["task_id"],
                row["map_index"],
                row["state"] or "waiting",
                row["rendered_map_index"] or "",
                row["try_number"],
            )
            for row in rows
        ]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str) -> Any:
        """A value a task pushed, or None when there is none."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}"
        answer = self._request("GET", path, params={"stringify": False})
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        return self._json(answer)["value"]

    def messages(self, *, with_run: bool = False) -> list[str]:
        """The bodies of all messages that watchers of queues have taken, or of those that have
        started a run."""
        batches = [
            (event["extra"].get("payload") or {}).get("message_batch", ())
            for event in self._all("/api/v2/assets/events", "asset_events")
            if event["created_dagruns"] or not with_run
        ]
        return [message["Body"] for batch in batches for message in batch]

    def _all(self, path: str, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while True:
            page = self._call("GET", path, params={"limit": PAGE, "offset": len(rows)})
            rows += page[name]
            if not page[name] or len(rows) >= page["total_entries"]:
                return rows

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        return self._json(self._request(method, path, **arguments))

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Ask, and ask again when the server had an error.

        On SQLite Airflow 3.3.2 now and then answers 500 after five seconds ("database is locked"):
        it writes its audit log on the event loop, where another request's commit waits for it.
        """
        try:
            for _ in range(TRIES - 1):
                answer = self._client.request(method, path, **arguments)
                if not answer.is_server_error:
                    return answer
                sleep(1)
            return self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise DevstackError(
                f"Airflow does not answer at {self._client.base_url} ({error}). See the logs, "
                "or start afresh with `make down` and `make up`."
            ) from error

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.is_error:
            request = answer.request
            raise DevstackError(
                f"Airflow answers {answer.status_code} to {request.method} {request.url.path}: "
                f"{_detail(answer)}"
            )
        document: dict[str, Any] = answer.json()
        return document


def _dag(dag_id: str) -> str:
    return f"/api/v2/dags/{quote(dag_id, safe='')}"


def _run(dag_id: str, run_id: str) -> str:
    return f"{_dag(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return answer.text.strip() or answer.reason_phrase
    return detail if isinstance(detail, str) else str(detail)
