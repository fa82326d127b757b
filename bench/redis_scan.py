"""46,000 image references in 12,000 documents: `ReferenceScan` beside the legacy's way.

Compared: our scan with its references written as a manifest (SCAN, STRLEN and MGET, the findings,
the external sort, every reference with the Redis keys it came from), and what the legacy script
did, written plainly: `KEYS *`, one GET a key, every value parsed and walked, a pickle of one flat
list. Fair because both read the same documents of the same server over one connection each, find
the same references (it is checked), write them down, and are timed in fresh processes from the
first command on. Every document is good: the legacy stops at the first that is not.

The documents are pages of 2 to 5 kB with four pictures each. The server, redis-server with its
defaults, runs on the same cores; its part is given. `KEYS *` also stops it for all others: for how
long, is given too.

    python -m bench redis-scan [--runs 5] [--pictures 46000]
"""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import redis

from bench.measure import cpu_seconds, in_fresh_python, peak_memory, ratios, say, spread, table
from devstack.processes import HOST
from devstack.redisserver import start_redis

RUNS = 5
REFERENCES = 46_000
A_PAGE = 4
"""References a document has; a few documents share theirs."""

SLOW_US = 100
"""Microseconds from which on the server remembers a command."""

SLOW_COMMANDS = 100_000

WAYS = ("ours", "legacy: KEYS, then a GET a key")
TEXT = "Lorem ipsum dolor sit amet, consetetur sadipscing elitr, sed diam nonumy eirmod. "


def main(runs: int, count: int | None) -> None:
    """Measure both ways in turns, and print the table."""
    references = count or REFERENCES
    with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
        temp = Path(folder)
        server = start_redis(temp / "redis")
        try:
            documents = _fill(server.port, references)
            say(f"{documents:,} documents are in Redis")
            answers = _in_turns(runs, server.port, server.process.pid, temp)
        finally:
            server.stop()
    if {each["found"] for found in answers.values() for each in found} != {references}:
        raise RuntimeError(f"of {references:,} references they found {answers}")
    rows = [
        (
            way,
            spread((each["seconds"] for each in found), 2),
            spread((each["cpu"] for each in found), 2),
            spread((each["server"] for each in found), 2),
            spread((each["memory"] / 1e6 for each in found), 0),
            spread((each["stopped"] * 1_000 for each in found), 1),
        )
        for way, found in answers.items()
    ]
    size = f"{references:,} references in {documents:,} documents"
    head = ("seconds", "CPU-seconds", "the server's", "peak memory, MB", "longest command, ms")
    table((size, *head), rows)
    ours, legacy = ([each["seconds"] for each in answers[way]] for way in WAYS)
    before = spread((each["before"] / 1e6 for each in answers[WAYS[0]]), 0)
    print(f"Time, ours ÷ legacy, pair by pair: {ratios(ours, legacy)}. ", end="")
    print(f"{before} MB are Python and imports before ours begins.\n")


def _in_turns(runs: int, port: int, pid: int, temp: Path) -> dict[str, list[dict[str, Any]]]:
    answers: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    client, server = redis.Redis(host=HOST, port=port), psutil.Process(pid)
    client.config_set("slowlog-log-slower-than", SLOW_US)
    client.config_set("slowlog-max-len", SLOW_COMMANDS)
    for run in range(runs):
        for way in WAYS if run % 2 == 0 else reversed(WAYS):
            say(f"run {run + 1} of {runs}: {way}")
            client.slowlog_reset()
            before = sum(server.cpu_times()[:2])
            arguments = (str(WAYS.index(way)), str(port), str(temp))
            answer = in_fresh_python("bench.redis_scan", *arguments)
            answer["server"] = sum(server.cpu_times()[:2]) - before
            answers[way].append(answer)
    return answers


def _fill(port: int, references: int) -> int:
    pipeline = redis.Redis(host=HOST, port=port).pipeline(transaction=False)
    documents = 0
    for documents, document in enumerate(_documents(references), 1):
        pipeline.set(f"content:v1:de:de:live:/page/{documents}", json.dumps(document))
        if documents % 1_000 == 0:
            pipeline.execute()
    pipeline.execute()
    return documents


def _documents(references: int) -> Iterator[dict[str, Any]]:
    for page in range(-(-references * 25 // 24 // A_PAGE)):
        blocks = []
        for place in range(A_PAGE):
            number = (page * A_PAGE + place) % references
            key = f"{number * 2_654_435_761 % 2**32:08x}-picture-{number}.jpg"
            blocks.append(
                {
                    "type": "teaser",
                    "headline": f"Überschrift {number}",
                    "text": TEXT * (4 + number * 7 % 6),
                    "image": {"src": f"ez/{key}", "width": 620, "height": 400, "alt": "Bild"},
                    "links": [{"url": f"/a/b/{link}", "title": "mehr"} for link in range(3)],
                }
            )
        yield {"page": {"id": page, "blocks": blocks, "meta": {"title": "Seite"}}}


def our_scan(port: int, temp: Path) -> int:
    from imagecore.manifest import write_manifest
    from imagecore.redisdb import Database
    from imagecore.redisrefs import ReferenceScan
    from imagecore.refrules import RefRules
    from imagecore.workstore import local_work_store

    scan = ReferenceScan(Database(redis.Redis(host=HOST, port=port), "bench"), RefRules(), temp)
    store = local_work_store(f"file://{temp}/work")
    manifest, _ = write_manifest(scan.items(), store, "manifest.jsonl", lambda count: 1_000)
    return manifest.count


def legacy_scan(port: int, temp: Path) -> int:
    from imagecore.refrules import KEY_NAMES

    client = redis.Redis(host=HOST, port=port)
    found: list[str] = []

    def walk(value: Any) -> None:
        for each in value.values() if isinstance(value, dict) else value:
            if isinstance(each, (dict, list)):
                walk(each)
        if isinstance(value, dict):
            names = (name for name in KEY_NAMES if isinstance(value.get(name), str))
            found.extend(value[name][3:] for name in names)

    for key in client.keys("*"):
        if key.startswith(b"content:v1:de:de:live:"):
            walk(json.loads(client.get(key)))
    with Path(temp, "images.txt").open("wb") as file:
        pickle.dump(found, file)
    return len(set(found))


def _measure(way: int, port: int, temp: Path) -> dict[str, float]:
    """In a fresh process: one of the two."""
    import imagecore.workstore  # noqa: F401 -- imports are not what is measured

    before, cpu, started = peak_memory(), cpu_seconds(), perf_counter()
    found = (our_scan, legacy_scan)[way](port, temp)
    return {
        "found": found,
        "seconds": perf_counter() - started,
        "cpu": cpu_seconds() - cpu,
        "memory": peak_memory(),
        "before": before,
        "stopped": _longest_command(port),
    }


def _longest_command(port: int) -> float:
    """Seconds for which the server served nobody else, at most."""
    commands: Any = redis.Redis(host=HOST, port=port).slowlog_get(SLOW_COMMANDS)
    return max((command["duration"] for command in commands), default=SLOW_US) / 1e6


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))
