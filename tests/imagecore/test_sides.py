"""What lies in a folder or below a prefix: everything is listed or left out with a reason."""

import errno
import os
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagecore.diff import SECOND
from imagecore.errors import InfrastructureError, PlanRefused
from imagecore.s3 import Bucket
from imagecore.sides import KEY_BYTES, Entry, LocalSide, S3Side, Side

LINK = "it is a symbolic link, which is not followed"
NO_FILE = "it is no regular file"


def write(folder: Path, *keys: str) -> None:
    for key in keys:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture")


def seen(side: Side, below: str = "") -> tuple[list[str], dict[str, str]]:
    """The keys of a side in order of the alphabet, and what it rejects."""
    rejected: dict[str, str] = {}
    found = [entry.key for entry in side.entries(below, rejected.__setitem__)]
    return sorted(found), rejected


# Local folders


def test_a_file_is_listed_with_its_size_and_time_to_the_nanosecond(tmp_path: Path) -> None:
    write(tmp_path, "stores/a/photos/1.jpg")
    os.utime(tmp_path / "stores/a/photos/1.jpg", ns=(0, 1_234_567_890_123_456_789))
    key = "stores/a/photos/1.jpg"
    found = list(LocalSide(tmp_path).entries("", pytest.fail))
    assert found == [Entry(key, key, 7, 1_234_567_890_123_456_789, "")]


@pytest.mark.parametrize(
    "key",
    [
        "a b .jpg",
        "'\"`$(x).jpg",
        "100%25.jpg",
        "a+b.jpg",
        "line\nbreak\r.jpg",
        "tab\t\x01.jpg",
        "back\\slash.jpg",
        "caf\u00e9.jpg",
        "cafe\u0301.jpg",
        "\u202e\U0001f5bc.jpg",
        ".hidden",
        ".folder/x.jpg",
        "-rf",
        "*?[a].jpg",
        " /~/x.jpg",
    ],
)
def test_any_name_is_listed_as_it_is(tmp_path: Path, key: str) -> None:
    write(tmp_path, key)
    assert seen(LocalSide(tmp_path)) == ([key], {})


def test_composed_and_decomposed_names_are_two(tmp_path: Path) -> None:
    write(tmp_path, "caf\u00e9.jpg", "cafe\u0301.jpg")
    assert len(seen(LocalSide(tmp_path))[0]) == 2


def test_a_name_that_is_not_utf_8_is_rejected_with_all_below_it(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    for path in (folder + b"/1.jpg", folder + b".jpg"):
        os.close(os.open(path, os.O_CREAT))
    reason = "its name is not UTF-8"
    rejected = {"caf\udce9/1.jpg": reason, "caf\udce9.jpg": reason}
    assert seen(LocalSide(tmp_path)) == ([], rejected)


def test_a_key_may_have_1024_bytes_and_no_more(tmp_path: Path) -> None:
    def key(size: int) -> str:
        """Of two-byte letters, so that bytes and not letters are counted."""
        folders = "/".join(["\u00e9" * 100] * 5)
        return f"{folders}/{'x' * (size - len(folders.encode()) - 1)}"

    assert len(key(KEY_BYTES).encode()) == 1_024
    write(tmp_path, key(1_024), key(1_025))
    reason = "its name has 1,025 bytes, and S3 takes 1,024"
    assert seen(LocalSide(tmp_path)) == ([key(1_024)], {key(1_025): reason})


def test_symbolic_links_are_rejected_and_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    write(outside, "secret.jpg")
    write(inside, "real/1.jpg")
    (inside / "file").symlink_to(inside / "real/1.jpg")
    (inside / "folder").symlink_to(outside)
    (inside / "real/loop").symlink_to(inside)
    (inside / "itself").symlink_to(inside / "itself")
    (inside / "broken").symlink_to("/nowhere")
    links = ["file", "folder", "real/loop", "itself", "broken"]
    assert seen(LocalSide(inside)) == (["real/1.jpg"], dict.fromkeys(links, LINK))


def test_what_is_no_regular_file_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket has at most 108 bytes
    os.mkfifo("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        found, rejected = seen(LocalSide(tmp_path))
    assert found == []
    assert rejected == {"pipe.jpg": NO_FILE, "socket.jpg": NO_FILE}


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "stores/a").mkdir(parents=True)
    assert seen(LocalSide(tmp_path)) == ([], {})


def test_the_folder_may_be_named_with_a_slash_or_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "sub/1.jpg")
    monkeypatch.chdir(tmp_path)
    for folder in (Path(f"{tmp_path}/"), Path(), Path("./sub/..")):
        assert seen(LocalSide(folder)) == (["sub/1.jpg"], {})


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        ("stores/", ["stores/a/1.jpg", "stores/ab/1.jpg"]),
        ("stores/a", ["stores/a/1.jpg", "stores/ab/1.jpg"]),
        ("stores/a/", ["stores/a/1.jpg"]),
        ("stores/a/1", ["stores/a/1.jpg"]),
        ("st", ["stores.jpg", "stores/a/1.jpg", "stores/ab/1.jpg"]),
        ("../../etc/", []),
        ("../", []),
        ("./stores/", []),
        ("stores/../", []),
        ("/etc/", []),
        ("/", []),
        ("stores//a", []),
        ("none/", []),
    ],
)
def test_a_prefix_selects_by_the_beginning_of_keys_and_nothing_else(
    tmp_path: Path, below: str, expected: list[str]
) -> None:
    write(tmp_path, "in/stores/a/1.jpg", "in/stores/ab/1.jpg", "in/stores.jpg", "etc/passwd")
    assert seen(LocalSide(tmp_path / "in"), below) == (expected, {})


