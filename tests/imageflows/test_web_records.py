"""What the page tells of a run is what the work store has, whatever it is called, and no more."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagecore.errors import ItemFailed
from imagecore.manifest import encode
from imagecore.outcome import Outcome, OutcomeLog, State
from imagecore.workstore import WorkStore, run_folder
from imageflows.operators.batch import ItemsFailed
from imageflows.operators.report import RunFailed, clear_command
from tests.webapp import DAG, PLAN, RUN, Gallery, Web, ended, photograph, write_run

pytest_plugins = ("tests.webapp",)

THE_RUN = {"dag_id": DAG, "run_id": RUN}
STATES = [*State]
NAMES = [
    "<img src=x onerror=alert(1)>.jpg",
    "</script><script>alert(1)</script>.png",
    "a\u202egpj.exe",
    "two\nlines\r\n.jpg",
    'a "quoted", one;.jpg',
    '=HYPERLINK("http://x")',
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "with\x00nul",
    "half a character \udcff.jpg",
    "été/猫 🐈.jpg",
    "../../secret",
    "x" * 1_000,
]
ADDRESSES = {
    "/api/run": {},
    "/api/progress": {},
    "/api/rows": {},
    "/api/download": {},
    "/api/file": {"name": "success.txt"},
    "/api/sheet": {"name": "front-1.jpg"},
    "/api/picture": {"key": "a"},
    "/preview": {"key": "a", "role": "source"},
    "/tile": {"key": "a", "role": "source", "level": 0, "column": 0, "row": 0},
}


def many(count: int) -> tuple[list[dict[str, Any]], list[Outcome]]:
    """Items with outcomes of every state, and a reason for those that ended badly."""
    keys = [f"stores/{number:03}.jpg" for number in range(count)]
    states = [STATES[number % 4] for number in range(count)]
    reasons = {State.FAILED: "Server says 503", State.QUARANTINED: "cut short, ÉTÉ"}
    outcomes = [
        ended(key, state, reasons.get(state, ""), bytes=1)
        for key, state in zip(keys, states, strict=True)
    ]
    return [{"key": key, "size": 7} for key in keys], outcomes


def paged(web: Web, **asked: Any) -> list[dict[str, Any]]:
    """The rows of all pages, one after the other."""
    page = web.json("/api/rows", **THE_RUN, **asked)
    found: list[dict[str, Any]] = page["rows"]
    while page["next"] is not None:
        page = web.json("/api/rows", **THE_RUN, **asked, cursor=page["next"])
        assert len(page["rows"]) <= asked.get("limit", 50)
        found += page["rows"]
    return found


def without_roles(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a file has of them: which pictures a row has is worked out for the page."""
    return [{name: row[name] for name in row if name != "roles"} for row in rows]


def lines_of(store: WorkStore, path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.get(path).splitlines()]


def test_a_list_of_runs_has_the_counts_of_those_with_a_report(web: Web, work_store: WorkStore):
    write_run(work_store, *many(8))
    write_run(work_store, *many(2), run_id="at work", reported=False)
    asked = [RUN, "at work", "unknown"]
    told = web.json("/api/reports", dag_id=DAG, run_id=asked)
    assert told["at work"] is told["unknown"] is None
    assert told[RUN].items() >= {"planned": 8, "counts": dict.fromkeys(STATES, 2)}.items()
    assert told[RUN].items() >= {"missing": 0, "bytes": 8, "seconds": 4.0, "mode": "copy"}.items()
    assert "problems" not in told[RUN]
    assert web.ask("/api/reports", dag_id=DAG, run_id=[RUN] * 101).status_code == 422


def test_a_run_is_told_with_its_plan_and_its_report(web: Web, work_store: WorkStore):
    remarks = [{"key": f"folder{number}/", "remark": "a marker"} for number in range(120)]
    run = write_run(
        work_store,
        *many(5),
        removals=[{"key": "gone.jpg"}],
        remarks=120,
        first_remarks=remarks,
        params={"prefix": "stores/"},
        summary={"new": {"count": 5}},
        notes=["new: 5"],
    )
    work_store.put(f"{run}/success.txt", b"x\n")
    work_store.put(f"{run}/secret.key", b"x\n")
    work_store.put(f"{run}/contact_sheet/front-1.jpg", photograph("JPEG"))
    told = web.json("/api/run", **THE_RUN)
    assert told["report"] == json.loads(work_store.get(f"{run}/report.json"))
    assert told["plan"]["batches"] == ["0000", "0001", "0002"]
    assert told["plan"]["removal_batches"] == ["removals-0000"]
    assert (told["plan"]["planned"], told["plan"]["removals"]) == (6, 1)
    assert told["plan"]["params"] == {"prefix": "stores/"}
    assert told["plan"]["notes"] == ["new: 5"]
    assert told["plan"]["first_remarks"] == remarks[:100]
    assert told["files"] == ["failed.jsonl", "outcomes.jsonl", "report.json", "success.txt"]
    assert told["sheets"] == ["front-1.jpg"]
    assert told["stale"] is False
    assert told["parts"] == {}
    assert "approve" not in told["plan"]


