"""One picture of 108 megapixels: `make_pyramid` beside the `vips` command line.

Compared: preset iiif (full size, JPEG Q85, 512 tiles), and `vips tiffsave` with the same
settings, each with one libvips thread a core, on a local file. Fair because both read and write
the same kind of file on the same disk; ours then verifies what it wrote, which the command line
does not, so making alone is given too. Ours is measured without the start of Python, since a
worker makes many pictures; the command line with its start (some 0.03 s). Memory is the peak of
the whole process, in a fresh one each time, with the pages of the source it has mapped.

    python -m bench large [--runs 5]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from bench.machine import cores, vips_command
from bench.measure import Used, in_fresh_python, peak_memory, ratios, spread, table, used_by
from bench.pictures import LARGE, pictures

RUNS = 5
MEGAPIXELS = LARGE[0] * LARGE[1] / 1e6
SETTINGS = (
    *("--tile", "--tile-width", "512", "--tile-height", "512", "--pyramid"),
    *("--compression", "jpeg", "--Q", "85"),
)


def main(runs: int, count: int | None) -> None:
    """Measure in turns, and print the tables. `count` does not matter: it is one picture."""
    source = pictures(LARGE, 1)[0]
    vips = vips_command()
    ours: list[dict[str, Any]] = []
    theirs: list[Used] = []
    with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
        temp = Path(folder)
        for _ in range(runs):
            ours.append(
                in_fresh_python(
                    "bench.large",
                    *(str(source), str(temp / "ours.tif")),
                    VIPS_CONCURRENCY=str(cores()),
                )
            )
            if vips:
                target = str(temp / "theirs.tif")
                command = [vips, "tiffsave", f"{source}[access=sequential]", target, *SETTINGS]
                theirs.append(used_by(command, temp))
    _print(ours, theirs)


def _print(ours: list[dict[str, Any]], theirs: list[Used]) -> None:
    rows = [
        _row("ours, verified", [(r["seconds"], r["cpu"], r["memory"]) for r in ours]),
        _row(
            "– of it making", [(r["make_seconds"], r["make_cpu"], r["make_memory"]) for r in ours]
        ),
    ]
    if theirs:
        peer = [(use.seconds, use.cpu, use.memory) for use in theirs]
        rows.append(_row("`vips tiffsave`", peer))
    head = (f"{MEGAPIXELS:.0f} MP, iiif", "MP/s", "seconds", "CPU-seconds", "peak memory, MB")
    table(head, rows)
    size = pictures(LARGE, 1)[0].stat().st_size / 1e6
    print(f"{size:.0f} MB of our peak are the source file, which libvips 8.18 maps into memory.\n")
    if not theirs:
        print("`vips` is not installed (Debian: libvips-tools), so there is nothing beside it.\n")
        return
    whole = ratios([use.seconds for use in theirs], [r["seconds"] for r in ours])
    making = ratios([use.seconds for use in theirs], [r["make_seconds"] for r in ours])
    print(f"Speed, ours ÷ `vips`, pair by pair: verified {whole}, making alone {making}.\n")


def _row(name: str, runs: list[tuple[float, float, int]]) -> tuple[str, ...]:
    seconds, cpu, memory = zip(*runs, strict=True)
    return (
        name,
        spread(MEGAPIXELS / each for each in seconds),
        spread(seconds, 2),
        spread(cpu, 2),
        spread((each / 1e6 for each in memory), 0),
    )


def _measure(source: Path, target: Path) -> dict[str, float]:
    """In a fresh process: one picture, with a look at the clock where verification begins."""
    from imagecore import pyramid, tiffcheck, tilemeans
    from imagecore.recipe import PRESETS

    assert tiffcheck
    assert tilemeans
    made: dict[str, float] = {}
    verify = pyramid._verify

    def verify_timed(*arguments: Any) -> int:
        made["make_seconds"] = perf_counter() - started
        made["make_cpu"] = process_time() - started_cpu
        made["make_memory"] = peak_memory()
        return verify(*arguments)

    pyramid._verify = verify_timed
    started, started_cpu = perf_counter(), process_time()
    pyramid.make_pyramid(source, target, PRESETS["iiif"])
    whole = {"seconds": perf_counter() - started, "cpu": process_time() - started_cpu}
    return {**made, **whole, "memory": peak_memory()}


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), Path(sys.argv[2]))))
