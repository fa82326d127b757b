"""The pictures of a run: which there are, from where they may be read, and that making them small
hurts nobody, whatever they are."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import struct
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from devstack.riakserver import RiakServer
from docs.generate import load_dags
from imagecore.errors import ItemFailed, ItemRefused
from imagecore.imagedocument import ImageDocument
from imagecore.outcome import State
from imagecore.sandbox import PictureWorker
from imagecore.workstore import WorkStore
from imageflows.hooks.riak_hook import RiakHook
from imageflows.web import previews as previewing
from imageflows.web.pictures import pictures, readable, roles
from imageflows.web.previews import WAITING, WORKERS, Image, Kept, previews
from tests.webapp import (
    KEY,
    TARGET,
    Gallery,
    Web,
    ended,
    photograph,
    pyramid,
    write_run,
)

pytest_plugins = ("tests.webapp",)

S3 = "imageflows_s3"
SYNC = {
    "source": {"url": "s3://originals/stores/", "conn_id": S3},
    "destination": {"url": "s3://shop/de/", "conn_id": S3},
    "trash": {"url": "s3://trash/", "conn_id": S3, "folder": "dag/run/plan-1-cafe/"},
}
ORIGINALS, SHOP, TRASH = (SYNC[name]["url"] for name in ("source", "destination", "trash"))
UNDO = {**SYNC, "source": {"url": TRASH, "conn_id": S3}}
DRIVE = {**SYNC, "source": {"url": "file:///srv/upload", "identity": [1, 2]}}
PYRAMIDS = {"aws_conn_id": S3, "source_bucket": "source", "image_bucket": "image"}
EZ = {"riak_conn_id": "imageflows_riak", "riak_bucket": "ez"}
RENDERS = {"aws_conn_id": S3, "style": "dress", "renders_bucket": "renders"}
SOURCE = {"key": "stores/a.jpg", "size": 7, "etag": "e", "modified": 0}
NEW = {"key": "a.jpg", "action": "new", "source": SOURCE, "before": None, "target": "de/a.jpg"}
BEFORE = {"key": "de/__w-200__/a.jpg", "etag": "old", "size": 5}
LADDER = {**NEW, "action": "modified", "before": BEFORE, "target": None}
REMOVAL = {
    "key": "de/b.jpg",
    "action": "duplicate",
    "absent": None,
    "remove": [{"key": "de/b.jpg", "etag": "e"}],
}
DROPPED = {"key": "de/b.jpg", "etag": "e", "size": 3, "trash": "dag/b.jpg", "kept": "e"}
REPLACED = {"etag": "old", "size": 5, "trash": "dag/de/w200/a.jpg", "kept": "old"}
LOST = {"etag": "old", "size": 5, "trash": None}
CUTS = [
    {"name": name, "kind": "fit", "width": 8, "height": 8, "drop": 0} for name in ("8x8", "4x4")
]
RENDER = {
    "source": {"url": "file:///srv/renders", "identity": [1, 2]},
    "rendering": {
        "style": "dress",
        "sizes": CUTS,
        "formats": [{"name": "png", "quality": None, "background": [255, 255, 255]}],
        "ppi": 172,
        "compositing": "exact",
        "layers": {"base_front_0001.png": {"key": "current/base_front_0001.png"}},
    },
}


def wrote(*keys: str, replaced: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [{"key": key, "etag": "n", "size": 9, "replaced": replaced} for key in keys]


def plan(sync: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    return {"params": params, "sync": sync} if sync else {"params": params}


CASES: dict[str, tuple[Any, ...]] = {
    "pyramid_tiff": (
        plan(**PYRAMIDS),
        {"key": "a.jpg"},
        ended("a.jpg", target="a.tif"),
        [("source", "s3://source/", "a.jpg"), ("result", "s3://image/", "a.tif")],
    ),
    "pyramid_tiff, quarantined": (
        plan(**PYRAMIDS),
        {"key": "a.jpg"},
        ended("a.jpg", State.QUARANTINED, "cut short"),
        [("source", "s3://source/", "a.jpg")],
    ),
    "pyramid_rerun": (
        plan(aws_conn_id=S3, source_bucket="source", process_bucket="process"),
        {"key": "a.jpg"},
        ended("a.jpg", target="rbsc/a.json"),
        [("source", "s3://source/", "a.jpg")],
    ),
    "store_bucket_sync": (
        plan(SYNC),
        NEW,
        ended("a.jpg", action="new", wrote=wrote("de/a.jpg"), removed=[]),
        [("source", ORIGINALS, "stores/a.jpg"), ("result", SHOP, "de/a.jpg")],
    ),
    "store_bucket_sync, failed": (
        plan(SYNC),
        NEW,
        ended("a.jpg", State.FAILED, "503"),
        [("source", ORIGINALS, "stores/a.jpg")],
    ),
    "store_bucket_sync, there already": (
        plan(SYNC),
        {**NEW, "action": "modified", "before": {**BEFORE, "key": "de/a.jpg"}},
        ended("a.jpg", State.SKIPPED, "there", action="modified", wrote=[], removed=[]),
        [("source", ORIGINALS, "stores/a.jpg"), ("result", SHOP, "de/a.jpg")],
    ),
    "store_bucket_sync, ladder": (
        plan(SYNC),
        LADDER,
        ended(
            "a.jpg",
            action="modified",
            wrote=[*wrote("de/w200/a.jpg", replaced=REPLACED), *wrote("de/__w-200__/a.jpg")],
            removed=[],
        ),
        [
            ("source", ORIGINALS, "stores/a.jpg"),
            ("result", SHOP, "de/w200/a.jpg"),
            ("result", SHOP, "de/__w-200__/a.jpg"),
            ("replaced", TRASH, "dag/de/w200/a.jpg"),
        ],
    ),
    "store_bucket_sync, ladder failed": (
        plan(SYNC),
        LADDER,
        ended("a.jpg", State.QUARANTINED, "unreadable"),
        [("source", ORIGINALS, "stores/a.jpg"), ("result", SHOP, "de/__w-200__/a.jpg")],
    ),
    "store_bucket_sync, removed": (
        plan(SYNC),
        REMOVAL,
        ended("de/b.jpg", action="duplicate", wrote=[], removed=[DROPPED]),
        [("replaced", TRASH, "dag/b.jpg")],
    ),
    "store_bucket_sync, gone already": (
        plan(SYNC),
        REMOVAL,
        ended("de/b.jpg", State.SKIPPED, "gone", action="duplicate", wrote=[], removed=[]),
        [("result", SHOP, "de/b.jpg")],
    ),
    "store_bucket_sync, without a trash": (
        plan({**SYNC, "trash": None}),
        REMOVAL,
        ended("de/b.jpg", action="duplicate", wrote=[], removed=[{**DROPPED, **LOST}]),
        [],
    ),
    "store_photo_upload": (
        plan(DRIVE),
        NEW,
        ended("a.jpg", action="new", wrote=wrote("de/a.jpg", replaced=LOST), removed=[]),
        [("source", "file:///srv/upload", "stores/a.jpg"), ("result", SHOP, "de/a.jpg")],
    ),
    "sync_undo, brought back": (
        plan(UNDO),
        {**NEW, "source": {**SOURCE, "key": "dag/a.jpg"}},
        ended("a.jpg", action="new", wrote=wrote("de/a.jpg"), removed=[]),
        [("source", TRASH, "dag/a.jpg"), ("result", SHOP, "de/a.jpg")],
    ),
    "sync_undo, taken away": (
        plan(UNDO),
        REMOVAL,
        ended("de/b.jpg", action="duplicate", wrote=[], removed=[DROPPED]),
        [("replaced", TRASH, "dag/b.jpg")],
    ),
    "ez_image_sync": (
        plan(**EZ),
        {"key": "39-a.jpg"},
        ended("39-a.jpg", result="uploaded"),
        [("result", "riak://ez", "39-a.jpg")],
    ),
    "ez_image_sync, quarantined": (
        plan(**EZ),
        {"key": "39-a.jpg"},
        ended("39-a.jpg", State.QUARANTINED, "no asset"),
        [("result", "riak://ez", "39-a.jpg")],
    ),
    "render_layers": (
        plan(**RENDERS),
        {"key": "t1/a.png", "source": {"key": "current/t1/a.png"}},
        ended("t1/a.png", target="renders/caddy/dress/t1/a.png"),
        [
            ("source", "file:///srv/renders", "current/t1/a.png"),
            ("result", "s3://renders/", "renders/caddy/dress/t1/a.png"),
        ],
    ),
    "render_composites": (
        plan(**RENDERS),
        {
            "key": "0001 front",
            "colour": 1,
            "layers": ["base_front"],
            "names": ["d-front", "e-front"],
        },
        ended("0001 front", checked=2),
        [
            ("result", "s3://renders/", "renders/composites/dress/8x8/d-front.png"),
            ("result", "s3://renders/", "renders/composites/dress/4x4/d-front.png"),
            ("result", "s3://renders/", "renders/composites/dress/8x8/e-front.png"),
            ("result", "s3://renders/", "renders/composites/dress/4x4/e-front.png"),
            ("source", "file:///srv/renders", "current/base_front_0001.png"),
        ],
    ),
    "redis_copy": (plan(patterns=["*"]), {"key": "page:1"}, ended("page:1", bytes=5), []),
}


@pytest.mark.parametrize("name", CASES)
def test_an_items_pictures_are_told_by_its_plan_and_its_outcome(work_store: WorkStore, name: str):
    planned, item, outcome, wanted = CASES[name]
    kept = RENDER if "composites" in name else {"source": RENDER["source"], "style": "dress"}
    work_store.put("dag/run/plan-1-cafe/render.json", json.dumps(kept).encode())
    found = pictures(work_store, "dag/run/plan-1-cafe", planned, item, outcome)
    assert [(each.role, each.where["url"], each.key) for each in found] == wanted
    row = {**vars(outcome), "state": outcome.state.value}
    assert {*roles(planned, row)} <= {each.role for each in found}
    if outcome.state is State.DONE:
        shown = {each.role for each in found} - {"replaced"}
        assert {*roles(planned, row)} >= shown
    before = pictures(work_store, "dag/run/plan-1-cafe", planned, item, None)
    assert {*roles(planned, item)} <= {each.role for each in before}
    if "sync" in planned:  # whose plan is looked at before it is approved
        assert {*roles(planned, item)} == {each.role for each in before}


def test_a_picture_is_told_with_what_is_known_of_it(web: Web, gallery: Gallery):
    run = gallery.pyramid_run()
    source, result = web.json("/api/picture", **run, key=KEY)["pictures"]
    assert (source["role"], source["bytes"]) == ("source", len(photograph()))
    assert source["address"] == f"s3://{gallery.source}/{KEY}"
    assert result["levels"][0] == {"width": 600, "height": 400, "tile": 128}
    assert result["facts"]["bands"] == 3
    assert result["faults"] == []
    gallery.put(TARGET, photograph("TIFF"), gallery.image)
    gallery.client.delete_object(Bucket=gallery.source, Key=KEY)
    source, result = web.json("/api/picture", **run, key=KEY)["pictures"]
    assert "problem" in source
    assert "not tiled" in result["no_pyramid"]


def test_no_picture_is_read_from_where_the_settings_do_not_lead(
    web: Web, gallery: Gallery, new_bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
):
    private = new_bucket("private")
    gallery.put("a.png", photograph(), private)
    run = gallery.show("a.png", params=gallery.params(source_bucket=private))
    for path, query in (("/preview", {}), ("/tile", {"level": 0, "column": 0, "row": 0})):
        answer = web.ask(path, **run, key="a.png", role="source", **query)
        assert answer.status_code == 403
        assert f"add s3://{S3}@{private} to [imageflows] page_buckets" in answer.json()["detail"]
    told = web.json("/api/picture", **run, key="a.png")["pictures"]
    assert told[0].keys() == {"role", "key", "url", "problem"}
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__PAGE_BUCKETS", f"s3://x@y , s3://{S3}@{private}")
    assert web.ask("/preview", **run, key="a.png", role="source").status_code == 200
    assert web.json("/api/picture", **run, key="a.png")["pictures"][0]["bytes"] > 0


def test_nor_by_another_connection(web: Web, gallery: Gallery, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", os.environ["AIRFLOW_CONN_IMAGEFLOWS_S3"])
    gallery.put("a.png", photograph())
    run = gallery.show("a.png", params=gallery.params(aws_conn_id="other"))
    answer = web.ask("/preview", **run, key="a.png", role="source")
    assert answer.status_code == 403
    assert f"s3://other@{gallery.source}" in answer.json()["detail"]


@pytest.mark.parametrize("setting", ["bucket", "s3://bucket", "file://c@/etc", "https://a@b"])
def test_a_setting_that_is_no_address_is_told_as_such(
    web: Web, gallery: Gallery, monkeypatch: pytest.MonkeyPatch, setting: str
):
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__PAGE_BUCKETS", setting)
    answer = web.ask("/preview", **gallery.pyramid_run(), key=KEY, role="source")
    assert answer.status_code == 422
    assert "page_buckets" in answer.json()["detail"]


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The local drive that may be read, with a secret beside it."""
    folder = tmp_path / "drive"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(photograph())
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__UPLOAD_ROOT", str(folder))
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__RENDERS_ROOT", str(tmp_path / "renders"))
    return folder


