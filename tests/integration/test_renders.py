"""Whole runs of the renders' DAGs: a drive of layers, a style, and what is in the bucket."""

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pyvips

from devstack.samples import client
from imagecore.errors import InfrastructureError
from imagecore.renderitem import RenderItems
from imagecore.s3 import Bucket
from imagecore.sandbox import PictureWorker
from tests.integration.dag_runs import Ran, connection, run_dag
from tests.objects import new_bucket_of

STYLE = """
title: A box
highest_colour: 1
lengths: {short: Short, long: Long}
codes: [t1, t2, b1]
search: [current, archive]
defaults:
  bottom: base_{length}_bottom_{side}
  infront: base_infront_{side}
layers:
  - t1_neckline_front
  - t1_neckline_back
  - t2_neckline_front
  - t2_neckline_back
  - b1_bottom_front
  - b1_bottom_back
invalid_pairs:
  - [t1, t2]
sizes:
  - {name: 800x800, kind: fit, width: 800, height: 800}
  - {name: top-crop, kind: top, width: 142, height: 142, drop: 33}
"""
BASES = [
    f"{stem}_{side}"
    for side in ("front", "back")
    for stem in (
        "base_short_bottom",
        "base_long_bottom",
        "base_infront",
        "t1_neckline",
        "t2_neckline",
        "b1_bottom",
    )
]


def draw(folder: Path, base: str, colour: int, shade: int = 0) -> Path:
    """A rectangle of its own place and colour on a transparent canvas."""
    number = BASES.index(base)
    canvas = pyvips.Image.black(60, 90, bands=4)
    place = (number * 7 % 20, number * 11 % 40, 40 - number, 50 - 2 * number)
    ink = [20 * number, 100 + shade, 200 * colour, 255 - 5 * number]
    file = folder / f"{base}_{colour:04d}.png"
    canvas.draw_rect(ink, *place, fill=True).copy(interpretation="srgb").pngsave(str(file))
    return file


class Renders:
    """A drive, a style, a bucket, and runs."""

    def __init__(self, folder: Path, bucket: Bucket, dag_of: Callable[[str], Any]) -> None:
        self.drive, self.work, self.bucket = folder / "drive", folder / "work", bucket
        self.layers = self.drive / "current"
        self.layers.mkdir(parents=True)
        (self.drive / "archive").mkdir()
        self.style = folder / "styles" / "box.yaml"
        self.style.parent.mkdir()
        self.style.write_text(STYLE)
        self._dag_of = dag_of
        for base in BASES:
            for colour in (0, 1):
                draw(self.layers, base, colour)

    def run(self, dag_id: str, **conf: Any) -> Ran:
        dag, defaults = self._dag_of(dag_id)
        given = {"style": "box", "renders_bucket": self.bucket.name, "source": ""}
        return run_dag(dag, self.work, defaults | given | conf)

    def keys(self) -> set[str]:
        return {found.key for found in self.bucket.walk("renders/")}


@pytest.fixture
def renders(dags, defaults, s3_endpoint, tmp_path, monkeypatch) -> Renders:
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__WORK_STORE", f"file://{tmp_path}/work")
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__RENDERS_ROOT", str(tmp_path / "drive"))
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__STYLES_FOLDER", str(tmp_path / "styles"))
    monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_S3", connection(s3_endpoint))

    def dag_of(dag_id: str) -> Any:
        for task in dags[dag_id].tasks:
            if not task.is_mapped:
                monkeypatch.setattr(task, "retries", 0)
        return dags[dag_id], defaults[dag_id]

    return Renders(tmp_path, new_bucket_of(client(s3_endpoint)), dag_of)


def test_layers_are_brought_to_the_bucket_and_then_are_up_to_date(renders):
    ran = renders.run("render_layers")
    assert ran.state == "success"
    assert renders.keys() == {
        f"renders/caddy/box/{base.partition('_')[0]}/{base}_{colour:04d}.png"
        for base in BASES
        for colour in (0, 1)
    }
    again = renders.run("render_layers")
    assert {outcome["state"] for outcome in again.outcomes.values()} == {"skipped"}


def test_every_valid_combination_is_in_the_bucket_in_every_size(renders):
    ran = renders.run("render_composites", images_per_task=6)
    assert ran.state == "success"
    codes = ["default", "t1", "t2", "b1", "b1-t1", "b1-t2"]
    names = {
        f"{code}-{length}-{side}-{colour:04d}"
        for code in codes
        for length in ("short", "long")
        for side in ("front", "back")
        for colour in (0, 1)
    }
    assert renders.keys() == {
        f"renders/composites/box/{size}/{name}.png"
        for name in names
        for size in ("800x800", "top-crop")
    }
    report = json.loads((ran.folder / "report.json").read_text())
    assert report["composites"] == len(names)
    assert report["style_total"]["stacks"] == len(ran.outcomes) < len(names)
    assert (ran.folder / "verify" / "verify.log").read_text() == ""
    assert (ran.folder / "contact_sheet" / "index.html").is_file()


