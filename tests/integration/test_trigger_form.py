"""The form that triggers a DAG: it opens, explains itself, and refuses what is wrong."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from devstack.environment import NOTES_QUEUE
from devstack.errors import UsageError
from devstack.events import make_queue, queue_url
from devstack.samples import aws
from docs.generate import load_dags
from docs.screenshots import NoBrowser, browser_page, open_form
from tests.integration.airflow_stack import AirflowStack, airflow_stack, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

DAGS = load_dags()
SCHEMAS = [
    pytest.param(dag_id, name, dag.params.get_param(name).schema, id=f"{dag_id}-{name}")
    for dag_id, dag in DAGS.items()
    for name in dag.params
]


@pytest.fixture(scope="module")
def stack(
    s3_endpoint: str, s3_client: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowStack]:
    make_queue(aws("sqs", s3_endpoint))
    settings = {NOTES_QUEUE: queue_url({"moto": urlsplit(s3_endpoint).port or 0})}
    folder = tmp_path_factory.mktemp("stack")
    with airflow_stack(folder, s3_endpoint, s3_client, **settings) as running:
        until(lambda: set(DAGS) <= set(running.api.dag_ids()))
        yield running


@pytest.fixture(scope="module")
def page(stack: AirflowStack) -> Iterator["Page"]:
    try:
        with browser_page(stack.state.url("airflow")) as opened:
            yield opened
    except NoBrowser as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("dag_id", DAGS)
def test_a_form_opens_ready_to_trigger_and_names_everything(page, dag_id):
    form = open_form(page, dag_id)
    assert form.get_by_role("button", name="Trigger").is_enabled()
    params = DAGS[dag_id].params
    schemas = [params.get_param(name).schema for name in params]
    for section in dict.fromkeys(schema["section"] for schema in schemas):
        form.get_by_role("button", name=section, exact=True).click()
        for schema in schemas:
            if schema["section"] == section:
                title = re.compile(rf"^{re.escape(schema['title'])}\s*\*?$")  # * is for required
                form.get_by_text(title).first.wait_for()
    assert form.get_by_role("button", name="Trigger").is_enabled()


def test_a_wrong_value_in_the_form_starts_no_run(stack, page):
    form = open_form(page, "pyramid_tiff")
    form.get_by_role("button", name="What to do", exact=True).click()
    form.locator("[name=element_manifest_uri]").fill("/etc/passwd")
    form.get_by_role("button", name="Trigger").click()
    page.get_by_text("Failed to Trigger Dag").first.wait_for()
    assert stack.runs("pyramid_tiff") == {}


def wrong_values(schema: dict[str, Any]) -> list[Any]:
    """Values of another type than the schema's, outside of its choice, and beyond its limits."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    values: dict[str, Any] = {
        "string": "some text", "integer": 7, "number": 7.5, "boolean": True, "null": None,
        "array": ["a"], "object": {"a": 1},
    }  # fmt: skip
    wrong = [value for kind, value in values.items() if kind not in kinds]
    if "number" in kinds:
        wrong = [value for value in wrong if value != 7]
    if "enum" in schema:
        wrong.append("none of these")
    if "pattern" in schema:
        wrong.append("/x")
    if "format" in schema:
        wrong.append("yesterday")
    if schema.get("minLength"):
        wrong.append("")
    for limit, step in (("minimum", -1), ("maximum", 1)):
        if limit in schema:
            wrong.append(schema[limit] + step)
    return wrong


@pytest.mark.parametrize(("dag_id", "name", "schema"), SCHEMAS)
def test_a_wrong_value_by_the_api_starts_no_run(stack, dag_id, name, schema):
    for value in wrong_values(schema):
        with pytest.raises(UsageError, match=name):
            stack.api.trigger(dag_id, {name: value})
    assert stack.runs(dag_id) == {}
