"""Composites of a dress with the four legacy sizes as PNG: our worker beside ImageMagick.

Compared, a composite: `PictureWorker.make_composite` as a batch runs it (one child, one core, one
libvips thread, stacks in the order of the plan, the start of the child and a cold cache in the
time), and what the legacy ran: one `convert` that lays the layers over each other, writes 172 ppi
and fits 800 x 800, and one for each of the three cuts of that. Fair because both read the same
layer files and write the same files into a folder of the same disk, each on one core; that they
are pictures of the same is checked. Ours keeps layers and unfinished stacks from one composite to
the next, and reads back every file with another library; the legacy begins anew each time and
checks nothing. Ours makes all stacks of one colour. The legacy, whose composites cost the same
whatever was made before, makes a sample of them, evenly spaced and another in each run. Sides take
turns.

Over a real CSV the legacy makes every combination, duplicates too: its time there is that of a
sample, extrapolated. Ours makes distinct stacks and copies files for the other names. The
layers of those styles are not to be had; those of the dress of the same kind stand in for them.

The layers are those of the sample style in one colour, 1600 x 2400 pixels, drawn once.

    python -m bench renders [--runs 3] [--pictures 624]
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from time import perf_counter

import psutil

from bench import ROOT
from bench.machine import cores
from bench.measure import cpu_seconds, ratios, say, spread, table
from bench.render_legacy import ABSENT, find_convert, legacy_composite, likeness
from devstack.renders import STYLE, draw_renders, drawings
from imagecore.composite import MODES, CompositeRequest, Layer
from imagecore.manifest import Item
from imagecore.renderstyle import Style, layer_and_side, load_style
from imagecore.sandbox import PictureWorker
from imagecore.stacks import plan_stacks

RUNS = 3
SAMPLE = 10
"""Of a run's stacks, those that the legacy makes too."""
GROWTH = (50, 100, 200, 400)
CACHE_MB, SMALL_CACHE_MB = 1024, 256
MEMORY_MB = 2_048
"""Of the child besides its cache, as RenderCompositeOperator has it."""

LAYERS = ROOT / "build" / "bench" / "renders"
SCALE = 2
REAL = ROOT / "tests" / "data" / "renders"
STYLES = {
    "fp-dr1003-102": "FP-DR1003-102-Micro-Mini.csv",
    "fp-dr1006-102": "FP-DR1006-102-Mini.csv",
}
STEPS = ("decode", "composite", "resize", "encode", "verify")

Files = Mapping[str, Path]
"""Layer files by base name."""


@dataclass(frozen=True)
class Made:
    """A composite: its seconds, the child's CPU-seconds, the seconds of each step, and the most
    memory of the child until then in bytes."""

    seconds: float
    cpu: float
    steps: dict[str, float]
    peak: int


def main(runs: int, count: int | None) -> None:
    """Measure all sides in turns, and print the tables."""
    files = _dress()
    items = _planned(load_style(ROOT / "include" / "styles" / f"{STYLE}.yaml"))
    items = items[: count or len(items)]
    convert = find_convert()
    with tempfile.TemporaryDirectory(prefix="imageflows-bench-") as folder:
        temp = Path(folder)
        _a_composite(runs, items, files, convert, temp)
        _on_all_cores(runs, items, files, temp)
        if convert:
            for name, combinations in STYLES.items():
                _a_real_style(runs, name, combinations, files, convert, temp)
        _growth([each for each in GROWTH if each < len(items)] + [len(items)], items, files, temp)


def _dress() -> Files:
    """The layers of the sample style, kept for the next time."""
    # Of two drawings of one layer, the one that is superseded comes last.
    names = {Path(stem).name.lower(): f"{stem}_0000.png" for stem, _ in reversed([*drawings()])}
    files = {base: LAYERS / name for base, name in names.items()}
    if not all(file.exists() for file in files.values()):
        say(f"drawing {len(files)} layers in {LAYERS}: about a minute")
        draft = LAYERS.with_name("renders.part")
        draw_renders(draft, scale=SCALE, colours=(0,))
        shutil.rmtree(LAYERS, ignore_errors=True)
        os.replace(draft, LAYERS)
    return files


def _planned(style: Style) -> list[Item]:
    """The stacks of one colour, in the order of the plan."""
    return list(plan_stacks(replace(style, colours=1), {}).items())


