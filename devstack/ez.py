"""A small editorial site: pages in Redis, dumped assets, and pictures that are in Riak already."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import redis

from devstack.processes import HOST
from devstack.samples import jpeg_of, photograph

BUCKET = "ez"
HASH_PREFIX = "var/ezflow_site/storage/images"
COPIED_TO = 1
"""The database to which `redis_copy` copies."""
LIVE = "content:v1:de:de:live:"

ASSETS = {
    "/media/startseite/teaser/rocket.jpg": lambda: photograph("rocket.jpg"),
    "/media/startseite/buehne/Kaffee & Küche.jpg": lambda: jpeg_of("coffee.png"),
    "/media/tiere/katze/chelsea.jpg": lambda: jpeg_of("chelsea.png"),
    "/media/archiv/chelsea.jpg": lambda: jpeg_of("chelsea.png", scale=0.5),
    "/media/aca/b/portrait.jpg": lambda: jpeg_of("astronaut.png"),
    "/media/bab/b/portrait.jpg": lambda: jpeg_of("astronaut.png", scale=0.5),
    "/media/umgezogen/camera.jpg": lambda: jpeg_of("camera.png"),
    "/media/defekt/retina.jpg": lambda: jpeg_of("retina.jpg")[:-4_000],
}


def reference(path: str) -> str:
    """The key of a file below the assets."""
    return f"{zlib.adler32(f'{HASH_PREFIX}{path}'.encode()):08x}-{path.rpartition('/')[2]}"


ROCKET, COFFEE, CAT, OLD_CAT, PORTRAIT, _, _, BROKEN = map(reference, ASSETS)
MOVED = reference("/media/vorher/camera.jpg")
GONE = reference("/media/geloescht/pool.jpg")
PRESENT = {ROCKET}
UPLOADED = {COFFEE, CAT, OLD_CAT}
EXPECTED = {
    **dict.fromkeys(PRESENT, "present"),
    **dict.fromkeys(UPLOADED, "uploaded"),
    MOVED: "hash_mismatch",
    GONE: "missing",
    PORTRAIT: "ambiguous",
    BROKEN: "unreadable",
}
"""PORTRAIT is the key of two files: their paths have one Adler-32."""

FINDINGS = {"foreign": 1, "not_json": 1}


def _pages() -> dict[str, str]:
    home: dict[str, Any] = {
        "title": "Startseite",
        "stage": {"image": f"ez/{COFFEE}", "backgroundImage": f"ez/{ROCKET}"},
        "teasers": [
            {"headline": "Katzen", "thumbnail": f"ez/{CAT}", "url": "/tiere/katzen"},
            {"headline": "Archiv", "thumbnail": f"ez/{OLD_CAT}", "url": "/archiv"},
            {"headline": "Extern", "src": "https://example.com/logo.png"},
        ],
    }
    people = {"gallery": [{"cover": f"ez/{key}"} for key in (PORTRAIT, MOVED, GONE, BROKEN)]}
    return {
        f"{LIVE}/startseite": json.dumps(home),
        f"{LIVE}/menschen": json.dumps(people),
        f"{LIVE}/tiere/katzen": json.dumps({"article": {"image": f"ez/{CAT}"}}),
        f"{LIVE}/kaputt": '{"title": "abgebroch',
        "buzz:v1:de:de:live:7": json.dumps({"buzz": {"src": f"ez/{ROCKET}"}}),
        "session:4711": "is nobody's business",
    }


def seed_ez(redis_port: int, riak: str, assets: Path) -> None:
    """Fill all three; what else is there stays."""
    for path, data in ASSETS.items():
        file = assets / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data())
    with redis.Redis(host=HOST, port=redis_port) as client:
        client.mset(_pages())
    for key in PRESENT:
        answer = httpx.put(
            f"{riak}/buckets/{BUCKET}/keys/{quote(key, safe='')}",
            content=b'{"id": "stored before"}',
            headers={"Content-Type": "application/json"},
            trust_env=False,
        )
        answer.raise_for_status()


def stored(riak: str, key: str) -> bytes | None:
    """What Riak has of a key."""
    url = f"{riak}/buckets/{BUCKET}/keys/{quote(key, safe='')}"
    answer = httpx.get(url, trust_env=False)
    return answer.content if answer.is_success else None


def forget(redis_port: int, riak: str) -> None:
    """Delete what an earlier demo stored and copied."""
    with redis.Redis(host=HOST, port=redis_port, db=COPIED_TO) as client:
        client.flushdb()
    for key in EXPECTED:
        httpx.delete(f"{riak}/buckets/{BUCKET}/keys/{quote(key, safe='')}", trust_env=False)