def test_of_a_changed_layer_exactly_the_stacks_with_it_are_rendered_again(renders):
    renders.run("render_composites", images_per_task=100)
    draw(renders.layers, "t1_neckline_front", 1, shade=50)
    again = renders.run("render_composites", images_per_task=100)
    states = {key: outcome["state"] for key, outcome in again.outcomes.items()}
    changed = {key for key in states if key.startswith("0001 ") and "t1_neckline_front" in key}
    assert changed
    assert {key for key, state in states.items() if state == "done"} == changed
    assert {state for key, state in states.items() if key not in changed} == {"skipped"}


def test_a_missing_layer_fails_only_the_stacks_that_need_it_and_is_listed_once(renders):
    (renders.layers / "t2_neckline_back_0000.png").unlink()
    dry = renders.run("render_composites", mode="dryrun")
    report = json.loads((dry.folder / "report.json").read_text())
    assert dry.state == "success"
    assert [each["file"] for each in report["style_total"]["missing_layers"]] == [
        "t2_neckline_back_0000.png"
    ]
    assert renders.keys() == set()
    ran = renders.run("render_composites", images_per_task=100)
    assert ran.state == "failed"
    failed = {key for key, outcome in ran.outcomes.items() if outcome["state"] == "failed"}
    assert failed == {key for key in ran.outcomes if key.startswith("0000 back") and "t2_" in key}
    draw(renders.layers, "t2_neckline_back", 0)
    uri = f"file://{ran.folder}/failed.jsonl"
    mended = renders.run("render_composites", manifest_uri=uri, images_per_task=100)
    assert mended.state == "success"
    assert mended.outcomes.keys() == failed


def test_what_is_broken_in_the_bucket_is_found_named_and_mended(renders):
    renders.run("render_composites", images_per_task=100)
    folder, bucket = "renders/composites/box/800x800", renders.bucket
    removed, swapped, other, empty, half = (
        f"{folder}/{name}-short-front-0000.png" for name in ("default", "t1", "t2", "b1", "b1-t1")
    )
    whole = {key: bucket.read(key) for key in (removed, swapped, other, empty, half)}
    bucket.delete(removed)
    bucket.copy(swapped, f"{folder}/x")
    bucket.copy(other, swapped)
    bucket.copy(f"{folder}/x", other)
    bucket.delete(f"{folder}/x")
    bucket.write(empty, b"", "image/png")
    bucket.write(half, whole[half][:200], "image/png")
    found = renders.run("render_verify", images_per_task=100)
    assert found.state == "failed"
    wrong = {
        each["key"]: each["why"]
        for outcome in found.outcomes.values()
        for each in outcome["detail"].get("wrong", ())
    }
    assert {key.removeprefix("renders/composites/box/") for key in wrong} == {
        key.removeprefix("renders/composites/box/") for key in whole
    }
    log = (found.folder / "verify.log").read_text()
    assert log.startswith("short is missing items for image size 800x800\n")
    uri = f"file://{found.folder}/failed.jsonl"
    renders.run("render_composites", manifest_uri=uri, images_per_task=100)
    assert {key: bucket.read(key) for key in whole} == whole
    assert renders.run("render_verify", images_per_task=100).state == "success"


def test_a_style_composited_fast_is_verified_without_being_told(renders):
    some = {"prefix": "default-", "images_per_task": 100}
    ran = renders.run("render_composites", compositing="fast", **some)
    report = json.loads((ran.folder / "report.json").read_text())
    assert report["psnr"]["compared"] == 1
    assert report["psnr"]["lowest"] >= 50
    assert renders.run("render_verify", **some).state == "success"


def test_a_wrong_style_says_where_and_nothing_is_planned(renders, capfd):
    renders.style.write_text(STYLE.replace("[t1, t2]", "[t1, t9]"))
    assert renders.run("render_composites").state == "failed"
    assert "box.yaml:18: invalid_pairs: 't9'" in capfd.readouterr().out
    shutil.rmtree(renders.style.parent)
    assert renders.run("render_layers").state == "failed"
    assert "There is no style 'box'" in capfd.readouterr().out


@pytest.fixture
def tried_twice(renders, dags, monkeypatch):
    """A batch that breaks off is tried again, at once."""
    settings = dags["render_composites"].task_dict["render"].partial_kwargs
    monkeypatch.setitem(settings, "retries", 1)
    monkeypatch.setitem(settings, "retry_delay", timedelta(0))


