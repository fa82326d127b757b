"""The external sort gives what sorting gives, whatever fits in memory, and leaves nothing."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecore import extsort
from imagecore.extsort import BLOCK, external_sort

NAMES = st.text(st.characters() | st.sampled_from("\n\0\ud800é😀\u2028"))
ROWS = st.one_of(
    st.lists(st.binary()),
    st.lists(NAMES),
    st.lists(st.integers() | st.floats(allow_nan=False)),
    st.lists(st.tuples(NAMES, st.integers(), st.tuples(st.binary(), st.floats(allow_nan=False)))),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 1,000 rows of one byte."""
    monkeypatch.setattr(extsort, "SORT_BYTES", 1_000)


@given(ROWS, st.integers(1, 60))
def test_rows_of_any_kind_and_number_come_as_sorting_orders_them(
    folder: Path, rows: list[Any], run: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extsort, "SORT_BYTES", run)
        patch.setattr(extsort, "BLOCK", 3)
        assert list(external_sort(iter(rows), folder, lambda row: 7)) == sorted(rows)


@pytest.mark.parametrize("count", [999, 1_000, 1_001, 1_000 + BLOCK, 3_000])
def test_no_row_is_lost_at_the_ends_of_runs_and_blocks(
    small_runs: None, tmp_path: Path, count: int
) -> None:
    rows = [(number * 7_919 % count, "x") for number in range(count)]
    assert list(external_sort(rows, tmp_path, lambda row: 1)) == sorted(rows)


def test_equal_rows_are_all_there(small_runs: None, tmp_path: Path) -> None:
    rows = ["same"] * 2_500
    assert list(external_sort(rows, tmp_path, lambda row: 1)) == rows


def test_what_fits_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_runs: None
) -> None:
    monkeypatch.setattr(extsort, "_written", lambda *_: pytest.fail("a run was written"))
    assert list(external_sort(range(999, 0, -1), tmp_path, lambda row: 1)) == [*range(1, 1_000)]


@pytest.mark.parametrize("read", [0, 1, 5_000])
def test_runs_are_gone_when_the_iterator_is(small_runs: None, tmp_path: Path, read: int) -> None:
    def open_files() -> list[str]:
        found = []
        for number in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{number}"))
            except OSError:
                continue
        return [name for name in found if name.startswith(str(tmp_path))]

    rows = external_sort(iter(range(5_000)), tmp_path, lambda row: 1)
    for expected in range(read):
        assert next(rows) == expected
        assert not list(tmp_path.iterdir())
    assert len(open_files()) == (5 if read else 0)
    rows.close()  # type: ignore[attr-defined]
    assert open_files() == []


def test_runs_are_gone_when_the_rows_break_off(small_runs: None, tmp_path: Path) -> None:
    def broken() -> Any:
        yield from range(1_500)
        raise ConnectionError("gone")

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConnectionError):
        next(external_sort(broken(), tmp_path, lambda row: 1))
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_does_not_grow_with_the_number_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extsort, "SORT_BYTES", 100_000)

    def peak(count: int) -> int:
        rows = (number * 7_919 % count for number in range(count))
        tracemalloc.start()
        last = -1
        for row in external_sort(rows, tmp_path, lambda row: 36):
            assert row >= last
            last = row
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken

    assert peak(60_000) < 1_000_000  # all of them would take 2,200,000