def _a_composite(
    runs: int, items: Sequence[Item], files: Files, convert: str | None, temp: Path
) -> None:
    def ours(mode: str) -> Callable[[Sequence[Item]], tuple[float, float]]:
        return lambda sample: _mean(_rendered(items, files, mode, temp / mode))

    def legacy(name: str, threads: int | None) -> Callable[[Sequence[Item]], tuple[float, float]]:
        return lambda sample: _legacy(convert or "", sample, files, temp / name, threads)

    sides = {f"ours, {mode}": ours(mode) for mode in reversed(MODES)}
    one, free = "legacy: `convert`, one thread", "legacy: `convert`, its default threads"
    if convert:
        sides |= {one: legacy("legacy", 1), free: legacy("legacy-free", None)}
    else:
        print(f"Not measured: {ABSENT}\n")
    took: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    alike = []
    for run in range(runs):
        sample = _every(items, run)
        for side in sides if run % 2 == 0 else reversed(sides):
            say(f"run {run + 1} of {runs}: {side}")
            took[side].append(sides[side](sample))
        if convert:
            names = [item["names"][0] for item in sample]
            alike += [likeness(temp / "fast" / name, temp / "legacy" / name) for name in names]
        _emptied(temp)
    rows = []
    for side, pairs in took.items():
        columns = [*zip(*pairs, strict=True)]
        theirs = zip(*took.get(one, ()), strict=True)
        times = [ratios(*both) for both in zip(theirs, columns, strict=False)] or ["–", "–"]
        rows.append((side, *(spread((1_000 * n for n in each), 0) for each in columns), *times))
    head = ("ms a composite", "CPU-ms", "times the legacy's speed", "by CPU-seconds")
    table((f"{len(items)} stacks, four sizes of each, one core", *head), rows)
    if alike:
        print(f"Legacy: {SAMPLE} of them. Least alike of ours, fast: {min(alike):.1f} dB.\n")


