"""The child process: hostile pictures may take it down, never the batch, and nothing is left."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pictures import PHOTOS, data_of, photo

from imagecore import sandbox
from imagecore.errors import DiskFull, ItemFailed, ItemRefused, UnreadableImage
from imagecore.ladder import make_ladder
from imagecore.recipe import PRESETS
from imagecore.sandbox import PictureWorker, picture_workers

GOOD = PHOTOS / "coffee.png"
IIIF = PRESETS["iiif"]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")


@pytest.fixture
def worker(tmp_path):
    with PictureWorker(temp_dir=tmp_path, timeout_s=30, memory_mb=2048, file_mb=None) as each:
        yield each


@pytest.fixture
def with_child(monkeypatch, tmp_path):
    """Replace what the child does with a picture by a line of Python."""

    def install(code: str) -> None:
        lines = [
            "import os, sys, time, ctypes, errno, resource",
            "from imagecore import sandbox_child, pyramid, ladder, errors, parts",
            "def work(source, folder):",
            *(f"    {line}" for line in code.splitlines()),
            "pyramid.make_pyramid = lambda source, target, *_, **__: work(source, target.parent)",
            "ladder.make_ladder = lambda source, folder, *_: work(source, folder)",
            "sandbox_child.main()",
        ]
        script = tmp_path / "child.py"
        script.write_text("\n".join(lines))
        honest = subprocess.Popen

        def start(command, **options):
            return honest([sys.executable, str(script), command[-1]], **options)

        monkeypatch.setattr(sandbox.subprocess, "Popen", start)

    return install


def test_pictures_are_made_one_after_another_by_one_child(worker, tmp_path):
    first = worker.make_pyramid(GOOD, tmp_path / "1.tif", IIIF)
    pid = worker.pid
    assert worker.make_pyramid(GOOD, tmp_path / "2.tif", IIIF) == first
    assert worker.pid == pid


def test_a_bad_picture_keeps_its_class_and_reason_and_the_child(worker, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(data_of(photo(), "JPEG")[:9000])
    worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)
    pid = worker.pid
    with pytest.raises(UnreadableImage, match="premature end of JPEG"):
        worker.make_pyramid(bad, tmp_path / "t.tif", IIIF)
    assert worker.pid == pid


def test_a_ladder_is_the_same_as_without_the_child(worker, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    source = tmp_path / "1.jpg"
    source.write_bytes(data_of(photo(1000, 667), "JPEG"))
    made = worker.make_ladder(source, folder, "menus", "1.jpg")
    data = [Path(each.file).read_bytes() for each in made.images]
    assert made.widths == (200, 800)
    assert made == make_ladder(source, folder, "menus", "1.jpg")
    assert [Path(each.file).read_bytes() for each in made.images] == data


def test_one_child_makes_pyramids_and_ladders_by_turns(worker, tmp_path):
    tiff = tmp_path / "s.tif"
    tiff.write_bytes(data_of(photo(), "TIFF"))
    worker.make_pyramid(tiff, tmp_path / "t.tif", IIIF)
    pid = worker.pid
    with pytest.raises(UnreadableImage, match="tiff pictures are not among the loaders"):
        worker.make_ladder(tiff, tmp_path, "photos", "1.jpg")
    worker.make_ladder(GOOD, tmp_path, "photos", "1.jpg")
    worker.make_pyramid(tiff, tmp_path / "t.tif", IIIF)
    assert worker.pid == pid


@pytest.mark.parametrize(
    ("code", "timeout_s", "error", "reason"),
    [
        ("os.kill(os.getpid(), 11); time.sleep(9)", 120, UnreadableImage, r"crashed \(SIGSEGV\)"),
        ("os.kill(os.getpid(), 9)", 120, ItemFailed, "lack of memory"),
        ("time.sleep(600)", 10, ItemFailed, "longer than 10 s"),
    ],
)
def test_a_ladder_that_ends_its_child_is_explained_and_leaves_nothing(
    with_child, tmp_path, monkeypatch, code, timeout_s, error, reason
):
    with_child(f"parts.new_part(folder).write_text('half')\n{code}")
    out = tmp_path / "out"
    out.mkdir()
    limits = {"timeout_s": timeout_s, "memory_mb": 2048, "file_mb": None}
    with PictureWorker(temp_dir=tmp_path, **limits) as worker:
        with pytest.raises(error, match=reason):
            worker.make_ladder(GOOD, out, "photos", "1.jpg")
        assert list(out.iterdir()) == []
        monkeypatch.undo()
        assert worker.make_ladder(GOOD, out, "photos", "1.jpg").width == 600


def test_what_refuses_a_ladder_reaches_the_caller_as_its_own_class(worker, tmp_path):
    with pytest.raises(ItemRefused, match="must end in"):
        worker.make_ladder(GOOD, tmp_path, "photos", "1.gif")
    with pytest.raises(ItemFailed, match="no ladder 'logos'"):
        worker.make_ladder(GOOD, tmp_path, "logos", "1.jpg")


@LINUX
def test_the_memory_of_a_ladder_is_limited(tmp_path):
    bomb = tmp_path / "big.jpg"
    bomb.write_bytes(data_of(photo(6000, 4000), "JPEG", progressive=True))
    limits = {"timeout_s": 60, "memory_mb": 64, "file_mb": None}
    with (
        PictureWorker(temp_dir=tmp_path, **limits) as worker,
        pytest.raises(ItemFailed, match="memory"),
    ):
        worker.make_ladder(bomb, tmp_path, "photos", "1.jpg")


def test_relative_paths_and_odd_names_work(worker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = Path("ä [1]\n% 'x'.png")
    name.write_bytes(GOOD.read_bytes())
    worker.make_pyramid(name, Path("töp.tif"), IIIF)
    assert Path("töp.tif").exists()


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT"])
def test_a_crash_quarantines_the_picture_and_the_next_one_works(
    worker, with_child, monkeypatch, tmp_path, name
):
    with_child(f"os.kill(os.getpid(), {int(getattr(signal, name))}); time.sleep(9)")
    with pytest.raises(UnreadableImage, match=f"decoder crashed \\({name}\\)"):
        worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)
    monkeypatch.undo()
    worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)


def test_a_signal_that_speaks_of_the_machine_quarantines_nothing(worker, with_child, tmp_path):
    with_child(f"os.kill(os.getpid(), {int(signal.SIGILL)}); time.sleep(9)")
    with pytest.raises(ItemFailed, match="SIGILL"):
        worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)


def test_a_killed_child_is_worth_another_try(worker, with_child, tmp_path):
    with_child("os.kill(os.getpid(), 9)")
    with pytest.raises(ItemFailed, match="lack of memory"):
        worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)


def test_a_crash_after_running_out_of_memory_is_not_the_pictures_fault(
    worker, with_child, tmp_path
):
    with_child("sys.stderr.write('GLib: failed to allocate 5 bytes\\n'); os.abort()")
    with pytest.raises(ItemFailed, match="more memory was needed than 2048 MB"):
        worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)


def test_a_picture_that_takes_too_long_is_stopped(with_child, tmp_path, monkeypatch):
    with_child(f"time.sleep(60); open({str(tmp_path / 'to its end')!r}, 'x')")
    with PictureWorker(temp_dir=tmp_path, timeout_s=1, memory_mb=2048, file_mb=None) as worker:
        with pytest.raises(ItemFailed, match="longer than 1 s"):
            worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)
        assert worker.pid is None
    assert not (tmp_path / "to its end").exists()


def test_a_part_left_by_a_dead_child_is_removed(worker, with_child, tmp_path):
    with_child(
        "parts.new_part(folder).write_text('half')\n"
        "open(os.environ['TMPDIR'] + '/vips.v', 'w').close()\n"
        "os.abort()"
    )
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UnreadableImage):
        worker.make_pyramid(GOOD, out / "t.tif", IIIF)
    assert list(out.iterdir()) == []
    assert list(tmp_path.glob("picture-*")) == []


def test_a_full_disk_travels_as_such(worker, with_child, tmp_path):
    with_child("raise errors.DiskFull('no space left in /x')")
    with pytest.raises(DiskFull, match="/x"):
        worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)


def test_an_unforeseen_error_fails_the_item_with_its_name(worker, with_child, tmp_path):
    with_child("raise KeyError('odd')")
    with pytest.raises(ItemFailed, match="KeyError: 'odd'"):
        worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)


def test_what_a_library_prints_is_not_taken_for_an_answer(worker, with_child, tmp_path):
    with_child(
        "os.write(1, b'{\"info\": {}}\\n' * 9)\n"
        "os.write(2, b'warning ' * 100000)\n"
        "raise errors.ItemFailed('the true answer')"
    )
    with pytest.raises(ItemFailed, match="the true answer"):
        worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)


def test_the_child_blocks_the_readers_the_recipe_does_not_name(worker, with_child, tmp_path):
    with_child("import pyvips; pyvips.Image.csvload(str(source))")
    with pytest.raises(ItemFailed, match="operation is blocked"):
        worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)


def test_the_child_reads_nothing_but_jpeg_and_png_for_a_ladder(worker, with_child, tmp_path):
    with_child("import pyvips; pyvips.Image.tiffload(str(source))")
    with pytest.raises(ItemFailed, match="operation is blocked"):
        worker.make_ladder(GOOD, tmp_path, "photos", "1.jpg")


def test_the_child_sees_no_secrets(worker, with_child, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "s3cret")
    with_child("import json; raise errors.ItemFailed(json.dumps(dict(os.environ)))")
    with pytest.raises(ItemFailed) as caught:
        worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)
    seen = json.loads(str(caught.value))
    assert "s3cret" not in seen.values()
    assert seen["VIPS_CONCURRENCY"] == "1"
    assert seen["TMPDIR"].startswith(str(tmp_path))


@LINUX
def test_memory_is_limited(tmp_path):
    bomb = tmp_path / "big.png"
    bomb.write_bytes(data_of(photo(6000, 4000), "JPEG", progressive=True))
    limits = {"timeout_s": 60, "memory_mb": 64, "file_mb": None}
    with (
        PictureWorker(temp_dir=tmp_path, **limits) as worker,
        pytest.raises(ItemFailed, match="memory"),
    ):
        worker.make_pyramid(bomb, tmp_path / "t.tif", IIIF)


@LINUX
def test_the_size_of_a_file_is_limited(tmp_path):
    big = tmp_path / "big.png"
    big.write_bytes(data_of(photo(2000, 2000), "PNG"))
    limits = {"timeout_s": 60, "memory_mb": 2048, "file_mb": 1}
    with (
        PictureWorker(temp_dir=tmp_path, **limits) as worker,
        pytest.raises(ItemFailed, match="larger than"),
    ):
        worker.make_pyramid(big, tmp_path / "t.tif", PRESETS["lossless"])
    assert [each.name for each in tmp_path.iterdir()] == ["big.png"]


@LINUX
def test_limits_are_set_in_the_child(worker, with_child, tmp_path):
    with_child(
        "raise errors.ItemFailed(str([resource.getrlimit(each)[0] for each in"
        " (resource.RLIMIT_DATA, resource.RLIMIT_CORE)]))"
    )
    with pytest.raises(ItemFailed, match=str([2048 << 20, 0]).replace("[", r"\[")):
        worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)


def test_close_leaves_no_process_and_no_file(tmp_path):
    with PictureWorker(temp_dir=tmp_path, timeout_s=30, memory_mb=2048, file_mb=None) as worker:
        worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)
        pid = worker.pid
    assert not _alive(pid)
    assert [each.name for each in tmp_path.iterdir()] == ["t.tif"]


def test_workers_for_several_threads_end_together_also_after_an_error(tmp_path):
    pids = []

    def work():
        limits = {"temp_dir": tmp_path, "timeout_s": 30, "memory_mb": 2048, "file_mb": None}
        with picture_workers(2, **limits) as workers:
            for name in ("1.tif", "2.tif"):
                worker = workers.get_nowait()
                worker.make_pyramid(GOOD, tmp_path / name, IIIF)
                pids.append(worker.pid)
            assert workers.empty()
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert len(set(pids)) == 2
    assert not any(map(_alive, pids))
    assert {each.name for each in tmp_path.iterdir()} == {"1.tif", "2.tif"}


def test_the_child_outlives_the_thread_that_started_it(worker, tmp_path):
    thread = threading.Thread(target=worker.make_pyramid, args=(GOOD, tmp_path / "t.tif", IIIF))
    thread.start()
    thread.join()
    pid = worker.pid
    time.sleep(0.2)
    worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)
    assert worker.pid == pid


def test_the_child_ends_when_its_parent_is_killed(tmp_path):
    code = (
        "import sys, pathlib, time; from imagecore.sandbox import PictureWorker\n"
        "from imagecore.recipe import PRESETS\n"
        "out = pathlib.Path(sys.argv[2])\n"
        "w = PictureWorker(temp_dir=out, timeout_s=30, memory_mb=2048, file_mb=None)\n"
        "w.make_pyramid(pathlib.Path(sys.argv[1]), out / 't.tif', PRESETS['iiif'])\n"
        "print(w.pid, flush=True); time.sleep(60)\n"
    )
    include = str(Path(sandbox.__file__).parents[1])
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(GOOD), str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": include},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not _alive(child):
            return
        time.sleep(0.1)
    pytest.fail("the child is still there")


def test_the_child_ends_when_nobody_can_ask_it_any_more(worker, tmp_path):
    worker.make_pyramid(GOOD, tmp_path / "t.tif", IIIF)
    worker._child.stdin.close()
    assert worker._child.wait(timeout=10) == 0


def _alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
