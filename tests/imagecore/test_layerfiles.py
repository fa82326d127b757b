"""Layer files on the local disk: fetched once, kept while used, and never half."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Barrier, Event, Lock

import pytest

from imagecore.errors import ItemFailed
from imagecore.layerfiles import LayerFiles
from imagecore.sides import LocalSide
from imagecore.syncitem import FolderSource

NAMES = [f"t{number}_neckline_front_0000.png" for number in range(6)]
SIZE = 100


class CountedSource:
    """A folder that counts what is fetched of it, and can fail or wait in the middle of a file."""

    def __init__(self, folder):
        self.side = LocalSide(folder)
        self.fetched, self.breaks = Counter(), Counter()
        self.lock, self.go_on = Lock(), Event()
        self.go_on.set()

    def check(self):
        """A folder is always there."""

    def content(self, planned):
        content = FolderSource(self.side, self.side.identity()).content(planned)
        return _Content(content, planned["key"], self)


class _Content:
    def __init__(self, content, key, source):
        self.content, self.key, self.source = content, key, source

    def pieces(self):
        source = self.source
        with source.lock:
            source.fetched[self.key] += 1
        for piece in self.content.pieces():
            yield piece[:10]
            assert source.go_on.wait(60)
            if source.breaks[self.key]:
                source.breaks[self.key] -= 1
                raise ItemFailed(f"{self.key} broke off")
            yield piece[10:]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "drawn"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(bytes([number]) * SIZE)
    return CountedSource(folder)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "fetched"
    made.mkdir()
    return made


@pytest.fixture
def files(source, folder):
    """Layer files that keep so many of them while nobody uses them."""
    return lambda most=10: LayerFiles(source, folder, most * SIZE)


@pytest.fixture
def planned(source):
    def of(*numbers):
        chosen = [NAMES[number] for number in numbers]
        entries = {entry.key: entry for entry in source.side.entries("", lambda *_: None)}
        return {
            name: {
                "key": name,
                "size": entries[name].size,
                "modified": entries[name].modified,
                "etag": "",
            }
            for name in chosen
        }

    return of


def read(paths):
    """Which layers these files are."""
    whole = [path.read_bytes() for path in paths]
    assert all(data == data[:1] * SIZE for data in whole)
    return [data[0] for data in whole]


def there(folder):
    """Which layers lie in the folder."""
    return {NAMES.index(path.name) for path in folder.iterdir()}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (5,), ()])
def test_files_come_in_the_order_asked_for(files, planned, order):
    kept = files()
    for _ in range(2):
        with kept.held(planned(*order)) as paths:
            assert read(paths) == list(order)


def test_a_file_is_fetched_once_for_many_threads(files, planned, source, folder):
    kept, together = files(), Barrier(8)

    def use(number):
        together.wait(60)
        with kept.held(planned(number % 3, 3)) as paths:
            return read(paths)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(8))) == [[number % 3, 3] for number in range(8)]
    assert source.fetched == {NAMES[number]: 1 for number in range(4)}
    assert there(folder) == {0, 1, 2, 3}


def test_who_needs_a_file_that_is_being_fetched_waits_for_the_whole(files, planned, source):
    kept = files()
    source.go_on.clear()

    def use(numbers):
        with kept.held(planned(*numbers)) as paths:
            return read(paths)

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(use, [0]), pool.submit(use, [0])]
        assert not any(job.done() for job in jobs)
        source.go_on.set()
        assert [job.result(60) for job in jobs] == [[0], [0]]
    assert source.fetched == {NAMES[0]: 1}


def test_what_is_held_stays_and_goes_when_the_last_one_lets_go(files, planned, folder):
    kept = files(0)
    with kept.held(planned(0, 1)) as paths:
        with kept.held(planned(1, 2)):
            assert there(folder) == {0, 1, 2}
        assert there(folder) == {0, 1}
        assert read(paths) == [0, 1]
    assert there(folder) == set()


def test_the_longest_unused_goes_first(files, planned, source, folder):
    kept = files(3)
    for number in (0, 1, 2, 0, 3):
        with kept.held(planned(number)):
            pass
    assert there(folder) == {0, 2, 3}
    with kept.held(planned(1)) as paths:
        assert read(paths) == [1]
    assert there(folder) == {0, 1, 3}
    assert source.fetched[NAMES[1]] == 2


def test_exactly_as_much_as_allowed_is_kept(files, planned, folder):
    kept = files(2)
    with kept.held(planned(0, 1)):
        pass
    assert there(folder) == {0, 1}


def test_what_is_in_use_does_not_go_though_it_is_the_longest_there(files, planned, folder):
    kept = files(2)
    with kept.held(planned(0)) as paths:
        for number in (1, 2, 3):
            with kept.held(planned(number)):
                pass
        assert there(folder) == {0, 3}
        assert read(paths) == [0]


def test_a_fetch_that_failed_is_tried_again_and_nothing_half_passes_for_the_file(
    files, planned, source
):
    kept = files()
    source.breaks[NAMES[1]] = 2
    for _ in range(2):
        with pytest.raises(ItemFailed, match="broke off"), kept.held(planned(0, 1)):
            pass
    with kept.held(planned(0, 1)) as paths:
        assert read(paths) == [0, 1]
    assert source.fetched == {NAMES[0]: 1, NAMES[1]: 3}


def test_after_a_failed_fetch_nothing_is_in_use(files, planned, source, folder):
    kept = files(0)
    source.breaks[NAMES[2]] = 1
    with pytest.raises(ItemFailed), kept.held(planned(0, 1, 2)):
        pass
    assert not there(folder) & {0, 1}
    with kept.held(planned(3, 2)) as paths:
        assert read(paths) == [3, 2]
    assert there(folder) == set()


def test_what_is_left_of_a_failed_fetch_does_not_stay_on_the_disk(files, planned, source, folder):
    source.breaks[NAMES[2]] = 1
    with pytest.raises(ItemFailed), files(0).held(planned(2)):
        pass
    assert there(folder) == set()


def test_another_thread_fetches_what_failed_for_the_first(files, planned, source):
    kept = files()
    source.breaks[NAMES[0]] = 1
    source.go_on.clear()

    def use(_):
        try:
            with kept.held(planned(0)) as paths:
                return read(paths)
        except ItemFailed:
            return "failed"

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(use, number) for number in range(2)]
        source.go_on.set()
        assert sorted(str(job.result(60)) for job in jobs) == ["[0]", "failed"]


def test_a_file_that_the_disk_had_no_room_for_is_fetched_again(files, planned, source, folder):
    kept = files()
    link = folder / NAMES[0]
    link.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"), kept.held(planned(0)):
        pass
    link.unlink(missing_ok=True)
    with kept.held(planned(0)) as paths:
        assert read(paths) == [0]
    assert source.fetched == {NAMES[0]: 2}


def test_a_file_that_changed_since_the_plan_is_not_taken(files, planned, source):
    before = planned(0, 1)
    (source.side.folder / NAMES[1]).write_bytes(b"x")
    with pytest.raises(ItemFailed, match=NAMES[1]), files().held(before):
        pass


def test_what_raises_in_the_middle_of_use_lets_go(files, planned, folder):
    @contextmanager
    def broken():
        with files(0).held(planned(0)):
            yield

    with pytest.raises(ZeroDivisionError), broken():
        raise ZeroDivisionError
    assert there(folder) == set()


def test_many_threads_with_little_room_always_read_whole_files(files, planned):
    kept = files(1)

    def use(number):
        with ExitStack() as stack:
            paths = stack.enter_context(kept.held(planned(number % 6, (number + 1) % 6)))
            return read(paths)

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(use, range(300))):
            assert found == [number % 6, (number + 1) % 6]