def _on_all_cores(runs: int, items: Sequence[Item], files: Files, temp: Path) -> None:
    """A worker a core, each with its part of the plan."""
    each = -(-len(items) // cores())
    parts = [items[first : first + each] for first in range(0, len(items), each)]
    rates: dict[str, list[float]] = {mode: [] for mode in reversed(MODES)}
    for run in range(runs):
        for mode in rates if run % 2 == 0 else reversed(rates):
            say(f"run {run + 1} of {runs}: {len(parts)} workers, {mode}")
            folders = [temp / f"part-{number}" for number in range(len(parts))]
            started = perf_counter()
            with ThreadPoolExecutor(len(parts)) as pool:
                done = pool.map(
                    lambda part, folder, mode=mode: _rendered(part, files, mode, folder),
                    parts,
                    folders,
                )
                count = sum(map(len, done))
            rates[mode].append(count / (perf_counter() - started))
            _emptied(temp)
    rows = [(f"ours, {mode}", spread(rate)) for mode, rate in rates.items()]
    title = f"{len(items)} stacks, {len(parts)} workers at once on {cores()} cores"
    table((title, "composites/s"), rows)


def _a_real_style(
    runs: int, name: str, combinations: str, dress: Files, convert: str, temp: Path
) -> None:
    style = load_style(REAL / f"{name}.yaml")
    (length,) = style.lengths
    items = _planned(replace(style, combination_files={length: REAL / combinations}))
    files = _standing_in(items, dress)
    composites = [item for item in items for _ in item["names"]]
    ours, legacy, cpu = [], [], []
    for run in range(runs):
        say(f"run {run + 1} of {runs}: {combinations}")
        made = _rendered(items, files, "fast", temp / "ours", aliases=True)
        ours.append(sum(one.seconds for one in made))
        sample = _every(composites, run)
        each, each_cpu = _legacy(convert, sample, files, temp / "legacy", 1)
        legacy.append(each * len(composites))
        cpu.append(each_cpu * len(composites) / sum(one.cpu for one in made))
        _emptied(temp)
    title = f"{combinations}, one colour, one core"
    table(
        (title, "composites", "rendered", "seconds", "ms a composite"),
        [
            ("ours, fast", *_cells(composites, items, ours)),
            ("legacy, one thread, extrapolated", *_cells(composites, composites, legacy)),
        ],
    )
    print(
        f"Legacy: {SAMPLE} of them. Times its speed, pair by pair: {ratios(legacy, ours)}; ", end=""
    )
    print(f"by CPU-seconds {spread(cpu, 2)}.\n")


def _cells(composites: list[Item], rendered: list[Item], took: list[float]) -> tuple[str, ...]:
    each = [1_000 * seconds / len(composites) for seconds in took]
    return f"{len(composites):,}", f"{len(rendered):,}", spread(took), spread(each, 0)


def _standing_in(items: Sequence[Item], dress: Files) -> Files:
    """A layer of the dress for each of another style: of the same kind, and side where it can."""
    kinds: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for base, file in sorted(dress.items()):
        layer, side = layer_and_side(base)
        kinds[layer, side].append(file)
        kinds[layer,].append(file)
    found = {}
    for number, base in enumerate(sorted({base for item in items for base in item["layers"]})):
        layer, side = layer_and_side(base)
        same = kinds.get((layer, side)) or kinds[layer,]
        found[base] = same[number % len(same)]
    return found


def _growth(counts: Sequence[int], items: Sequence[Item], files: Files, temp: Path) -> None:
    """What stacks cost and hold, the more there are: one pass, as it stood after each count."""
    for mode in reversed(MODES):
        say(f"{counts[-1]} stacks, {mode}, cache_mb {SMALL_CACHE_MB}")
        made = _rendered(items[: counts[-1]], files, mode, temp / mode, cache_mb=SMALL_CACHE_MB)
        _emptied(temp)
        rows = []
        for count in counts:
            seconds = sum(each.seconds for each in made[:count])
            steps = [sum(each.steps[step] for each in made[:count]) for step in STEPS]
            shares = [*steps, seconds - sum(steps)]
            rows.append(
                (
                    str(count),
                    f"{1_000 * seconds / count:.0f}",
                    *(f"{share / seconds:.0%}" for share in shares),
                    f"{made[count - 1].peak / 1e6:,.0f}",
                )
            )
        title = f"first stacks, {mode}, cache_mb {SMALL_CACHE_MB}"
        table((title, "ms a stack", *STEPS, "rest", "child's peak, MB"), rows)
    print("Rest: the start of the child, and handing over requests and answers.\n")


def _rendered(
    items: Sequence[Item],
    files: Files,
    mode: str,
    folder: Path,
    *,
    cache_mb: int = CACHE_MB,
    aliases: bool = False,
) -> list[Made]:
    """Stacks one after the other by a new worker, each in a folder of its first name."""
    made: list[Made] = []
    cpu_before = 0.0
    folder.mkdir()
    memory_mb = MEMORY_MB + cache_mb
    with PictureWorker(temp_dir=folder, timeout_s=60, memory_mb=memory_mb, file_mb=None) as worker:
        for item in items:
            started = perf_counter()
            layers = tuple(Layer(str(files[base]), base) for base in item["layers"])
            request = CompositeRequest(layers, mode=mode, cache_mb=cache_mb)
            target = folder / item["names"][0]
            target.mkdir()
            info = worker.make_composite(request, target)
            if aliases:
                _copied(target, item["names"][1:])
            seconds = perf_counter() - started
            assert worker.pid is not None
            cpu = sum(psutil.Process(worker.pid).cpu_times()[:2])
            made.append(Made(seconds, cpu - cpu_before, info.seconds, _peak_memory(worker.pid)))
            cpu_before = cpu
    return made


def _copied(made: Path, names: Sequence[str]) -> None:
    for name in names:
        shutil.copytree(made, made.with_name(name))


def _mean(made: Sequence[Made]) -> tuple[float, float]:
    """Seconds and CPU-seconds a composite."""
    return mean(each.seconds for each in made), mean(each.cpu for each in made)


def _legacy(
    convert: str, items: Sequence[Item], files: Files, folder: Path, threads: int | None
) -> tuple[float, float]:
    """Seconds and CPU-seconds a composite. A stack that comes twice is made twice."""
    cpu, seconds = cpu_seconds(), 0.0
    for number, item in enumerate(items):
        again = item in items[:number]
        target = folder / (str(number) if again else item["names"][0])
        layers = [files[base] for base in item["layers"]]
        seconds += legacy_composite(convert, layers, target, threads)
    return seconds / len(items), (cpu_seconds() - cpu) / len(items)


def _every(items: Sequence[Item], run: int = 0) -> list[Item]:
    """A sample, evenly spaced, another one in each run."""
    step = max(1, len(items) // SAMPLE)
    return list(items[run % step :: step][:SAMPLE])


def _peak_memory(pid: int) -> int:
    """The most memory that a process has used until now, in bytes; where the system does not
    tell, what it uses now."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return int(psutil.Process(pid).memory_info().rss)
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _emptied(temp: Path) -> None:
    for folder in temp.iterdir():
        shutil.rmtree(folder)
