"""The operators of renders: what a run plans, says and delivers, called one after the other."""

import html
import json
import re
from itertools import pairwise

import pytest
import yaml

from imagecore.errors import PlanRefused
from imagecore.outcome import read_outcomes
from imagecore.renderstyle import load_style
from imagecore.stacks import shared_layers
from imagecore.tempspace import temp_space
from imageflows.operators.render_composites import (
    MISSING_SHOWN,
    TRIAL,
    RenderCompositeOperator,
    RenderCompositePlanOperator,
)
from imageflows.operators.render_layers import (
    RenderLayerOperator,
    RenderLayerPlanOperator,
    StyleSkeletonOperator,
)
from imageflows.operators.render_verify import ContactSheetOperator, RenderVerifyOperator
from imageflows.renderparams import (
    cache_param,
    compositing_param,
    contact_sheet_param,
    render_params,
)
from tests.integration.dag_runs import connection
from tests.integration.test_renders import BASES, STYLE, draw

SMALL = (
    STYLE.replace("[current, archive]", "[current]")
    .replace("width: 800, height: 800", "width: 80, height: 80")
    .replace("kind: top, width: 142, height: 142, drop: 33", "kind: fit, width: 20, height: 20")
)
OURS = {**render_params(), **compositing_param(), **cache_param(), **contact_sheet_param()}
CODES = {"default", "t1", "t2", "b1", "b1-t1", "b1-t2"}
NAMES = {
    f"{codes}-{length}-{side}-{colour:04d}"
    for codes in CODES
    for length in ("short", "long")
    for side in ("front", "back")
    for colour in (0, 1)
}
"""Of the composites of SMALL."""


class Renders:
    """A drive with the layers of a style, a bucket, and the steps of runs."""

    def __init__(self, folder, new_run, s3, buckets, work_store):
        self.folder, self.new_run, self.s3, self.work_store = folder, new_run, s3, work_store
        self.drive, self.layers = folder / "drive", folder / "drive" / "current"
        self.layers.mkdir(parents=True)
        self.styles = folder / "styles"
        self.styles.mkdir()
        self.write_style(SMALL)
        self.bucket, self.source = buckets
        for base in BASES:
            for colour in (0, 1):
                draw(self.layers, base, colour)

    def write_style(self, text, name="box"):
        (self.styles / f"{name}.yaml").write_text(text)

    def context(self, run, task_id):
        context = run.context(task_id)
        context["dag"].params |= OURS
        return context

    def start(self, **params):
        defaults = {name: param.value for name, param in OURS.items()}
        own = {"style": "box", "renders_bucket": self.bucket, "source": ""}
        return self.new_run(**defaults | own | params)

    def plan(self, operator=RenderCompositePlanOperator, **params):
        """A run that is planned: with its items, batches and plan.json."""
        run = self.start(**params)
        task = operator(task_id="plan")
        run.batches = task.execute(self.context(run, "plan"))
        run.plan_folder = run.xcom["plan", "plan"]
        lines = self.work_store.get(f"{run.plan_folder}/manifest.jsonl").splitlines()
        run.items = [json.loads(line) for line in lines]
        run.written = json.loads(self.work_store.get(f"{run.plan_folder}/plan.json"))
        return run

    def do(self, run, operator=RenderCompositeOperator):
        """The counts of all batches together."""
        total = {}
        for batch in run.batches:
            counts = operator(task_id="does", batch=batch).execute(self.context(run, "does"))
            total = {state: total.get(state, 0) + count for state, count in counts.items()}
        return {state: count for state, count in total.items() if count}

    def sheets(self, run):
        index = ContactSheetOperator(task_id="sheets").execute(self.context(run, "sheets"))
        if index is None:
            return None
        folder = f"toy/{run.run_id}/contact_sheet"
        assert index == self.work_store.uri(f"{folder}/index.html")
        pages = [path for path in self.work_store.paths(folder) if path.endswith(".html")]
        return html.unescape("".join(self.work_store.get(path).decode() for path in pages))

    def keys(self):
        listing = self.s3.list_objects_v2(Bucket=self.bucket)
        return {entry["Key"] for entry in listing.get("Contents", ())}

    def remarks(self, run):
        return {each["key"]: each["remark"] for each in run.written["first_remarks"]}


@pytest.fixture
def renders(tmp_path, new_run, s3_client, s3_endpoint, new_bucket, work_store, monkeypatch):
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__RENDERS_ROOT", str(tmp_path / "drive"))
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__STYLES_FOLDER", str(tmp_path / "styles"))
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_S3", connection(s3_endpoint))
    buckets = new_bucket("renders"), new_bucket("drawn")
    return Renders(tmp_path, new_run, s3_client, buckets, work_store)


