"""The stack, as the person who starts and stops it sees it. S3 alone where that is enough."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from devstack.__main__ import seed_all
from devstack.environment import (
    NOTES_QUEUE,
    REDIS_CONNECTION,
    S3_CONNECTION,
    embedded_only,
    environment,
)
from devstack.errors import DevstackError, UsageError
from devstack.events import queue_url
from devstack.layout import Layout, State, load_state
from devstack.processes import HOST, Process, free_port, is_alive, start, stop
from devstack.runs import parse_conf, run_dag
from devstack.samples import (
    EXPECTED,
    IMAGE_BUCKET,
    PROCESS_BUCKET,
    SAMPLES,
    SOURCE_BUCKET,
    aws,
    client,
    seed,
)
from devstack.services import MOTO, Service
from devstack.stack import down, running, up
from devstack.stores import DRIVE, ORIGINALS_BUCKET, STORE_BUCKET, TRASH_BUCKET, seed_stores

ENVIRON = {
    name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))
}
S3_ONLY = (MOTO,)
DAG = """
from airflow.sdk import DAG, Param, task

with DAG("greet", schedule="@daily", start_date=None, params={"name": Param("you", type="string")}):

    @task
    def report(params=None, ti=None):
        if params["name"] == "nobody":
            raise ValueError("nobody to greet")
        ti.xcom_push("report", {"report": f"hello {params['name']}"})

    report()