def test_a_run_that_is_planned_again_says_that_its_report_is_of_the_plan_before(
    web: Web, work_store: WorkStore
):
    run = write_run(work_store, *many(2))
    plan = json.loads(work_store.get(f"{run}/{PLAN}/plan.json"))
    later = plan | {"at": "9999-01-01T00:00:00.000+00:00", "planned": 1}
    work_store.put(f"{run}/plan-2-beef/plan.json", json.dumps(later).encode())
    told = web.json("/api/run", **THE_RUN)
    assert told["stale"] is True
    assert told["plan"]["planned"] == 1


def test_a_second_report_is_told_as_a_part(web: Web, work_store: WorkStore):
    items, outcomes = many(4)
    run = write_run(work_store, items, outcomes)
    for name in ("report.json", "outcomes.jsonl"):
        work_store.put(f"{run}/verify/{name}", work_store.get(f"{run}/{name}"))
    assert web.json("/api/run", **THE_RUN)["parts"]["verify"]["planned"] == 4
    assert len(paged(web, part="verify", state=["failed"])) == 1


def test_what_failed_can_be_run_again_with_the_very_conf_of_the_run(web: Web, new_run):
    hostile = 'it\'s "x" ; $HOME `ls` \\ é 猫\n<img>'
    run = new_run(images_per_task=2, max_failed=0)
    batches = run.plan([{"key": key} for key in "abc"])
    for batch in batches:
        with pytest.raises(ItemsFailed):
            run.batch(batch, bad)
    run.conf |= {"prefix": "left out", "note": hostile, "names": ["it's", '"']}
    with pytest.raises(RunFailed):
        run.report()
    told = web.json("/api/run", dag_id="toy", run_id=run.run_id)
    failed = told["again"]["conf"].pop("manifest_uri")
    assert failed.endswith("/failed.jsonl")
    conf = {"images_per_task": 2, "max_failed": 0, "note": hostile, "names": ["it's", '"']}
    assert told["again"] == {"dag_id": "toy", "conf": conf}


def bad(item: dict[str, Any]) -> Any:
    raise ItemFailed("unreadable")


@pytest.mark.parametrize("whole", [False, True])
def test_a_run_that_can_only_be_cleared_as_a_whole_says_so(
    web: Web, work_store: WorkStore, whole: bool
):
    run = write_run(work_store, [{"key": "a"}], [ended("a", State.FAILED)])
    report = json.loads(work_store.get(f"{run}/report.json"))
    report["run_again"] = [clear_command(DAG, RUN, whole_run=whole)]
    work_store.put(f"{run}/report.json", json.dumps(report).encode())
    assert web.json("/api/run", **THE_RUN)["whole"] is whole


def test_a_run_in_which_all_went_well_has_nothing_to_run_again(web: Web, work_store: WorkStore):
    write_run(work_store, [{"key": "a"}], [ended("a")])
    assert web.json("/api/run", **THE_RUN)["again"] is None


@pytest.mark.parametrize("change", [{}, {"mode": "copy"}, {"params": {}}, {"fingerprint": None}])
def test_only_a_dry_run_of_a_sync_can_be_approved(
    web: Web, work_store: WorkStore, change: dict[str, Any]
):
    plan = {"mode": "dryrun", "fingerprint": "cafe", "params": {"approved_plan": None}} | change
    if plan["fingerprint"] is None:
        del plan["fingerprint"]
    run = write_run(work_store, [{"key": "a"}], reported=False, **plan)
    told = web.json("/api/run", **THE_RUN)["plan"]
    address = f"{work_store.uri(run)}/{PLAN}/plan.json#cafe"
    assert told.get("approve") == (None if change else address)