def files_of(names, sizes=("800x800", "top-crop")):
    return {f"renders/composites/box/{size}/{name}.png" for name in names for size in sizes}


# What a plan says


def test_a_plan_explains_before_anything_is_rendered(renders):
    run = renders.plan(mode="dryrun")
    assert run.batches == []
    assert renders.keys() == set()
    names = [name for item in run.items for name in item["names"]]
    assert (set(names), len(names)) == (NAMES, len(NAMES))
    summary = run.written["summary"]
    stacks = len({(item["colour"], item["side"], *item["layers"]) for item in run.items})
    assert stacks == len(run.items) == run.written["planned"]
    estimate = summary.pop("estimate")
    overs = [len(item["layers"]) - 1 for item in run.items]
    uses = [len(item["names"]) for item in run.items]
    assert (summary["style"], summary["composites"]) == ("box", len(NAMES))
    total = summary["style_total"]
    assert total == {
        "combinations": {"short": 6, "long": 6},
        "dropped": {"short": {"t1 with t2": 2}, "long": {"t1 with t2": 2}},
        "composites": len(NAMES),
        "stacks": stacks,
        "aliases": len(NAMES) - stacks,
        "failing": 0,
        "empty": 0,
        "overs": sum(over * use for over, use in zip(overs, uses, strict=True)),
        "overs_shared": _overs_shared(run.items),
        "missing_layers": [],
    }
    assert estimate["trial"] == TRIAL
    assert estimate["bytes"] > 0
    assert estimate["hours"] > 0
    saved = 1 - total["overs_shared"] / total["overs"]
    assert run.written["notes"] == [
        "short: 6 combinations, 2 dropped (most by t1 with t2 2)",
        "long: 6 combinations, 2 dropped (most by t1 with t2 2)",
        f"48 composites are {stacks} stacks and {48 - stacks} copies; 96 files",
        f"{total['overs']} layers to lay over others, {saved:.0%} of them saved by sharing",
        f"estimated by a trial of 8 stacks: {estimate['bytes']:,} bytes, "
        f"{estimate['hours']:g} hours of one processor",
    ]


def _overs_shared(items):
    """Distinct beginnings of stacks that are longer than one layer."""
    return len(
        {
            (item["colour"], *item["layers"][:count])
            for item in items
            for count in range(2, len(item["layers"]) + 1)
        }
    )


def test_the_estimated_bytes_are_about_those_of_the_run(renders):
    run = renders.plan(images_per_task=100)
    assert renders.do(run) == {"done": run.written["planned"]}
    listing = renders.s3.list_objects_v2(Bucket=renders.bucket)["Contents"]
    bytes_ = sum(entry["Size"] for entry in listing)
    assert bytes_ / 2 < run.written["summary"]["estimate"]["bytes"] < bytes_ * 2


def test_an_estimate_counts_time_by_stacks_and_bytes_by_names(renders, monkeypatch):
    tried = []

    def trial(self, items):
        tried.extend(items)
        return 2 * 3600.0, 4_000

    monkeypatch.setattr("imagecore.renderitem.RenderItems.trial", trial)
    run = renders.plan(mode="dryrun", prefix="b1-")
    stacks, names = len(run.items), sum(len(item["names"]) for item in run.items)
    assert names > stacks
    assert len(tried) == TRIAL + 1  # the first one's time does not count
    assert run.written["summary"]["estimate"] == {
        "trial": TRIAL,
        "bytes": 500 * names,
        "hours": stacks / 4,
    }


def test_all_missing_layers_are_listed_at_once_with_who_needs_them(renders):
    gone = ["base_long_bottom_back_0001.png", "t2_neckline_front_0000.png"]
    for name in gone:
        (renders.layers / name).unlink()
    run = renders.plan(mode="dryrun")
    summary = run.written["summary"]["style_total"]
    assert summary["missing_layers"] == [
        {"file": gone[0], "lengths": ["long"], "composites": 3},
        {"file": gone[1], "lengths": ["short", "long"], "composites": 4},
    ]
    assert summary["failing"] == 7
    notes = run.written["notes"]
    first = notes.index("7 composites need one of 2 missing layers:")
    assert notes[first + 1 : first + 3] == [
        "  base_long_bottom_back_0001.png (long: 3 composites)",
        "  t2_neckline_front_0000.png (short, long: 4 composites)",
    ]
    missing = {item["key"]: item.get("missing", []) for item in run.items}
    for key, names in missing.items():
        has = [name for name in gone if f" {name[:-9]}" in f"{key} " and key[:4] == name[-8:-4]]
        assert names == has


