"""Planning from the image references in a Redis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from imageflows.operators.plan import PlanOperator
from imageflows.redisparams import ref_rules
from imageflows.work import folder_of_run, read_items, work_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.manifest import Item
    from imagecore.redisrefs import ReferenceScan
    from imageflows.operators.plan import Remark

FINDINGS = "findings.jsonl"


class RedisImageRefOperator(PlanOperator):
    """Plans every image reference that the JSON documents of a Redis have, each once.

    An item is `{"key": "<adler>-<file name>", "redis_keys": [the first 20], "documents": n}`.
    What is wrong with documents and references never stops the run: it is in `findings.jsonl` of
    the run's folder, `{"redis_key", "kind", "reason"}` a line, and counted by kind in the report.

    The rules are the run's parameters of `redis_ref_params`. `prefix` takes references that begin
    with it. With `manifest_uri` exactly its items are planned, and Redis is not asked.

    Raises InfrastructureError, with nothing written, when Redis goes away or starts again while
    it is read.

    :param redis_conn_id: the Airflow connection to Redis. (templated)
    """

    template_fields = ("redis_conn_id",)

    def __init__(self, *, redis_conn_id: str, min_batch: int = 1_000, **kwargs: Any) -> None:
        super().__init__(min_batch=min_batch, **kwargs)
        self.redis_conn_id = redis_conn_id

    def items(self, context: Context, remark: Remark) -> Iterable[Item]:
        from imagecore.redisrefs import ReferenceScan
        from imageflows.hooks.redisdb import redis_database

        params = context["params"]
        self._findings_path = f"{folder_of_run(context)}/{FINDINGS}"
        self._scan: ReferenceScan | None = None
        if params["manifest_uri"]:
            return read_items(params["manifest_uri"])
        self._scan = ReferenceScan(redis_database(self.redis_conn_id), ref_rules(params), self.temp)
        return self._found(self._scan, params["prefix"] or "")

    def _found(self, scan: ReferenceScan, prefix: str) -> Iterator[Item]:
        return (item for item in scan.items() if item["key"].startswith(prefix))

    def finish(self, plan: dict[str, Any]) -> dict[str, Any]:
        if self._scan is None:
            return {}
        findings = dict(sorted(self._scan.findings.items()))
        uri = work_store().put(self._findings_path, self._scan.findings_file)
        summary = {"documents": self._scan.documents, "findings": findings, "findings_uri": uri}
        notes = [f"documents read: {self._scan.documents:,}"]
        notes += [f"findings, {kind}: {count:,}" for kind, count in findings.items()]
        return {"summary": summary, "notes": [*notes, f"findings: {uri}"]}
