"""What Airflow is told of the page "Images": where it is served, and where its UI shows it."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/imageflows"


def _view(name: str, destination: str, address: str, route: str, **more: Any) -> dict[str, Any]:
    """An address is relative, because Airflow may be served below a path of its own."""
    return {
        "name": name,
        "destination": destination,
        "href": f"{PREFIX[1:]}/{address}",
        "url_route": route,
        "icon": f"{PREFIX[1:]}/static/icon.svg",
        "icon_dark_mode": f"{PREFIX[1:]}/static/icon-dark.svg",
        **more,
    }


class ImageflowsPlugin(AirflowPlugin):
    """The page, in the navigation, and as a tab of a DAG, a run and a task."""

    name = "imageflows"
    external_views = [  # noqa: RUF012 -- as Airflow declares it
        _view("Images", "nav", "", "images", nav_top_level=True),
        _view("Images", "dag", "?dag_id={DAG_ID}", "images_dag"),
        _view("Images", "dag_run", "run?dag_id={DAG_ID}&run_id={RUN_ID}", "images_run"),
        _view(
            "Images",
            "task_instance",
            "run?dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}&map_index={MAP_INDEX}",
            "images_task",
        ),
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Asked for by the API server alone, so no worker imports the page."""
        from imageflows.web.app import app

        return [{"app": app, "url_prefix": PREFIX, "name": "imageflows"}]
