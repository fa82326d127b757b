"""Configurable products composited in every combination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagecore.errors import ImageflowsError, PlanRefused
from imagecore.report import write_json
from imagecore.stacks import shared_layers
from imageflows.operators.batch import ImageBatchOperator
from imageflows.operators.plan import PlanOperator
from imageflows.operators.report import ReportOperator
from imageflows.renderparams import (
    COMPOSITES_PREFIX,
    RENDER,
    checked_bucket,
    kept_of,
    listed_bases,
    open_source,
    renders_bucket,
    style_of,
)
from imageflows.sides import open_planned
from imageflows.work import read_items, work_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.batch import Process
    from imagecore.layerindex import LayerIndex
    from imagecore.manifest import Item
    from imagecore.renderitem import Rendering, RenderItems
    from imagecore.renderstyle import Style
    from imagecore.sides import LocalSide, S3Side
    from imagecore.stacks import StackCounts
    from imagecore.workstore import WorkStore
    from imageflows.operators.plan import Remark
    from imageflows.sides import Where

TRIAL = 8
"""Of how many stacks a plan makes a trial, to estimate the whole."""

RULES_SHOWN = 3
MISSING_SHOWN = 20


class RenderCompositePlanOperator(PlanOperator):
    """Plans the composites of a style: every distinct stack of layers, once, with all its names.

    The report says how many combinations there are and which rules drop the others, what sharing
    saves, every layer file that is missing, and what it will take, by a trial of eight stacks.
    With `manifest_uri` the stacks of its keys are planned, `prefix` takes those with a name that
    begins with it. Parameters: as for PlanOperator, and

    :param trial: whether that trial is made.
    """

    shared = staticmethod(shared_layers)

    def __init__(self, *, trial: bool = True, min_batch: int = 200, **kwargs: Any) -> None:
        super().__init__(min_batch=min_batch, **kwargs)
        self.trial = trial

    def items(self, context: Context, remark: Remark) -> Iterable[Item]:
        from imagecore.layerindex import index_layers
        from imagecore.stacks import layer_file, plan_stacks

        params = context["params"]
        style = style_of(params)
        self._where, side = open_source(params)
        checked_bucket(params)
        index = index_layers(style, side, also=listed_bases(style))
        for each in index.remarks:
            remark(each.name, each.text)
        self._refused = {
            file: f"{file} ({reason})"
            for (base, colour), reason in index.refused.items()
            for file in [layer_file(base, colour)]
        }
        self._plan_of_stacks = plan_stacks(style, index.colours)
        self._rendering = _rendering(style, index, side, params.get("compositing", "exact"))
        write_json(
            work_store(),
            f"{self.folder}/{RENDER}",
            {
                "source": self._where,
                "lengths": list(style.lengths),
                "rendering": self._rendering.as_json(),
            },
        )
        wanted = None
        if params["manifest_uri"]:
            wanted = {item["key"] for item in read_items(params["manifest_uri"])}
        return self._wanted(wanted, params["prefix"] or "", remark)

    def _wanted(self, keys: set[str] | None, prefix: str, remark: Remark) -> Iterator[Item]:
        left, self._names = set(keys or ()), 0
        for item in self._plan_of_stacks.items():
            left.discard(item["key"])
            if (keys is None or item["key"] in keys) and any(
                name.startswith(prefix) for name in item["names"]
            ):
                self._names += len(item["names"])
                if "missing" in item:
                    item["missing"] = [self._refused.get(each, each) for each in item["missing"]]
                yield item
        for key in sorted(left):
            remark(key, "is no stack of the style any more")

    def finish(self, plan: dict[str, Any]) -> dict[str, Any]:
        counts = self._plan_of_stacks.counts
        summary = {
            "style": self._rendering.style,
            "composites": self._names,
            "style_total": _counts(counts),
        }
        notes = list(_explained(counts, len(self._rendering.outputs)))
        if plan["planned"] < counts.stacks:
            notes.append(
                f"in this run: {self._names:,} composites, {plan['planned']:,} stacks of these"
            )
        if self.trial:
            try:
                estimate = self._estimate(plan)
            except ImageflowsError as error:
                notes.append(f"not estimated: {error}")
            else:
                summary["estimate"] = estimate
                notes.append(
                    f"estimated by a trial of {estimate['trial']} stacks: {estimate['bytes']:,} "
                    f"bytes, {estimate['hours']:g} hours of one processor"
                )
        return {"summary": summary, "notes": notes}

    def _estimate(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Neighbours are tried, since they share layers as in a run."""
        middle = max(0, self._plan_of_stacks.counts.stacks // 2 - TRIAL)
        items = islice(self._plan_of_stacks.items(), middle, middle + 2 * TRIAL)
        whole = list(islice((item for item in items if "missing" not in item), TRIAL + 1))
        if len(whole) < 2:
            raise PlanRefused("the stacks in the middle lack layers")
        with rendering_items(self._where, self._rendering, plan["params"], self.temp) as renders:
            seconds, size = renders.trial(whole)
        tried = len(whole) - 1
        return {
            "trial": tried,
            "bytes": size // tried * self._names,
            "hours": float(f"{seconds / tried * plan['planned'] / 3_600:.2g}"),
        }


class RenderCompositeOperator(ImageBatchOperator):
    """Renders a batch of stacks to `renders/composites/<style>/<size>/<name>`, each verified there
    and copied to its other names.

    Batches are cut where neighbours share the least, so that what they share is in one batch.
    Parameters: as for ImageBatchOperator, and

    :param timeout_s: seconds a stack may take before its worker is killed.
    :param memory_mb: MB that rendering may take besides the run's `cache_mb`.
    :param layers_mb: MB of layer files kept on the disk.
    """

    def __init__(
        self,
        *,
        threads: int = 4,
        timeout_s: float = 300,
        memory_mb: int = 2_048,
        layers_mb: int = 4_096,
        **kwargs: Any,
    ) -> None:
        super().__init__(threads=threads, **kwargs)
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb
        self.layers_mb = layers_mb

    @contextmanager
    def processor(self, context: Context) -> Iterator[Process]:
        from imagecore.renderitem import Rendering
        from imagecore.tempspace import temp_space

        kept = kept_of(self.folder)
        with (
            temp_space() as temp,
            rendering_items(
                kept["source"],
                Rendering.from_json(kept["rendering"]),
                context["params"],
                temp,
                timeout_s=self.timeout_s,
                memory_mb=self.memory_mb,
                layers_mb=self.layers_mb,
                connections=self.threads,
            ) as renders,
        ):
            yield renders.process


class RenderReportOperator(ReportOperator):
    """The report, with what rendering took: files rendered and copied, the seconds of each step,
    and how near to `exact` the stacks came that `fast` compared (`psnr`, in dB)."""

    def details(self, store: WorkStore, run: str) -> dict[str, Any]:
        from imagecore.report import reported

        files: Counter[str] = Counter()
        seconds: Counter[str] = Counter()
        psnr = []
        for outcome in reported(store, f"{run}/outcomes.jsonl"):
            detail = outcome["detail"]
            files.update({name: detail.get(name, 0) for name in ("rendered", "copied")})
            seconds.update(detail.get("seconds_of", {}))
            psnr += [detail["psnr"]] if "psnr" in detail else []
        found: dict[str, Any] = {
            "files": dict(files),
            "seconds_of": {step: round(took, 2) for step, took in seconds.items()},
        }
        if psnr:
            found["psnr"] = {"compared": len(psnr), "lowest": round(min(psnr), 1)}
        self.log.info("Rendering: %s", found)
        return found


@contextmanager
def rendering_items(
    where: Where,
    rendering: Rendering,
    params: dict[str, Any],
    temp: Path,
    *,
    timeout_s: float = 300,
    memory_mb: int = 2_048,
    layers_mb: int = 4_096,
    connections: int = 4,
) -> Iterator[RenderItems]:
    """What renders stacks, with one worker that keeps `cache_mb` of layers."""
    from imagecore.layerfiles import LayerFiles
    from imagecore.renderitem import RenderItems
    from imagecore.sandbox import picture_workers

    fetched = temp / "layers"
    fetched.mkdir()
    with picture_workers(
        1,
        temp_dir=temp,
        timeout_s=timeout_s,
        memory_mb=memory_mb + params["cache_mb"],
        file_mb=None,
    ) as workers:
        yield RenderItems(
            rendering,
            renders_bucket(params, connections),
            f"{COMPOSITES_PREFIX}/{rendering.style}/",
            LayerFiles(open_planned(where, connections), fetched, layers_mb * 10**6),
            workers,
            temp,
            cache_mb=params["cache_mb"],
            force=params["force"],
        )


def _rendering(
    style: Style, index: LayerIndex, side: LocalSide | S3Side, compositing: str
) -> Rendering:
    from imagecore.renderitem import Rendering
    from imagecore.renderlayers import source_of
    from imagecore.stacks import layer_file

    layers = {
        layer_file(base, colour): source_of(found, side)
        for base, colours in index.files.items()
        for colour, found in colours.items()
    }
    return Rendering(style.name, style.sizes, style.formats, style.ppi, compositing, layers)


def _counts(counts: StackCounts) -> dict[str, Any]:
    return {
        "combinations": counts.combinations,
        "dropped": counts.dropped,
        "composites": counts.composites,
        "stacks": counts.stacks,
        "aliases": counts.aliases,
        "failing": counts.failing,
        "empty": counts.empty,
        "overs": counts.overs,
        "overs_shared": counts.overs_shared,
        "missing_layers": [
            {"file": each.file, "lengths": list(each.lengths), "composites": each.composites}
            for each in counts.missing
        ],
    }


def _explained(counts: StackCounts, outputs: int) -> Iterator[str]:
    for length, number in counts.combinations.items():
        rules = counts.dropped.get(length, {})
        most = sorted(rules.items(), key=lambda rule: -rule[1])[:RULES_SHOWN]
        named = ", ".join(f"{rule} {drops:,}" for rule, drops in most)
        yield f"{length}: {number:,} combinations, {sum(rules.values()):,} dropped" + (
            f" (most by {named})" if named else ""
        )
    yield (
        f"{counts.composites:,} composites are {counts.stacks:,} stacks and {counts.aliases:,} "
        f"copies; {counts.composites * outputs:,} files"
    )
    saved = 1 - counts.overs_shared / counts.overs if counts.overs else 0
    yield f"{counts.overs:,} layers to lay over others, {saved:.0%} of them saved by sharing"
    if counts.empty:
        yield f"{counts.empty:,} composites have no layer at all, and are left out"
    if counts.missing:
        yield f"{counts.failing:,} composites need one of {len(counts.missing):,} missing layers:"
        for each in counts.missing[:MISSING_SHOWN]:
            yield f"  {each.file} ({', '.join(each.lengths)}: {each.composites:,} composites)"
        if len(counts.missing) > MISSING_SHOWN:
            yield f"  … and {len(counts.missing) - MISSING_SHOWN} more, in report.json"
