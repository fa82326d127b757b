"""Plan, batch and report, each the real operator, on items that need no pixels."""

import json

import pytest

from imagecore.errors import InfrastructureError, ItemFailed, ItemRefused, PlanRefused
from imagecore.outcome import Result, State
from imageflows.operators.batch import ItemsFailed
from imageflows.operators.report import RunFailed


def items(count: int) -> list[dict]:
    return [{"key": f"pictures/{number:05d}.jpg"} for number in range(count)]


def done(item: dict) -> Result:
    return Result(detail={"bytes": 10})


def report_of(work_store, run) -> dict:
    return json.loads(work_store.get(f"toy/{run.run_id}/report.json"))


def lines(work_store, run, name: str) -> list[dict]:
    return [json.loads(x) for x in work_store.get(f"toy/{run.run_id}/{name}").splitlines()]


def test_up_to_max_fanout_every_item_is_a_task_of_its_own_named_by_its_key(new_run):
    run = new_run(max_fanout=10)
    batches = run.plan(items(10))
    assert [batch["count"] for batch in batches] == [1] * 10
    run.batch(batches[3], done)
    assert run.last["batch_label"] == "pictures/00003.jpg"


def test_beyond_max_fanout_the_batches_grow(new_run):
    run = new_run(max_fanout=10)
    batches = run.plan(items(101), min_batch=4)
    assert len(batches) <= 10
    assert sum(batch["count"] for batch in batches) == 101
    run.batch(batches[0], done)
    assert run.last["batch_label"] == "pictures/00000.jpg +10"


def test_a_batch_of_a_large_run_holds_some_seconds_of_work(new_run):
    assert len(new_run(max_fanout=10).plan(items(11), min_batch=4)) == 3


def test_46_000_items_never_exceed_max_map_length(new_run, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "50")
    assert len(new_run(max_fanout=1024).plan(items(46_000))) <= 50


def test_images_per_task_beyond_airflows_limit_is_refused_with_a_number_that_works(new_run):
    with pytest.raises(PlanRefused, match=r"core\.max_map_length.*images_per_task to 2 or more"):
        new_run(images_per_task=1).plan(items(2_000))
    assert len(new_run(images_per_task=2).plan(items(2_000))) == 1_000


def test_a_mistyped_parameter_is_refused_by_name(new_run):
    with pytest.raises(PlanRefused, match=r"Unknown parameter prefx.*prefix"):
        new_run(prefx="digital/").plan(items(1))


def test_limit_takes_the_first_items(new_run):
    assert sum(batch["count"] for batch in new_run(limit=3).plan(items(10))) == 3


def test_a_dry_run_plans_no_task_and_reports_what_it_would_do(new_run, work_store):
    run = new_run(mode="dryrun")
    assert run.plan(items(7)) == []
    run.report()
    report = report_of(work_store, run)
    assert (report["mode"], report["planned"]) == ("dryrun", 7)


def test_a_dry_run_of_the_same_run_forgets_nothing_that_failed(new_run, work_store):
    run = new_run(images_per_task=1)
    [batch] = run.plan(items(1))
    with pytest.raises(ItemsFailed):
        run.batch(batch, fails)
    with pytest.raises(RunFailed):
        run.report()
    run.params["mode"] = "dryrun"
    run.plan(items(1))
    run.report()
    assert len(lines(work_store, run, "failed.jsonl")) == 1


def test_nothing_to_do_is_a_success(new_run, work_store):
    run = new_run()
    assert run.plan([]) == []
    run.report()
    assert report_of(work_store, run)["planned"] == 0


def test_what_a_plan_passes_by_is_remarked(new_run, work_store):
    run = new_run()
    run.plan(items(1))
    plan = json.loads(work_store.get(f"{run.xcom['plan', 'plan']}/plan.json"))
    assert plan["first_remarks"] == [{"key": "folder/", "remark": "a folder marker"}]


def fails(item: dict) -> Result:
    raise ItemFailed("connection reset")


def half_bad(item: dict) -> Result:
    number = int(item["key"][-9:-4])
    if number % 4 == 1:
        raise ItemRefused("cut off in the middle")
    if number % 4 == 3:
        raise ItemFailed("connection reset")
    return done(item)


def test_a_run_with_failures_fails_and_names_them_and_how_to_run_them_again(new_run, work_store):
    run = new_run(images_per_task=8)
    [batch] = run.plan(items(8))
    with pytest.raises(ItemsFailed, match=r"2 of 8 items failed:\n  pictures/00003.jpg: conn"):
        run.batch(batch, half_bad)
    with pytest.raises(RunFailed) as error:
        run.report()
    message = str(error.value)
    assert "2 items failed, 0 allowed (max_failed)" in message
    assert "pictures/00001.jpg: quarantined: cut off in the middle" in message
    assert f"airflow dags clear toy --run-id {run.run_id} --only-failed -y" in message
    failed = f"{work_store.url}/toy/{run.run_id}/failed.jsonl"
    assert f'--conf \'{{"images_per_task": 8, "manifest_uri": "{failed}"}}\'' in message
    assert "airflow backfill" not in message, "a run by hand is not reached by its date"
    assert [line["key"][-9:-4] for line in lines(work_store, run, "failed.jsonl")] == [
        "00001", "00003", "00005", "00007",
    ]  # fmt: skip
    assert report_of(work_store, run)["counts"] == {
        "done": 4, "skipped": 0, "failed": 2, "quarantined": 2,
    }  # fmt: skip