def test_folders_off_the_prefix_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "chains/a/1.jpg", "stores/a/1.jpg", "stores/b/1.jpg")
    fail_at(monkeypatch, str(tmp_path / "chains"), str(tmp_path / "stores/b"))
    assert seen(LocalSide(tmp_path), "stores/a/") == (["stores/a/1.jpg"], {})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, r"cannot be read \(No such file or directory\): is the drive mounted"),
        (lambda path: path.write_bytes(b""), "is no folder"),
        (lambda path: path.symlink_to("/nowhere"), "No such file or directory"),
        (lambda path: path.symlink_to(path), "symbolic links"),
    ],
)
def test_a_folder_that_is_none_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], Any], words: str
) -> None:
    make(tmp_path / "drive\n")
    with pytest.raises(PlanRefused, match=words) as caught:
        seen(LocalSide(tmp_path / "drive\n"))
    assert rf"{tmp_path}/drive\n" in str(caught.value)


def fail_at(monkeypatch: pytest.MonkeyPatch, *folders: str, error: int = errno.EACCES) -> None:
    """Let these folders be unreadable, which to root none is."""
    scandir = os.scandir

    def failing(path: str) -> Any:
        if os.fspath(path) in folders:
            raise OSError(error, os.strerror(error), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_folder_that_cannot_be_listed_ends_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    write(tmp_path, "a/1.jpg", "b/1.jpg")
    fail_at(monkeypatch, str(tmp_path / "b"), error=error)
    with pytest.raises(InfrastructureError, match=os.strerror(error)) as caught:
        seen(LocalSide(tmp_path))
    assert f"{tmp_path}/b cannot be listed" in str(caught.value)


def test_a_folder_that_goes_during_the_walk_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a/1.jpg", "b/1.jpg")
    fail_at(monkeypatch, str(tmp_path / "b"), error=errno.ENOENT)
    assert seen(LocalSide(tmp_path)) == (["a/1.jpg"], {})


class Lost:
    """A directory's entry whose file a network drive can no longer tell anything of."""

    def __init__(self, entry: os.DirEntry[str], *methods: str) -> None:
        self._entry, self._methods = entry, methods
        self.path, self.name = entry.path, entry.name

    def __getattr__(self, name: str) -> Any:
        def lost(**_: Any) -> Any:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)

        return lost if name in self._methods else getattr(self._entry, name)


def lose(monkeypatch: pytest.MonkeyPatch, *methods: str) -> None:
    class Entries:
        def __init__(self, path: str) -> None:
            self._entries = scandir(path)

        def __enter__(self) -> Any:
            return (Lost(entry, *methods) for entry in self._entries)

        def __exit__(self, *_: object) -> None:
            self._entries.close()

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", Entries)


def test_a_file_that_cannot_be_looked_at_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "1.jpg")
    lose(monkeypatch, "stat")
    reason = "it cannot be looked at (Input/output error)"
    assert seen(LocalSide(tmp_path)) == ([], {"1.jpg": reason})


def test_what_may_be_a_folder_and_cannot_be_looked_at_ends_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a/1.jpg")
    lose(monkeypatch, "is_dir", "is_symlink", "is_file", "stat")
    with pytest.raises(InfrastructureError, match=r"a cannot be listed \(Input/output error\)"):
        seen(LocalSide(tmp_path))


