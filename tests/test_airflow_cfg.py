"""airflow.cfg.example is what Airflow and this project read, no less and no more."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.airflowsettings import OURS, described, refuse_wrong_type

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "airflow.cfg.example"
SECRET = "/run/secrets/"


@pytest.fixture(scope="module")
def example() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(EXAMPLE)
    return parser


def test_airflow_knows_every_setting_under_this_name(example):
    for section in set(example.sections()) - {OURS}:
        for key, value in example[section].items():
            option = described(section, key)
            if not key.endswith("_cmd"):
                refuse_wrong_type(option, value)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("core", "dags_foldr"),
        ("webserver", "base_url"),  # [api] base_url since 3.0
        ("core", "dag_file_processor_timeout"),  # [dag_processor] since 3.0
        ("core", "executor_cmd"),  # no secret
    ],
)
def test_a_setting_that_airflow_does_not_know_is_found(section, key):
    with pytest.raises(AssertionError, match=f"{section}. {key}"):
        described(section, key)


def test_the_file_holds_no_secret(example):
    from airflow.configuration import conf

    for section, key in conf.sensitive_config_values:
        assert not example.get(section, key, fallback=""), f"[{section}] {key}"


def test_airflow_starts_with_the_file(example, tmp_path):
    """Read by Airflow itself: the secrets' commands run, and its own check finds nothing to say."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    text = EXAMPLE.read_text().replace(SECRET, f"{secrets}/")
    for name in re.findall(f"cat {re.escape(SECRET)}(\\w+)", EXAMPLE.read_text()):
        (secrets / name).write_text(f"value of {name}")
    (secrets / "sql_alchemy_conn").write_text(f"sqlite:///{tmp_path}/airflow.db")
    config = tmp_path / "airflow.cfg"
    config.write_text(text)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environ |= {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW_CONFIG": str(config),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path / "logs"),
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
    }
    lint = [Path(sys.executable).with_name("airflow"), "config", "lint"]
    done = subprocess.run(lint, env=environ, capture_output=True, text=True)
    assert "No issues found" in done.stdout, done.stdout + done.stderr
    script = """
from airflow.configuration import conf
conf.validate()
for secret in [("core", "fernet_key"), ("api", "secret_key"), ("celery", "broker_url")]:
    print("read", conf.get(*secret))
"""
    read = [sys.executable, "-c", script]
    done = subprocess.run(read, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("read")] == [
        f"read value of {name}" for name in ("fernet_key", "api_secret_key", "celery_broker_url")
    ]


def names_read() -> set[str]:
    """Every key of [imageflows] that is read: named in the code, or asked for when DAGs load."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk.configuration import conf

    named = re.compile(r'\bsetting\(\s*"(\w+)"|\binstalled="(\w+)"')
    read = {
        name
        for folder in ("dags", "plugins", "include")
        for file in (ROOT / folder).rglob("*.py")
        for match in named.finditer(file.read_text())
        for name in match.groups()
        if name
    }
    get = type(conf).get

    def spy(self, section, key, *arguments, **options):
        if section == OURS:
            read.add(key)
        return get(self, section, key, *arguments, **options)

    with patch.object(type(conf), "get", spy):
        bag = DagBag(ROOT / "dags")
    assert not bag.import_errors
    return read


def test_every_setting_of_this_project_is_in_the_file_and_read_somewhere(example):
    assert set(example[OURS]) == names_read()


def test_every_section_and_setting_has_its_comment():
    """A setting that stands alone says nothing to who has to decide about it."""
    before = ""
    for line in EXAMPLE.read_text().splitlines():
        if re.match(r"\w+ =", line):
            assert before.startswith("#") or re.match(r"\w+ =", before), line
        before = line
