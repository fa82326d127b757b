"""Writes docs/DAGS.md from the DAGs themselves: their docstrings, schedules and parameters.

python docs/generate.py           write it
python docs/generate.py --check   exit 1 when it is not as it would be written
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

if TYPE_CHECKING:
    from airflow.sdk import DAG

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "DAGS.md"
NEEDED = {
    "AIRFLOW__IMAGEFLOWS__PYRAMID_NOTES_QUEUE": "https://sqs.us-east-1.amazonaws.com/1/uploads",
}
"""Settings without which a file defines no DAG."""


def load_dags() -> dict[str, DAG]:
    """Every DAG of the project, as its file defines it with no setting of this machine."""
    from airflow.dag_processing.dagbag import DagBag

    with patch.dict(os.environ, NEEDED):
        bag = DagBag(ROOT / "dags", safe_mode=False)
    if bag.import_errors:
        raise SystemExit("\n".join(f"{file}: {error}" for file, error in bag.import_errors.items()))
    return dict(sorted(bag.dags.items()))


def page(dags: dict[str, DAG]) -> str:
    """The whole page."""
    head = [
        "# The DAGs",
        "",
        "Generated from the DAGs by `make docs`; the tests compare. Do not edit.",
    ]
    return "\n".join(head + [line for dag in dags.values() for line in section(dag)]) + "\n"


def section(dag: DAG) -> list[str]:
    """One DAG: its docstring without the title, its schedule, its parameters."""
    text = (dag.doc_md or "").strip()
    if text.startswith("### "):
        text = text.partition("\n")[2].strip()
    rows = [
        f"| `{name}` | `{param.value!r}` | {_cell(param.description)} |"
        for name, param in ((name, dag.params.get_param(name)) for name in dag.params)
    ]
    return [
        "",
        f"## {dag.dag_id}",
        "",
        f"Schedule: {schedule(dag)}",
        "",
        text.replace("\n#### ", "\n### "),
        "",
        "### Parameters",
        "",
        "| name | default | |",
        "|---|---|---|",
        *rows,
    ]


def schedule(dag: DAG) -> str:
    """A DAG's schedule in words."""
    if assets := getattr(dag.timetable, "asset_condition", None):
        names = ", ".join(f"`{asset.name}`" for asset in assets.objects)
        return f"when the asset {names} changes"
    cron = getattr(dag.timetable, "expression", None)
    if cron is None:
        return "by hand only"
    return f"`{cron}`, {getattr(dag.timetable, 'timezone', 'UTC')}"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


def main() -> int:
    with tempfile.TemporaryDirectory() as home:
        for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
            del os.environ[name]
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        sys.path.insert(0, str(ROOT / "plugins"))
        text = page(load_dags())
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        print(f"{PAGE.relative_to(ROOT)} is not what the DAGs say: run `make docs`.")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
