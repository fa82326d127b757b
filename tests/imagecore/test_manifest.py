"""Manifests: the same items give the same file, and batches are exactly what was planned."""

import contextlib
import hashlib
import itertools
import json
import tempfile
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from imagecore import extsort, manifest
from imagecore.errors import DiskFull, PlanRefused
from imagecore.manifest import (
    Batch,
    Item,
    Manifest,
    batch_size,
    decode,
    encode,
    read_batch,
    write_manifest,
)
from imagecore.stacks import shared_layers
from imagecore.workstore import WorkStore


def memory() -> WorkStore:
    return WorkStore("memory://", MemoryStore())


def one_text(text: str) -> bool:
    """Two surrogates in a row are another spelling of one character."""
    return json.loads(json.dumps(text)) == text


KEYS = st.text(
    st.characters() | st.sampled_from('"\\/\n\r\t\0\x1f\x7f,:{} é😀\ud800\udfff\u2028'), min_size=1
).filter(one_text)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text().filter(one_text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ITEMS = st.lists(
    st.builds(
        lambda key, rest: {**rest, "key": key},
        KEYS,
        st.dictionaries(st.sampled_from(["path", "notes", "copyright"]), VALUES),
    ),
    max_size=30,
    unique_by=lambda item: item["key"],
)


def write(
    items: list[Item], store: WorkStore | None = None, size: int = 7
) -> tuple[bytes, Manifest, list[Batch]]:
    store = store or memory()
    written, batches = write_manifest(items, store, "run/manifest.jsonl", lambda count: size)
    return store.get("run/manifest.jsonl"), written, batches


@given(ITEMS, st.randoms())
def test_the_same_items_in_any_order_give_the_same_file(items: list[Item], random: Any) -> None:
    shuffled = [dict(random.sample(list(item.items()), len(item))) for item in items]
    random.shuffle(shuffled)
    assert write(items) == write(shuffled)


@given(ITEMS)
def test_a_manifest_is_sorted_counted_and_signed_and_holds_the_items(items: list[Item]) -> None:
    data, written, _ = write(items)
    lines = data.splitlines(keepends=True)
    assert lines == sorted(lines)
    assert written.count == len(items)
    assert written.sha256 == hashlib.sha256(data).hexdigest()
    assert written.uri == "memory:///run/manifest.jsonl"
    by_key = {item["key"]: item for item in items}
    assert decode(data, "x") == [by_key[item["key"]] for item in decode(data, "x")]
    assert len(decode(data, "x")) == len(items)


@given(KEYS)
def test_an_item_is_one_line_of_plain_text(key: str) -> None:
    line = encode({"path": key, "key": key})
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert line.startswith(b'{"key":')
    assert decode(line, "x") == [{"key": key, "path": key}]


@settings(max_examples=60)
@given(ITEMS, st.integers(1, 200))
def test_a_manifest_larger_than_memory_is_the_same_file(items: list[Item], most: int) -> None:
    expected = write(items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extsort, "SORT_BYTES", most)
        assert write(items) == expected


@given(ITEMS.filter(bool), VALUES, st.booleans(), st.data())
def test_a_key_planned_twice_is_refused_by_name(
    items: list[Item], value: Any, spill: bool, data: st.DataObject
) -> None:
    twice = data.draw(st.sampled_from(items))["key"]
    store = memory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extsort, "SORT_BYTES", 50 if spill else extsort.SORT_BYTES)
        with pytest.raises(PlanRefused) as caught:
            write([*items, {"key": twice, "other": value}], store)
    assert manifest.printable(twice) in str(caught.value)
    assert str(caught.value).isprintable()
    assert store.paths("run") == []


@given(ITEMS, st.integers(1, 40))
def test_batches_cover_the_file_without_gap_or_overlap(items: list[Item], size: int) -> None:
    store = memory()
    data, written, batches = write(items, store, size)
    position = 0
    for number, batch in enumerate(batches):
        assert (batch.batch_id, batch.uri, batch.offset) == (f"{number:04d}", written.uri, position)
        piece = data[batch.offset : batch.offset + batch.length]
        assert hashlib.sha256(piece).hexdigest() == batch.sha256
        assert read_batch(store, "run/manifest.jsonl", batch) == decode(piece, "x")
        assert batch.count == len(decode(piece, "x")) <= size
        position += batch.length
    assert position == len(data)
    assert sum(batch.count for batch in batches) == len(items)


def common(one: str, other: str) -> int:
    return shared_layers(" ".join(one), " ".join(other))