@pytest.mark.usefixtures("tried_twice")
def test_a_batch_that_broke_off_goes_on_and_ends_with_every_stack_once(renders, monkeypatch):
    honest, calls, ended = RenderItems.process, count(1), Counter()

    def breaks_once(self, item):
        if next(calls) == 12:
            raise InfrastructureError("the cable was pulled")
        result = honest(self, item)
        ended[item["key"]] += 1
        return result

    monkeypatch.setattr(RenderItems, "process", breaks_once)
    ran = renders.run("render_composites", images_per_task=100)
    assert ran.state == "success"
    report = json.loads((ran.folder / "report.json").read_text())
    assert report["counts"]["done"] == report["planned"] == len(ran.outcomes) == len(ended)
    assert sum(report["counts"].values()) == report["planned"]
    assert set(ended.values()) == {1}
    assert (ran.folder / "verify" / "verify.log").read_text() == ""


@pytest.mark.usefixtures("tried_twice")
def test_a_batch_that_broke_off_between_a_file_and_its_copies_renders_nothing_twice(
    renders, monkeypatch
):
    honest, copies, made = Bucket.copy, count(1), Counter()
    deliver = Bucket.deliver

    def breaks_once(self, key, target):
        if next(copies) == 9:
            raise InfrastructureError("the cable was pulled")
        honest(self, key, target)

    def counted(self, source, key, *described):
        deliver(self, source, key, *described)
        made[key] += 1

    monkeypatch.setattr(Bucket, "copy", breaks_once)
    monkeypatch.setattr(Bucket, "deliver", counted)
    ran = renders.run("render_composites", images_per_task=100)
    assert ran.state == "success"
    assert len(made) == 2 * len(ran.outcomes)
    assert set(made.values()) == {1}
    assert (ran.folder / "verify" / "verify.log").read_text() == ""


def test_a_worker_that_is_killed_fails_one_stack_and_a_run_of_what_failed_mends_it(
    renders, monkeypatch
):
    honest, calls = PictureWorker.make_composite, count(1)

    def killed_once(self, request, folder):
        if next(calls) == 15:  # the first are the plan's trial
            os.kill(self.pid, signal.SIGKILL)
        return honest(self, request, folder)

    monkeypatch.setattr(PictureWorker, "make_composite", killed_once)
    ran = renders.run("render_composites", images_per_task=100)
    assert ran.state == "failed"
    states = Counter(outcome["state"] for outcome in ran.outcomes.values())
    assert states == {"failed": 1, "done": len(ran.outcomes) - 1}
    [failed] = [each for each in ran.outcomes.values() if each["state"] == "failed"]
    assert "SIGKILL" in failed["reason"]
    uri = f"file://{ran.folder}/failed.jsonl"
    mended = renders.run("render_composites", manifest_uri=uri, images_per_task=100)
    assert (mended.state, set(mended.outcomes)) == ("success", {failed["key"]})
    assert renders.run("render_verify", images_per_task=100).state == "success"


def test_layers_in_a_bucket_are_composited(renders, s3_endpoint):
    drawn = new_bucket_of(client(s3_endpoint), "drawn")
    for file in renders.layers.iterdir():
        drawn.client.upload_file(str(file), drawn.name, f"dresses/current/{file.name}")
    shutil.rmtree(renders.drive)
    ran = renders.run("render_composites", source=f"s3://{drawn.name}/dresses", images_per_task=100)
    assert ran.state == "success"
    assert {outcome["state"] for outcome in ran.outcomes.values()} == {"done"}
    assert len(renders.keys()) == 2 * 48
    assert (ran.folder / "verify" / "verify.log").read_text() == ""


def test_the_combinations_of_a_legacy_file_are_composited(renders):
    rows = {
        "t1": "base_short_bottom {} t1_neckline {} base_infront {}",
        "T2-t1": "base_short_bottom {} t2_neckline {} base_infront {}",
        "b1": "b1_bottom {}",
        "b1-t1": "b1_bottom {}",
    }
    lines = [
        ",".join([codes, *(names.replace(" {}", f"_{side}") for side in ("front", "back"))])
        for codes, names in rows.items()
    ]
    renders.style.with_name("box-short.csv").write_text("\n".join(lines))
    renders.style.write_text(STYLE + "combination_files: {short: box-short.csv}\n")
    ran = renders.run("render_composites", images_per_task=100, prefix="")
    assert ran.state == "success"
    short = {"default", "t1", "t1-t2", "b1", "b1-t1"}
    long = {"default", "t1", "t2", "b1", "b1-t1", "b1-t2"}
    found = renders.keys()
    assert {key.split("/")[-1] for key in found} == {
        f"{codes}-{length}-{side}-{colour:04d}.png"
        for length, all_codes in (("short", short), ("long", long))
        for codes in all_codes
        for side in ("front", "back")
        for colour in (0, 1)
    }
    read = {
        name: renders.bucket.read(f"renders/composites/box/800x800/{name}-short-front-0000.png")
        for name in ("b1", "b1-t1", "t1", "t1-t2")
    }
    assert read["b1"] == read["b1-t1"] != read["t1"] != read["t1-t2"]
    report = json.loads((ran.folder / "report.json").read_text())
    assert report["style_total"]["combinations"] == {"short": 5, "long": 6}
    assert report["style_total"]["dropped"] == {"long": {"t1 with t2": 2}}