def test_of_many_missing_layers_the_first_are_noted_and_all_are_in_the_report(renders):
    renders.write_style(SMALL.replace("highest_colour: 1", "highest_colour: 4"))
    run = renders.plan(mode="dryrun")
    listed = run.written["summary"]["style_total"]["missing_layers"]
    assert len(listed) == 3 * len(BASES) > MISSING_SHOWN
    assert f"  … and {len(listed) - MISSING_SHOWN} more, in report.json" in run.written["notes"]
    assert sum(note.startswith("  ") for note in run.written["notes"]) == MISSING_SHOWN + 1


def test_a_trial_that_fails_is_a_note_and_the_plan_stands(renders):
    for file in renders.layers.glob("base_infront_*"):
        file.write_bytes(b"no picture")
    run = renders.plan()
    assert "estimate" not in run.written["summary"]
    assert run.written["notes"][-1].startswith("not estimated: layer ")
    assert len(run.batches) == run.written["planned"] > 0


def test_where_every_stack_of_the_trial_lacks_layers_nothing_is_estimated(renders):
    for file in renders.layers.glob("base_infront_*"):
        file.unlink()
    run = renders.plan()
    said = "not estimated: the stacks in the middle lack layers"
    assert run.written["notes"][-1] == said
    assert all(item["missing"] for item in run.items)


def test_a_plan_without_a_trial_estimates_nothing(renders):
    run = renders.start(mode="dryrun")
    task = RenderCompositePlanOperator(task_id="plan", trial=False)
    task.execute(renders.context(run, "plan"))
    plan = renders.work_store.get(f"{run.xcom['plan', 'plan']}/plan.json")
    assert "estimate" not in plan.decode()


def test_names_nobody_can_read_are_remarks(renders):
    draw(renders.layers, BASES[0], 0).rename(renders.layers / "t1_nowhere_front_0000.png")
    draw(renders.layers, BASES[0], 0)
    remarks = renders.remarks(renders.plan(mode="dryrun"))
    assert [key for key in remarks if "t1_nowhere" in key]


# Which stacks


def test_a_prefix_takes_the_stacks_with_a_name_that_begins_so(renders):
    every = renders.plan(mode="dryrun").items
    run = renders.plan(prefix="b1-t1-long")
    assert run.items == [
        item for item in every if any(name.startswith("b1-t1-long") for name in item["names"])
    ]
    assert len(run.items) == 4
    assert renders.do(run) == {"done": 4}
    assert renders.keys() == files_of({name for item in run.items for name in item["names"]})


def test_a_limit_takes_the_first_stacks(renders):
    every = renders.plan(mode="dryrun")
    run = renders.plan(mode="dryrun", limit=3)
    assert run.items == every.items[:3]
    names = sum(len(item["names"]) for item in run.items)
    assert run.written["summary"]["estimate"]["bytes"] % names == 0


def test_a_manifest_takes_its_stacks_and_says_which_are_none_any_more(renders):
    every = renders.plan(mode="dryrun").items
    wanted = [every[5], every[2]]
    gone = {"key": "0001 front t9_neckline_front", "names": ["t9"]}
    lines = [json.dumps(item) for item in (*wanted, gone)]
    renders.work_store.put("failed.jsonl", "\n".join(lines).encode())
    run = renders.plan(manifest_uri=renders.work_store.uri("failed.jsonl"))
    assert run.items == [every[2], every[5]]
    assert renders.remarks(run) == {gone["key"]: "is no stack of the style any more"}


def test_a_manifest_and_a_prefix_take_what_both_have(renders):
    every = renders.plan(mode="dryrun").items
    renders.work_store.put("some.jsonl", "\n".join(map(json.dumps, every[:12])).encode())
    run = renders.plan(
        mode="dryrun", manifest_uri=renders.work_store.uri("some.jsonl"), prefix="t1-"
    )
    assert run.items == [
        item for item in every[:12] if any(name.startswith("t1-") for name in item["names"])
    ]
    assert run.items
    assert renders.remarks(run) == {}


@pytest.mark.parametrize("images_per_task", [4, 8, 11])
def test_batches_are_cut_where_neighbours_share_the_least(renders, images_per_task):
    run = renders.plan(images_per_task=images_per_task)
    keys = [item["key"] for item in run.items]
    common = [shared_layers(*pair) for pair in pairwise(keys)]
    most, begin = images_per_task // 4, 0
    cuts = []
    for batch in run.batches:
        left = len(keys) - begin
        window = common[begin + images_per_task - 1 : begin + images_per_task + most]
        expected = images_per_task + window.index(min(window)) if window else left
        assert batch["count"] == min(expected, left)
        begin += batch["count"]
        cuts.append(begin)
    assert cuts[-1] == len(keys)
    read = [renders.work_store.get(f"{run.plan_folder}/manifest.jsonl", b["offset"], b["length"])
            for b in run.batches]  # fmt: skip
    assert [len(data.splitlines()) for data in read] == [b["count"] for b in run.batches]


