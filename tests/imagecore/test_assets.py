"""An index of the assets finds the one file that a reference means, or says why there is none."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecore.adler import HASH_PREFIX, adler32, parse_reference
from imagecore.assets import AssetIndex, Found, Indexed, Match, build_index
from imagecore.errors import InfrastructureError


class Assets:
    """A folder of files, and an index of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "assets"
        self.folder.mkdir()
        self.file = folder / "index"

    def add(self, *paths: str | bytes) -> None:
        for path in paths:
            file = os.path.join(os.fsencode(self.folder), os.fsencode(path))
            os.makedirs(os.path.dirname(file), exist_ok=True)
            with open(file, "wb"):
                pass

    def index(self) -> AssetIndex:
        build_index(self.folder, self.file)
        return AssetIndex(self.file)


@pytest.fixture
def assets(tmp_path):
    return Assets(tmp_path)


def key_of(path: str) -> str:
    """The reference to a file of this path below the assets."""
    return f"{adler32(f'{HASH_PREFIX}{path}'.encode())}-{path.rpartition('/')[2]}"


def same_hash(name: str) -> tuple[str, str]:
    """Two paths of files of a name whose hashes are the same."""
    return f"/media/baab/{name}", f"/media/abba/{name}"


def test_the_file_whose_path_has_the_reference_s_hash_is_found(assets):
    assets.add("media/foo/bar.jpg", "media/foo/other/bar.jpg", "bar.jpg")
    found = assets.index().match(parse_reference("ccb51262-bar.jpg"))
    assert found == Match(Found.FILE, (b"/media/foo/bar.jpg",))


def test_no_file_of_the_name_is_no_file(assets):
    assets.add("media/foo/bar.jpg", "media/foo/bar.jpg.png")
    found = assets.index().match(parse_reference("ccb51262-ar.jpg"))
    assert found == Match(Found.NO_FILE, (), "no file has this name")


def test_no_file_with_the_hash_names_the_candidates_and_theirs(assets):
    assets.add("media/foo/bar.jpg", "z/bar.jpg")
    found = assets.index().match(parse_reference("12345678-bar.jpg"))
    assert (found.found, found.paths) == (Found.OTHER_HASH, (b"/media/foo/bar.jpg", b"/z/bar.jpg"))
    assert "no file of this name has this hash: /media/foo/bar.jpg (ccb51262)" in found.reason


def test_several_files_with_the_hash_are_ambiguous_and_all_named(assets):
    one, other = same_hash("x.jpg")
    assert key_of(one) == key_of(other)
    assets.add(one[1:], other[1:], "media/c/x.jpg")
    found = assets.index().match(parse_reference(key_of(one)))
    assert found.found is Found.AMBIGUOUS
    assert found.paths == (other.encode(), one.encode())
    assert found.reason == f"2 files have this hash: {other}, {one}"


def test_a_hash_may_be_written_without_its_leading_zeros(assets):
    paths = (f"/{'x' * (n % 200)}{n}/z.jpg" for n in range(100_000))
    path = next(path for path in paths if key_of(path).startswith("00"))
    assets.add(path[1:])
    index = assets.index()
    for key in (key_of(path), key_of(path).lstrip("0")):
        assert index.match(parse_reference(key)) == Match(Found.FILE, (path.encode(),))


NAMES = [
    "[a].jpg",
    "*.jpg",
    "?.jpg",
    "a+b%20c.jpg",
    " a  b .jpg",
    "'\";--.jpg",
    "Gr\u00fcn.jpg",
    "Gru\u0308n.jpg",
    "-.jpg",
    "\u65e5\u672c.jpg",
    "x" * 251 + ".jpg",
]


@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_name_decides_among_all_others(assets, name):
    assets.add(*(f"media/{each}" for each in NAMES), "media/a.jpg", "media/b.jpg")
    found = assets.index().match(parse_reference(key_of(f"/media/{name}")))
    assert found == Match(Found.FILE, (f"/media/{name}".encode(),))