def upload(store: WorkStore, folder: Path, *keys: str) -> dict[str, str]:
    """A run that read these files below a local folder; a query for it."""
    sync = {**DRIVE, "source": {"url": f"file://{folder}", "identity": [1, 2]}}
    items = [{**NEW, "key": key, "source": {**SOURCE, "key": key}} for key in keys]
    outcomes = [ended(key, State.QUARANTINED, "no") for key in keys]
    run = {"dag_id": "store_photo_upload", "run_id": "run"}
    write_run(store, items, outcomes, sync=sync, **run)
    return run | {"role": "source"}


def test_a_file_is_shown_from_the_drive_and_from_nowhere_else(
    web: Web,
    work_store: WorkStore,
    drive: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
):
    (drive / "in").mkdir()
    (drive / "in" / "a.png").write_bytes(photograph())
    (drive / "link.png").symlink_to(tmp_path / "secret.png")
    (drive / "out").symlink_to(tmp_path)
    (drive / "fine.png").symlink_to(drive / "in" / "a.png")
    (drive / "circle.png").symlink_to(drive / "circle.png")
    os.mkfifo(drive / "pipe.png")
    request.addfinalizer(partial(os.close, os.open(drive / "pipe.png", os.O_RDWR)))
    refused = [
        "link.png",
        "out/secret.png",
        "../secret.png",
        str(tmp_path / "secret.png"),
        "/etc/passwd",
    ]
    odd = ["in", "pipe.png", "gone.png", "nul\0.png", "circle.png", "x" * 300]
    run = upload(work_store, drive, "in/a.png", "fine.png", *refused, *odd)
    for key in ("in/a.png", "fine.png"):
        assert web.ask("/preview", **run, key=key).status_code == 200
    for key in refused:
        answer = web.ask("/preview", **run, key=key)
        assert answer.status_code == 403, key
        assert "neither in [imageflows] upload_root nor" in answer.json()["detail"]
        assert "problem" in web.json("/api/picture", **run, key=key)["pictures"][0]
    for key in odd:
        answer = web.ask("/preview", **run, key=key)
        assert answer.status_code in {403, 422}, key
        assert answer.json()["detail"]
        assert "problem" in web.json("/api/picture", **run, key=key)["pictures"][0]