def test_few_stacks_are_a_task_each(renders):
    run = renders.plan()
    assert [batch["count"] for batch in run.batches] == [1] * run.written["planned"]


# What is refused


def test_an_unknown_style_is_refused_with_those_there_are(renders):
    renders.write_style(SMALL, "coat")
    with pytest.raises(PlanRefused, match=r"There is no style 'hat' in .*there are: box, coat\."):
        renders.plan(style="hat")


@pytest.mark.parametrize("operator", [RenderCompositePlanOperator, RenderLayerPlanOperator])
@pytest.mark.parametrize("source", ["../elsewhere", "link", "current/../../elsewhere"])
def test_a_source_outside_of_the_root_is_refused(renders, operator, source):
    elsewhere = renders.folder / "elsewhere"
    elsewhere.mkdir()
    (renders.drive / "link").symlink_to(elsewhere)
    with pytest.raises(PlanRefused, match="does not lie in"):
        renders.plan(operator, source=source)
    assert renders.work_store.paths("toy") == []


@pytest.mark.parametrize("params", [{"source": "nowhere"}, {"source": "s3://no-such-bucket/x"}])
def test_a_source_that_is_not_there_is_refused(renders, params):
    with pytest.raises(PlanRefused, match=r"nowhere|no-such-bucket"):
        renders.plan(**params)


def test_a_bucket_that_is_not_there_is_refused_before_anything_is_rendered(renders):
    with pytest.raises(PlanRefused, match="no-such-bucket"):
        renders.plan(renders_bucket="no-such-bucket")


def test_a_parameter_nobody_knows_is_refused(renders):
    with pytest.raises(PlanRefused, match="colour"):
        renders.plan(colour=3)


# What is rendered


def test_every_composite_is_rendered_then_up_to_date_then_forced(renders):
    run = renders.plan(images_per_task=100)
    planned = run.written["planned"]
    assert renders.do(run) == {"done": planned}
    assert renders.keys() == files_of(NAMES)
    assert renders.do(run) == {"done": planned}  # the outcomes of the same plan stand
    assert renders.do(renders.plan(images_per_task=100)) == {"skipped": planned}
    assert renders.do(renders.plan(images_per_task=100, force=True)) == {"done": planned}
    assert renders.do(renders.plan(images_per_task=100), RenderVerifyOperator) == {"done": planned}


def test_fast_composites_are_rendered_anew_and_the_first_of_a_batch_is_compared(
    renders, monkeypatch
):
    monkeypatch.setattr("imagecore.renderitem.CHECKED_PSNR", 20.0)  # layers here are tiny
    renders.do(renders.plan(images_per_task=100, prefix="t1-"))
    run = renders.plan(images_per_task=100, prefix="t1-", compositing="fast")
    assert renders.do(run) == {"done": run.written["planned"]}
    [batch] = run.batches
    folder = f"{run.plan_folder}/outcomes/{batch['batch_id']}"
    outcomes, *_ = read_outcomes(renders.work_store, folder)
    assert sum("psnr" in outcome.detail for outcome in outcomes.values()) == 1


def test_layers_in_a_bucket_are_taken_from_there(renders):
    for file in renders.layers.iterdir():
        renders.s3.upload_file(str(file), renders.source, f"drawn/current/{file.name}")
        file.unlink()
    for source in (f"s3://{renders.source}/drawn", f"s3://{renders.source}/drawn/"):
        run = renders.plan(images_per_task=100, source=source)
        assert run.written["summary"]["style_total"]["missing_layers"] == []
        done = "skipped" if source.endswith("/") else "done"
        assert renders.do(run) == {done: run.written["planned"]}
    assert renders.keys() == files_of(NAMES)
    run = renders.plan(RenderLayerPlanOperator, images_per_task=100, source=source)
    assert renders.do(run, RenderLayerOperator) == {"done": 2 * len(BASES)}