def test_a_drive_that_goes_during_the_walk_is_noticed(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    write(drive, "1.jpg", "2.jpg")
    found = LocalSide(drive).entries("", lambda *_: None)
    next(found)
    drive.rename(tmp_path / "away")
    with pytest.raises(PlanRefused, match="is the drive mounted"):
        list(found)


def test_a_drive_that_is_swapped_during_the_walk_is_noticed(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    write(drive, "1.jpg", "2.jpg")
    found = LocalSide(drive).entries("", lambda *_: None)
    next(found)
    drive.rename(tmp_path / "away")
    write(drive, "1.jpg")
    with pytest.raises(InfrastructureError, match=f"Another drive is mounted at {drive}"):
        list(found)


def test_memory_does_not_grow_with_the_files_of_a_folder(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"{number}.jpg").touch()
    tracemalloc.start()
    assert sum(1 for _ in LocalSide(tmp_path).entries("", pytest.fail)) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000  # their names alone would take 2,000,000


def test_a_folder_s_address_can_be_shown(tmp_path: Path) -> None:
    assert LocalSide(tmp_path / "a\nb").url == rf"file://{tmp_path}/a\nb"


# Buckets


@pytest.fixture
def bucket(new_bucket: Callable[[str], str], s3_client: Any) -> Bucket:
    return Bucket(new_bucket("side"), s3_client)


ODD = ["/a.jpg", "//a.jpg", "a//b.jpg", "a/../b.jpg", "../a.jpg", "..", "a%2Fb+c d.jpg", "\u00e9"]


@pytest.mark.parametrize("prefix", ["", "in/", "in//", "../"])
def test_keys_are_listed_below_the_prefix_whatever_they_are(bucket: Bucket, prefix: str) -> None:
    for key in ODD:
        bucket.write(prefix + key, b"picture", "image/jpeg")
    bucket.write("zz/other.jpg", b"picture", "image/jpeg")
    side = S3Side(bucket, prefix)
    found, rejected = seen(side)
    assert [key for key in found if "other" not in key] == sorted(ODD)
    assert ("zz/other.jpg" in found) == (not prefix)
    assert rejected == {}
    assert side.key("/a.jpg") == f"{prefix}/a.jpg"


def test_an_object_is_listed_with_size_time_and_etag_in_ascending_order(bucket: Bucket) -> None:
    for key in ("in/b", "in/a", "in/a/b", "in/a.b"):
        bucket.write(key, key.encode(), "image/jpeg")
    found = list(S3Side(bucket, "in/").entries("", pytest.fail))
    assert [entry.name for entry in found] == ["a", "a.b", "a/b", "b"]
    head = bucket.head("in/a/b")
    assert found[2] == Entry("a/b", "a/b", 6, int(head.modified.timestamp()) * SECOND, head.etag)


@pytest.mark.parametrize("prefix", ["", "in/"])
def test_folder_markers_are_left_out_and_what_only_looks_like_one_is_not(
    bucket: Bucket, prefix: str
) -> None:
    for key, data in [("in/", b""), ("in/a/", b""), ("in/b/", b"x"), ("in/c", b""), ("in//", b"")]:
        bucket.write(key, data, "image/jpeg")
    found = ["in/b/", "in/c"]
    assert seen(S3Side(bucket, prefix)) == ([key[len(prefix) :] for key in found], {})


def test_an_object_named_as_the_prefix_itself_is_rejected(bucket: Bucket) -> None:
    bucket.write("in/", b"not empty", "image/jpeg")
    bucket.write("in/a.jpg", b"x", "image/jpeg")
    reason = "it is named as the folder itself"
    assert seen(S3Side(bucket, "in/")) == (["a.jpg"], {"in/": reason})


@pytest.mark.parametrize("below", ["a/", "a", "../", "/", "none"])
def test_a_prefix_limits_the_listing_of_a_bucket(bucket: Bucket, below: str) -> None:
    keys = ["a/1", "a/2", "ab/1", "../1", "/1", "b"]
    for key in keys:
        bucket.write(f"in/{key}", b"x", "image/jpeg")
    expected = sorted(key for key in keys if key.startswith(below))
    assert seen(S3Side(bucket, "in/"), below) == (expected, {})


def test_a_bucket_that_is_not_there_is_named(s3_client: Any) -> None:
    with pytest.raises(InfrastructureError, match="s3://none-of-these/in/: the bucket does not"):
        seen(S3Side(Bucket("none-of-these", s3_client), "in/"))
