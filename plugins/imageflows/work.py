"""The work store as the installation sets it, and the folders of a run."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from imagecore.errors import InfrastructureError, PlanRefused
from imagecore.manifest import Batch, Item, decode, read_batch
from imagecore.workstore import WorkStore, local_work_store, run_folder, split_uri
from imageflows.params import setting

if TYPE_CHECKING:
    from airflow.sdk import Context


SELECTING = {"manifest_uri", "prefix", "limit", "approved_plan"}
"""Parameters that say which items a run takes: a run of other items does not keep them."""


def work_store() -> WorkStore:
    """The work store of `[imageflows] work_store`."""
    return open_store(work_store_url())


def work_store_url() -> str:
    """The setting `[imageflows] work_store`."""
    home = os.path.expanduser(os.environ.get("AIRFLOW_HOME", "~/airflow"))
    return setting("work_store", f"file://{home}/work")


def open_store(url: str) -> WorkStore:
    """The store of `file://…` or `s3://conn_id@bucket/prefix`.

    Raises:
        InfrastructureError: the URL is neither, or its connection does not serve.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path:
        return local_work_store(url)
    if parts.scheme == "s3" and parts.username and parts.hostname:
        from imageflows.hooks.s3 import s3_store

        store = s3_store(parts.username, parts.hostname, parts.path.strip("/") or None)
        return WorkStore(url.rstrip("/"), store)
    raise InfrastructureError(
        f"The work store {url!r} is neither file:///folder nor s3://conn_id@bucket/prefix: "
        "correct [imageflows] work_store."
    )


def folder_of_run(context: Context) -> str:
    """The path of this run below the work store's root."""
    run = context["dag_run"]
    return run_folder(run.dag_id, run.run_id)


def read_items(uri: str) -> list[Item]:
    """The items of a manifest that a parameter names.

    A `file://` manifest must lie in the work store: a parameter may not read any file there is.

    Raises:
        PlanRefused: it is elsewhere, missing, or no manifest.
    """
    store = work_store()
    _refuse_dots("manifest_uri", uri)
    if uri.startswith(f"{store.url}/"):
        path = uri.removeprefix(f"{store.url}/")
    elif uri.startswith("s3://"):
        folder, path = split_uri(uri)
        store = open_store(folder)
    else:
        raise PlanRefused(
            f"manifest_uri {uri} is not in the work store {store.url}: copy the manifest there, "
            "or give an s3:// address."
        )
    try:
        return decode(store.get(path), uri)
    except FileNotFoundError as error:
        raise PlanRefused(f"manifest_uri {uri} does not exist.") from error


def left_over(context: Context) -> list[Item]:
    """What did not end well when this same run was last reported."""
    try:
        failed = work_store().get(f"{folder_of_run(context)}/failed.jsonl")
    except FileNotFoundError:
        return []
    return decode(failed, "failed.jsonl of this run")


def _refuse_dots(parameter: str, uri: str) -> None:
    if {".", ".."} & {*uri.split("/")}:
        raise PlanRefused(f'{parameter} {uri} has "." or ".." in it: give the address itself.')


def read_approved(address: str) -> tuple[dict[str, Any], Iterator[Item], Iterator[Item]]:
    """An approved plan, of `<address of plan.json>#<fingerprint>`: it, its items, its removals.

    Raises:
        PlanRefused: it is not in the work store, or not there.
    """
    store, uri = work_store(), address.rpartition("#")[0]
    _refuse_dots("approved_plan", uri)
    if not uri.startswith(f"{store.url}/"):
        raise PlanRefused(f"approved_plan {uri} is not in the work store {store.url}.")
    folder = uri.removeprefix(f"{store.url}/").rpartition("/")[0]
    try:
        plan = read_plan(store, folder)
    except FileNotFoundError as error:
        raise PlanRefused(f"approved_plan {uri} does not exist.") from error

    def items(stage: str) -> Iterator[Item]:
        for batch in (Batch(**fields) for fields in plan[stage]):
            yield from read_batch(store, batch.uri.removeprefix(f"{store.url}/"), batch)

    return plan, items("batches"), items("removals")


def whole_run(report: dict[str, Any]) -> str | None:
    """The command that runs a whole run again, where its report says that only this serves."""
    clear = next(iter(report.get("run_again", ())), "")
    return None if not clear or "--only-failed" in shlex.split(clear) else clear


def read_plan(store: WorkStore, folder: str) -> dict[str, Any]:
    """The plan.json of a plan's folder."""
    plan: dict[str, Any] = json.loads(store.get(f"{folder}/plan.json"))
    return plan