def test_pages_together_have_every_row_once_and_in_order(web: Web, work_store: WorkStore):
    items, outcomes = many(23)
    run = write_run(work_store, items, outcomes, removals=[{"key": "z1"}, {"key": "z2"}])
    for name in ("outcomes", "failed"):
        for limit in (1, 7, 23, 200):
            rows = without_roles(paged(web, list=name, limit=limit))
            assert rows == lines_of(work_store, f"{run}/{name}.jsonl")
    for name in ("manifest", "removals"):
        rows = without_roles(paged(web, list=name, limit=2))
        assert rows == lines_of(work_store, f"{run}/{PLAN}/{name}.jsonl")


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({"state": "failed"}, [2, 6, 10]),
        ({"state": ["failed", "quarantined"]}, [2, 3, 6, 7, 10, 11]),
        ({"state": "no state"}, []),
        ({"reason": "sAYS 503"}, [2, 6, 10]),
        ({"reason": "été"}, [3, 7, 11]),
        ({"key": "STORES/00"}, list(range(10))),
        ({"key": "/01", "state": "done"}, []),
        ({"key": "/01", "state": "failed", "reason": "server"}, [10]),
        ({"reason": ".*"}, []),
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_rows_are_found_by_state_reason_and_key(
    web: Web, work_store: WorkStore, wanted: dict[str, Any], numbers: list[int], live: bool
):
    write_run(work_store, *many(12))
    for limit in (1, 50):
        found = paged(web, limit=limit, live=live, **wanted)
        assert [row["key"] for row in found] == [f"stores/{n:03}.jpg" for n in numbers]


def test_a_run_at_work_has_rows_and_counts_of_what_is_on_record(web: Web, work_store: WorkStore):
    items, outcomes = many(9)
    write_run(work_store, items, outcomes[:5], reported=False, size=3)
    assert web.ask("/api/rows", **THE_RUN).status_code == 404
    rows = paged(web, live=True, limit=2)
    assert [row["key"] for row in rows] == [outcome.key for outcome in outcomes[:5]]
    assert [row["state"] for row in rows] == [outcome.state.value for outcome in outcomes[:5]]
    assert [row["key"] for row in paged(web, batch="0001", limit=1)] == [
        outcome.key for outcome in outcomes[3:5]
    ]
    assert paged(web, batch="0002") == []
    counts = web.json("/api/progress", **THE_RUN)
    assert counts == {
        "done": 2, "skipped": 1, "failed": 1, "quarantined": 1,
        "planned": 9, "batches": 3, "begun": 2, "finished": 0,
    }  # fmt: skip


def test_progress_goes_on_as_batches_do(web: Web, work_store: WorkStore):
    items, outcomes = many(2)
    run = write_run(work_store, items, outcomes[:1], reported=False)
    assert web.json("/api/progress", **THE_RUN)["finished"] == 0
    log = OutcomeLog(work_store, f"{run}/{PLAN}/outcomes/0000")
    log.record(outcomes[1])
    log.finish()
    counts = web.json("/api/progress", **THE_RUN)
    assert (counts["done"], counts["skipped"], counts["finished"]) == (1, 1, 1)


def test_names_and_reasons_go_through_as_they_are(web: Web, work_store: WorkStore):
    outcomes = [ended(name, State.FAILED, name, note=name) for name in NAMES]
    remarks = [{"key": name, "remark": name} for name in NAMES]
    write_run(work_store, [{"key": name} for name in NAMES], outcomes, first_remarks=remarks)
    rows = {row["key"]: row for row in paged(web, limit=3)}
    assert rows.keys() == {*NAMES}
    assert all(row["reason"] == row["detail"]["note"] == name for name, row in rows.items())
    assert web.json("/api/run", **THE_RUN)["plan"]["first_remarks"] == remarks
    for name in (name for name in NAMES if "\udcff" not in name):  # for which no address has room
        assert [row["key"] for row in paged(web, key=name)] == [name]
        told = web.json("/api/picture", **THE_RUN, key=name)
        assert told == {
            "item": {"key": name},
            "outcome": vars(next(o for o in outcomes if o.key == name)) | {"state": "failed"},
            "pictures": [],
            "more": 0,
        }