def test_a_layer_in_a_bucket_that_changed_is_rendered_again_where_it_is(renders):
    for file in renders.layers.iterdir():
        renders.s3.upload_file(str(file), renders.source, f"current/{file.name}")
    options = {"images_per_task": 100, "source": f"s3://{renders.source}"}
    renders.do(renders.plan(**options))
    file = draw(renders.folder, "t1_neckline_back", 0, shade=9)
    renders.s3.upload_file(str(file), renders.source, f"current/{file.name}")
    run = renders.plan(**options)
    changed = sum(
        item["colour"] == 0 and "t1_neckline_back" in item["layers"] for item in run.items
    )
    assert renders.do(run) == {"done": changed, "skipped": run.written["planned"] - changed}


def test_nothing_is_left_in_the_temporary_folder(renders, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    renders.do(renders.plan(images_per_task=100, prefix="t1-"))
    with temp_space() as own:
        assert list(own.parent.iterdir()) == [own]


# Layers, contact sheets, a style's beginning


def test_a_plan_of_layers_says_what_is_absent(renders):
    (renders.layers / "t1_neckline_back_0001.png").unlink()
    for file in renders.layers.glob("b1_*"):
        file.unlink()
    run = renders.plan(RenderLayerPlanOperator, mode="dryrun")
    assert run.batches == []
    assert run.written["summary"]["without_files"] == ["b1"]
    assert run.written["summary"]["absent"]["t1_neckline_back"] == [1]
    assert run.written["summary"]["folders"]["t1"] == "current"
    assert "no search directory has b1" in run.written["notes"]
    assert "t1_neckline_back is missing in 1 of 2 colours: 0001" in run.written["notes"]
    assert renders.keys() == set()


def test_a_prefix_and_a_manifest_choose_layers(renders):
    run = renders.plan(RenderLayerPlanOperator, prefix="t1/")
    assert [item["key"] for item in run.items] == [
        f"t1/t1_neckline_{side}_{colour:04d}.png" for side in ("back", "front") for colour in (0, 1)
    ]
    line = json.dumps(run.items[1])
    renders.work_store.put("failed.jsonl", line.encode())
    again = renders.plan(
        RenderLayerPlanOperator, manifest_uri=renders.work_store.uri("failed.jsonl")
    )
    assert again.items == [run.items[1]]
    assert renders.do(again, RenderLayerOperator) == {"done": 1}
    assert renders.keys() == {f"renders/caddy/box/{run.items[1]['key']}"}


def test_contact_sheets_show_all_a_sample_or_nothing(renders):
    run = renders.plan(images_per_task=100)
    renders.do(run)
    sizes = {}
    for wanted in ("none", "sample", "all"):
        run.params["contact_sheet"] = wanted
        pages = renders.sheets(run)
        sizes[wanted] = pages and {name for name in NAMES if re.search(rf"\b{name}\b", pages)}
    assert sizes["none"] is None
    assert sizes["all"] >= {item["names"][0] for item in run.items}
    assert sizes["sample"] <= sizes["all"]


def test_a_dry_run_has_no_contact_sheet(renders):
    run = renders.plan(mode="dryrun", contact_sheet="all")
    assert renders.sheets(run) is None


def test_without_a_plan_there_is_no_contact_sheet(renders):
    assert renders.sheets(renders.start()) is None


def test_the_beginning_of_a_style_is_a_style(renders):
    run = renders.start(style="boxes", source="current")
    run.conf = {"style": "boxes", "source": "current"}
    uri = StyleSkeletonOperator(task_id="skeleton").execute(renders.context(run, "skeleton"))
    assert uri == renders.work_store.uri(f"toy/{run.run_id}/boxes.yaml")
    text = renders.work_store.get(f"toy/{run.run_id}/boxes.yaml").decode()
    assert "DECIDE" in text
    renders.write_style(text, "boxes")
    style = load_style(renders.styles / "boxes.yaml")
    assert style.colours == 2
    assert {"t1", "t2", "b1"} <= set(style.codes)
    assert yaml.safe_load((renders.styles / "box.yaml").read_text()) == yaml.safe_load(SMALL)
    assert renders.plan(mode="dryrun", style="boxes", source="current").written["planned"] > 0
    assert renders.keys() == set()


def test_a_style_is_begun_from_a_bucket(renders):
    for file in renders.layers.iterdir():
        renders.s3.upload_file(str(file), renders.source, f"drawn/{file.name}")
    run = renders.start(style="boxes", source=f"s3://{renders.source}/drawn")
    StyleSkeletonOperator(task_id="skeleton").execute(renders.context(run, "skeleton"))
    text = renders.work_store.get(f"toy/{run.run_id}/boxes.yaml").decode()
    assert f"s3://{renders.source}/drawn/" in text
    renders.write_style(text, "boxes")
    assert load_style(renders.styles / "boxes.yaml").colours == 2
