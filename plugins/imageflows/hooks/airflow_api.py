"""Airflow's own REST API, as far as clearing what failed needs it. (Tasks cannot reach its
database.)"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import BaseHook

from imagecore.errors import InfrastructureError, PlanRefused
from imagecore.text import printable

if TYPE_CHECKING:
    from airflow_client.client import ApiClient
    from airflow_client.client.models.dag_response import DAGResponse
    from airflow_client.client.models.dag_run_response import DAGRunResponse
    from airflow_client.client.models.task_instance_response import TaskInstanceResponse

PAGE = 100
"""Airflow's own limit for a page, [api] maximum_page_limit."""

SECONDS = 60.0
"""For one request."""

TRIES = 5
"""Requests at most for one call. On SQLite Airflow 3.3.2 now and then answers 500 ("database is
locked")."""

T = TypeVar("T")


class AirflowApiHook(BaseHook):
    """Airflow's REST API through an Airflow connection.

    The connection, of type `http`: `host` (with `schema` https or http, and `port`, or as a whole
    address) of the API server; `login` and `password` of a user who may clear runs. Without a
    login Airflow has to let everybody in, as that of `make up` does. Extra `ca_file`: a file on
    the workers with the authority of the server's certificate, which is always checked.

    Every method raises PlanRefused when Airflow does not allow it, and InfrastructureError when
    it does not answer.

    :param airflow_api_conn_id: the connection.
    """

    conn_name_attr = "airflow_api_conn_id"

    def __init__(self, airflow_api_conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.airflow_api_conn_id = airflow_api_conn_id
        self._conn: ApiClient | None = None

    def get_conn(self) -> ApiClient:
        """A client that is logged in."""
        if self._conn is None:
            from airflow.sdk.exceptions import AirflowNotFoundException

            try:
                connection = self.get_connection(self.airflow_api_conn_id)
            except AirflowNotFoundException as error:
                raise PlanRefused(
                    f"There is no connection {self.airflow_api_conn_id}: make one of type http, "
                    "with the address of Airflow's API and a login (docs/INSTALL.md), or name "
                    "another one in [imageflows] airflow_api_conn_id."
                ) from error
            self._conn = self._logged_in(connection)
        return self._conn

    def dag(self, dag_id: str) -> DAGResponse | None:
        """A DAG, or None."""
        from airflow_client.client.api.dag_api import DAGApi

        api = DAGApi(self.get_conn())
        return self._found(lambda: api.get_dag(dag_id, _request_timeout=SECONDS))

    def dags(self, tag: str) -> list[DAGResponse]:
        """Every DAG with a tag."""
        from airflow_client.client.api.dag_api import DAGApi

        api, found = DAGApi(self.get_conn()), list[Any]()
        while True:
            with self._asking():
                page = api.get_dags(
                    limit=PAGE, offset=len(found), tags=[tag], _request_timeout=SECONDS
                )
            found += page.dags
            if not page.dags or len(found) >= page.total_entries:
                return found

    def run(self, dag_id: str, run_id: str) -> DAGRunResponse | None:
        """A run, or None."""
        from airflow_client.client.api.dag_run_api import DagRunApi

        api = DagRunApi(self.get_conn())
        return self._found(lambda: api.get_dag_run(dag_id, run_id, _request_timeout=SECONDS))

    def failed_runs(
        self, dag_ids: list[str], begin: datetime, end: datetime, limit: int
    ) -> tuple[list[DAGRunResponse], int]:
        """Failed runs that were due (or, by hand, were started) from `begin` to before `end`.

        Returns:
            The first `limit` of them, oldest first, and how many there are.
        """
        from airflow_client.client.api.dag_run_api import DagRunApi
        from airflow_client.client.models.dag_run_state import DagRunState
        from airflow_client.client.models.dag_runs_batch_body import DAGRunsBatchBody

        api, found = DagRunApi(self.get_conn()), list[Any]()
        while True:
            asked = DAGRunsBatchBody(
                dag_ids=dag_ids,
                states=[DagRunState.FAILED],
                run_after_gte=begin,
                run_after_lt=end,
                order_by="run_after",
                page_limit=min(PAGE, limit - len(found)),
                page_offset=len(found),
            )
            with self._asking():
                page = api.get_list_dag_runs_batch("~", asked, _request_timeout=SECONDS)
            found += page.dag_runs
            total = page.total_entries or 0
            if not page.dag_runs or len(found) >= min(limit, total):
                return found, total

    def clear_failed(
        self, dag_id: str, run_id: str, *, dry_run: bool
    ) -> list[TaskInstanceResponse]:
        """Clear the instances of a run that failed, or that did not run because of those.

        Returns:
            Those, as they are now; with `dry_run` nothing is cleared.
        """
        from airflow_client.client.api.task_instance_api import TaskInstanceApi
        from airflow_client.client.models.clear_task_instances_body import ClearTaskInstancesBody

        api = TaskInstanceApi(self.get_conn())
        body = ClearTaskInstancesBody(dry_run=dry_run, dag_run_id=run_id, only_failed=True)
        with self._asking():
            answer = api.post_clear_task_instances(dag_id, body, _request_timeout=SECONDS)
        return list(answer.task_instances)

    def _logged_in(self, connection: Any) -> ApiClient:
        import urllib3
        from airflow_client.client import ApiClient, Configuration

        address = connection.host or ""
        if "://" not in address:
            port = f":{connection.port}" if connection.port else ""
            address = f"{connection.schema or 'http'}://{address}{port}"
        again = urllib3.Retry(
            total=TRIES - 1,
            status_forcelist=[500, 502, 503, 504],
            allowed_methods=None,
            backoff_factor=0.5,
        )
        client = ApiClient(
            Configuration(
                host=address.rstrip("/"),
                ssl_ca_cert=connection.extra_dejson.get("ca_file"),
                retries=again,
            )
        )
        client.configuration.access_token = self._token(client, connection)
        return client

    def _token(self, client: ApiClient, connection: Any) -> str:
        login = {"username": connection.login, "password": connection.password or ""}
        method, body = ("POST", login) if connection.login else ("GET", None)
        with self._asking(client):
            answer = client.rest_client.request(
                method,
                f"{client.configuration.host}/auth/token",
                headers={"Content-Type": "application/json"},
                body=body,
                _request_timeout=SECONDS,
            )
            text = answer.read()
            if answer.status >= 400:
                raise self._refused(answer.status, text, client)
            return str(json.loads(text)["access_token"])

    def _found(self, ask: Callable[[], T]) -> T | None:
        """What is asked for, or None where there is no such thing."""
        from airflow_client.client.exceptions import NotFoundException

        with self._asking():
            try:
                return ask()
            except NotFoundException:
                return None

    @contextmanager
    def _asking(self, client: ApiClient | None = None) -> Iterator[None]:
        from airflow_client.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        client = client or self.get_conn()
        try:
            yield
        except ApiException as error:
            raise self._refused(error.status or 0, error.body or error.reason, client) from None
        except HTTPError as error:
            raise InfrastructureError(
                f"Airflow's API does not answer at {client.configuration.host} "
                f"({printable(error, 300)}). Check the connection {self.airflow_api_conn_id} and "
                "the API server."
            ) from None
        except (ValueError, KeyError, TypeError) as error:  # pydantic's errors are ValueErrors
            raise PlanRefused(
                f"What answers at {client.configuration.host} is not Airflow's API "
                f"({printable(error, 300)}). Correct the connection {self.airflow_api_conn_id}."
            ) from None

    def _refused(self, status: int, body: Any, client: ApiClient) -> Exception:
        """The error of an answer; its text is Airflow's, and has no password in it."""
        where, conn = client.configuration.host, self.airflow_api_conn_id
        says = printable(_detail(body), 300)
        if status == 401:
            return PlanRefused(
                f"Airflow at {where} does not know the login of the connection {conn} "
                f"(401: {says}). Correct its login and password."
            )
        if status == 403:
            return PlanRefused(
                f"Airflow at {where} does not allow this to the login of the connection {conn} "
                f"(403: {says}). Give it a user who may read DAGs and clear runs."
            )
        if status == 429 or status >= 500:
            return InfrastructureError(f"Airflow at {where} answers {status}: {says}.")
        return PlanRefused(
            f"Airflow at {where} answers {status}: {says}. Check the connection {conn}."
        )


def _detail(body: Any) -> Any:
    try:
        return json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace") if isinstance(body, bytes) else body
