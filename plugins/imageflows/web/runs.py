"""A run as the work store has it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property, lru_cache
from time import monotonic
from typing import Any

from imagecore.errors import ImageflowsError, ItemFailed
from imagecore.manifest import Item
from imagecore.outcome import Outcome
from imagecore.report import OUTCOMES
from imagecore.runcounts import LiveCounts
from imagecore.runrecords import find_outcome, latest_plan, live_rows
from imagecore.runrows import Wanted, looks, rows
from imagecore.text import printable
from imagecore.workstore import WorkStore, run_folder
from imageflows.web.pictures import Picture, Place, open_place, period, pictures, roles
from imageflows.web.previews import previews
from imageflows.work import SELECTING, open_store, read_plan, whole_run, work_store_url

LISTS = ("outcomes", "failed", "manifest", "removals", "findings")
"""What can be looked through, row by row."""
OF_PLAN = {"manifest", "removals"}
WITH_PICTURES = {*LISTS} - {"findings"}
VERIFY, VERIFIED = "verify", "verified"
"""The folder of a run with its second report, and that of its plan with the outcomes."""
FOUND_SECONDS = 10
REMARKS = 100
PICTURES = 40
"""How many of an item's pictures are looked at; a composite's names can have hundreds."""
_FILE = re.compile(r"[A-Za-z0-9_-]+\.(txt|log|json|jsonl|yaml)")
_SHEET = re.compile(r"[A-Za-z0-9_-]+\.jpg")
_SHEETS = "contact_sheet"
_PIECE = 1 << 20
_TOLD = ("mode", "planned", "counts", "results", "missing", "stray", "seconds", "bytes", "at")

_live = LiveCounts()
_read_plan = lru_cache(maxsize=8)(read_plan)  # it is written once


@lru_cache(maxsize=4)
def _opened(url: str, period: int) -> WorkStore:
    return open_store(url)


def place_of(dag_id: str, run_id: str, key: str, role: str, number: int, part: str = "") -> Place:
    """As `Run.place`, remembered for up to FOUND_SECONDS: a zoom asks for many tiles."""
    return _found(dag_id, run_id, key, role, number, part, int(monotonic() // FOUND_SECONDS))


@lru_cache(maxsize=1_000)
def _found(
    dag_id: str, run_id: str, key: str, role: str, number: int, part: str, period: int
) -> Place:
    return Run(dag_id, run_id).place(key, role, number, part)


class Run:
    """A run's records, for one request. Methods raise FileNotFoundError where there is no such
    record, and InfrastructureError when the work store cannot be read."""

    def __init__(self, dag_id: str, run_id: str) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self._store = _opened(work_store_url(), period())
        self._folder = run_folder(dag_id, run_id)

    def described(self) -> dict[str, Any]:
        """The run as the page shows it; `plan` and `report` are None before there is one."""
        newest = self._newest
        files = self._store.files(self._folder)
        sheets = self._store.files(f"{self._folder}/{_SHEETS}")
        report, verified = self.report(), self.report(VERIFY)
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "plan": newest and self._told(*newest),
            "report": report,
            "stale": bool(report and newest and report["plan"] != self._store.uri(newest[0])),
            "parts": {VERIFY: verified} if verified else {},
            "again": _again(report),
            "whole": bool(report and whole_run(report)),
            "files": [name for name in files if _FILE.fullmatch(name)],
            "sheets": [name for name in sheets if _SHEET.fullmatch(name)],
        }

    def told(self) -> dict[str, Any] | None:
        """What a list of runs tells of this one, from its report; None where there is none."""
        report = self.report()
        return report and {name: report[name] for name in _TOLD if name in report}

    def progress(self, part: str = "") -> dict[str, Any] | None:
        """The counts of a run at work; None before it has planned."""
        if self._newest is None:
            return None
        folder, plan = self._newest
        return _live.counts(self._store, folder, plan, self._step(folder, part))

    def rows(
        self,
        name: str,
        wanted: dict[str, Any],
        cursor: str | None,
        limit: int,
        seconds: float,
        *,
        part: str = "",
        batch: str = "",
        live: bool = False,
    ) -> dict[str, Any]:
        """A page of one of LISTS; of outcomes `live` ones, or those of one batch, as they come.

        Raises:
            ValueError: the cursor is none that an earlier page gave.
        """
        if name == "outcomes" and (live or batch):
            folder, plan = self._plan()
            step = self._step(folder, part)
            page = live_rows(
                self._store,
                folder,
                plan,
                Wanted(**wanted),
                cursor,
                limit,
                seconds,
                step=step,
                batch_id=batch or None,
            )
        else:
            path = self._path(name, part)
            page = rows(self._store, path, Wanted(**wanted), cursor, limit, seconds)
        if name in WITH_PICTURES:
            plan = self._plan()[1]
            for row in page.rows:
                row["roles"] = roles(plan, row)
        return asdict(page)

    def looks(
        self, name: str, wanted: dict[str, Any], *, part: str = ""
    ) -> Iterator[dict[str, Any] | None]:
        """All of one of LISTS, and None wherever much was read in vain."""
        return looks(self._store, self._path(name, part), Wanted(**wanted))

    def file(self, name: str) -> Iterator[bytes]:
        """A text file of the run's folder, in pieces."""
        if not _FILE.fullmatch(name):
            raise FileNotFoundError(name)
        path = f"{self._folder}/{name}"
        first = self._store.get(path, 0, _PIECE)
        return self._rest(path, first)

    def sheet(self, name: str) -> bytes:
        """A contact sheet's JPEG."""
        if not _SHEET.fullmatch(name):
            raise FileNotFoundError(name)
        return self._store.get(f"{self._folder}/{_SHEETS}/{name}")

    def picture(self, key: str, part: str = "") -> dict[str, Any]:
        """An item with its outcome, and each of its pictures as it lies there now."""
        item, outcome, found = self._find(key, part)
        return {
            "item": item,
            "outcome": outcome and vars(outcome),
            "pictures": [_looked_at(picture) for picture in found[:PICTURES]],
            "more": max(0, len(found) - PICTURES),
        }

    def place(self, key: str, role: str, number: int, part: str = "") -> Place:
        """Where one of an item's pictures lies: of those with this role the one of this number.

        Raises:
            ItemFailed: it has none.
        """
        found = [each for each in self._find(key, part)[2] if each.role == role]
        if number >= len(found):
            raise ItemFailed(f"{printable(key, 200)} has no {role or 'such'} picture in this run.")
        return open_place(found[number])

    def _find(self, key: str, part: str) -> tuple[Item, Outcome | None, list[Picture]]:
        folder, plan = self._plan()
        found = find_outcome(self._store, folder, plan, key, self._step(folder, part))
        if found is None:
            raise FileNotFoundError(key)
        item, outcome = found
        return item, outcome, pictures(self._store, folder, plan, item, outcome)

    @cached_property
    def _newest(self) -> tuple[str, dict[str, Any]] | None:
        """The newest plan with its folder."""
        folder = latest_plan(self._store, self._folder)
        return None if folder is None else (folder, _read_plan(self._store, folder))

    def _plan(self) -> tuple[str, dict[str, Any]]:
        if self._newest is None:
            raise FileNotFoundError(self._folder)
        return self._newest

    def report(self, part: str = "") -> dict[str, Any] | None:
        """The run's report, or None before there is one."""
        path = "/".join(filter(None, (self._folder, part, "report.json")))
        try:
            report: dict[str, Any] = json.loads(self._store.get(path))
        except FileNotFoundError:
            return None
        return report

    def _path(self, name: str, part: str) -> str:
        if name in OF_PLAN:
            return f"{self._plan()[0]}/{name}.jsonl"
        return "/".join(filter(None, (self._folder, part, f"{name}.jsonl")))

    def _step(self, folder: str, part: str) -> str:
        """A DAG that only verifies has no other outcomes than those."""
        if part:
            return VERIFIED
        steps = self._store.folders(folder)
        return VERIFIED if VERIFIED in steps and OUTCOMES not in steps else OUTCOMES

    def _rest(self, path: str, piece: bytes) -> Iterator[bytes]:
        offset = 0
        while piece:
            yield piece
            offset += len(piece)
            piece = self._store.get(path, offset, _PIECE)

    def _told(self, folder: str, plan: dict[str, Any]) -> dict[str, Any]:
        """What people are shown of a plan: its batches by number, and the address to approve."""
        told = {name: plan.get(name) for name in _OF_PLAN}
        told["first_remarks"] = plan.get("first_remarks", [])[:REMARKS]
        told["batches"] = [batch["batch_id"] for batch in plan["batches"]]
        told["removals"] = sum(batch["count"] for batch in plan["removals"])
        told["removal_batches"] = [batch["batch_id"] for batch in plan["removals"]]
        if plan["mode"] == "dryrun" and "fingerprint" in plan and "approved_plan" in plan["params"]:
            told["approve"] = f"{self._store.uri(folder)}/plan.json#{plan['fingerprint']}"
            told["selecting"] = sorted(SELECTING)
        return told


