"""2,000 image references and 20,000 asset files: `ez_image_sync` beside the legacy's two scripts.

Compared, each from an empty folder to the last line of `upload.log` and `error.log`: ours
(`ReferenceScan` and its manifest, `build_index`, then `run_batch` with `RiakImages` on 8 threads
and one process that decodes, each outcome on record in a local work store), and what the legacy
scripts did, written plainly: `KEYS *` and a GET a key; then, reference by reference, a GET of the
whole object to see whether it is there, and if not a walk through the whole tree with `fnmatch`,
the Adler-32 of the path, the picture decoded and saved again, a PUT. Fair because both read the
same documents and files, begin with a Riak that has the same half of the pictures, and must end
with exactly the expected keys there and in both logs (it is checked). Where it is not known what
the legacy did, it has the faster: one connection that stays open, no libmagic, 100 files a folder.
`reencode` makes of ours the legacy's payload; `original`, our default, decodes a picture and stores
the file's own bytes. Not equal in what is promised: ours reads back what it stored and compares
it, and decodes in a process of its own; the legacy ends at the first broken picture.

The pictures are JPEG files of 480 × 360 pixels, 25 to 83 kB; one file in ten is referenced,
and one reference in a hundred has no file. Redis is redis-server. Riak is the devstack's own
server: written in Python too, on the same cores, and with no network before it. The second
table has the same work at an eighth, a quarter and half of the size.

    python -m bench riak-sync [--runs 2] [--pictures 2000]

--pictures is the number of references; there are ten times as many files.
"""

from __future__ import annotations

import base64
import fnmatch
import json
import os
import pickle
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any
from urllib.parse import quote

import redis

from bench.measure import cpu_seconds, in_fresh_python, ratios, say, spread, table
from bench.pictures import pictures
from bench.redis_scan import A_PAGE, TEXT, legacy_scan, our_scan
from bench.riak_head import THREADS, client_of, fill_riak, serving_riak
from devstack.ez import BUCKET, HASH_PREFIX, LIVE, reference
from devstack.processes import HOST
from devstack.redisserver import start_redis

RUNS = 2
REFERENCES = 2_000
FILES = 10
"""Files for each reference, one of which it means."""
FOLDER = 100
"""Files a folder has."""
EVERY = 100
"""One reference in so many has no file."""
PICTURE = (480, 360)
SOURCES = 8

WAYS = ("ours, original", "ours, reencode", "legacy")


@dataclass(frozen=True)
class World:
    """What is synced: the paths of all files below `assets`, and the `references` to some."""

    assets: Path
    sources: list[Path]
    references: int

    @property
    def paths(self) -> list[str]:
        """Of the files, those that are missing included."""
        numbers = range(self.references * FILES)
        return [f"/media/{number // FOLDER:04d}/picture-{number}.jpg" for number in numbers]

    @property
    def meant(self) -> list[str]:
        """Paths that are referenced."""
        return self.paths[::FILES]

    @property
    def present(self) -> list[str]:
        """Paths of pictures that Riak has before."""
        return self.meant[::2]

    @property
    def missing(self) -> list[str]:
        """Paths that are referenced, and are not there."""
        return self.meant[1::EVERY]

    @property
    def uploaded(self) -> set[str]:
        """Keys to be stored."""
        return {*map(reference, {*self.meant} - {*self.present} - {*self.missing})}

    @property
    def title(self) -> str:
        return f"{self.references:,} references, {self.references * FILES:,} files"


