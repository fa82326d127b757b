"""The core without Airflow, and what an operator needs of Airflow to run without a scheduler."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from devstack.samples import IMAGE_BUCKET, PROCESS_BUCKET, SOURCE_BUCKET, client

if TYPE_CHECKING:
    from imagecore.manifest import Item
    from imagecore.pyramid_item import Buckets
    from imagecore.recipe import Recipe

BUCKETS = {
    "source_bucket": SOURCE_BUCKET,
    "process_bucket": PROCESS_BUCKET,
    "image_bucket": IMAGE_BUCKET,
}
RUN_ID = "bench"
DAG_ID = "bench"


def buckets_at(endpoint: str) -> Buckets:
    """The three buckets of a server."""
    from imagecore.pyramid_item import Buckets
    from imagecore.s3 import Bucket

    s3 = client(endpoint)
    return Buckets(Bucket(SOURCE_BUCKET, s3), Bucket(PROCESS_BUCKET, s3), Bucket(IMAGE_BUCKET, s3))


def noted_items(endpoint: str) -> list[Item]:
    """What the notes in the process bucket ask for, as the DAG's plan reads them."""
    from imagecore.notes import merge_pictures, read_notes

    found = (item for item, _, _ in read_notes(buckets_at(endpoint).process) if item)
    return merge_pictures(found)


def bare_loop(endpoint: str, items: list[Item], recipe: Recipe, threads: int) -> None:
    """Every item through `PyramidItems.process`, on so many threads, each with its worker."""
    from imagecore.pyramid_item import PyramidItems
    from imagecore.sandbox import PictureWorker
    from imagecore.tempspace import temp_space

    with temp_space() as temp, ExitStack() as stack:
        workers: SimpleQueue[PictureWorker] = SimpleQueue()
        for _ in range(threads):
            worker = PictureWorker(temp_dir=temp, timeout_s=900, memory_mb=2_048, file_mb=None)
            workers.put(stack.enter_context(worker))
        processor = PyramidItems(
            buckets_at(endpoint),
            recipe,
            temp,
            workers,
            run=RUN_ID,
            force=False,
            max_source_bytes=10**10,
        )
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        for _ in pool.map(processor.process, items):
            pass


def airflow_environ(temp: Path, **settings: str) -> dict[str, str]:
    """This environment, with an empty Airflow below `temp` in place of the machine's own."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return {
        **mine,
        "AIRFLOW_HOME": str(temp / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{temp}/airflow.db",
        "AIRFLOW__IMAGEFLOWS__WORK_STORE": f"file://{temp}/work",
        **settings,
    }


def context(params: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """What Airflow hands to an operator's `execute`, as far as the operators here look at it."""
    return {
        "ti": SimpleNamespace(try_number=1, xcom_push=lambda key, value: None),
        "dag_run": SimpleNamespace(dag_id=DAG_ID, run_id=RUN_ID, conf={}, run_type="manual"),
        "dag": SimpleNamespace(params=known),
        "params": {name: param.value for name, param in known.items()} | params,
    }


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute replaced for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
