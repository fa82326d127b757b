"""Who may see what of the page: Airflow's own sign-in and rights decide, on every address."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from airflow.api_fastapi.app import _AuthManagerState, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from fastapi.routing import APIRoute

from imageflows.web.app import PAGES, app
from tests.webapp import DAG, KEY, ROLES, RUN, Gallery, Web

pytest_plugins = ("tests.webapp",)

ROUTES = [route for route in app.routes if isinstance(route, APIRoute)]
ADDRESSES = [route.path.format(name="page.js") for route in ROUTES]
ABOUT_DAGS = [
    path for path in ADDRESSES if path.startswith("/api/") or path in {"/preview", "/tile"}
]
QUERY = {
    "/api/rows": {"list": "outcomes"},
    "/api/download": {"format": "csv"},
    "/api/file": {"name": "success.txt"},
    "/api/sheet": {"name": "front-1.jpg"},
    "/api/picture": {"key": KEY},
    "/preview": {"key": KEY, "role": "source"},
    "/tile": {"key": KEY, "role": "result", "level": 0, "column": 0, "row": 0},
}
"""What an address wants to be told besides the run."""
HTML = {"Accept": "text/html"}


class OneDagDenied(SimpleAuthManager):
    """Nobody may see one of the DAGs."""

    def is_authorized_dag(self, **asked: Any) -> bool:
        details = asked.get("details")
        return not (details and details.id == "denied") and super().is_authorized_dag(**asked)


@pytest.fixture
def one_denied(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_AuthManagerState, "instance", OneDagDenied())


def test_every_address_is_one_that_these_tests_know():
    assert all(route in ROUTES or not hasattr(route, "endpoint") for route in app.routes)
    pages = {f"/{path}" for path in PAGES}
    assert set(ADDRESSES) == pages | {"/static/page.js"} | set(ABOUT_DAGS)


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("headers", [{}, HTML], ids=["json", "html"])
def test_the_anonymous_are_refused(web: Web, gallery: Gallery, path: str, headers: dict[str, str]):
    run = gallery.pyramid_run()
    assert web.ask(path, "", headers=headers).status_code == 401
    answer = web.ask(path, "", headers=headers, **run, **QUERY.get(path, {}))
    assert answer.status_code == 401
    assert RUN not in answer.text


@pytest.mark.parametrize("page", PAGES)
def test_a_page_tells_the_anonymous_to_sign_in(web: Web, page: str):
    answer = web.ask(f"/{page}", "", headers={"Accept": "text/html,*/*;q=0.8"})
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert "Sign in to Airflow and load this page again" in answer.text


@pytest.mark.parametrize("path", ADDRESSES)
def test_a_viewer_may_read_everything(web: Web, gallery: Gallery, path: str):
    answer = web.ask(path, **gallery.pyramid_run(), **QUERY.get(path, {}))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("role", ROLES)
def test_what_a_user_may_do_is_what_airflows_own_api_lets_them(
    web: Web, gallery: Gallery, role: str
):
    may = web.json("/api/run", role, **gallery.pyramid_run())["may"]
    assert may == dict.fromkeys(["retry", "trigger"], role != "viewer")
    api, headers = "/api/v2/dags/no_such_dag", web.headers(role)
    clear = web.client.post(f"{api}/clearTaskInstances", json={"dry_run": False}, headers=headers)
    asked = {"logical_date": None, "conf": {}}
    trigger = web.client.post(f"{api}/dagRuns", json=asked, headers=headers)
    assert may == {"retry": clear.status_code != 403, "trigger": trigger.status_code != 403}


@pytest.mark.usefixtures("one_denied")
@pytest.mark.parametrize("path", ABOUT_DAGS)
def test_a_dag_that_a_user_may_not_see_is_refused(web: Web, gallery: Gallery, path: str):
    denied, allowed = gallery.pyramid_run("denied"), gallery.pyramid_run("allowed")
    answer = web.ask(path, "admin", **denied, **QUERY.get(path, {}))
    assert answer.status_code == 403
    assert answer.json() == {"detail": "Forbidden"}
    assert web.ask(path, "admin", **allowed, **QUERY.get(path, {})).status_code == 200


@pytest.mark.usefixtures("one_denied")
@pytest.mark.parametrize("path", ABOUT_DAGS)
@pytest.mark.parametrize("order", [("allowed", "denied"), ("denied", "allowed")])
def test_two_dags_in_one_address_open_neither_door(
    web: Web, gallery: Gallery, path: str, order: tuple[str, str]
):
    """What is asked of the auth manager is what is read: here the only run is a denied one."""
    run = gallery.pyramid_run("denied") | {"dag_id": order}
    answer = web.ask(path, "admin", **run, **QUERY.get(path, {}))
    if order[-1] == "denied":
        assert answer.status_code == 403
    else:  # a run that nobody knows, of the other DAG
        assert tells_nothing(answer)


def tells_nothing(answer: httpx.Response) -> bool:
    """Whether it is what is answered about a run that is not there."""
    if answer.status_code == 200:
        told = answer.json()
        if told and told.keys() == {"retry", "trigger"}:
            return True  # the user's rights, which say nothing of runs
        return told in (None, {RUN: None}) or told["plan"] is told["report"] is None
    return answer.status_code == 404


@pytest.mark.usefixtures("one_denied")
@pytest.mark.parametrize("dag_id", ["~", "", "denied ", " denied", "./denied", "denied/", "DENIED"])
def test_no_other_spelling_opens_the_door(web: Web, gallery: Gallery, dag_id: str):
    run = gallery.pyramid_run("denied") | {"dag_id": dag_id}
    for path in ABOUT_DAGS:
        answer = web.ask(path, "admin", **run, **QUERY.get(path, {}))
        assert tells_nothing(answer) if dag_id == "DENIED" else answer.status_code == 422


@pytest.mark.parametrize("path", ADDRESSES)
def test_a_token_that_is_over_or_somebody_elses_is_refused(web: Web, path: str):
    over = web.token("admin", expiration_time_in_seconds=-60)
    header, body, signature = web.token("admin").split(".")
    for token in (over, "x", f"{header}.{body}.{signature[::-1]}", f"{header}.{body}."):
        for headers in ({"Authorization": f"Bearer {token}"}, {"Cookie": f"_token={token}"}):
            answer = web.ask(path, "", headers=headers, dag_id=DAG, run_id=RUN)
            assert answer.status_code in {401, 403}, answer.text
    assert web.ask(path, "", headers={"Authorization": f"Bearer {over}"}).status_code == 401


def test_who_signed_in_with_the_browser_is_known_by_the_cookie(web: Web):
    password = get_auth_manager().get_passwords()["viewer"]
    token = web.client.post("/auth/token", json={"username": "viewer", "password": password})
    headers = {"Cookie": f"_token={token.json()['access_token']}"}
    assert web.ask("/", "", headers=headers).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ADDRESSES)
def test_nothing_is_changed_here_so_only_get_is_answered(web: Web, path: str, method: str):
    answer = web.ask(path, "admin", method=method, dag_id=DAG, run_id=RUN)
    assert answer.status_code == 405
    assert {*re.split(", *", answer.headers["allow"])} <= {"GET", "HEAD"}


@pytest.mark.parametrize("role", ["", "viewer"])
@pytest.mark.parametrize("path", [*ADDRESSES, "/nothing", "/static/nothing.js", "/static/app.py"])
def test_every_answer_is_one_that_a_browser_handles_with_care(
    web: Web, gallery: Gallery, path: str, role: str
):
    run = gallery.pyramid_run()
    asked = [run | QUERY.get(path, {}), {}, run | QUERY.get(path, {}) | {"run_id": "none"}]
    for query, headers in [(query, headers) for query in asked for headers in ({}, HTML)]:
        answer = web.ask(path, role, headers=headers, **query)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"].startswith("private, no-")
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert policy.startswith("default-src 'none'; ")
        if answer.headers["content-type"].startswith("text/html"):
            assert "script-src 'self'; " in policy
            assert "base-uri 'none'" in policy
        else:
            assert policy.endswith("frame-ancestors 'none'; sandbox")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_the_same_whatever_is_in_its_address(web: Web, page: str):
    plain = web.ask(f"/{page}")
    hostile = "<script>alert(1)</script>"
    names = ("text", "page", "path", "dag_id", "run_id", "key", "detail", hostile)
    answer = web.ask(f"/{page}", **dict.fromkeys(names, hostile))
    assert answer.text == plain.text
    assert answer.headers["content-type"] == plain.headers["content-type"]


def test_static_files_are_only_those_of_the_page(web: Web):
    for name in ("runs.html", "..%2fapp.py", "%2e%2e%2fapp.py", "../app.py", "page.js%00", "."):
        assert web.ask(f"/static/{name}").status_code in {404, 405}, name
    script = web.ask("/static/page.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    known = {"If-None-Match": script.headers["etag"]}
    assert web.ask("/static/page.js", headers=known).status_code == 304
    assert web.ask("/static/page.js", "", headers=known).status_code == 401