def main(runs: int, count: int | None) -> None:
    """Measure all ways in turns at four sizes, and print the tables."""
    sizes = [max((count or REFERENCES) // part, EVERY) for part in (8, 4, 2, 1)]
    made = pictures(PICTURE, SOURCES)
    answers = {size: _at_size(size, runs, made) for size in dict.fromkeys(sizes)}
    _print_whole(sizes[-1], answers[sizes[-1]])
    _print_growth(answers)


def _at_size(references: int, runs: int, made: list[Path]) -> dict[str, list[dict[str, Any]]]:
    answers: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
        temp = Path(folder)
        sources = [Path(shutil.copy(each, temp)) for each in made]
        world = World(temp / "assets", sources, references)
        _lay_out(world)
        server = start_redis(temp / "redis")
        try:
            _write_documents(world, server.port)
            for run in range(runs):
                for way in WAYS if run % 2 == 0 else reversed(WAYS):
                    say(f"run {run + 1} of {runs}: {world.title}: {way}")
                    answers[way].append(_once(way, world, server.port, temp))
        finally:
            server.stop()
    return answers


def _print_whole(references: int, answers: dict[str, list[dict[str, Any]]]) -> None:
    taken = {
        column: {way: [each[column] for each in found] for way, found in answers.items()}
        for column in ("seconds", "cpu", "riak", "scan", "index")
    }
    columns = ("seconds", "cpu", "riak")
    rows = [(way, *(spread(taken[column][way], 2) for column in columns)) for way in WAYS]
    size = f"{references:,} references, {references * FILES:,} files"
    table((size, "seconds", "CPU-seconds", "Riak's"), rows)
    for name, column in (("Time", "seconds"), ("CPU-seconds", "cpu")):
        first, second = (ratios(taken[column][way], taken[column][WAYS[2]]) for way in WAYS[:2])
        print(f"{name}, ours ÷ legacy, pair by pair: original {first}, reencode {second}.  ")
    scan, index = (spread(taken[column][WAYS[0]], 2) for column in ("scan", "index"))
    print(f"Of our seconds {scan} are the references and {index} the index.\n")


def _print_growth(answers: dict[int, dict[str, list[dict[str, Any]]]]) -> None:
    rows = []
    for size, by_way in answers.items():
        row = [f"{size:,}", f"{size * FILES:,}"]
        for column in ("seconds", "cpu"):
            ours, legacy = (
                [1_000 * each[column] / size for each in by_way[way]] for way in (WAYS[0], WAYS[2])
            )
            row += [spread(ours), spread(legacy), ratios(ours, legacy)]
        rows.append(row)
    parts = ("ours, original", "legacy", "ours ÷ legacy")
    titles = [f"{part}{unit}" for unit in ("", ", CPU") for part in parts]
    table(("references", "files", *titles), rows)
    print("Milliseconds a reference.\n")


def _lay_out(world: World) -> None:
    """The files: links to the sources in turn, which take no space."""
    missing = {*world.missing}
    for number, path in enumerate(world.paths):
        if path not in missing:
            file = world.assets / path[1:]
            file.parent.mkdir(parents=True, exist_ok=True)
            os.link(world.sources[number % SOURCES], file)


def _write_documents(world: World, port: int) -> None:
    keys = [reference(path) for path in world.meant]
    with redis.Redis(host=HOST, port=port) as client:
        for start in range(0, len(keys), A_PAGE):
            blocks = [
                {"type": "teaser", "text": TEXT * 6, "image": {"src": f"ez/{key}", "alt": "Bild"}}
                for key in keys[start : start + A_PAGE]
            ]
            client.set(f"{LIVE}/page/{start}", json.dumps({"page": {"blocks": blocks}}))


def _once(way: str, world: World, redis_port: int, temp: Path) -> dict[str, Any]:
    """One measurement, with a Riak and a folder of its own."""
    folder = temp / "once"
    folder.mkdir()
    fill_riak(folder / "riak", _present(world))
    with serving_riak(folder / "riak") as server:
        before = server.cpu()
        arguments = (way, str(redis_port), server.endpoint, str(world.assets), str(folder))
        answer: dict[str, Any] = in_fresh_python("bench.riak_sync", *arguments)
        answer["riak"] = server.cpu() - before
        _check(way, answer["there"], world, server.endpoint, folder)
    shutil.rmtree(folder)
    return answer


def _present(world: World) -> Iterator[tuple[str, bytes]]:
    from imagecore.imagedocument import ImageDocument

    for number, path in enumerate(world.present):
        picture = world.sources[number % SOURCES].read_bytes()
        fields = (path.rpartition("/")[2], len(picture), *PICTURE, "image/jpeg", picture)
        key = reference(path)
        yield key, ImageDocument(key, *fields, created=int(time.time())).encode()


def _check(way: str, there: int, world: World, endpoint: str, folder: Path) -> None:
    """Raise unless it did all that was to be done, and nothing else."""
    from imagecore.imagedocument import decode

    uploaded, missing = world.uploaded, {*map(reference, world.missing)}
    wanted = {*map(reference, world.present)} | uploaded
    logged = {*(folder / "upload.log").read_text().splitlines()}
    errors = {line.rpartition(" ")[2] for line in (folder / "error.log").read_text().splitlines()}
    with closing(client_of(endpoint)) as client:
        bucket = client.bucket(BUCKET)
        stored = {*bucket.keys_by_reading_the_whole_cluster()}
        found = (stored, logged, errors, there)
        if found != (wanted, uploaded, missing, len(world.present)):
            raise RuntimeError(
                f"{way}: of {len(wanted):,} keys {len(stored & wanted):,} are in Riak and "
                f"{len(stored - wanted):,} more; {there:,} of {len(world.present):,} were there, "
                f"{len(logged):,} of {len(uploaded):,} uploads and {len(errors):,} of "
                f"{len(missing):,} errors are logged"
            )
        for key in sorted(uploaded)[::FOLDER]:
            decode(bucket.get(key).data)


Done = tuple[int, float, float]
"""References that Riak had already; seconds for the references, and for the index."""


def _ours(payload: str, redis_port: int, endpoint: str, assets: Path, temp: Path) -> Done:
    from imagecore.assets import AssetIndex, build_index
    from imagecore.batch import run_batch
    from imagecore.manifest import decode
    from imagecore.outcome import OutcomeLog, State
    from imagecore.riaklogs import write_logs
    from imagecore.riaksync import RiakImages
    from imagecore.sandbox import picture_workers
    from imagecore.workstore import local_work_store

    started = perf_counter()
    our_scan(redis_port, temp)
    scanned = perf_counter()
    build_index(assets, temp / "index")
    indexed = perf_counter()
    store = local_work_store(f"file://{temp}/work")
    items = decode(store.get("manifest.jsonl"), "manifest")
    record = OutcomeLog(store, "outcomes")
    with (
        closing(client_of(endpoint)) as client,
        AssetIndex(temp / "index") as index,
        picture_workers(1, temp_dir=temp, timeout_s=120, memory_mb=1_024, file_mb=None) as workers,
    ):
        bucket = client.bucket(BUCKET)
        images = RiakImages(bucket, assets, index, workers, temp, payload=payload)
        states = run_batch(items, images.process, record, threads=THREADS, stop=Event())
    (outcomes,) = store.paths("outcomes")
    write_logs(store, outcomes, temp)
    return states[State.SKIPPED], scanned - started, indexed - scanned


def _legacy(redis_port: int, endpoint: str, assets: Path, temp: Path) -> Done:
    started = perf_counter()
    legacy_scan(redis_port, temp)
    with (temp / "images.txt").open("rb") as file:
        keys = set(pickle.load(file))
    scanned, there = perf_counter(), 0
    connection = HTTPConnection(HOST, int(endpoint.rpartition(":")[2]))
    with (
        closing(connection),
        (temp / "upload.log").open("w") as uploads,
        (temp / "error.log").open("w") as errors,
    ):
        for key in keys:
            if _asked(connection, "GET", key) == 200:
                there += 1
                continue
            digest, _, name = key.partition("-")
            found = [
                os.path.join(folder, each)
                for folder, _, names in os.walk(assets)
                for each in fnmatch.filter(names, name)
            ]
            if not found:
                errors.write(f"ERROR - Error could not find match for {key}\n")
                continue
            right = [file for file in found if _adler32(file, assets) == digest]
            if not right:
                errors.write(f"WARNING - Error could not match hashes of {key}\n")
                continue
            uploads.write(f"{key}\n")
            status = _asked(connection, "PUT", key, _document(key, right[0]))
            if status != 204:
                raise RuntimeError(f"{key}: Riak answered {status}")
    return there, scanned - started, 0.0


def _asked(connection: HTTPConnection, method: str, key: str, body: bytes | None = None) -> int:
    headers = {"Content-Type": "application/json"} if body else {}
    connection.request(method, f"/buckets/{BUCKET}/keys/{quote(key, safe='')}", body, headers)
    response = connection.getresponse()
    response.read()
    return response.status


def _adler32(file: str, assets: Path) -> str:
    return f"{zlib.adler32((HASH_PREFIX + file.removeprefix(str(assets))).encode()):08x}"


def _document(key: str, file: str) -> bytes:
    from PIL import Image

    with Image.open(file) as image:
        saved, kind = BytesIO(), str(image.format)
        image.save(saved, kind)
        width, height = image.size
    fields = {
        "id": key,
        "title": os.path.basename(file),
        "size": str(os.path.getsize(file)),
        "width": str(width),
        "height": str(height),
        "mimeType": Image.MIME[kind],
        "imageBinary": base64.b64encode(saved.getvalue()).decode(),
        "type": "image",
        "origin": "Python ImageSync",
        "createdAt": str(int(time.time())),
    }
    return json.dumps(fields).encode()


def _measure(way: str, redis_port: int, endpoint: str, assets: Path, temp: Path) -> dict[str, Any]:
    """In a fresh process: one way."""
    from PIL import Image

    import imagecore.riaklogs  # noqa: F401 -- imports are not what is measured

    Image.preinit()
    cpu, started = cpu_seconds(), perf_counter()
    if way == WAYS[2]:
        there, scan, index = _legacy(redis_port, endpoint, assets, temp)
    else:
        there, scan, index = _ours(way.rpartition(" ")[2], redis_port, endpoint, assets, temp)
    return {
        "seconds": perf_counter() - started,
        "there": there,
        "scan": scan,
        "index": index,
        "cpu": cpu_seconds() - cpu,
    }


if __name__ == "__main__":
    _way, _redis_port, _endpoint, _assets, _temp = sys.argv[1:]
    print(json.dumps(_measure(_way, int(_redis_port), _endpoint, Path(_assets), Path(_temp))))