@pytest.mark.parametrize(
    ("there", "asked"), [("Gr\u00fcn.jpg", "Gru\u0308n.jpg"), ("Gru\u0308n.jpg", "Gr\u00fcn.jpg")]
)
def test_a_name_in_other_bytes_is_another_name_and_the_reason_tells_it(assets, there, asked):
    assets.add(f"media/{there}")
    found = assets.index().match(parse_reference(key_of(f"/media/{asked}")))
    assert (found.found, found.paths) == (Found.NO_FILE, ())
    assert "the same letters in other bytes" in found.reason
    assert ascii(there) in found.reason


def test_a_name_of_300_bytes_that_no_disk_has_is_no_file(assets):
    found = assets.index().match(parse_reference("1-" + "x" * 300))
    assert found.found is Found.NO_FILE


def test_names_that_are_no_utf_8_are_indexed_as_they_are(assets):
    assets.add(b"media/gr\xfcn.jpg")
    assert assets.index().paths(b"gr\xfcn.jpg") == [b"/media/gr\xfcn.jpg"]
    assert assets.index().match(parse_reference("1-gr\u00fcn.jpg")).found is Found.NO_FILE


def test_links_are_not_followed_and_only_files_count(assets, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").touch()
    assets.add("media/real.jpg")
    (assets.folder / "link.jpg").symlink_to("media/real.jpg")
    (assets.folder / "away").symlink_to(outside)
    (assets.folder / "folder.jpg").mkdir()
    os.mkfifo(assets.folder / "pipe.jpg")
    assert build_index(assets.folder, assets.file) == Indexed(files=1, left_out=3)
    index = AssetIndex(assets.file)
    for name in (b"secret.jpg", b"link.jpg", b"folder.jpg", b"pipe.jpg"):
        assert index.paths(name) == []


def test_an_index_replaces_the_one_before_whole(assets):
    assets.add("a.jpg")
    assets.index()
    (assets.folder / "a.jpg").unlink()
    assets.file.with_name("index.making").write_bytes(b"left by a killed process")
    assets.add("b.jpg")
    index = assets.index()
    assert (index.paths(b"a.jpg"), index.paths(b"b.jpg")) == ([], [b"/b.jpg"])
    assert sorted(path.name for path in assets.folder.parent.iterdir()) == ["assets", "index"]


def test_a_tree_that_is_not_there_is_an_error_and_leaves_no_index(assets):
    with pytest.raises(InfrastructureError, match=r"cannot be listed \(No such file"):
        build_index(assets.folder / "gone", assets.file)
    assert not assets.file.exists()


def test_an_index_is_only_read(assets):
    assets.add("a.jpg")
    assets.index().close()
    assets.file.chmod(0o444)
    before = assets.file.read_bytes()
    with AssetIndex(assets.file) as index:
        index.match(parse_reference("1-a.jpg"))
    assert assets.file.read_bytes() == before
    assert sorted(path.name for path in assets.file.parent.iterdir()) == ["assets", "index"]


PARTS = st.sampled_from(["a", "b", "ab", "ba", "baab", "abba", "[a]", "*", "u\u0308", "\u00fc"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts) + ".jpg")


@settings(max_examples=60)
@given(paths=st.sets(PATHS, min_size=1, max_size=12), wanted=PATHS)
def test_for_any_tree_the_right_file_is_found_or_ambiguity_is_reported(
    tmp_path_factory, paths, wanted
):
    assets = Assets(tmp_path_factory.mktemp("tree"))
    assets.add(*(path[1:] for path in paths))
    with assets.index() as index:
        for path in {*paths, wanted}:
            right = sorted(other.encode() for other in paths if key_of(other) == key_of(path))
            found = index.match(parse_reference(key_of(path)))
            if path in paths:
                assert path.encode() in found.paths
            if len(right) == 1:
                assert found == Match(Found.FILE, (right[0],))
            elif right:
                assert (found.found, list(found.paths)) == (Found.AMBIGUOUS, right)
            else:
                assert found.found in (Found.NO_FILE, Found.OTHER_HASH)
