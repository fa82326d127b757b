"""22,000 existence checks: our Riak client beside `wrk`, on the same server.

Compared: `RiakBucket.exists` from 8 threads of one process, as RiakAdlerSyncOperator asks for every
reference, and `wrk` with 8 connections and one thread. Fair because both ask the same server for
the same keys with the same headers over as many connections that stay open, and both must
find that one key in eleven is absent (it is checked). After a HEAD `wrk` waits for the body whose
length the answer tells. So all objects are empty, which changes nothing for a HEAD, and the absent
keys, of which `wrk` is told, it asks for by GET: ten bytes more. `wrk` counts answers and does
nothing else with them; ours has time limits, tries again, and tells an absent key from a fault.

Ours asks for each key once, `wrk` for ten seconds in turns. The server is the devstack's own, one
Python process on the same cores: where it takes a whole core, requests/s are its speed, and the
CPU-time of the clients is what tells them apart.

    python -m bench riak-head [--runs 3] [--pictures 22000]

--pictures is the number of keys. It needs wrk: apt-get install wrk
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench import ROOT
from bench.measure import cpu_seconds, in_fresh_python, ratios, say, spread, table
from bench.server import Server
from bench.sync_tools import run
from devstack.ez import BUCKET, reference
from devstack.processes import HOST
from devstack.riakstore import Place, Store

if TYPE_CHECKING:
    from imagecore.riak import RiakBucket, RiakClient

RUNS = 3
THREADS = 8
"""Those of RiakAdlerSyncOperator."""
KEYS = 22_000
EVERY = 11
"""One key in so many is not there."""
SECONDS = 10
"""How long wrk asks."""

OURS, WRK = "ours: `RiakBucket.exists`, 8 threads", "`wrk`, 8 connections"

_SCRIPT = """
local requests, last = {}, 0
init = function(args)
  wrk.headers["User-Agent"] = "imageflows"
  for line in io.lines(args[1]) do
    table.insert(requests, wrk.format(line:match("^(%u+) (.+)$")))
  end
end
request = function()
  last = last % #requests + 1
  return requests[last]
end
done = function(summary)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %d, "absent": %d, "seconds": %f, "errors": %d}\\n',
    summary.requests, e.status, summary.duration / 1e6, e.connect + e.read + e.write + e.timeout))
end
"""


def look(bucket: RiakBucket, key: str) -> bool:
    """What is measured: whether Riak has the key."""
    return bucket.exists(key)


def main(runs: int, count: int | None) -> None:
    """Measure both in turns, and print the table."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    keys = [reference(f"/media/picture-{number}.jpg") for number in range(count or KEYS)]
    answers: dict[str, list[dict[str, float]]] = {OURS: [], WRK: []}
    with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
        temp = Path(folder)
        _write(keys, temp)
        with serving_riak(temp / "riak") as server:
            sides: dict[str, Callable[[], dict[str, float]]] = {
                OURS: lambda: in_fresh_python("bench.riak_head", server.endpoint, str(temp)),
                WRK: lambda: _wrk(wrk, server.endpoint, temp),
            }
            for number in range(runs):
                for name in sides if number % 2 == 0 else reversed(sides):
                    say(f"run {number + 1} of {runs}: {name}")
                    answers[name].append(_measured(name, sides[name], server))
    _print(len(keys), answers)


def _write(keys: list[str], temp: Path) -> None:
    """The objects, and what is to be asked for."""
    absent = {*keys[::EVERY]}
    fill_riak(temp / "riak", ((key, b"") for key in keys if key not in absent))
    (temp / "keys").write_text("\n".join(keys))
    root = f"/buckets/{BUCKET}/keys"
    lines = (f"{'GET' if key in absent else 'HEAD'} {root}/{key}\n" for key in keys)
    (temp / "requests").write_text("".join(lines))
    (temp / "script.lua").write_text(_SCRIPT)


