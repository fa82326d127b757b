"""Temporary folders that do not outlive their process, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagecore.errors import DiskFull, InfrastructureError

_LOCK = "lock"


@contextmanager
def temp_space() -> Iterator[Path]:
    """A new folder, removed at the end.

    Folders left by processes that were killed are removed first: each holds a lock that the
    kernel lets go of when its process ends. Names are never used twice (libvips caches by name).
    """
    root = _root()
    for folder in root.iterdir():
        _remove_abandoned(folder)
    folder = Path(tempfile.mkdtemp(dir=root))
    making = folder / "making"
    with making.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        making.rename(folder / _LOCK)  # held before others can see it
        try:
            yield folder
        finally:
            _remove(folder)


def _root() -> Path:
    root = Path(tempfile.gettempdir(), f"imageflows-{os.getuid()}")
    with suppress(FileExistsError):
        root.mkdir(mode=0o700)
    found = root.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        raise InfrastructureError(
            f"The temporary folder {root} belongs to someone else, is open to others, or is no "
            "folder: remove it, or set TMPDIR to another place."
        )
    return root


def _remove_abandoned(folder: Path) -> None:
    try:
        lock = (folder / _LOCK).open("r+")
    except OSError:
        return  # being made or removed by its owner at this moment
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: what a kill leaves of it is found by the next sweep."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != _LOCK:
                with suppress(OSError):
                    os.unlink(entry.path)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn "no space left" while writing below `folder` into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"No space left in {folder}: free some, or set TMPDIR to a larger disk."
            ) from error
        raise


@contextmanager
def temp_folder(within: Path) -> Iterator[Path]:
    """A new folder below `within`, removed at the end. No space left there raises DiskFull."""
    with (
        disk_errors(within),
        tempfile.TemporaryDirectory(dir=within, ignore_cleanup_errors=True) as folder,
    ):
        yield Path(folder)


@contextmanager
def temp_file(folder: Path, name: str) -> Iterator[Path]:
    """A path below `folder`, whose file is removed at the end if there is one."""
    path = folder / name
    try:
        yield path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


@contextmanager
def removed_on_error(folder: Path) -> Iterator[None]:
    """Leave no `folder` behind when what makes or uses it fails."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
