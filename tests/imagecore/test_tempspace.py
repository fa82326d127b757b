"""Temporary folders are their owner's alone, and gone when it is, however it went."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from imagecore import tempspace
from imagecore.errors import DiskFull, InfrastructureError
from imagecore.tempspace import disk_errors, temp_file, temp_space


@pytest.fixture(autouse=True)
def tmpdir_of_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    return tmp_path


def root() -> Path:
    return Path(tempfile.gettempdir(), f"imageflows-{os.getuid()}")


OWNER = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from imagecore.tempspace import temp_space
with temp_space() as folder:
    (folder / "large.tif").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    sys.stdin.read()
"""


class Owner:
    """Another process with a temporary folder."""

    def __init__(self, tmpdir: Path) -> None:
        command = [sys.executable, "-c", OWNER, os.fspath(tmpdir)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.folder = Path(self.process.stdout.readline().strip())

    def end(self, how: signal.Signals | None = None) -> None:
        if how:
            self.process.send_signal(how)
        self.process.communicate()


def test_a_folder_is_there_for_its_owner_alone_and_gone_at_the_end() -> None:
    with temp_space() as folder:
        assert folder.parent == root()
        (folder / "a.tif").write_bytes(b"x")
        (folder / "sub").mkdir()
        for each in (folder, root()):
            assert stat.S_IMODE(each.stat().st_mode) == 0o700
    assert not folder.exists()
    assert root().is_dir()


def test_a_folder_is_gone_after_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), temp_space() as folder:
        raise ZeroDivisionError
    assert not folder.exists()


def test_no_two_folders_have_one_name() -> None:
    names = set()
    for _ in range(20):
        with temp_space() as one, temp_space() as other:
            names |= {one.name, other.name}
    assert len(names) == 40


def test_what_a_killed_owner_left_is_swept_and_a_living_one_s_stays(tmp_path: Path) -> None:
    living, killed = Owner(tmp_path), Owner(tmp_path)
    killed.end(signal.SIGKILL)
    assert (killed.folder / "large.tif").exists()
    try:
        with temp_space() as own:
            assert not killed.folder.exists()
            assert (living.folder / "large.tif").exists()
            assert own.is_dir()
    finally:
        living.end()
    assert not living.folder.exists()


def test_a_folder_is_safe_from_sweeps_from_its_first_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its lock is held before anyone can see it: a sweep at any step of the making spares it."""
    flock, swept = tempspace.fcntl.flock, []

    def flock_with_a_sweep_before_it(file: object, how: int) -> None:
        if not swept:
            swept.append(True)
            for folder in root().iterdir():
                tempspace._remove_abandoned(folder)
        flock(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(tempspace.fcntl, "flock", flock_with_a_sweep_before_it)
    with temp_space() as folder:
        assert swept
        (folder / "a.tif").write_bytes(b"x")
        for each in root().iterdir():
            tempspace._remove_abandoned(each)
        assert (folder / "a.tif").exists()
    assert not folder.exists()


def test_a_sweep_that_comes_while_the_owner_removes_its_folder_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flock = tempspace.fcntl.flock
    owner = temp_space()
    folder = owner.__enter__()

    def owner_ends_before(file: object, how: int) -> None:
        owner.__exit__(None, None, None)
        flock(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(tempspace.fcntl, "flock", owner_ends_before)
    tempspace._remove_abandoned(folder)
    assert not folder.exists()


def test_many_at_once_do_not_sweep_each_other() -> None:
    errors: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(30):
                with temp_space() as folder:
                    (folder / "a.tif").write_bytes(b"x")
                    assert (folder / "a.tif").read_bytes() == b"x"
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(root().iterdir()) == []


@pytest.mark.parametrize("steps", range(7))
def test_a_sweep_cut_off_by_a_kill_is_finished_by_the_next(
    monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    with temp_space():
        pass
    abandoned = root() / "abandoned"
    (abandoned / "sub").mkdir(parents=True)
    for name in ("1.tif", "lock", "2.tif", "sub/3.tif", "sub/4.tif", "5.tif"):
        (abandoned / name).write_bytes(b"x")

    class Killed(BaseException):
        pass

    removed, unlink = [], os.unlink

    def unlink_then_die(path: str, **more: int) -> None:
        if len(removed) == steps:
            raise Killed
        removed.append(path)
        unlink(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink_then_die)
        with pytest.raises(Killed), temp_space():
            pass
    with temp_space():
        assert not (abandoned / "sub").exists()
        assert list(abandoned.glob("*")) == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777, 0o1777])
def test_a_root_open_to_others_is_refused(mode: int) -> None:
    root().mkdir()
    root().chmod(mode)
    with pytest.raises(InfrastructureError, match=f"{root()}.*open to.*TMPDIR"), temp_space():
        pass
    assert list(root().iterdir()) == []


def test_a_root_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    root().symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InfrastructureError, match="TMPDIR"), temp_space():
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_root_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    root().symlink_to(tmp_path / "nowhere")
    with pytest.raises(InfrastructureError, match="TMPDIR"), temp_space():
        pass
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_the_place_of_the_root_is_refused() -> None:
    root().write_text("someone's file")
    with pytest.raises(InfrastructureError, match="TMPDIR"), temp_space():
        pass
    assert root().read_text() == "someone's file"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_root_of_someone_else_is_refused() -> None:
    root().mkdir(mode=0o700)
    os.chown(root(), 65_534, 65_534)
    with pytest.raises(InfrastructureError, match="belongs to someone else"), temp_space():
        pass


def test_what_else_lies_in_the_root_does_no_harm() -> None:
    with temp_space():
        pass
    (root() / "file").write_text("x")
    (root() / "being made").mkdir()
    with temp_space() as folder:
        assert folder.is_dir()
    assert {each.name for each in root().iterdir()} == {"file", "being made"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to write to")
def test_a_full_disk_says_which_folder_and_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFull, match=f"No space left in {tmp_path}.*TMPDIR"),
        disk_errors(tmp_path),
        Path("/dev/full").open("wb") as full,
    ):
        full.write(b"x")
    assert issubclass(DiskFull, InfrastructureError)


def test_other_errors_of_a_disk_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "nothing").read_bytes()


def test_a_temporary_file_is_gone_at_the_end_if_it_was_made(tmp_path: Path) -> None:
    with temp_file(tmp_path, "a") as path:
        path.write_bytes(b"x")
    assert not path.exists()
    with temp_file(tmp_path, "b") as path:
        pass
    (tmp_path / "c").write_bytes(b"x")
    with pytest.raises(ZeroDivisionError), temp_file(tmp_path, "c"):
        raise ZeroDivisionError
    assert not (tmp_path / "c").exists()
