"""Archives from outside are unpacked into their folder and nowhere else, whole or not at all."""

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecore.archive import ArchiveRefused, Limits, unpack
from imagecore.errors import DiskFull

FREE = Limits(free_bytes=0)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "assets.tar": bytes,
    "assets.tbz2": bz2.compress,
    "assets.tgz": gzip.compress,
    "assets.tar.xz": lzma.compress,
    "assets.tar.zst": zstd.compress,
}


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=to)


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


GOOD = member("assets/a.jpg", b"picture")


class Unpacking:
    """Unpacks archives below a folder of its own, and looks at what is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = folder / "in" / "target"

    def __call__(self, data: bytes, name: str = "assets.tar", limits: Limits = FREE) -> Any:
        archive = self.folder / name
        archive.write_bytes(data)
        return unpack(archive, self.target, limits)

    def refused(self, data: bytes, match: str | None, **options: Any) -> None:
        with pytest.raises(ArchiveRefused, match=match):
            self(data, **options)
        assert list(self.target.parent.iterdir()) == []

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.target.rglob("*") if path.is_file())
        return {str(path.relative_to(self.target)): path.read_bytes() for path in found}


@pytest.fixture
def unpacking(tmp_path):
    return Unpacking(tmp_path)


@pytest.mark.parametrize("name", PACKERS)
def test_every_kind_of_archive_is_unpacked(unpacking, name):
    members = [member(f"assets/{n}/{n}.jpg", os.urandom(n * 512)) for n in range(20)]
    done = unpacking(PACKERS[name](tar_of(*members)), name)
    assert unpacking.files() == {info.name: data for info, data in members}
    assert (done.files, done.bytes, done.links_left_out) == (20, 190 * 512, 0)


def test_the_kind_is_told_by_the_content_not_by_the_name(unpacking):
    unpacking(bz2.compress(tar_of(GOOD)), "assets.tgz")
    assert unpacking.files() == {"assets/a.jpg": b"picture"}


def test_an_archive_of_several_compressed_streams_is_read_to_the_end(unpacking):
    whole = tar_of(GOOD, member("assets/b.jpg", b"other"))
    unpacking(bz2.compress(whole[:700]) + bz2.compress(whole[700:]), "assets.tbz2")
    assert sorted(unpacking.files()) == ["assets/a.jpg", "assets/b.jpg"]


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/x", "//x", "..", "assets/../../in/target.making/../x"]
)
def test_a_path_that_leads_out_is_refused_by_name(unpacking, name):
    unpacking.refused(tar_of(GOOD, member(name, b"evil")), "leads out of the folder")


def test_folders_too_deep_for_a_walk_are_refused_by_name(unpacking):
    unpacking.refused(tar_of(GOOD, member("a/" * 101 + "x")), "folders deep")


def test_a_size_below_nothing_is_refused(unpacking):
    header = bytearray(tar_of(member("x")))
    header[124:136] = (-256).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    unpacking.refused(bytes(header), "-256 bytes")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("to", ["/etc/passwd", "../../etc/passwd", "../../../x"])
def test_a_link_that_leads_out_is_refused_by_name(unpacking, kind, to):
    unpacking.refused(tar_of(GOOD, link("assets/l.jpg", to, kind)), r"assets/l\.jpg is refused")


def test_a_symbolic_link_that_stays_inside_is_left_out(unpacking):
    done = unpacking(tar_of(GOOD, link("assets/l.jpg", "../assets/a.jpg")))
    assert done.links_left_out == 1
    assert unpacking.files() == {"assets/a.jpg": b"picture"}


def test_nothing_is_written_through_a_link(unpacking):
    chain = [link("d", "assets"), member("d/x.jpg", b"x"), link("d/e", ".."), member("d/e/y", b"y")]
    unpacking(tar_of(GOOD, *chain))
    assert unpacking.files() == {"assets/a.jpg": b"picture", "d/x.jpg": b"x", "d/e/y": b"y"}


def test_a_hard_link_is_another_name_of_a_file_before_it(unpacking):
    unpacking(tar_of(GOOD, link("assets/l.jpg", "assets/a.jpg", tarfile.LNKTYPE)))
    assert unpacking.files()["assets/l.jpg"] == b"picture"
    unpacking.target.rename(unpacking.folder / "moved")
    missing = link("assets/l.jpg", "assets/none.jpg", tarfile.LNKTYPE)
    unpacking.refused(tar_of(GOOD, missing), "a link to a file that is not there")


def test_of_members_of_one_name_the_last_counts_and_links_keep_the_first(unpacking):
    hard = link("assets/l.jpg", "assets/a.jpg", tarfile.LNKTYPE)
    unpacking(tar_of(GOOD, hard, member("assets/a.jpg", b"newer")))
    assert unpacking.files() == {"assets/a.jpg": b"newer", "assets/l.jpg": b"picture"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(unpacking, kind):
    unpacking.refused(tar_of(GOOD, member("dev", type=kind)), "dev is refused: it is a device")


def test_files_get_the_rights_of_the_worker(unpacking):
    unpacking(tar_of(member("a.jpg", b"x", mode=0o6777, uid=0)))
    assert (unpacking.target / "a.jpg").stat().st_mode & 0o7111 == 0


def test_a_file_below_a_file_is_refused_by_name(unpacking):
    unpacking.refused(tar_of(member("a", b"x"), member("a/b", b"x")), "member a/b cannot be")


def test_a_name_no_disk_takes_is_refused_by_name(unpacking):
    unpacking.refused(tar_of(GOOD, member("x" * 300, b"x")), "member xxxx.* too long")


@pytest.mark.parametrize("name", [name for name in PACKERS if name != "assets.tar"])
def test_a_bomb_is_refused_before_the_disk_is_full(unpacking, name):
    bomb = PACKERS[name](tar_of(member("zeros", bytes(60 * 10**6))))
    unpacking.refused(bomb, "likely to be a bomb", name=name)


def test_a_bomb_in_what_nobody_extracts_is_one_too(unpacking):
    bomb = bz2.compress(tar_of(GOOD) + bytes(60 * 10**6))
    unpacking.refused(bomb, "likely to be a bomb", name="assets.tbz2")


def test_a_header_of_gigabytes_is_not_read(unpacking):
    huge = member("pax", type=tarfile.XHDTYPE)[0]
    huge.size = 7 * 2**30
    unpacking.refused(huge.tobuf() + bytes(10_000), "has 7,516,192,768 bytes, and no more than")


def test_a_sparse_file_counts_as_what_it_would_take(unpacking):
    sparse = member("sparse", **{"pax_headers": {}})[0]
    sparse.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,0",
        "GNU.sparse.size": str(10**12),
    }
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(sparse)
    unpacking.refused(file.getvalue(), "with it there are more than 200,000,000,000 bytes")


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        (Limits(free_bytes=0, total_bytes=10), "b.jpg is refused: with it there are more than 10"),
        (Limits(free_bytes=0, members=1), "more than 1 members: the one too many is b.jpg"),
    ],
)
def test_the_limits_name_the_member_that_is_too_many(unpacking, limits, match):
    unpacking.refused(tar_of(GOOD, member("b.jpg", b"other")), match, limits=limits)


def test_a_disk_that_would_be_full_is_not_filled(unpacking):
    with pytest.raises(DiskFull, match=r"No room for assets/a\.jpg of 7 bytes"):
        unpacking(tar_of(GOOD), limits=Limits(free_bytes=2**62))
    assert list(unpacking.target.parent.iterdir()) == []


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_an_archive_that_is_cut_off_is_refused(unpacking, name, share):
    noise = random.Random(4).randbytes(30_000)
    data = PACKERS[name](tar_of(GOOD, member("noise", noise)))
    keep = int(len(data) * share) if name != "assets.tar" else int(32_000 * share)
    unpacking.refused(data[:keep], None, name=name)


def test_an_archive_that_is_cut_off_between_two_members_is_refused(unpacking):
    data = tar_of(GOOD, member("b.jpg", b"other"))
    unpacking.refused(data[:1_024], "cut off: it has no end mark")


def test_a_damaged_header_is_not_taken_for_the_end(unpacking):
    data = bytearray(tar_of(GOOD, member("b.jpg", b"other")))
    data[1_024 + 150] ^= 1  # in the checksum of the second header
    unpacking.refused(bytes(data), "damaged, or no tar: bad checksum")


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, b"BZh9 no bzip2", b"\x1f\x8b\x08"])
def test_what_is_no_archive_is_refused(unpacking, data):
    unpacking.refused(data, None)


@pytest.mark.parametrize("name", [name for name in PACKERS if name != "assets.tar"])
def test_a_wrong_checksum_is_seen(unpacking, name):
    noise = member("noise", random.Random(4).randbytes(30_000))
    data = bytearray(PACKERS[name](tar_of(GOOD, noise)))
    data[len(data) // 2] ^= 1
    if name == "assets.tar.zst":
        options = {zstd.CompressionParameter.checksum_flag: 1}
        data = bytearray(zstd.compress(tar_of(GOOD, noise), options=options))
        data[len(data) // 2] ^= 1
    unpacking.refused(bytes(data), None, name=name)


def test_what_a_killed_process_left_is_removed(unpacking):
    left = unpacking.target.with_name("target.making")
    left.mkdir(parents=True)
    (left / "half.jpg").touch()
    unpacking(tar_of(GOOD))
    assert [path.name for path in left.parent.iterdir()] == ["target"]
    assert unpacking.files() == {"assets/a.jpg": b"picture"}


NAMES = st.text(st.sampled_from("ab./\u00fc"), min_size=1, max_size=8)


@settings(max_examples=100)
@given(st.lists(st.tuples(NAMES, st.sampled_from(["file", "folder", "sym", "hard"]), NAMES)))
def test_whatever_is_in_an_archive_nothing_appears_outside(tmp_path_factory, parts):
    kinds = {"sym": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
    members = [
        link(name, to, kinds[kind])
        if kind in kinds
        else member(name, type=tarfile.DIRTYPE if kind == "folder" else tarfile.REGTYPE)
        for name, kind, to in parts
    ]
    folder = tmp_path_factory.mktemp("any")
    unpacking = Unpacking(folder)
    try:
        unpacking(tar_of(*members))
    except ArchiveRefused:
        assert not unpacking.target.exists()
    assert {path.name for path in folder.iterdir()} <= {"assets.tar", "in"}
    assert {path.name for path in (folder / "in").iterdir()} <= {"target"}
    assert not any(path.is_symlink() for path in folder.rglob("*"))
