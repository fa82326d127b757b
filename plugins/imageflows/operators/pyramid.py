"""Pyramid TIFFs for zooming viewers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Param

from imagecore.errors import PlanRefused
from imagecore.recipe import PRESETS, Recipe, recipe_from
from imageflows.operators.batch import ImageBatchOperator
from imageflows.operators.plan import PlanOperator
from imageflows.work import folder_of_run, left_over, read_items

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.batch import Process
    from imagecore.manifest import Item
    from imagecore.pyramid_item import Buckets
    from imagecore.s3 import Bucket, S3Object
    from imageflows.operators.plan import Remark


def pyramid_params() -> dict[str, Param]:
    """The parameters of a recipe: a preset, and each of its values to override."""
    preset = Param(
        "legacy",
        type="string",
        enum=list(PRESETS),
        title="Preset",
        description="What kind of pyramids to make; the values below override it one by one.",
        section="Recipe",
    )
    overrides = {each.name: _override(each.metadata) for each in fields(Recipe)}
    return {"preset": preset, **overrides}


def _override(setting: Mapping[str, Any]) -> Param:
    schema = setting["schema"]
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    choices = {"enum": [None, *schema["enum"]]} if "enum" in schema else {}
    return Param(
        None,
        title=setting["title"],
        description=f"{setting['description']} Empty: as in the preset.",
        section="Recipe",
        **{**schema, **choices, "type": ["null", *(name for name in types if name != "null")]},
    )


def reconcile_param() -> dict[str, Param]:
    """Whether a run that goes by notes looks for what has none."""
    return {
        "reconcile": Param(
            True,
            type="boolean",
            title="Find what events lost",
            description="Also make pictures below the source prefixes that have no pyramid or one "
            "older than they are, and are not in quarantine since; found by listings. Runs by "
            "prefix, manifest or backfill go without.",
            section="What to do",
        )
    }


def recipe_of(params: dict[str, Any]) -> Recipe:
    """The recipe of a run.

    Raises:
        PlanRefused: a value does not fit.
    """
    chosen = {f.name: params[f.name] for f in fields(Recipe) if params[f.name] is not None}
    try:
        return recipe_from(params["preset"], chosen)
    except ValueError as error:
        raise PlanRefused(f"The recipe is wrong: {error}") from error


class _PyramidOperator(BaseOperator):
    """What both operators take.

    :param aws_conn_id: connection to S3. (templated)
    :param source_bucket: where pictures are uploaded. (templated)
    :param process_bucket: where notes lie, below `rbsc/`. (templated)
    :param image_bucket: where pyramids go. (templated)
    """

    template_fields = ("aws_conn_id", "source_bucket", "process_bucket", "image_bucket")

    def __init__(
        self,
        *,
        aws_conn_id: str,
        source_bucket: str,
        process_bucket: str,
        image_bucket: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.source_bucket = source_bucket
        self.process_bucket = process_bucket
        self.image_bucket = image_bucket

    def buckets(self, connections: int) -> Buckets:
        """The three buckets, over at most so many connections."""
        from imagecore.pyramid_item import Buckets
        from imagecore.s3 import Bucket
        from imageflows.hooks.s3 import s3_client

        client = s3_client(self.aws_conn_id, connections=connections)
        return Buckets(
            source=Bucket(self.source_bucket, client),
            process=Bucket(self.process_bucket, client),
            image=Bucket(self.image_bucket, client),
        )


class PyramidPlanOperator(_PyramidOperator, PlanOperator):
    """Plans which pictures need a pyramid.

    By default those that a note waits for, and with `reconcile` those that events lost (see
    `imagecore.reconcile`). With `prefix`, every picture of the source below it; with
    `manifest_uri`, the pictures of that file; in a backfill, the pictures that changed in the
    day's data interval. When a run is planned again, what did not end well in it is added.
    Parameters: as for PlanOperator, and those of the buckets.
    """

    def items(self, context: Context, remark: Remark) -> Iterable[Item]:
        from imagecore.notes import READERS, merge_pictures, planned_before

        params = context["params"]
        recipe_of(params)
        self.reconciled: dict[str, dict[str, int]] = {}
        if params["manifest_uri"] and params["prefix"]:
            raise PlanRefused("manifest_uri and prefix are both set: a run has one of them.")
        buckets = self._checked_buckets(READERS)
        if params["manifest_uri"]:
            again = planned_before(read_items(params["manifest_uri"]), buckets.process)
            found: Iterable[Item] = ()
        else:
            again = planned_before(left_over(context), buckets.process)
            found = self._found(context, buckets, remark)
        items = merge_pictures([*found, *_without_remarks(again, remark)])
        if params["mode"] == "dryrun":
            for item in items:
                if "refused" in item:
                    remark(item["key"], f"would be quarantined: {item['refused']}")
        return items

    def finish(self, plan: dict[str, Any]) -> dict[str, Any]:
        if not self.reconciled:
            return {}
        found = self.reconciled["found"].items()
        notes = [f"found without a note: {count:,} ({why})" for why, count in found]
        return {"summary": {"reconciled": self.reconciled}, "notes": notes}

    def _checked_buckets(self, connections: int) -> Buckets:
        """The buckets, all of which can be used: a wrong name is not worth another try."""
        from imageflows.hooks.s3 import refused_when_unusable

        with refused_when_unusable(self.aws_conn_id):
            buckets = self.buckets(connections)
            for bucket in (buckets.source, buckets.process, buckets.image):
                bucket.check()
        return buckets

    def _found(self, context: Context, buckets: Buckets, remark: Remark) -> Iterator[Item]:
        from imagecore.notes import read_notes, with_folders

        listed = self._listed(context, buckets.source, remark)
        noted = set()
        for item in _without_remarks(read_notes(buckets.process), remark):
            if listed is None or item["key"] in listed:
                noted.add(item["key"])
                yield item
        if listed is not None:
            yield from with_folders(buckets.process, listed.values())
        elif context["params"]["reconcile"]:
            lost = self._lost_by_events(context["params"], buckets, noted, remark)
            yield from with_folders(buckets.process, lost)

    def _lost_by_events(
        self, params: dict[str, Any], buckets: Buckets, noted: set[str], remark: Remark
    ) -> Iterator[Item]:
        """What was lost, but for sources in `noted`, and those whose note there is unreadable: it
        may speak of copyright."""
        from imagecore.notes import note_names
        from imagecore.pyramid_item import is_pyramid_of
        from imagecore.reconcile import Reconciliation, listing

        listings = Reconciliation(
            *(listing(bucket) for bucket in (buckets.source, buckets.image, buckets.process)),
            same=buckets.source.name == buckets.image.name,
            makes=partial(is_pyramid_of, buckets.image),
            folder=self.temp,
        )
        reasons: Counter[str] = Counter()
        for item, why in listings.lost(params["source_prefixes"]):
            if noted.isdisjoint({item["key"], *note_names(item["key"])}):
                reasons[why] += 1
                if params["mode"] == "dryrun":
                    remark(item["key"], f"found without a note: {why}")
                yield item
        self.reconciled = {"listed": dict(listings.counts), "found": dict(reasons)}

    def _listed(self, context: Context, source: Bucket, remark: Remark) -> dict[str, Item] | None:
        """The pictures a listing of the source finds by key; None where only notes count."""
        params = context["params"]
        if params["prefix"]:
            return _below(source, [params["prefix"]], remark)
        if context["dag_run"].run_type != "backfill":
            return None
        start, end = context["data_interval_start"], context["data_interval_end"]
        if start is None or end is None:
            raise PlanRefused("A backfill has a data interval, and this run has none.")
        return _below(
            source, params["source_prefixes"], remark, lambda found: start <= found.modified < end
        )


def _below(
    source: Bucket,
    prefixes: list[str],
    remark: Remark,
    wanted: Callable[[S3Object], bool] = lambda found: True,
) -> dict[str, Item]:
    from imagecore.notes import looks_like_picture, picture_or_refusal

    pictures = {}
    for found in chain.from_iterable(source.walk(prefix) for prefix in prefixes):
        if not looks_like_picture(found.key):
            remark(found.key, "not a picture by its name")
        elif wanted(found):
            pictures[found.key] = picture_or_refusal(found.key)
    return pictures


def _without_remarks(
    found: Iterable[tuple[Item | None, str, str]], remark: Remark
) -> Iterator[Item]:
    for item, key, text in found:
        if item is None:
            remark(key, text)
        else:
            yield item


class PyramidTiffOperator(_PyramidOperator, ImageBatchOperator):
    """Makes the pyramids of a batch: fetched, made, verified, delivered, verified again.

    The recipe is the run's parameters `preset` and its overrides; `force` makes again what is up
    to date. Parameters: as for ImageBatchOperator, those of the buckets, and

    :param timeout_s: seconds a picture may take before its worker is killed.
    :param memory_mb: MB that decoding and encoding one picture may take.
    :param max_source_mb: MB; a larger file is quarantined unread.
    :param max_file_mb: MB; the most that one temporary file or result may take on the disk.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 900,
        memory_mb: int = 2_048,
        max_source_mb: int = 20_000,
        max_file_mb: int = 50_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb
        self.max_source_mb = max_source_mb
        self.max_file_mb = max_file_mb

    @contextmanager
    def processor(self, context: Context) -> Iterator[Process]:
        from imagecore.pyramid_item import PyramidItems
        from imagecore.sandbox import picture_workers
        from imagecore.tempspace import temp_space

        params = context["params"]
        with (
            temp_space() as temp,
            picture_workers(
                self.threads,
                temp_dir=temp,
                timeout_s=self.timeout_s,
                memory_mb=self.memory_mb,
                file_mb=self.max_file_mb,
            ) as workers,
        ):
            yield PyramidItems(
                self.buckets(self.threads),
                recipe_of(params),
                temp,
                workers,
                run=folder_of_run(context),
                force=params["force"],
                max_source_bytes=self.max_source_mb * 10**6,
            ).process
