"""What holds for the project as a whole."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_requirements_are_those_of_the_lock():
    export = [
        "export",
        "--frozen",
        "--offline",
        "--no-dev",
        "--no-emit-project",
        "--no-header",
        "--quiet",
    ]
    done = subprocess.run(
        [Path(sys.executable).with_name("uv"), *export], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (ROOT / "requirements.txt").read_text() == done.stdout, "run `make lock`"


@pytest.mark.parametrize("module", ["airflow.sdk", "imageflows.params"])
def test_the_core_may_not_import_airflow(module):
    """Ruff's banned-api holds it; this shows that it does."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--stdin-filename",
            "include/imagecore/new.py",
            "-",
        ],
        cwd=ROOT,
        input=f"import {module}\n",
        capture_output=True,
        text=True,
    )
    assert "banned-api" in done.stdout
