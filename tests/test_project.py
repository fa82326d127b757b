"""What holds for the project as a whole."""

import base64
import hashlib
import importlib
import re
import subprocess
import sys
from importlib.metadata import distribution
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
    exported = done.stdout.replace("\ncelery==", "\ncelery[redis]==")
    assert (ROOT / "requirements.txt").read_text() == exported, "run `make lock`"


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


def test_requirements_have_no_riak_and_leave_protobuf_whole():
    """PyPI's `riak` brings `python3-protobuf`, which writes over files of `google.protobuf`."""
    lock = (ROOT / "uv.lock").read_text()
    assert 'name = "protobuf"\n' in lock
    assert not re.search('name = "(riak|python3-protobuf)"\n', lock)
    importlib.import_module("google.protobuf.descriptor_pb2")
    files = [file for file in distribution("protobuf").files or () if file.hash]
    assert files
    for file in files:
        digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value, file