def test_nor_from_a_folder_that_a_run_names_beside_the_drive(
    web: Web, work_store: WorkStore, drive: Path, tmp_path: Path
):
    for folder in (tmp_path, tmp_path / "drive/..", Path("/"), Path(f"{drive}-other")):
        run = upload(work_store, folder, "secret.png")
        assert web.ask("/preview", **run, key="secret.png").status_code == 403


def test_every_default_of_a_dag_that_shows_pictures_is_readable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__AWS_CONN_ID", "our_s3")
    monkeypatch.setenv("AIRFLOW__IMAGEFLOWS__RIAK_CONN_ID", "our_riak")
    for dag_id, dag in load_dags().items():
        values = {name: dag.params.get_param(name).value for name in dag.params}
        for name in (name for name in values if name.endswith("_bucket")):
            if name == "process_bucket":
                continue
            kind = "riak" if name == "riak_bucket" else "s3"
            own = f"{name.removesuffix('_bucket')}_conn_id"
            shared = "destination_conn_id" if "destination_conn_id" in values else "aws_conn_id"
            conn_id = values.get(own, values.get(shared))
            assert (kind, conn_id, values[name]) in readable(), f"{dag_id}: {name}"


def test_a_picture_in_riak_is_taken_out_of_its_document(
    web: Web, work_store: WorkStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with RiakServer(tmp_path / "riak") as server:
        where = {"conn_type": "riak", "host": "127.0.0.1", "port": server.port}
        monkeypatch.setenv("AIRFLOW_CONN_IMAGEFLOWS_RIAK", json.dumps(where))
        bucket = RiakHook("imageflows_riak").bucket("ez")
        document = ImageDocument("a", "a.png", 1, 600, 400, "text/html", photograph(), 0)
        bucket.put("a", document.encode(), "application/json")
        bucket.put("b", b"<html>", "text/html")
        run = {"dag_id": "ez_image_sync", "run_id": "run"}
        keys = ("a", "b", "c")
        outcomes = [ended(key, result="uploaded") for key in keys]
        write_run(work_store, [{"key": key} for key in keys], outcomes, params=EZ, **run)
        answer = web.ask("/preview", **run, key="a", role="result")
        assert answer.headers["content-type"] == "image/jpeg"
        assert Pillow.open(io.BytesIO(answer.content)).size == (160, 107)
        for key, reason in (("b", "it is no picture's document"), ("c", "c")):
            answer = web.ask("/preview", **run, key=key, role="result")
            assert answer.status_code == 422
            assert reason in answer.json()["detail"]
        other = {"dag_id": "other", "run_id": "run"}
        write_run(work_store, [{"key": "a"}], params={**EZ, "riak_bucket": "private"}, **other)
        answer = web.ask("/preview", **other, key="a", role="result")
        assert answer.status_code == 403
        assert "add riak://imageflows_riak@private to" in answer.json()["detail"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The side in pixels of every picture that a worker was asked to make."""
    sides: list[int] = []
    make = PictureWorker.preview

    def spy(worker: PictureWorker, source: Path, target: Path, side: int) -> Any:
        sides.append(side)
        return make(worker, source, target, side)

    monkeypatch.setattr(PictureWorker, "preview", spy)
    return sides


def test_a_preview_is_made_once_for_each_version_and_size(
    web: Web, gallery: Gallery, asked: list[int]
):
    run = gallery.pyramid_run() | {"key": KEY, "role": "source"}
    first = web.ask("/preview", **run)
    assert Pillow.open(io.BytesIO(first.content)).size == (160, 107)
    known = {"If-None-Match": first.headers["etag"]}
    again = web.ask("/preview", headers=known, **run)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert web.ask("/preview", **run).content == first.content
    assert asked == [160]
    large = web.ask("/preview", **run, side=1200)
    assert Pillow.open(io.BytesIO(large.content)).size == (600, 400)
    assert asked == [160, 1200]
    gallery.put(KEY, photograph("JPEG"))
    changed = web.ask("/preview", headers=known, **run)
    assert (changed.status_code, asked) == (200, [160, 1200, 160])
    assert changed.headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize("side", [0, -1, 161, 100_000, "x"])
def test_other_sizes_are_not_made(web: Web, gallery: Gallery, asked: list[int], side: int | str):
    run = gallery.pyramid_run() | {"key": KEY, "role": "source"}
    assert web.ask("/preview", **run, side=side).status_code in {400, 422}
    assert asked == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "result", "number": 1},
        {"role": "replaced"},
        {"role": ""},
        {"role": "../x"},
        {"number": -1},
        {"number": 10**9},
        {"key": "other.png"},
        {"key": "..\0"},
        {"part": "verify"},
    ],
    ids=str,
)
def test_a_picture_that_the_run_has_not_is_none(web: Web, gallery: Gallery, wrong: dict[str, Any]):
    run = gallery.pyramid_run() | {"key": KEY, "role": "source"} | wrong
    answer = web.ask("/preview", **run)
    assert answer.status_code in {404, 422} or wrong == {"part": "verify"}


HTML = b"<html><script>alert(1)</script></html>"
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
)


def polyglot() -> bytes:
    """A GIF whose comment is a page."""
    gif = photograph("GIF")
    return gif[:-1] + b"\x21\xfe" + bytes([len(HTML)]) + HTML + b"\x00" + gif[-1:] + HTML


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("page.jpg", HTML),
        ("page.svg", SVG),
        ("page.html", HTML),
        ("page.gif", polyglot()),
        ("page.png", photograph()),
        ("page.jpg", photograph("JPEG", comment=HTML)),
        ("page.jpg", b""),
        ("page.tif", pyramid() + HTML),
    ],
)
def test_nothing_but_two_kinds_of_picture_leaves_here(
    web: Web, gallery: Gallery, name: str, body: bytes
):
    gallery.put(name, body, ContentType="text/html")
    answer = web.ask("/preview", **gallery.show(name), key=name, role="source", side=1200)
    assert b"alert" not in answer.content
    if answer.status_code == 200:
        kind = Pillow.open(io.BytesIO(answer.content)).format
        assert answer.headers["content-type"] == f"image/{str(kind).lower()}"
        assert kind in {"JPEG", "PNG"}
    else:
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].endswith("sandbox")


def chunk(name: bytes, body: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + check


def bomb(side: int) -> bytes:
    """A PNG of side x side pixels in some kilobytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed)


def endless_tiff() -> bytes:
    """Directories that lead to each other."""
    page = struct.pack("<HHHII", 1, 256, 3, 1, 9)
    return (
        b"II*\0" + struct.pack("<I", 8) + page + struct.pack("<I", 26) + page + struct.pack("<I", 8)
    )


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("bomb.png", bomb(30_000)),
        ("bomb.tif", bomb(30_000)),
        ("endless.tif", endless_tiff()),
        ("noise.jpg", random.Random(1).randbytes(5_000)),
        ("head.tif", pyramid()[:200]),
    ],
)
def test_a_hostile_file_is_refused_with_a_reason_that_is_remembered(
    web: Web, gallery: Gallery, asked: list[int], name: str, body: bytes
):
    gallery.put(name, body)
    run = gallery.show(name) | {"key": name, "role": "source"}
    answer = web.ask("/preview", **run)
    assert answer.status_code == 422
    assert answer.json()["detail"]
    made = len(asked)
    assert web.ask("/preview", **run).json() == answer.json()
    assert len(asked) == made
    gallery.put(name, photograph())
    assert web.ask("/preview", **run).status_code == 200