_OF_PLAN = (
    "at",
    "mode",
    "planned",
    "params",
    "summary",
    "notes",
    "remarks",
    "sync",
    "compared_at",
    "fingerprint",
)


def _looked_at(picture: Picture) -> dict[str, Any]:
    """A picture, with what is known of it, or why that is not known."""
    told = {"role": picture.role, "key": picture.key, "url": picture.where["url"]}
    try:
        place = open_place(picture)
        seen = place.look()
    except ImageflowsError as error:
        return told | {"problem": str(error)}
    told |= {
        "address": place.address,
        "bytes": seen.size,
        "version": seen.version,
        "modified": seen.modified and seen.modified.isoformat(),
        "metadata": seen.metadata,
        "changed": picture.changed(seen),
    }
    if not place.by_ranges:
        return told
    try:
        pyramid = previews().pyramid(place, seen.version)
        faults = pyramid.faults()
    except ImageflowsError as error:
        return told | {"no_pyramid": str(error)}
    levels = [
        {"width": level.width, "height": level.height, "tile": level.tile_width}
        for level in pyramid.levels
    ]
    return told | {"levels": levels, "facts": pyramid.facts(), "faults": faults}


def _again(report: dict[str, Any] | None) -> dict[str, Any] | None:
    """The run that does again what failed, of the command that the report gives people."""
    for command in report["run_again"] if report else ():
        words = shlex.split(command)
        if words[:3] == ["airflow", "dags", "trigger"] and words[4] == "--conf":
            return {"dag_id": words[3], "conf": json.loads(words[5])}
    return None