def _measured(name: str, side: Callable[[], dict[str, float]], server: Server) -> dict[str, float]:
    """One measurement, with the server's part of it.

    Raises:
        RuntimeError: a request failed, or not the absent ones alone were absent.
    """
    before = server.cpu()
    answer = side()
    answer["server"] = server.cpu() - before
    # The keys come in turns: of those that were asked for when it ended some had no answer yet.
    if answer["errors"] or abs(answer["absent"] - answer["requests"] / EVERY) > THREADS:
        raise RuntimeError(f"{name}: one key in {EVERY} is absent, and it found {answer}")
    return answer


def _wrk(wrk: str, endpoint: str, temp: Path) -> dict[str, float]:
    options = ["--threads", "1", "--connections", str(THREADS), "--duration", f"{SECONDS}s"]
    command = [wrk, *options, "--script", "script.lua", endpoint, "--", "requests"]
    used = run([command], temp)
    answer: dict[str, float] = json.loads((temp / "printed.0").read_text().splitlines()[-1])
    return {**answer, "cpu": used.cpu}


def _print(keys: int, answers: dict[str, list[dict[str, float]]]) -> None:
    rates = {name: [a["requests"] / a["seconds"] for a in found] for name, found in answers.items()}
    costs, served = (
        {name: [1e6 * a[part] / a["requests"] for a in found] for name, found in answers.items()}
        for part in ("cpu", "server")
    )
    rows = [
        (name, spread(rates[name], 0), spread(costs[name], 0), spread(served[name], 0))
        for name in answers
    ]
    head = ("requests/s", "CPU of the client, µs a request", "of the server, µs")
    table((f"{keys:,} keys, one in {EVERY} absent", *head), rows)
    print(f"Requests/s, ours ÷ wrk, pair by pair: {ratios(rates[OURS], rates[WRK])}. ", end="")
    print(f"CPU of the client: {ratios(costs[OURS], costs[WRK])}.\n")


@contextmanager
def serving_riak(folder: Path) -> Iterator[Server]:
    """The devstack's Riak in a process of its own, with what is in `folder`."""
    command = [sys.executable, "-m", "devstack.riakserver", "--port", "0", "--folder", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"http://[^,]+", said)
            if found is None:
                raise RuntimeError(f"the devstack's Riak does not start: {said!r}")
            yield Server("riak", found[0], process.pid)
        finally:
            process.terminate()


def fill_riak(folder: Path, documents: Iterable[tuple[str, bytes]]) -> None:
    """Write objects (key, value) into the folder that the server is to have."""
    store = Store(folder)
    for key, value in documents:
        place = Place("default", BUCKET.encode(), key.encode())
        store.write(place, None, {"Content-Type": "application/json"}, value, siblings=False)
    store.leave()


def client_of(endpoint: str) -> RiakClient:
    """A client with the settings that RiakHook has by default."""
    from imagecore.riak import RiakClient
    from imagecore.riakhttp import Node, RiakNodes

    return RiakClient(RiakNodes([Node(HOST, int(endpoint.rpartition(":")[2]))]))


def _ours(endpoint: str, temp: Path) -> dict[str, Any]:
    """In a fresh process: every key once."""
    keys = (temp / "keys").read_text().splitlines()
    with closing(client_of(endpoint)) as client, ThreadPoolExecutor(THREADS) as pool:
        bucket = client.bucket(BUCKET)

        def work(number: int) -> int:
            return sum(not look(bucket, key) for key in keys[number::THREADS])

        cpu, started = cpu_seconds(), perf_counter()
        absent = sum(pool.map(work, range(THREADS)))
        seconds, cpu = perf_counter() - started, cpu_seconds() - cpu
    answer = {"requests": len(keys), "absent": absent, "seconds": seconds, "cpu": cpu}
    return {**answer, "errors": 0}


if __name__ == "__main__":
    print(json.dumps(_ours(sys.argv[1], Path(sys.argv[2]))))