def test_a_scheduled_run_that_fails_names_its_backfill_too(new_run):
    run = new_run(run_type="scheduled")
    [batch] = run.plan(items(1))
    with pytest.raises(ItemsFailed):
        run.batch(batch, fails)
    with pytest.raises(RunFailed, match="airflow backfill create --dag-id toy --from-date"):
        run.report()


def test_too_many_in_quarantine_fail_the_run(new_run):
    run = new_run(images_per_task=8, max_failed=8, max_quarantined=1)
    [batch] = run.plan(items(8))
    with pytest.raises(ItemsFailed):
        run.batch(batch, half_bad)
    with pytest.raises(RunFailed, match=r"2 items were quarantined, 1 allowed \(max_quarantined\)"):
        run.report()


def test_a_run_deleted_and_made_again_takes_nothing_over(new_run):
    first = new_run(images_per_task=4)
    [batch] = first.plan(items(4))
    first.batch(batch, done)
    second = new_run(images_per_task=4)
    [batch] = second.plan(items(4))
    processed = []
    second.batch(batch, lambda item: processed.append(item["key"]) or done(item))
    assert len(processed) == 4


def test_the_last_try_that_infrastructure_ends_leaves_its_failures_open(new_run):
    run = new_run(images_per_task=3)
    [batch] = run.plan(items(3))

    def first_bad_then_gone(item: dict) -> Result:
        if item["key"].endswith("00000.jpg"):
            return fails(item)
        raise InfrastructureError("the server is gone")

    with pytest.raises(InfrastructureError):
        run.batch(batch, first_bad_then_gone, threads=1, try_number=4)
    again = []
    run.batch(batch, lambda item: again.append(item["key"]) or done(item))
    assert len(again) == 3


def test_max_failed_lets_a_run_with_a_few_failures_pass(new_run):
    run = new_run(images_per_task=8, max_failed=2)
    [batch] = run.plan(items(8))
    with pytest.raises(ItemsFailed):
        run.batch(batch, half_bad)
    run.report()


def test_clearing_a_failed_batch_does_only_its_failed_items_again(new_run):
    run = new_run(images_per_task=8)
    [batch] = run.plan(items(8))
    with pytest.raises(ItemsFailed):
        run.batch(batch, half_bad)
    again = []
    run.batch(batch, lambda item: again.append(item["key"]) or done(item))
    assert again == ["pictures/00003.jpg", "pictures/00007.jpg"]
    run.report()


def test_planning_again_begins_with_a_clean_slate(new_run, work_store):
    """Someone emptied the bucket and cleared the whole run: nothing may pass for done."""
    run = new_run(images_per_task=4)
    [batch] = run.plan(items(4))
    run.batch(batch, done)
    [again] = run.plan(items(4))
    processed = []
    run.batch(again, lambda item: processed.append(item["key"]) or done(item))
    assert len(processed) == 4


def test_a_batch_that_never_ran_is_missing_and_fails_the_run(new_run, work_store):
    run = new_run(images_per_task=2)
    first, _ = run.plan(items(4))
    run.batch(first, done)
    with pytest.raises(RunFailed, match="4 items were planned and 2 have an outcome: 2 are"):
        run.report()
    assert len(lines(work_store, run, "failed.jsonl")) == 2


def test_an_outcome_nobody_planned_fails_the_run(new_run, work_store):
    run = new_run(images_per_task=2)
    [batch] = run.plan(items(2))
    run.batch(batch, done)
    work_store.put(
        f"{run.xcom['plan', 'plan']}/outcomes/0000/x.jsonl",
        b'{"key":"ghost","state":"done"}\n',
    )
    with pytest.raises(RunFailed, match="1 were never planned"):
        run.report()


def test_infrastructure_stops_the_batch_at_once_and_the_retry_goes_on(new_run):
    run = new_run(images_per_task=20)
    [batch] = run.plan(items(20))
    seen = []

    def breaks_down(item: dict) -> Result:
        seen.append(item["key"])
        if len(seen) == 5:
            raise InfrastructureError("the server is gone")
        return done(item)

    with pytest.raises(InfrastructureError, match="the server is gone"):
        run.batch(batch, breaks_down, threads=1)
    assert len(seen) == 5
    again = []
    counts = run.batch(batch, lambda item: again.append(item["key"]) or done(item), threads=1)
    assert len(again) == 16
    assert counts[State.DONE.value] == 20


def test_when_nothing_could_be_planned_the_report_says_where_to_look(new_run):
    with pytest.raises(PlanRefused, match="see the log of task plan"):
        new_run().report()


def test_a_moved_work_store_is_noticed(new_run, monkeypatch, tmp_path):
    run = new_run()
    [batch] = run.plan(items(1))
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", f"file://{tmp_path}/elsewhere")
    with pytest.raises(PlanRefused, match="Clear the task `plan`"):
        run.batch(batch, done)


@pytest.mark.parametrize("key", ["nul\0.jpg", "break\nline.jpg", "ü" * 400 + ".jpg", "\ud800.jpg"])
def test_any_key_makes_a_label_the_database_takes(new_run, key):
    run = new_run()
    [batch] = run.plan([{"key": key}])
    run.batch(batch, done)
    shown = run.last["batch_label"]
    assert len(shown) <= 250
    assert shown.isprintable()
