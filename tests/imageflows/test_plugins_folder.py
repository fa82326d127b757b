"""Airflow executes every file below plugins/ that its ignore file does not name."""

from pathlib import Path

from airflow._shared.module_loading import find_path_from_directory

ROOT = Path(__file__).resolve().parents[2]


def test_only_files_named_plugin_are_executed_by_the_loader():
    found = find_path_from_directory(str(ROOT / "plugins"), ".airflowignore", "glob")
    executed = {Path(path).name for path in found if path.endswith(".py")}
    assert all(name.endswith("_plugin.py") for name in executed), executed
