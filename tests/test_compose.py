"""docker-compose.yaml, Dockerfile and .env, as far as they can be checked without a Docker."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from config import buckets, env
from tests.airflowsettings import OURS, described, refuse_wrong_type

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "docker-compose.yaml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<how>:\?|:-|-)(?P<what>[^}]*)\}")
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
UNCHECKED = {"init", "sqs"}
"""One ends by itself; of the other's image it is not known what could look after it."""


def variables(text: str) -> dict[str, str]:
    """The names and values of a .env file."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, equals, value in lines if equals}


EXAMPLE = variables((ROOT / ".env.example").read_text())


def interpolated(values: dict[str, str]) -> dict:
    """The compose file as `docker compose` reads it with these variables."""

    def value(match: re.Match[str]) -> str:
        name, how, what = match["name"], match["how"], match["what"]
        given = values.get(name)
        if how == ":?":
            assert given, f"{name}: {what}"
        return given if given or (how == "-" and given is not None) else what

    return yaml.safe_load(VARIABLE.sub(value, COMPOSE.read_text()).replace("$$", "$"))


def made(folder: Path) -> Path:
    """The .env that `make env` writes."""
    folder.mkdir()
    shutil.copy(ROOT / ".env.example", folder)
    assert env.main(folder) == 0
    return folder / ".env"


def stage(name: str) -> str:
    """The part of the Dockerfile that makes a stage."""
    return re.split(r"^FROM .* AS ", DOCKERFILE, flags=re.M)[
        1 + re.findall(r"^FROM .* AS (\w+)", DOCKERFILE, flags=re.M).index(name)
    ]


def test_the_compose_file_is_one():
    check = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [check, "--builtin-schema", "vendor.compose-spec", COMPOSE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_every_variable_is_in_the_example_and_every_one_there_is_used():
    text = COMPOSE.read_text()
    used = {match["name"] for match in VARIABLE.finditer(text)}
    assert used == set(EXAMPLE)
    assert len(VARIABLE.findall(text)) == text.replace("$$", "").count("$"), "read by nobody"


def test_no_secret_has_a_default():
    for match in VARIABLE.finditer(COMPOSE.read_text()):
        if match["name"] in env.SECRETS:
            assert match["how"] == ":?", match[0]
            assert not EXAMPLE[match["name"]]
        else:
            assert match["what"] == EXAMPLE[match["name"]].partition("=")[0], match[0]
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD$|SECRET|FERNET|_KEY(_ID)?$|ALCHEMY|BROKER_URL|BACKEND$", key):
                assert ":?run make env}" in value, f"{name}: {key}"


def test_what_is_published_is_published_to_this_machine_alone():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_image_is_pinned_or_built_here():
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", DOCKERFILE, flags=re.M)
    for service in SERVICES.values():
        if "build" in service:
            assert service["build"]["target"] in {name for _, name in stages}
        else:
            assert re.search(r":\d+\.\d+", service["image"]), service["image"]
    for image, _ in stages:
        assert re.search(r":\d+\.\d+", image), image
    assert "latest" not in COMPOSE.read_text() + DOCKERFILE


@pytest.mark.parametrize("name", ["airflow", "riak"])
def test_an_image_runs_as_someone_else_than_root(name):
    assert re.findall(r"^USER (\w+)$", stage(name), flags=re.M) == [name]


def test_the_image_has_no_tools_to_build_with():
    installed = re.findall(r"apt-get install ([^&\\]*)", stage("airflow"))
    assert [line.split()[-1] for line in installed] == ["tini"]


def test_every_path_that_is_referred_to_exists_and_gets_into_the_build():
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), flags=re.M)
    copied = re.findall(r"^COPY (\w\S*) ", DOCKERFILE, flags=re.M)
    assert sorted(copied) == sorted(allowed)
    mounted = [
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    run = re.findall(r"config/\w+\.\w+", COMPOSE.read_text())
    assert "config/pools.json" in run
    assert mounted
    for path in [*copied, *mounted, *run]:
        assert (ROOT / path).exists(), path
    named = {
        volume.partition(":")[0]
        for service in interpolated({**EXAMPLE, **dict.fromkeys(env.SECRETS, "x")})[
            "services"
        ].values()
        for volume in service.get("volumes", [])
    }
    assert {name for name in named if name[0] not in "./"} == set(
        yaml.safe_load(COMPOSE.read_text())["volumes"]
    )


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_gets_no_more_than_it_needs(name):
    service = SERVICES[name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["restart"] == ("no" if name == "init" else "unless-stopped")
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert not {"privileged", "pid", "network_mode", "devices"} & service.keys()
    assert ("healthcheck" in service) != (name in UNCHECKED)


def test_a_service_waits_for_what_can_be_waited_for():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert healthy == (other not in UNCHECKED), f"{name} → {other}"
            assert set(SERVICES[other].get("profiles", [])) <= set(service.get("profiles", []))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The compose file with the variables of a new .env."""
    return interpolated(variables(made(tmp_path_factory.mktemp("env") / "new").read_text()))