@given(keys=st.sets(st.text("ab", min_size=9, max_size=9), min_size=1), size=st.integers(1, 40))
def test_batches_may_end_where_neighbours_have_least_in_common(keys: set[str], size: int) -> None:
    store = memory()
    items = [{"key": key} for key in keys]
    _, batches = write_manifest(items, store, "m.jsonl", lambda count: size, shared=common)
    found = [[item["key"] for item in read_batch(store, "m.jsonl", each)] for each in batches]
    assert [key for batch in found for key in batch] == sorted(keys)
    for batch, following in itertools.pairwise(found):
        assert size <= len(batch) <= size + size // 4
        near = [*batch, *following][size - 1 : size + size // 4 + 1]
        least = min(common(*pair) for pair in itertools.pairwise(near))
        assert common(batch[-1], following[0]) == least


def test_the_size_of_a_batch_is_asked_for_the_number_of_items() -> None:
    asked = []
    items: list[Item] = [{"key": str(n)} for n in range(9)]
    write_manifest(iter(items), memory(), "m", lambda count: asked.append(count) or 4)  # type: ignore[func-returns-value]
    assert asked == [9]


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_batch_changed_by_one_byte_is_refused(place: int, change: int) -> None:
    store = memory()
    data, _, batches = write([{"key": f"{n}.jpg"} for n in range(20)], store)
    changed = bytearray(data)
    changed[place % len(data)] ^= change
    store.put("run/manifest.jsonl", bytes(changed))
    hit = [b for b in batches if b.offset <= place % len(data) < b.offset + b.length]
    for batch in batches:
        if batch in hit:
            with pytest.raises(PlanRefused, match=f"{batch.batch_id} of .*clear the task `plan`"):
                read_batch(store, "run/manifest.jsonl", batch)
        else:
            assert len(read_batch(store, "run/manifest.jsonl", batch)) == batch.count


@pytest.mark.parametrize("length", [0, 30, 100])
def test_a_manifest_cut_short_is_refused(work_store: WorkStore, length: int) -> None:
    data, _, batches = write([{"key": f"{n}.jpg"} for n in range(20)], work_store)
    work_store.put("run/manifest.jsonl", data[:length])
    with pytest.raises(PlanRefused, match=r"0002 of .*manifest.jsonl.*clear the task `plan`"):
        read_batch(work_store, "run/manifest.jsonl", batches[2])


def test_a_manifest_that_is_gone_is_refused_by_name(work_store: WorkStore) -> None:
    _, written, batches = write([{"key": "a.jpg"}], work_store)
    work_store.delete(["run/manifest.jsonl"])
    with pytest.raises(PlanRefused, match=f"{written.uri} is gone: clear the task `plan`"):
        read_batch(work_store, "run/manifest.jsonl", batches[0])


SECRET = "s3cret"
BAD_LINES = [
    b"s3cret",
    b'{"key": "s3cret"',
    b"",
    b'"s3cret"',
    b'["s3cret"]',
    b'{"s3cret": 1}',
    b'{"key": ""}',
    b'{"key": 7, "s3cret": 1}',
    b'{"key": null}',
    b'{"key": "s3cret\xff"}',
    b"[" * 100_000,
    b'{"key": ' * 100_000,
    b"9" * 5_000,
    b"\xff\xfe",
    b"\0",
]


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: repr(line[:20]))
def test_a_bad_line_is_refused_by_its_number_and_never_shown(line: bytes) -> None:
    with pytest.raises(PlanRefused, match=r"^file:///failed.jsonl, line 3: not ") as caught:
        decode(b'{"key":"a"}\n{"key":"b"}\n' + line + b'\n{"key":"c"}\n', "file:///failed.jsonl")
    assert SECRET not in str(caught.value)


@given(st.binary())
def test_any_bytes_are_items_or_refused(data: bytes) -> None:
    with contextlib.suppress(PlanRefused):
        assert all(isinstance(item["key"], str) and item["key"] for item in decode(data, "x"))


COUNTS = st.integers(0, 2_000_000)
FANOUTS = st.integers(1, 1_024)


@given(COUNTS, FANOUTS, st.integers(1, 2_000), st.integers(1, 200))
def test_there_are_never_more_tasks_than_allowed(
    count: int, max_fanout: int, max_tasks: int, min_batch: int
) -> None:
    size = batch_size(count, max_fanout=max_fanout, max_tasks=max_tasks, min_batch=min_batch)
    assert size >= 1
    most = min(max_fanout, max_tasks)
    assert ceil(count / size) <= most
    if count <= most:
        assert size == 1
    else:
        assert size >= min_batch
        assert size == min_batch or ceil(count / (size - 1)) > most, "no larger than it must be"


@given(COUNTS, st.integers(1, 3_000), st.integers(1, 2_000), FANOUTS)
def test_images_per_task_is_exact_or_refused_with_a_number_that_works(
    count: int, images_per_task: int, max_tasks: int, max_fanout: int
) -> None:
    sized = partial(batch_size, count, max_fanout=max_fanout, max_tasks=max_tasks, min_batch=25)
    try:
        assert sized(images_per_task=images_per_task) == images_per_task
    except PlanRefused as refused:
        assert ceil(count / images_per_task) > max_tasks
        advice = int(str(refused).partition("Set images_per_task to ")[2].split()[0])
        assert sized(images_per_task=advice) == advice
        assert advice == 1 or ceil(count / (advice - 1)) > max_tasks
    else:
        assert ceil(count / images_per_task) <= max_tasks


@settings(max_examples=30)
@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 40))
def test_every_item_is_in_exactly_one_batch(count: int, max_fanout: int, min_batch: int) -> None:
    assume(count)
    store = memory()
    sized = partial(batch_size, max_fanout=max_fanout, max_tasks=1_024, min_batch=min_batch)
    items: list[Item] = [{"key": f"digital/{n}.jpg"} for n in range(count)]
    _, batches = write_manifest(items, store, "m", sized)
    assert len(batches) <= max_fanout
    read = [item["key"] for batch in batches for item in read_batch(store, "m", batch)]
    assert sorted(read) == sorted(item["key"] for item in items)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to write to")
def test_a_disk_that_fills_up_while_planning_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = memory()
    (tmp_path / "manifest.jsonl").symlink_to("/dev/full")
    monkeypatch.setattr(
        tempfile, "TemporaryDirectory", lambda prefix: contextlib.nullcontext(tmp_path)
    )
    with pytest.raises(DiskFull, match=f"No space left in {tmp_path}.*TMPDIR"):
        write([{"key": "a.jpg"}], store)
    assert store.paths("run") == []
