"""Composites looked at after they were made: every file again, and contact sheets for people."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TriggerRule

from imagecore.manifest import Batch, read_batch
from imageflows.operators.batch import ImageBatchOperator
from imageflows.operators.plan import MANIFEST
from imageflows.operators.report import ReportOperator, commands
from imageflows.renderparams import COMPOSITES_PREFIX, kept_of, renders_bucket
from imageflows.work import folder_of_run, read_plan, work_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.batch import Process
    from imagecore.workstore import WorkStore

VERIFIED = "verified"


class RenderVerifyOperator(ImageBatchOperator):
    """Looks at every file of a batch of stacks, under all names: there, whole, of the right size,
    made of the right layers, its bytes as recorded. Parameters: as for ImageBatchOperator, and

    :param timeout_s: seconds a picture may take before its worker is killed.
    :param memory_mb: MB that decoding one may take.
    """

    outcomes = VERIFIED

    def __init__(
        self, *, threads: int = 4, timeout_s: float = 120, memory_mb: int = 1_024, **kwargs: Any
    ) -> None:
        super().__init__(threads=threads, **kwargs)
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb

    @contextmanager
    def processor(self, context: Context) -> Iterator[Process]:
        from imagecore.renderitem import Rendering
        from imagecore.renderverify import VerifyItems
        from imagecore.sandbox import picture_workers
        from imagecore.tempspace import temp_space

        rendering = Rendering.from_json(kept_of(self.folder)["rendering"])
        with (
            temp_space() as temp,
            picture_workers(
                self.threads,
                temp_dir=temp,
                timeout_s=self.timeout_s,
                memory_mb=self.memory_mb,
                file_mb=None,
            ) as workers,
        ):
            yield VerifyItems(
                rendering,
                renders_bucket(context["params"], self.threads),
                f"{COMPOSITES_PREFIX}/{rendering.style}/",
                workers,
                temp,
            ).process


class RenderVerifyReportOperator(ReportOperator):
    """The report of a verification, with `verify.log`: the legacy sentence for each length and
    size that lacks a file, and a line for each file that is wrong."""

    outcomes = VERIFIED

    def commands(self, context: Context, failed_uri: str) -> list[str]:
        """What mends what was found is rendering; verifying again only finds it again."""
        return commands(context, failed_uri, mended_by="render_composites")

    def write_lists(self, store: WorkStore, run: str) -> None:
        from imagecore.renderitem import Rendering
        from imagecore.renderverify import verify_log

        kept = kept_of(self.folder)
        sizes = Rendering.from_json(kept["rendering"]).sizes
        with tempfile.TemporaryDirectory(prefix="imageflows-logs-") as folder:
            log = verify_log(store, f"{run}/outcomes.jsonl", Path(folder), sizes, kept["lengths"])
            store.put(f"{run}/{log.name}", log)


class ContactSheetOperator(BaseOperator):
    """Writes contact sheets of a plan's composites into `contact_sheet/` of the run's folder.

    Returns the address of their index, or None where the run wants none.

    :param plan_task_id: the task that planned.
    :param threads: how many pictures are fetched at once.
    """

    def __init__(self, *, plan_task_id: str = "plan", threads: int = 4, **kwargs: Any) -> None:
        kwargs.setdefault("trigger_rule", TriggerRule.ALL_DONE)
        super().__init__(**kwargs)
        self.plan_task_id = plan_task_id
        self.threads = threads

    def execute(self, context: Context) -> str | None:
        from imagecore.contactsheet import SAMPLE, ContactSheets, choose
        from imagecore.renderitem import Rendering
        from imagecore.sandbox import picture_workers
        from imagecore.tempspace import temp_space

        params, store = context["params"], work_store()
        plan_folder = context["ti"].xcom_pull(task_ids=self.plan_task_id, key="plan")
        if plan_folder is None or params["contact_sheet"] == "none":
            return None
        plan = read_plan(store, plan_folder)
        if plan["mode"] == "dryrun":
            return None
        rendering = Rendering.from_json(kept_of(plan_folder)["rendering"])
        items = (
            item
            for batch in (Batch(**fields) for fields in plan["batches"])
            for item in read_batch(store, f"{plan_folder}/{MANIFEST}", batch)
        )
        choices = choose(items, None if params["contact_sheet"] == "all" else SAMPLE)
        counts = {
            name: plan["summary"]["style_total"][name]
            for name in ("composites", "stacks", "aliases", "failing")
        }
        with (
            temp_space() as temp,
            picture_workers(
                self.threads, temp_dir=temp, timeout_s=120, memory_mb=1_024, file_mb=None
            ) as workers,
        ):
            pages = temp / "pages"
            pages.mkdir()
            bucket = renders_bucket(params, self.threads)
            prefix = f"{COMPOSITES_PREFIX}/{rendering.style}/"
            sheets = ContactSheets(rendering, bucket, prefix, workers, temp, threads=self.threads)
            folder = f"{folder_of_run(context)}/contact_sheet"
            for file in reversed(sheets.write(choices, pages, counts)):
                index = store.put(f"{folder}/{file.name}", file)
        self.log.info("Contact sheets: %s", index)
        return index
