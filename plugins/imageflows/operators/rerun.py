"""Notes written again, so that the next run of pyramid_tiff makes their pictures again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Param

from imagecore.errors import PlanRefused
from imageflows.operators.batch import ImageBatchOperator
from imageflows.operators.plan import PlanOperator
from imageflows.params import moment
from imageflows.work import read_items

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.batch import Process
    from imagecore.manifest import Item
    from imagecore.rerun import Counts, Selection
    from imagecore.s3 import Bucket, S3Object
    from imageflows.operators.plan import Remark

SECTION = "Which pictures"
CONNECTIONS = 16


def rerun_params() -> dict[str, Param]:
    """Which pictures, besides `prefix`, `manifest_uri` and the source prefixes; and `force`."""
    return {
        "glob": _text(
            "Glob",
            "Only keys of this pattern, as a whole: * is any number of characters, also slashes; "
            "? is one; [abc] is one of these; upper and lower case differ. Example: "
            "digital/*/MSS0017_*.tif",
        ),
        "extensions": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            minItems=1,
            title="Extensions",
            description="Only file names that end so, in upper or lower case: jpg, tif. Empty: all "
            "that pyramid_tiff takes for pictures; of a manifest, any.",
            section=SECTION,
        ),
        "changed_from": _text(
            "Changed from",
            "Only pictures uploaded at this time or later, with its zone: "
            "2026-11-20T00:00:00-05:00.",
            format="date-time",
        ),
        "changed_to": _text("Changed to", "… and before this time.", format="date-time"),
        "force": Param(
            True,
            type="boolean",
            title="Force",
            description="The notes ask to make again also what is up to date.",
            section="What to do",
        ),
    }


def _text(title: str, description: str, **schema: Any) -> Param:
    return Param(
        None,
        type=["null", "string"],
        title=title,
        description=description,
        section=SECTION,
        **schema,
    )


class _RerunOperator(BaseOperator):
    """What both operators take.

    :param aws_conn_id: connection to S3. (templated)
    :param process_bucket: where notes lie, below `rbsc/`. (templated)
    """

    template_fields: tuple[str, ...] = ("aws_conn_id", "process_bucket")

    def __init__(self, *, aws_conn_id: str, process_bucket: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.process_bucket = process_bucket

    def bucket(self, name: str, connections: int) -> Bucket:
        """A bucket, over at most so many connections."""
        from imagecore.s3 import Bucket
        from imageflows.hooks.s3 import s3_client

        return Bucket(name, s3_client(self.aws_conn_id, connections=connections))


class RerunPlanOperator(_RerunOperator, PlanOperator):
    """Plans which pictures get a note again, and counts: listed, matched, skipped, waiting.

    Pictures are those of the source below `prefix`, or else below `source_prefixes`, or those of
    `manifest_uri`; the run's other parameters narrow them down.
    Parameters: as for PlanOperator, those of `_RerunOperator`, and

    :param source_bucket: where pictures are uploaded. (templated)
    """

    template_fields = ("aws_conn_id", "process_bucket", "source_bucket")

    def __init__(self, *, source_bucket: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_bucket = source_bucket

    def items(self, context: Context, remark: Remark) -> Iterable[Item]:
        from imagecore.rerun import Counts, matched, waiting
        from imageflows.hooks.s3 import refused_when_unusable

        params = context["params"]
        wanted = selection_of(params)
        self.counts = Counts()
        with refused_when_unusable(self.aws_conn_id):
            source = self.bucket(self.source_bucket, CONNECTIONS)
            process = self.bucket(self.process_bucket, CONNECTIONS)
            source.check()
            process.check()
        keys = self._keys(params, source, wanted, remark)
        for key in matched(keys, waiting(process), self.counts, self.temp):
            yield {"key": key}

    def _keys(
        self, params: dict[str, Any], source: Bucket, wanted: Selection, remark: Remark
    ) -> Iterator[str]:
        from imagecore.notes import NOTES
        from imagecore.reconcile import disjoint
        from imagecore.rerun import listed, of_manifest

        if not params["manifest_uri"]:
            prefixes = [params["prefix"]] if params["prefix"] else params["source_prefixes"]
            yield from listed(source, disjoint(prefixes), wanted, self.counts)
            return
        keys = []
        for item in read_items(params["manifest_uri"]):
            if item["key"].startswith(NOTES) and "path" not in item:
                remark(item["key"], "an unreadable note, which names no picture")
            else:
                keys.append(item["key"])
        yield from of_manifest(_looks(source, keys, wanted), wanted, self.counts)

    def finish(self, plan: dict[str, Any]) -> dict[str, Any]:
        counts: Counts = self.counts
        skipped = [f"skipped, {why}: {number:,}" for why, number in sorted(counts.skipped.items())]
        notes = [
            f"listed: {counts.listed:,}",
            f"matched: {counts.matched:,}, of which {counts.waiting:,} have a note waiting",
            *skipped,
        ]
        return {"summary": asdict(counts), "notes": notes}


def selection_of(params: dict[str, Any]) -> Selection:
    """What a run's parameters choose.

    Raises:
        PlanRefused: a value is wrong.
    """
    from imagecore.rerun import Selection, extensions_of

    start, end = (moment(params, name) for name in ("changed_from", "changed_to"))
    if start is not None and end is not None and start >= end:
        raise PlanRefused("changed_from is not before changed_to: no picture can be meant.")
    of_any_name = params["manifest_uri"] and params["extensions"] is None
    return Selection(
        params["prefix"] or "",
        params["glob"],
        None if of_any_name else extensions_of(params["extensions"]),
        start,
        end,
    )


def _looks(
    source: Bucket, keys: list[str], wanted: Selection
) -> Iterator[tuple[str, S3Object | None]]:
    """The keys, each with its object where dates matter."""
    if not wanted.by_date:
        yield from ((key, None) for key in keys)
        return
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        yield from zip(keys, pool.map(source.find, keys), strict=True)


class RerunOperator(_RerunOperator, ImageBatchOperator):
    """Writes the notes of a batch, each read back.

    With the run's parameter `force` they ask to make again what is up to date.
    Parameters: as for ImageBatchOperator, and those of `_RerunOperator`.
    """

    def __init__(self, *, threads: int = CONNECTIONS, **kwargs: Any) -> None:
        super().__init__(threads=threads, **kwargs)

    @contextmanager
    def processor(self, context: Context) -> Iterator[Process]:
        from imagecore.rerun import write_again

        process, force = self.bucket(self.process_bucket, self.threads), context["params"]["force"]
        yield lambda item: write_again(process, item["key"], force=force)
