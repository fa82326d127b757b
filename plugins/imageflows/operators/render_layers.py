"""The layers of a configurable product, brought to the bucket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from imagecore.report import write_json
from imageflows.operators.batch import ImageBatchOperator
from imageflows.operators.plan import PlanOperator
from imageflows.params import refuse_unknown
from imageflows.renderparams import (
    LAYERS_PREFIX,
    RENDER,
    checked_bucket,
    kept_of,
    listed_bases,
    open_source,
    renders_bucket,
    style_of,
)
from imageflows.sides import open_planned
from imageflows.work import folder_of_run, read_items, work_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.batch import Process
    from imagecore.manifest import Item
    from imageflows.operators.plan import Remark


class RenderLayerPlanOperator(PlanOperator):
    """Plans the layers of a style: each file that the style's search finds.

    Names nobody can read, and files that would become the same layer, are remarks; the latter
    are quarantined. Parameters: as for PlanOperator.
    """

    def items(self, context: Context, remark: Remark) -> Iterable[Item]:
        from imagecore.layerindex import index_layers
        from imagecore.renderlayers import layer_items

        params = context["params"]
        self._style = style_of(params)
        self._where, side = open_source(params)
        checked_bucket(params)
        self._index = index_layers(self._style, side, also=listed_bases(self._style))
        for each in self._index.remarks:
            remark(each.name, each.text)
        wanted = None
        if params["manifest_uri"]:
            wanted = {item["key"] for item in read_items(params["manifest_uri"])}
        for item in layer_items(self._index, side):
            if item["key"].startswith(params["prefix"] or "") and (
                wanted is None or item["key"] in wanted
            ):
                yield item

    def finish(self, plan: dict[str, Any]) -> dict[str, Any]:
        from imagecore.renderverify import colours

        index = self._index
        summary = {
            "style": self._style.name,
            "without_files": list(index.without_files),
            "absent": {base: list(colours) for base, colours in index.absent.items()},
            "folders": dict(index.folders),
        }
        notes = [f"no search directory has {code}" for code in index.without_files]
        notes += colours(index, self._style)
        write_json(
            work_store(),
            f"{self.folder}/{RENDER}",
            {"source": self._where, "style": self._style.name, "ppi": self._style.ppi},
        )
        return {"summary": summary, "notes": notes}


class RenderLayerOperator(ImageBatchOperator):
    """Brings a batch of layers to `renders/caddy/<style>/<code>/…`: fitted inside 800 × 800, with
    transparency, verified. Parameters: as for ImageBatchOperator, and

    :param timeout_s: seconds a layer may take before its worker is killed.
    :param memory_mb: MB that a layer may take.
    :param max_source_mb: MB; a larger layer file is quarantined unread.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 300,
        memory_mb: int = 2_048,
        max_source_mb: int = 500,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb
        self.max_source_mb = max_source_mb

    @contextmanager
    def processor(self, context: Context) -> Iterator[Process]:
        from imagecore.ladderitem import Workshop
        from imagecore.layerpicture import LayerRecipe
        from imagecore.renderlayers import LayerItems
        from imagecore.sandbox import picture_workers
        from imagecore.tempspace import temp_space

        params, kept = context["params"], kept_of(self.folder)
        with (
            temp_space() as temp,
            picture_workers(
                self.threads,
                temp_dir=temp,
                timeout_s=self.timeout_s,
                memory_mb=self.memory_mb,
                file_mb=self.max_source_mb,
            ) as workers,
        ):
            yield LayerItems(
                open_planned(kept["source"], self.threads),
                renders_bucket(params, self.threads),
                f"{LAYERS_PREFIX}/{kept['style']}/",
                LayerRecipe(ppi=kept["ppi"]),
                Workshop(temp, workers, self.max_source_mb * 10**6),
                force=params["force"],
            ).process


class StyleSkeletonOperator(BaseOperator):
    """Writes the beginning of a style file from the names of layer files; what a person must
    decide is marked in it.

    Returns its address in the run's folder, `<style>.yaml`. An existing style is not touched.
    """

    def execute(self, context: Context) -> str:
        from imagecore.styleskeleton import style_skeleton

        params = context["params"]
        refuse_unknown(context["dag_run"].conf, context["dag"].params)
        _, side = open_source(params)
        text = style_skeleton(side, params["style"])
        path = f"{folder_of_run(context)}/{params['style']}.yaml"
        uri = work_store().put(path, text.encode())
        self.log.info("Decide what is marked, then move it to [imageflows] styles_folder: %s", uri)
        return uri