def test_airflow_knows_every_setting_of_its_containers(ready):
    seen = 0
    image = dict(re.findall(r"(AIRFLOW__\w+)=(\S+)", DOCKERFILE))
    for service in [{"environment": image}, *ready["services"].values()]:
        for name, value in service.get("environment", {}).items():
            if name.startswith("AIRFLOW__") and not name.startswith("AIRFLOW__IMAGEFLOWS__"):
                _, section, key = name.lower().split("__")
                refuse_wrong_type(described(section, key), str(value))
                seen += 1
    assert seen > 20


def test_the_helm_values_name_what_is_there():
    from airflow.executors.executor_loader import ExecutorLoader
    from airflow.sdk.module_loading import import_string

    values = yaml.safe_load((ROOT / "docs" / "kubernetes-values.yaml").read_text())
    for variable in values["env"]:
        _, section, key = variable["name"].lower().split("__")
        if section != OURS:
            refuse_wrong_type(described(section, key), variable["value"])
    locked = re.search(r"^apache-airflow==(\S+)", (ROOT / "requirements.txt").read_text(), re.M)
    assert values["airflowVersion"] == locked[1]
    assert "latest" not in values["images"]["airflow"]["tag"]
    given = {variable["name"]: variable["value"] for variable in values["env"]}
    assert import_string(ExecutorLoader.executors[values["executor"]])
    assert import_string(given["AIRFLOW__CORE__AUTH_MANAGER"])
    (temp,) = values["workers"]["extraVolumeMounts"]
    assert f"TMPDIR={temp['mountPath']}" in DOCKERFILE
    for path in re.findall(r"/opt/airflow/(config/\S+)", values["migrateDatabaseJob"]["args"][-1]):
        assert (ROOT / path).exists()


def test_the_connections_reach_the_services(ready, monkeypatch):
    from airflow.providers.amazon.aws.hooks.sqs import SqsHook

    from imageflows.hooks.s3 import s3_client

    environment = ready["services"]["scheduler"]["environment"]
    for name, value in environment.items():
        if name.startswith("AIRFLOW_CONN_"):
            assert json.loads(value).get("host", "s3") in ready["services"]
            monkeypatch.setenv(name, value)
    assert s3_client("imageflows_s3", connections=1).meta.endpoint_url == "http://s3:8333"
    assert SqsHook("imageflows_s3").get_conn().meta.endpoint_url == "http://sqs:9324"