def test_a_damaged_picture_is_shown_as_far_as_it_goes(web: Web, gallery: Gallery):
    body = photograph("JPEG")
    gallery.put("half.jpg", body[: len(body) // 2])
    answer = web.ask("/preview", **gallery.show("half.jpg"), key="half.jpg", role="source")
    assert answer.headers["content-type"] == "image/jpeg"


def test_a_huge_file_is_not_even_fetched(web: Web, work_store: WorkStore, drive: Path):
    with (drive / "huge.jpg").open("wb") as file:
        file.truncate(300_000_000)
    run = upload(work_store, drive, "huge.jpg")
    answer = web.ask("/preview", **run, key="huge.jpg")
    assert answer.status_code == 422
    assert "has 300,000,000 bytes, and previews are made of up to 200,000,000" in answer.text


def test_a_reason_that_is_remembered_does_not_grow(web: Web):
    def refuse(target: Path) -> None:
        raise ItemRefused("no picture")

    lengths = []
    for _ in range(20):
        with pytest.raises(ItemRefused) as caught:
            previews()._made("a reason that is remembered", 160, refuse, "")
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert max(lengths[1:]) <= lengths[1]


class Gate:
    """Holds workers back, as a picture does that takes long; counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.inside = 0
        self.most = 0
        self._lock = threading.Lock()
        make = PictureWorker.preview

        def held(worker: PictureWorker, *request: Any) -> Any:
            with self._lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            assert self.open.wait(60)
            try:
                return make(worker, *request)
            finally:
                with self._lock:
                    self.inside -= 1

        monkeypatch.setattr(PictureWorker, "preview", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open.set()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_few_work_some_wait_and_the_others_are_told_to_come_again(
    web: Web, gallery: Gallery, gate: Gate
):
    run = gallery.pyramid_run() | {"key": KEY, "role": "source"}
    with ThreadPoolExecutor(WORKERS + WAITING) as pool:

        def ask() -> httpx.Response:
            return web.ask("/preview", **run)

        answers = [pool.submit(ask) for _ in range(WORKERS + WAITING)]
        until(lambda: previews()._limiter.statistics().tasks_waiting == WAITING)
        assert gate.inside == WORKERS
        refused = web.ask("/preview", **run)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert "wait a little" in refused.json()["detail"]
        assert web.ask("/").status_code == 200
        assert web.json("/api/run", dag_id=run["dag_id"], run_id=run["run_id"])["plan"]
        assert len(web.json("/api/picture", **run)["pictures"]) == 2
        gate.open.set()
        found = [answer.result() for answer in answers]
    assert {answer.status_code for answer in found} == {200}
    assert gate.most == WORKERS


def test_a_worker_that_is_killed_costs_that_request_alone(
    web: Web, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
):
    exchange, killed = PictureWorker._exchange, []

    def kill_first(worker: PictureWorker, child: Any, *request: Any) -> bytes | None:
        if not killed:
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)
        return exchange(worker, child, *request)

    monkeypatch.setattr(PictureWorker, "_exchange", kill_first)
    gallery.put("other.png", photograph())
    run = gallery.pyramid_run() | {"role": "source"}
    other = gallery.show("other.png", dag_id="other") | {"key": "other.png", "role": "source"}
    answer = web.ask("/preview", **run, key=KEY)
    assert answer.status_code == 422
    assert "killed" in answer.json()["detail"]
    assert web.ask("/preview", **other).status_code == 200
    assert web.ask("/preview", **run, key=KEY, side=1200).status_code == 200
    now = time.monotonic() + previewing.FAILED_SECONDS
    monkeypatch.setattr(previewing, "monotonic", lambda: now)
    assert web.ask("/preview", **run, key=KEY).status_code == 200


def test_a_file_that_comes_too_slowly_is_left(
    web: Web, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(previewing, "SECONDS", 0)
    answer = web.ask("/preview", **gallery.pyramid_run(), key=KEY, role="source")
    assert answer.status_code == 422
    assert "could not be fetched in 0 s" in answer.json()["detail"]


PUT = st.tuples(st.sampled_from("abcdefg"), st.sampled_from([0, 1, 999, 2_000, 6_000]) | st.none())


@given(st.lists(PUT | st.sampled_from("abcdefg"), max_size=60))
def test_what_is_kept_is_what_was_used_last_and_never_too_much(steps: list[Any]):
    most = 8_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(previewing, "KEPT_BYTES", most)
        kept, model = Kept(), {}
        for step in steps:
            if isinstance(step, str):
                assert kept.get(step) is model.get(step)
                if step in model:
                    model[step] = model.pop(step)
                continue
            name, size = step
            made = ItemRefused("no") if size is None else Image(name, "image/png", bytes(size))
            model.pop(name, None)
            model[name] = made
            kept.put(name, made)
            while sum(map(weight, model.values())) > most:
                del model[next(iter(model))]
        assert sum(map(weight, model.values())) <= most
        assert all(kept.get(name) is model.get(name) for name in "abcdefg")


def weight(made: Image | ItemRefused | ItemFailed) -> int:
    return 1_000 + (len(made.data or b"") if isinstance(made, Image) else 0)


def test_each_tile_is_its_part_of_the_level(web: Web, gallery: Gallery):
    run = gallery.pyramid_run() | {"key": KEY, "role": "result"}
    with tifffile.TiffFile(io.BytesIO(pyramid())) as file:
        levels = [page.asarray() for page in (file.pages[0], *file.pages[1:])]
    told = web.json("/api/picture", **run)["pictures"][1]["levels"]
    assert [(each["height"], each["width"]) for each in told] == [each.shape[:2] for each in levels]
    for number, level in enumerate(levels):
        rows, columns = (-(-side // 128) for side in level.shape[:2])
        for row, column in {(0, 0), (rows - 1, columns - 1), (rows // 2, 0)}:
            answer = web.ask("/tile", **run, level=number, column=column, row=row)
            assert answer.headers["content-type"] == "image/jpeg"
            tile = np.asarray(Pillow.open(io.BytesIO(answer.content))).astype(int)
            part = level[row * 128 : row * 128 + 128, column * 128 : column * 128 + 128]
            assert tile.shape == part.shape
            assert np.abs(tile - part).mean() < 6


def test_a_tile_is_made_once_and_known_by_its_etag(web: Web, gallery: Gallery, asked: list[int]):
    place = {"level": 0, "column": 1, "row": 1}
    run = gallery.pyramid_run() | {"key": KEY, "role": "result"}
    first = web.ask("/tile", **run, **place)
    known = {"If-None-Match": first.headers["etag"]}
    assert web.ask("/tile", headers=known, **run, **place).status_code == 304
    assert web.ask("/tile", **run, **place).content == first.content
    assert len(asked) == 1
    other = web.ask("/tile", **run, **place | {"row": 0}, headers=known)
    assert (other.status_code, len(asked)) == (200, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": 9},
        {"level": 65},
        {"level": -1},
        {"column": 5},
        {"column": -1},
        {"column": 10**30},
        {"row": 4},
        {"row": 2**63},
        {"row": "x"},
        {"role": "source"},
    ],
    ids=str,
)
def test_a_tile_that_is_none_is_refused_with_a_reason(
    web: Web, gallery: Gallery, wrong: dict[str, Any]
):
    place = {"level": 0, "column": 0, "row": 0, "key": KEY, "role": "result"} | wrong
    answer = web.ask("/tile", **gallery.pyramid_run(), **place)
    assert answer.status_code == 422
    assert answer.json()["detail"]