def test_a_spreadsheet_gets_every_row_and_no_formula(web: Web, work_store: WorkStore):
    outcomes = [ended(name, State.FAILED, name, note=name) for name in NAMES]
    run = write_run(work_store, [{"key": name, "etag": "=1"} for name in NAMES], outcomes)
    for asked in ({}, {"list": "failed"}, {"list": "manifest"}):
        answer = web.ask("/api/download", **THE_RUN, **asked, format="csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        keys = [row["key"] for row in rows]
        told = [name.replace("\udcff", "\\udcff") for name in NAMES]  # UTF-8 has no half ones
        assert sorted(key.removeprefix("'") for key in keys) == sorted(told)
        for row in rows:
            assert not any(str(cell).startswith(tuple("=+-@\t\r\n")) for cell in row.values())
    assert json.loads(rows[0]["more"]) == {"etag": "=1"}
    answer = web.ask("/api/download", **THE_RUN, format="csv", state="done")
    assert answer.text == "key,state,reason,seconds,at,detail,more\r\n"
    first = next(
        csv.DictReader(io.StringIO(web.ask("/api/download", **THE_RUN, format="csv").text))
    )
    assert first.keys() == {"key", "state", "reason", "seconds", "at", "detail", "more"}
    assert (
        json.loads(first["detail"])["note"]
        == lines_of(work_store, f"{run}/outcomes.jsonl")[0]["key"]
    )


@pytest.mark.parametrize("name", ["outcomes", "failed", "manifest", "removals"])
def test_json_lines_are_the_file_itself(web: Web, work_store: WorkStore, name: str):
    items = [{"key": key, "size": 1.5, "note": None} for key in NAMES]
    outcomes = [ended(key, State.FAILED, "é") for key in NAMES]
    run = write_run(work_store, items, outcomes, removals=[{"key": "é"}])
    folder = f"{run}/{PLAN}" if name in {"manifest", "removals"} else run
    answer = web.ask("/api/download", **THE_RUN, list=name)
    assert answer.content == work_store.get(f"{folder}/{name}.jsonl")
    assert answer.headers["content-type"] == "application/x-ndjson"


def test_a_download_of_what_is_searched_for_has_that_alone(web: Web, work_store: WorkStore):
    items, outcomes = many(12)
    write_run(work_store, items, outcomes)
    answer = web.ask("/api/download", **THE_RUN, state=["failed", "done"], key="/00")
    found = [json.loads(line)["key"] for line in answer.text.splitlines()]
    assert found == [f"stores/{n:03}.jpg" for n in (0, 2, 4, 6, 8)]


def test_a_download_larger_than_a_piece_is_whole(web: Web, work_store: WorkStore):
    items = [{"key": f"{number:06}", "more": "x" * 400} for number in range(6_000)]
    run = write_run(work_store, items, reported=False, size=9_999)
    data = work_store.get(f"{run}/{PLAN}/manifest.jsonl")
    assert len(data) > 2 << 20
    assert web.ask("/api/download", **THE_RUN, list="manifest").content == data
    work_store.put(f"{run}/success.txt", data)
    assert web.ask("/api/file", **THE_RUN, name="success.txt").content == data


def test_what_is_downloaded_is_kept_and_never_opened(web: Web, work_store: WorkStore):
    run_id = 'a"b\r\nSet-Cookie: x=1/é'
    run = write_run(work_store, *many(2), run_id=run_id)
    work_store.put(f"{run}/success.txt", b"<script>alert(1)</script>")
    asked = {"dag_id": DAG, "run_id": run_id}
    for path, name in (("/api/download", {}), ("/api/file", {"name": "success.txt"})):
        answer = web.ask(path, **asked, **name)
        disposition = answer.headers["content-disposition"]
        assert disposition.startswith(f'attachment; filename="{DAG}-a_b__Set-Cookie__x_1__-')
        assert "set-cookie" not in answer.headers
        assert not answer.headers["content-type"].startswith("text/html")


def test_files_and_sheets_of_the_run_are_served(web: Web, work_store: WorkStore):
    run = write_run(work_store, *many(2))
    sheet = photograph("JPEG")
    work_store.put(f"{run}/empty.log", b"")
    work_store.put(f"{run}/contact_sheet/front-1.jpg", sheet)
    assert web.ask("/api/file", **THE_RUN, name="empty.log").content == b""
    report = web.ask("/api/file", **THE_RUN, name="report.json")
    assert report.content == work_store.get(f"{run}/report.json")
    answer = web.ask("/api/sheet", **THE_RUN, name="front-1.jpg")
    assert answer.content == sheet
    assert answer.headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize("path", ADDRESSES)
def test_of_a_run_that_nobody_knows_there_is_nothing(web: Web, work_store: WorkStore, path: str):
    answer = web.ask(path, **THE_RUN, **ADDRESSES[path])
    if path == "/api/progress":
        assert answer.json() is None
    elif path == "/api/run":
        told = answer.json()
        assert (told["plan"], told["report"], told["files"], told["sheets"]) == (None, None, [], [])
    else:
        assert answer.status_code == 404
        assert "the run was removed, or never planned" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/api/reports", *ADDRESSES])
@pytest.mark.parametrize("kind", ["no folder", "no bucket", "no address"])
def test_a_work_store_that_cannot_be_used_is_named_with_what_to_do(
    web: Web,
    gallery: Gallery,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    path: str,
    kind: str,
):
    (tmp_path / "file").touch()
    url = {
        "no folder": f"file://{tmp_path}/file/work",
        "no bucket": "s3://imageflows_s3@no-such-bucket-anywhere/work",
        "no address": "work",
    }[kind]
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", url)
    answer = web.ask(path, **THE_RUN, **ADDRESSES.get(path, {}))
    assert answer.status_code == 503, answer.text
    assert "[imageflows] work_store" in answer.json()["detail"]
    assert answer.headers["retry-after"]


SECRET = "the secret beside the run"
BAD_DAGS = [
    "..",
    ".",
    "...",
    "a/b",
    "%2e%2e",
    "%2e%2e%2f",
    "a\\b",
    "a b",
    "a\x00",
    "a\n",
    "~",
    "é",
    "",
]


@pytest.fixture
def with_secrets(work_store: WorkStore, tmp_path: Path) -> str:
    """A run, and secrets in every folder above and beside it; the run's folder."""
    run = write_run(work_store, *many(2))
    work_store.put(f"{run}/success.txt", b"fine\n")
    row = json.dumps({"key": SECRET, "state": "failed", "reason": SECRET, "detail": {}}).encode()
    for folder in (f"{DAG}/other", DAG, f"{run}/{PLAN}", f"{run}/verify.d", "work"):
        for name in ("outcomes.jsonl", "secret.txt", "contact_sheet/secret.jpg"):
            work_store.put(f"{folder}/{name}", row + b"\n")
    for folder in (tmp_path, tmp_path / "work"):
        for name in ("secret.txt", "outcomes.jsonl", "secret.jpg", "report.json"):
            (folder / name).write_bytes(row)
    return run


@pytest.mark.usefixtures("with_secrets")
@pytest.mark.parametrize("path", ["/api/reports", *ADDRESSES])
@pytest.mark.parametrize("dag_id", BAD_DAGS, ids=ascii)
def test_what_is_no_name_of_a_dag_is_refused(web: Web, path: str, dag_id: str):
    answer = web.ask(path, dag_id=dag_id, run_id=RUN, **ADDRESSES.get(path, {}))
    assert answer.status_code == 422
    assert SECRET not in answer.text


@pytest.mark.usefixtures("with_secrets")
@pytest.mark.parametrize("path", ["/api/reports", *ADDRESSES])
@pytest.mark.parametrize(
    "run_id",
    ["..", ".", "../..", "../other", "../../x", "/", "//", "/etc", "a/../..", "%2e%2e",
     "%2E%2E/other", "..\\other", "a\x00b", "\n", "x" * 250, "x" * 251, "", "other/../other",
     "\ufffd", " "],
    ids=lambda run_id: ascii(run_id)[:30],
)  # fmt: skip
def test_no_name_of_a_run_leads_out_of_its_dag(web: Web, path: str, run_id: str):
    answer = web.ask(path, dag_id=DAG, run_id=run_id, **ADDRESSES.get(path, {}))
    assert SECRET not in answer.text
    if path in {"/api/run", "/api/reports"} and answer.status_code == 200:
        assert answer.json().get("plan") is None
        assert answer.json().get(run_id) is None
    elif answer.status_code == 200:
        assert path == "/api/progress"
        assert answer.json() is None
    else:
        assert answer.status_code in {404, 422}


@pytest.mark.usefixtures("with_secrets")
@pytest.mark.parametrize("path", ["/api/reports", *ADDRESSES])
def test_a_name_longer_than_the_work_store_takes_is_refused_with_that_reason(web: Web, path: str):
    answer = web.ask(path, dag_id=DAG, run_id="猫" * 250, **ADDRESSES.get(path, {}))
    assert answer.status_code == 503
    assert "File name too long" in answer.json()["detail"]


@pytest.mark.usefixtures("with_secrets")
@pytest.mark.parametrize(
    "name",
    ["..", "../secret.txt", "../other/secret.txt", "/etc/passwd", f"{PLAN}/secret.txt",
     "secret.txt", "..%2fsecret.txt", "success.txt/../../secret.txt", "success.txt\x00",
     "success.txt\n", "a" * 249, "a" * 300 + ".txt", "contact_sheet/secret.jpg",
     "../../secret.jpg", "secret.key", "", ".txt", "é.txt"],
    ids=lambda name: ascii(name)[:30],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/file", "/api/sheet"])
def test_no_name_of_a_file_leads_out_of_the_run(web: Web, path: str, name: str):
    answer = web.ask(path, **THE_RUN, name=name)
    assert answer.status_code in {404, 422}
    assert SECRET not in answer.text


@pytest.mark.usefixtures("with_secrets")
@pytest.mark.parametrize(
    "asked",
    [
        {"part": ".."},
        {"part": "../other"},
        {"part": f"{PLAN}"},
        {"part": "verify.d"},
        {"part": "/"},
        {"part": "a" * 41},
        {"part": "nothing"},
        {"list": "../other/outcomes"},
        {"list": "report.json"},
        {"list": ""},
        {"batch": ".."},
        {"batch": "0000/../.."},
        {"batch": "9999"},
        {"limit": 0},
        {"limit": -1},
        {"limit": 201},
        {"limit": "x"},
        {"state": list("abcdefghi")},
        {"reason": "x" * 1_001},
        {"key": "x" * 4_097},
        {"live": "x"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/api/rows", "/api/download"])
def test_what_is_no_question_about_rows_is_refused(web: Web, path: str, asked: dict[str, Any]):
    if path == "/api/download" and {*asked} & {"batch", "limit", "live"}:
        asked = {"list": "x"}  # the others do not matter there
    answer = web.ask(path, **THE_RUN, **asked)
    assert answer.status_code in {400, 404, 422}
    assert SECRET not in answer.text


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    "cursor",
    ["-1", "3", "9" * 18, "9" * 19, "x" * 40, "x" * 41, "1.5", "0x1", "²", "0:99", "99:0", "0:-1",
     "1:1:1", "999999999:999999999", ":", "\x00", "0\n"],
    ids=ascii,
)  # fmt: skip
def test_a_place_that_no_page_gave_is_refused(
    web: Web, work_store: WorkStore, cursor: str, live: bool
):
    write_run(work_store, *many(6))
    answer = web.ask("/api/rows", **THE_RUN, cursor=cursor, live=live)
    assert answer.status_code in {400, 422}
    if answer.status_code == 400:
        assert answer.json()["detail"].endswith("Begin from the first page.")


@pytest.mark.parametrize("name", ["plan.json", "report.json", "outcomes.jsonl", "manifest.jsonl"])
@pytest.mark.parametrize("path", ["/api/reports", *ADDRESSES])
def test_records_that_are_damaged_are_named_with_what_to_do(
    web: Web, work_store: WorkStore, path: str, name: str
):
    run = write_run(work_store, [{"key": "a"}], [ended("a")])
    folder = f"{run}/{PLAN}" if name in {"plan.json", "manifest.jsonl"} else run
    work_store.put(f"{folder}/{name}", b'{"key":"a", ]]]\n')
    answer = web.ask(path, **THE_RUN, **ADDRESSES.get(path, {}))
    assert answer.status_code in {200, 404, 422}, answer.text
    if answer.status_code == 422 and "no source picture" not in answer.text:
        assert "lear the task that wrote it" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/api/reports", "/api/rows", "/api/download", *ADDRESSES])
@pytest.mark.parametrize("more", [{}, {"list": "manifest"}])
def test_the_work_store_is_never_read_where_all_requests_wait(
    web: Web,
    gallery: Gallery,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    more: dict[str, str],
):
    run = gallery.pyramid_run()
    reads: list[bool] = []

    def spied(function: Callable[..., Any]) -> Callable[..., Any]:
        def spy(*arguments: Any, **options: Any) -> Any:
            reads.append(asyncio._get_running_loop() is not None)
            return function(*arguments, **options)

        return spy

    for name in ("get", "files", "folders", "paths"):
        monkeypatch.setattr(WorkStore, name, spied(getattr(WorkStore, name)))
    web.ask(path, **run, **ADDRESSES.get(path, {}), **more)
    assert reads
    assert not any(reads)


def test_findings_are_looked_through_like_outcomes(web: Web, work_store: WorkStore):
    run = write_run(work_store, *many(2))
    findings = [{"key": f"doc:{number}", "kind": "foreign"} for number in range(5)]
    work_store.put(f"{run}/findings.jsonl", b"".join(map(encode, findings)))
    assert paged(web, list="findings", limit=2) == findings
    assert run_folder(DAG, RUN) == run