def test_the_buckets_are_those_of_the_dags_and_made_where_they_are_missing(
    s3_endpoint, s3_client, monkeypatch, capsys
):
    from airflow.dag_processing.dagbag import DagBag

    script = SERVICES["init"]["command"][-1].replace("\\\n", "")
    connection, *names = re.search(r"buckets\.py (.*)", script)[1].split()
    params = [dag.params.dump() for dag in DagBag(ROOT / "dags").dags.values()]
    used = {value for each in params for name, value in each.items() if name.endswith("_bucket")}
    assert {name for name in used if name and name.startswith("imageflows-")} < set(names)
    there = {"conn_type": "aws", "login": "test", "password": "test"}
    there["extra"] = {"endpoint_url": s3_endpoint, "region_name": "us-east-1"}
    monkeypatch.setenv(f"AIRFLOW_CONN_{connection.upper()}", json.dumps(there))
    buckets.main(connection, names)
    assert set(names) <= {bucket["Name"] for bucket in s3_client.list_buckets()["Buckets"]}
    capsys.readouterr()
    buckets.main(connection, names)
    assert "made" not in capsys.readouterr().out


def test_a_new_env_is_whole_new_each_time_and_for_its_owner_alone(tmp_path):
    from cryptography.fernet import Fernet

    first, second = made(tmp_path / "first"), made(tmp_path / "second")
    assert first.stat().st_mode & 0o777 == 0o600
    one, other = variables(first.read_text()), variables(second.read_text())
    for name in EXAMPLE:
        if name in env.SECRETS:
            assert one[name] != other[name]
            assert re.fullmatch("[A-Za-z0-9_=-]{20,}", one[name]), name
            assert not one[name].startswith("-")
        else:
            assert one[name] == other[name] == EXAMPLE[name]
    assert len(one["AIRFLOW_JWT_SECRET"]) >= 64  # shorter ones make PyJWT warn
    Fernet(one["AIRFLOW_FERNET_KEY"])


def test_an_env_that_is_there_is_left_alone(tmp_path, capsys):
    there = made(tmp_path / "folder")
    before = there.read_text()
    assert env.main(there.parent) == 1
    assert there.read_text() == before
    assert "left alone" in capsys.readouterr().err


def test_an_example_without_a_place_for_a_secret_is_refused():
    with pytest.raises(ValueError, match="REDIS_PASSWORD"):
        env.filled((ROOT / ".env.example").read_text().replace("REDIS_PASSWORD=", ""))


def test_env_files_are_not_for_git():
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_install_step_of_the_image_gives_an_airflow_that_reads_the_dags(tmp_path):
    """The very command of the Dockerfile, in a fresh virtual environment.

    It takes minutes, 1 GB of disk and, where pip reaches no packages nearby, 300 MB of download.
    The Python is this one, and not the image's.
    """
    steps = re.findall(r"^RUN (/opt/venv/bin/python -m pip .*)$", stage("packages"), re.M)
    assert [step.split()[3] for step in steps] == ["install", "check"]
    venv, home = tmp_path / "venv", tmp_path / "home"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    for step in steps:
        step = step.replace("/opt/venv", str(venv)).replace("/opt/req", str(ROOT / "req"))
        done = subprocess.run(shlex.split(step), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for source, target in re.findall(r"^COPY (\w+) /opt/airflow/(\w+)$", stage("airflow"), re.M):
        shutil.copytree(ROOT / source, home / target)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    image = dict(re.findall(r"(?:ENV|^) +(\w+)=(\S+)", stage("airflow"), re.M))
    assert image.pop("PATH") == "/opt/venv/bin:$PATH"
    environ |= {name: value.replace("/opt/airflow", str(home)) for name, value in image.items()}
    Path(environ["TMPDIR"]).mkdir()

    def airflow(*words: str) -> str:
        done = subprocess.run(
            [venv / "bin" / "airflow", *words], env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert (
        f"apache-airflow=={airflow('version').split()[-1]} "
        in (ROOT / "requirements.txt").read_text()
    )
    airflow("db", "migrate")
    assert "No data found" in airflow("dags", "list-import-errors", "-l")
    reads = "import pyvips, tifffile, imagecodecs, psycopg2, asyncpg, celery, redis; print('ready')"
    python = [venv / "bin" / "python", "-c", reads]
    assert "ready" in subprocess.run(python, capture_output=True, text=True, check=True).stdout