"""


def start_s3(layout: Layout, **environ: str) -> State:
    return up(layout, {**ENVIRON, **environ}, S3_ONLY)[0]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_up_makes_a_service_that_answers_and_down_leaves_nothing(layout: Layout) -> None:
    state = start_s3(layout)
    assert httpx.get(state.url("moto") + "/moto-api/").is_success
    assert running(layout, S3_ONLY) == state
    pid = state.services["moto"].pid
    assert down(layout)
    assert not layout.state.exists()
    assert not psutil.pid_exists(pid)
    assert not answers(state.ports["moto"])


def test_down_with_nothing_up_is_no_error(layout: Layout) -> None:
    assert not down(layout)


def test_up_twice_finds_the_first(layout: Layout) -> None:
    state = start_s3(layout)
    again, started = up(layout, ENVIRON, S3_ONLY)
    assert not started
    assert again == state


def test_two_ups_at_once_start_one_stack(layout: Layout) -> None:
    results: list[tuple[State, bool]] = []
    threads = [
        threading.Thread(target=lambda: results.append(up(layout, ENVIRON, S3_ONLY)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(started for _, started in results) == [False, True]
    assert results[0][0] == results[1][0]


def test_a_taken_port_is_left_to_its_owner(layout: Layout) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        service = Service(MOTO.name, MOTO.command, MOTO.port, taken, path=MOTO.path)
        state, _ = up(layout, ENVIRON, [service])
    assert state.ports["moto"] != taken
    assert httpx.get(state.url("moto") + "/moto-api/").is_success


def test_a_port_taken_while_the_service_starts_is_given_up_for_another(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another stack's service would answer in place of ours, and get our runs.
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        ports = iter([other.getsockname()[1], free_port(23_000)])
        monkeypatch.setattr("devstack.stack.free_port", lambda wanted, taken: next(ports))
        state = start_s3(layout)
        assert state.ports["moto"] != other.getsockname()[1]
    assert httpx.get(state.url("moto") + "/moto-api/").is_success


def test_no_two_services_get_one_port() -> None:
    first = free_port(20_000)
    assert free_port(20_000, [first]) != first


def test_a_service_that_died_is_started_again(layout: Layout) -> None:
    state = start_s3(layout)
    moto = psutil.Process(state.services["moto"].pid)
    moto.kill()
    moto.wait()
    assert running(layout, S3_ONLY) is None
    again, started = up(layout, ENVIRON, S3_ONLY)
    assert started
    assert httpx.get(again.url("moto") + "/moto-api/").is_success


def test_a_pid_that_was_used_again_is_not_ours(layout: Layout) -> None:
    state = start_s3(layout)
    stop(state.services.values())
    with subprocess.Popen(["sleep", "60"]) as stranger:
        state.services["moto"] = Process(stranger.pid, Process.of(stranger.pid).created - 3600)
        state.save(layout)
        assert running(layout, S3_ONLY) is None
        down(layout)
        assert stranger.poll() is None
        stranger.kill()


def test_a_stack_whose_run_was_killed_is_replaced(layout: Layout) -> None:
    state = start_s3(layout)
    state.owner = Process(state.services["moto"].pid, 0.0)
    state.save(layout)
    again, started = up(layout, ENVIRON, S3_ONLY)
    assert started
    assert again.owner is None


def test_a_stack_of_a_living_run_is_left_alone(layout: Layout) -> None:
    state = start_s3(layout)
    state.owner = Process.of(os.getpid())
    state.save(layout)
    with pytest.raises(DevstackError, match="belongs to"):
        up(layout, ENVIRON, S3_ONLY)
    assert is_alive(state.services["moto"])


def test_a_service_that_cannot_start_shows_its_log_and_takes_the_others_down(
    layout: Layout,
) -> None:
    code = "import sys; sys.exit('no such licence')"
    broken = Service("broken", lambda ports, _: [sys.executable, "-c", code])
    with pytest.raises(DevstackError, match=r"broken ended while starting(.|\n)*no such licence"):
        up(layout, ENVIRON, [MOTO, broken])
    assert load_state(layout) is None
    assert (layout.logs / "broken.log").read_text().strip() == "no such licence"
    assert not [p for p in psutil.process_iter(["cmdline"]) if _is_moto_child(p)]


def _is_moto_child(process: psutil.Process) -> bool:
    return "moto.server" in (process.info["cmdline"] or ()) and process.ppid() == os.getpid()


def test_stop_ends_children_in_groups_of_their_own_even_after_their_parent_died(
    tmp_path: Path,
) -> None:
    # Airflow gives each task a process group of its own.
    code = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0: os.setpgid(0, 0)\n"
        "time.sleep(600)"
    )
    process = start([sys.executable, "-c", code], ENVIRON, tmp_path, tmp_path / "log")
    parent = psutil.Process(process.pid)
    while not parent.children():
        pass
    (child,) = parent.children()
    parent.kill()
    parent.wait()
    stop([process], grace=0.5)
    assert not runs(child)


def test_a_state_file_that_cannot_be_read_is_named(layout: Layout) -> None:
    layout.state.mkdir()
    (layout.state / "state.json").write_text("{")
    with pytest.raises(DevstackError, match=r"state\.json cannot be read"):
        up(layout, ENVIRON, S3_ONLY)
    (layout.state / "state.json").unlink()


def test_the_samples_and_their_notes_are_put_into_the_buckets(layout: Layout) -> None:
    endpoint = start_s3(layout).url("moto")
    seed(endpoint)
    seed(endpoint)
    s3 = client(endpoint)
    notes = {entry["Key"] for entry in s3.list_objects_v2(Bucket=PROCESS_BUCKET)["Contents"]}
    assert notes == {"rbsc/"} | {sample.note()[0] for sample in SAMPLES}
    assert s3.list_objects_v2(Bucket=IMAGE_BUCKET)["KeyCount"] == 0
    assert len(EXPECTED) == len(SAMPLES) == len(notes) - 1


def test_the_queue_hears_of_uploads_but_not_of_the_samples(layout: Layout) -> None:
    state = start_s3(layout)
    seed(state.url("moto"))
    seed(state.url("moto"))
    client(state.url("moto")).put_object(Bucket=SOURCE_BUCKET, Key="digital/ä +.jpg", Body=b"x")
    found = aws("sqs", state.url("moto")).receive_message(
        QueueUrl=queue_url(state.ports), MaxNumberOfMessages=10
    )
    bodies = [json.loads(message["Body"]) for message in found["Messages"]]
    assert [body["Event"] for body in bodies if "Event" in body] == ["s3:TestEvent"] * 2
    (upload,) = [record for body in bodies for record in body.get("Records", ())]
    assert upload["s3"]["object"]["key"] == "digital%2F%C3%A4+%2B.jpg"


def test_only_the_embedded_queue_is_watched_unless_another_is_named(tmp_path: Path) -> None:
    layout, ports = Layout(state=tmp_path), {"moto": 1, "redis": 2, "riak": 3, "airflow": 4}
    assert environment(layout, ports, {})[NOTES_QUEUE] == queue_url(ports)
    for mine in (S3_CONNECTION, NOTES_QUEUE):
        assert NOTES_QUEUE not in environment(layout, ports, {mine: "mine"})
    assert NOTES_QUEUE not in embedded_only({NOTES_QUEUE: "mine"})


def test_the_stores_drive_is_filled_and_a_part_of_it_uploaded(layout: Layout) -> None:
    endpoint = start_s3(layout).url("moto")
    own = layout.upload / "stores" / "3-mine" / "photos" / "0.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    seed_stores(endpoint, layout.upload)
    seed_stores(endpoint, layout.upload)
    assert own.read_bytes() == b"mine"
    own.unlink()
    files = {path for path in layout.upload.rglob("*") if path.is_file()}
    assert {path.relative_to(layout.upload).as_posix() for path in files} == set(DRIVE)
    s3 = client(endpoint)
    there = {entry["Key"] for entry in s3.list_objects_v2(Bucket=ORIGINALS_BUCKET)["Contents"]}
    assert there
    assert there < set(DRIVE)  # something is left to upload
    for key in there:
        body = s3.get_object(Bucket=ORIGINALS_BUCKET, Key=key)["Body"].read()
        assert body == (layout.upload / key).read_bytes()
    for bucket in (STORE_BUCKET, TRASH_BUCKET):
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_nothing_is_seeded_where_it_could_get_into_own_buckets(layout: Layout) -> None:
    state = start_s3(layout, **{S3_CONNECTION: "aws://", REDIS_CONNECTION: "redis://"})
    seed_all(layout, state)
    assert [*layout.upload.iterdir(), *layout.assets.iterdir()] == []
    assert client(state.url("moto")).list_buckets()["Buckets"] == []


def test_every_photograph_is_in_the_notice() -> None:
    notice = (Layout().root / "devstack" / "SAMPLES-NOTICE.md").read_text()
    for sample in SAMPLES:
        assert f"`{Path(sample.key).name}`" in notice


def test_the_users_settings_win_but_for_those_that_must_match(tmp_path: Path) -> None:
    layout = Layout(state=tmp_path)
    mine = {
        S3_CONNECTION: "aws://",
        "AIRFLOW__CORE__PARALLELISM": "7",
        "AIRFLOW__API__HOST": "0.0.0.0",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://production/airflow",
    }
    ours = environment(layout, {"moto": 1, "redis": 2, "riak": 3, "airflow": 4}, mine)
    assert S3_CONNECTION not in ours
    assert "AIRFLOW__CORE__PARALLELISM" not in ours
    assert ours["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert ours["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith(f"sqlite:///{tmp_path}")
    assert len(ours["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 64
    assert S3_CONNECTION not in embedded_only(mine)


def test_a_running_stack_with_other_settings_is_not_used_silently(layout: Layout) -> None:
    start_s3(layout)
    with pytest.raises(UsageError, match=S3_CONNECTION):
        start_s3(layout, **{S3_CONNECTION: "aws://"})


@pytest.mark.parametrize("text", ["{", "[1]", "prefix=digital/", '"text"'])
def test_a_conf_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="JSON"):
        parse_conf(text)


@pytest.mark.parametrize(
    "conf", ['{"prefix": "it\'s a $HOME \\"day\\" `x`; #/ö"}', "", '{"a":1,  "b": "\\n"}']
)
def test_conf_reaches_the_command_as_it_was_written(conf: str, tmp_path: Path) -> None:
    root = Layout().root
    fake = tmp_path / ".venv" / "bin"
    fake.mkdir(parents=True)
    (fake / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\n')
    (fake / "python").chmod(0o755)
    for name in ("uv.lock", "pyproject.toml", ".venv/.ready"):
        (tmp_path / name).touch()
    command = f"make -f {root / 'Makefile'} run DAG=greet CONF={shlex.quote(conf)}"
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)  # noqa: S602
    assert (tmp_path / "arguments").read_text() == f"-m\ndevstack\nrun\n--\ngreet\n{conf}\n"


def test_airflow_runs_a_dag_to_its_end_and_only_this_machine_can_reach_it(
    layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "greet.py").write_text(DAG)
    (dags / "broken.py").write_text("import airflow.dag_that_is_not\n")
    state, _ = up(layout, {**ENVIRON, "AIRFLOW__CORE__DAGS_FOLDER": str(dags)})
    processes = [psutil.Process(process.pid) for process in state.services.values()]
    family = processes + [child for p in processes for child in p.children(recursive=True)]
    addresses = {
        connection.laddr.ip
        for process in family
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}

    run = run_dag(layout, state, "greet", {"name": "world"}, seconds=300)
    assert (run.state, run.report) == ("success", "hello world")
    bad = run_dag(layout, state, "greet", {"name": "nobody"}, seconds=300)
    assert bad.state == "failed"
    assert "ValueError: nobody to greet" in capsys.readouterr().out
    with pytest.raises(UsageError, match="5 is not of type 'string'"):
        run_dag(layout, state, "greet", {"name": 5})
    with pytest.raises(UsageError, match=r"no DAG great(.|\n)*greet(.|\n)*broken\.py"):
        run_dag(layout, state, "great", {})

    down(layout)
    assert not [process for process in family if runs(process)]
    assert not layout.state.exists()
