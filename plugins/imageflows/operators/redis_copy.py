"""Copying keys from one Redis to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from imageflows.operators.batch import ImageBatchOperator
from imageflows.operators.plan import MANIFEST, PlanOperator
from imageflows.redisparams import MEGABYTE
from imageflows.work import read_items, work_store

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.sdk import Context

    from imagecore.batch import Process
    from imagecore.manifest import Item
    from imagecore.outcome import Result
    from imagecore.redisdb import Database
    from imageflows.operators.plan import Remark

PAGE_KEYS = 500


class RedisCopyPlanOperator(PlanOperator):
    """Plans the keys to copy: those that match the run's `patterns`, and, with `partials`, the
    documents that they lead to.

    `prefix` takes keys that begin with it. With `manifest_uri` exactly its keys are planned. The
    report has how many of them the destination has already.

    Raises PlanRefused when both connections lead to the same database.

    :param source_conn_id: the Airflow connection to the Redis that is read. (templated)
    :param destination_conn_id: the Airflow connection to the other one. (templated)
    """

    template_fields = ("source_conn_id", "destination_conn_id")

    def __init__(
        self,
        *,
        source_conn_id: str,
        destination_conn_id: str,
        min_batch: int = 5_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(min_batch=min_batch, **kwargs)
        self.source_conn_id = source_conn_id
        self.destination_conn_id = destination_conn_id

    def items(self, context: Context, remark: Remark) -> Iterable[Item]:
        source, destination = different(self.source_conn_id, self.destination_conn_id)
        self._existing = 0
        if context["params"]["manifest_uri"]:
            items: Iterable[Item] = read_items(context["params"]["manifest_uri"])
        else:
            items = _listed(source, context["params"], self.temp, remark)
        return self._counted(islice(items, context["params"]["limit"]), destination)

    def _counted(self, items: Iterable[Item], destination: Database) -> Iterator[Item]:
        from imagecore.redisdb import key_bytes, pages
        from imagecore.rediskeys import count_existing

        for page in pages(items, PAGE_KEYS):
            self._existing += count_existing(destination, [key_bytes(item["key"]) for item in page])
            yield from page

    def finish(self, plan: dict[str, Any]) -> dict[str, Any]:
        existing = self._existing
        return {
            "summary": {"existing": existing},
            "notes": [
                f"keys the destination does not have: {plan['planned'] - existing:,}",
                f"keys it has already: {existing:,}",
            ],
        }


class RedisCopyOperator(ImageBatchOperator):
    """Copies a batch of keys with their time to live, and looks at what then is there.

    What is there already, the same, is skipped; with another value it is skipped or, with the
    run's `existing` = `replace`, replaced. A key that cannot be restored (a newer Redis's, for
    instance) fails by itself. Parameters: as for ImageBatchOperator, and

    :param source_conn_id: the Airflow connection to the Redis that is read. (templated)
    :param destination_conn_id: the Airflow connection to the other one. (templated)
    :param threads: how many outcomes are on their way to the work store at once.
    """

    template_fields = ("source_conn_id", "destination_conn_id")

    def __init__(
        self, *, source_conn_id: str, destination_conn_id: str, threads: int = 16, **kwargs: Any
    ) -> None:
        super().__init__(threads=threads, **kwargs)
        self.source_conn_id = source_conn_id
        self.destination_conn_id = destination_conn_id

    @contextmanager
    def processor(self, context: Context) -> Iterator[Process]:
        from imagecore.manifest import Batch, read_batch
        from imagecore.rediscopy import CopyInPages, RedisCopy
        from imagecore.redisdb import key_bytes

        params = context["params"]
        copy = RedisCopy(
            *different(self.source_conn_id, self.destination_conn_id),
            replace=params["existing"] == "replace",
            force=params["force"],
        )
        items = read_batch(work_store(), f"{self.folder}/{MANIFEST}", Batch(**self.batch))
        batch = CopyInPages(copy, [key_bytes(item["key"]) for item in items])

        def process(item: Item) -> Result:
            return batch.result(key_bytes(item["key"]))

        yield process


def different(source_conn_id: str, destination_conn_id: str) -> tuple[Database, Database]:
    """The two databases.

    Raises:
        PlanRefused: they are the same, or a connection is wrong.
    """
    from imagecore.rediskeys import refuse_same
    from imageflows.hooks.redisdb import redis_database

    source, destination = redis_database(source_conn_id), redis_database(destination_conn_id)
    refuse_same(source, destination)
    return source, destination


def _listed(source: Database, params: dict[str, Any], temp: Path, remark: Remark) -> Iterator[Item]:
    from imagecore.redisdb import key_text
    from imagecore.rediskeys import Partials, keys_to_copy

    partials = None
    if params["partials"]:
        limit = int(params["max_document_mb"] * MEGABYTE)
        partials = Partials(params["partial_prefix"], limit, remark)
    for key in keys_to_copy(source, params["patterns"], temp, partials):
        if key_text(key).startswith(params["prefix"] or ""):
            yield {"key": key_text(key)}
