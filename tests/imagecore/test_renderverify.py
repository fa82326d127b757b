"""Delivered composites are verified: what was broken is named, all of it and nothing else."""

import random

import pytest
from composites import (
    PNG,
    PREFIX,
    SIZES,
    deliver,
    described,
    drawn,
    put_picture,
    rendering_of,
    size_of,
    stack,
)
from pictures import data_of, photo

from devstack.samples import client
from imagecore.batch import attempt
from imagecore.errors import InfrastructureError, ItemFailed
from imagecore.layerindex import LayerIndex
from imagecore.outcome import Outcome, State
from imagecore.renderstyle import Cut, Format, Style
from imagecore.renderverify import (
    CHANGED,
    EMPTY,
    FOREIGN,
    LISTED,
    MISSING,
    NO_LAYERS,
    OTHER,
    VerifyItems,
    colours,
    verify_log,
)
from imagecore.sandbox import PictureWorker, picture_workers
from tests.faults import FaultProxy, corrupt_response, drop, status
from tests.objects import impatient, kept, new_bucket_of, put, through

RENDERING = rendering_of()
ITEMS = [
    stack("front", 0, 3),
    stack("back", 0, 2),
    stack("front", 1),
    stack("front", 5, 2, ("base_bottom", "t1_belt")),
]
FRONT = ITEMS[0]
MAIN, ALIAS, _ = FRONT["names"]
FILES = {
    output.key(name): (item, output, name)
    for item in ITEMS
    for output in RENDERING.outputs
    for name in item["names"]
}


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    temp = tmp_path_factory.mktemp("workers")
    with picture_workers(1, temp_dir=temp, timeout_s=60, memory_mb=2048, file_mb=None) as found:
        yield found


@pytest.fixture(scope="module")
def delivered(s3_endpoint, tmp_path_factory):
    """A bucket with all composites, which the tests only copy from."""
    bucket = new_bucket_of(client(s3_endpoint), "composites")
    for item in ITEMS:
        deliver(bucket, RENDERING, item, tmp_path_factory.mktemp("deliver"))
    return bucket


@pytest.fixture
def bucket(delivered):
    """A bucket of the test's own with all composites."""
    own = new_bucket_of(delivered.client, "composites")
    for file in FILES:
        source = {"Bucket": delivered.name, "Key": PREFIX + file}
        own.client.copy_object(Bucket=own.name, Key=PREFIX + file, CopySource=source)
    return own


@pytest.fixture
def verify(bucket, workers, tmp_path):
    """What is wrong in the bucket, by file."""

    def run(items=ITEMS, rendering=RENDERING, bucket=bucket):
        does = VerifyItems(rendering, bucket, PREFIX, workers, tmp_path)
        found = {}
        for item in items:
            outcome = attempt(does.process, item)
            checked = len(item["names"]) * len(rendering.outputs)
            assert outcome.detail["checked"] == checked
            if outcome.state is State.DONE:
                assert outcome.detail == {"checked": checked}
                continue
            assert outcome.state is State.FAILED
            wrong = {each["key"]: each["why"] for each in outcome.detail["wrong"]}
            assert outcome.detail["wrong_files"] == len(wrong)
            assert all(f"{file}: {why}" in outcome.reason for file, why in wrong.items())
            found |= wrong
        assert list(tmp_path.iterdir()) == []
        return found

    return run


def changed(bucket, file, change, **other):
    """Write a file's bytes again, changed, with the metadata it has."""
    was = kept(bucket, PREFIX + file)
    headers = {"Metadata": was.metadata, "ContentType": was.content_type, **other}
    put(bucket, PREFIX + file, change(was.data), **headers)


def flipped(data):
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def other_pixels(output, seed="other", width=None):
    wide, high = size_of(output.cut)
    return drawn(seed, width or wide, high, output.format.name)


def key(output=0, name=MAIN):
    return RENDERING.outputs[output].key(name)


def test_nothing_is_wrong_where_nothing_was_broken(verify):
    assert verify() == {}


@pytest.mark.parametrize("shape", ["disc", "full"])
@pytest.mark.parametrize("format", ["png", "webp", "avif", "jpeg"])
def test_every_format_is_right_with_and_without_transparent_pixels(
    bucket, verify, tmp_path_factory, format, shape
):
    rendering = rendering_of(formats=(Format(format, 85 if format == "jpeg" else None),))
    deliver(bucket, rendering, FRONT, tmp_path_factory.mktemp("deliver"), shape)
    assert verify([FRONT], rendering) == {}


def test_what_was_removed_is_missing(bucket, verify):
    for file in (key(), key(1, ALIAS)):
        bucket.delete(PREFIX + file)
    assert verify() == {key(): MISSING, key(1, ALIAS): MISSING}


def test_an_empty_file_is_named(bucket, verify):
    changed(bucket, key(), lambda data: b"")
    assert verify() == {key(): EMPTY}


@pytest.mark.parametrize("output", range(len(RENDERING.outputs)))
def test_a_half_written_file_does_not_decode(bucket, verify, output):
    changed(bucket, key(output), lambda data: data[: len(data) // 2])
    [(file, why)] = verify().items()
    assert (file, why.split(":")[0]) == (key(output), "does not decode")


def test_a_flipped_byte_is_found_also_where_the_picture_still_decodes(bucket, verify):
    changed(bucket, key(0), flipped)
    changed(bucket, key(1), lambda data: other_pixels(RENDERING.outputs[1]))
    changed(bucket, key(2), lambda data: data + b"\0")
    found = verify()
    assert found.keys() == {key(0), key(1), key(2)}
    assert found[key(1)] == found[key(2)] == CHANGED


def test_files_copied_over_each_other_with_their_metadata_are_another_composites(bucket, verify):
    one, other = key(), RENDERING.outputs[0].key(ITEMS[1]["names"][1])
    swap(bucket, one, other)
    assert verify() == {one: OTHER, other: OTHER}


def test_a_file_in_the_place_of_another_size_is_found(bucket, verify):
    bucket.copy(PREFIX + key(0), PREFIX + key(2))
    assert verify() == {key(2): OTHER}


def test_bytes_copied_over_each_other_without_metadata_are_not_those_recorded(bucket, verify):
    one, other = key(), RENDERING.outputs[0].key(ITEMS[2]["names"][0])
    first, second = (kept(bucket, PREFIX + each).data for each in (one, other))
    changed(bucket, one, lambda data: second)
    changed(bucket, other, lambda data: first)
    assert verify() == {one: CHANGED, other: CHANGED}


def swap(bucket, one, other):
    for source, target in ((one, "kept"), (other, one), ("kept", other)):
        bucket.copy(PREFIX + source, PREFIX + target)
    bucket.delete(f"{PREFIX}kept")


def test_a_file_that_no_run_has_described_is_foreign(bucket, verify):
    lost = dict(zip(sorted(FILES), ["recipe", "sha256", "bytes", "width", "height"], strict=False))
    for file, field in lost.items():
        metadata = dict(kept(bucket, PREFIX + file).metadata)
        del metadata[field]
        changed(bucket, file, lambda data: data, Metadata=metadata)
    assert verify() == dict.fromkeys(lost, FOREIGN)


@pytest.mark.parametrize(
    ("output", "width", "height", "why"),
    [
        (0, 59, 59, "wrong size: 59 x 59, where 60x60 is 60 x 60"),
        (0, 60, 61, "wrong size: 60 x 61, where 60x60 is 60 x 60"),
        (2, 23, 24, "wrong size: 23 x 24, where top-crop is 24 x 24"),
    ],
)
def test_a_picture_of_another_size_than_its_cut_is_wrong(
    bucket, verify, tmp_path_factory, output, width, height, why
):
    item, data = ITEMS[2], drawn("x", width, height)
    folder = tmp_path_factory.mktemp("other")
    put_picture(bucket, RENDERING, item, RENDERING.outputs[output], data, folder)
    assert verify() == {key(output, item["names"][0]): why}


def test_a_picture_of_another_size_than_recorded_is_wrong(bucket, verify):
    data = kept(bucket, PREFIX + key()).data
    recipe = RENDERING.recipe(FRONT, RENDERING.outputs[0])
    changed(bucket, key(), lambda data: data, Metadata=described(data, recipe, 41, 60))
    assert verify() == {key(): "wrong size: 40 x 60, where 41 x 60 is recorded"}


def test_lost_transparency_and_another_format_are_wrong(bucket, verify, tmp_path_factory):
    folder, item = tmp_path_factory.mktemp("other"), ITEMS[2]
    [name] = item["names"]
    opaque = data_of(photo(40, 60), "PNG")
    put_picture(bucket, RENDERING, item, RENDERING.outputs[0], opaque, folder)
    put_picture(bucket, RENDERING, item, RENDERING.outputs[1], drawn("x", 40, 60), folder)
    assert verify() == {
        key(0, name): "its transparency is lost",
        key(1, name): "wrong format: it is a png picture",
    }


def test_an_alias_that_is_another_picture_than_its_first_name_is_wrong(
    bucket, verify, tmp_path_factory
):
    output = RENDERING.outputs[0]
    folder = tmp_path_factory.mktemp("other")
    put_picture(bucket, RENDERING, FRONT, output, other_pixels(output), folder, ALIAS)
    assert verify() == {key(0, ALIAS): f"another picture than {MAIN}, of which it is a copy"}


def test_a_huge_object_is_not_fetched(bucket, verify, monkeypatch):
    changed(bucket, key(), lambda data: bytes(2 << 20))
    monkeypatch.setattr(type(bucket), "fetch", lambda *_: pytest.fail("fetched"))
    item = {**FRONT, "names": [MAIN]}
    one_size = rendering_of(SIZES[:1], (PNG,))
    assert verify([item], one_size) == {
        key(): "2,097,152 bytes: no picture of this size has as many"
    }


def test_equal_files_are_decoded_once_a_stack_and_each_fetched(bucket, verify, monkeypatch):
    fetched, viewed = [], []
    fetch, view = type(bucket).fetch, PictureWorker.view
    monkeypatch.setattr(
        type(bucket), "fetch", lambda *of: [fetched.append(of[1].key), fetch(*of)][1]
    )
    monkeypatch.setattr(PictureWorker, "view", lambda *of: [viewed.append(of), view(*of)][1])
    assert verify() == {}
    assert sorted(fetched) == sorted(PREFIX + file for file in FILES)
    assert len(viewed) == len(ITEMS) * len(RENDERING.outputs)


def test_a_stack_without_its_layer_files_has_no_right_file(bucket, verify):
    bucket.delete(PREFIX + key())
    item = {**FRONT, "layers": ["gone_belt_front"], "missing": ["gone_belt_front_0000.png"]}
    found = verify([item])
    assert found.pop(key()) == MISSING
    assert len(found) == 11
    assert set(found.values()) == {NO_LAYERS}


DAMAGES = {
    "remove": (MISSING, lambda bucket, file, folder: bucket.delete(PREFIX + file)),
    "empty": (EMPTY, lambda bucket, file, folder: changed(bucket, file, lambda data: b"")),
    "halve": (
        "does not decode",
        lambda bucket, file, folder: changed(bucket, file, lambda data: data[: len(data) // 2]),
    ),
    "flip": ("", lambda bucket, file, folder: changed(bucket, file, flipped)),
    "strip": (
        FOREIGN,
        lambda bucket, file, folder: changed(bucket, file, lambda data: data, Metadata={}),
    ),
    "replace": (
        CHANGED,
        lambda bucket, file, folder: changed(
            bucket, file, lambda data: other_pixels(FILES[file][1])
        ),
    ),
    "smaller": (
        "wrong size",
        lambda bucket, file, folder: put_picture(
            bucket,
            RENDERING,
            FILES[file][0],
            FILES[file][1],
            drawn("s", 9, 9, FILES[file][1].format.name),
            folder,
            FILES[file][2],
        ),
    ),
    "steal": (
        OTHER,
        lambda bucket, file, folder: put_picture(
            bucket,
            RENDERING,
            stack("back", 17),
            FILES[file][1],
            other_pixels(FILES[file][1]),
            folder,
            FILES[file][2],
        ),
    ),
}


@pytest.mark.parametrize("seed", range(6))
def test_what_is_broken_by_chance_is_what_is_named(bucket, verify, tmp_path_factory, seed):
    dice, folder = random.Random(seed), tmp_path_factory.mktemp("damage")
    broken = dice.sample(sorted(FILES), dice.randint(1, 16))
    expected = {}
    for file in broken:
        expected[file], damage = DAMAGES[dice.choice(sorted(DAMAGES))]
        damage(bucket, file, folder)
    found = verify()
    assert found.keys() == expected.keys()
    for file, why in expected.items():
        assert found[file].startswith(why), file


def test_a_bucket_that_is_gone_blames_no_file(bucket, verify):
    for file in FILES:
        bucket.delete(PREFIX + file)
    bucket.client.delete_bucket(Bucket=bucket.name)
    with pytest.raises(InfrastructureError, match=bucket.name):
        verify()


AWAY = [
    (operation, fault)
    for operation in ("HeadObject", "GetObject", "HeadBucket")
    for fault in (drop(), status(503))
]


# An answer to HEAD has no body that could name the error.
@pytest.mark.parametrize(
    ("operation", "fault"), [*AWAY, ("GetObject", status(403, "InvalidAccessKeyId"))]
)
def test_a_server_that_is_away_or_closed_blames_no_file(
    bucket, verify, monkeypatch, s3_endpoint, operation, fault
):
    impatient(monkeypatch)
    bucket.delete(PREFIX + key())
    with FaultProxy(s3_endpoint) as proxy:
        proxy.on(operation, fault)
        with pytest.raises(InfrastructureError):
            verify(bucket=through(bucket, proxy.url))


def test_an_object_at_which_the_server_breaks_is_named_alone(
    bucket, verify, monkeypatch, s3_endpoint
):
    impatient(monkeypatch)
    with FaultProxy(s3_endpoint) as proxy:
        proxy.on("GetObject", status(500), key=PREFIX + key())
        proxy.on("HeadObject", status(403), key=PREFIX + key(1))
        found = verify(bucket=through(bucket, proxy.url))
    assert found.keys() == {key(), key(1)}
    assert "the server answers for others" in found[key()]
    assert found[key(1)].startswith("cannot be read: ")


def test_what_is_damaged_once_on_its_way_is_read_again(bucket, verify, s3_endpoint):
    with FaultProxy(s3_endpoint) as proxy:
        rule = proxy.on("GetObject", corrupt_response(9), key=PREFIX + key(), times=1)
        assert verify(bucket=through(bucket, proxy.url)) == {}
        assert rule.acted == 1


def test_a_worker_that_cannot_go_on_is_not_said_to_be_damage(bucket, verify, monkeypatch):
    def view(*_):
        raise ItemFailed("took longer than 1 s and was stopped")

    monkeypatch.setattr("imagecore.sandbox.PictureWorker.view", view)
    why = "could not be decoded: took longer than 1 s and was stopped"
    assert set(verify([ITEMS[2]]).values()) == {why}


def test_the_log_has_the_legacy_sentences_and_then_each_wrong_file(
    bucket, workers, work_store, tmp_path
):
    sizes, lengths = RENDERING.sizes, ["mini", "knee", "maxi"]
    bucket.delete(PREFIX + key(2))
    bucket.delete(PREFIX + key(3))
    changed(bucket, key(0, ALIAS), lambda data: b"")
    bucket.delete(PREFIX + key(0, FRONT["names"][1]).replace("60x60", "top-crop"))
    temp = tmp_path / "temp"
    temp.mkdir()
    does = VerifyItems(RENDERING, bucket, PREFIX, workers, temp)
    outcomes = [attempt(does.process, item) for item in ITEMS]
    outcomes.append(Outcome("odd\nkey", State.FAILED, "unexpected"))
    work_store.put("run/outcomes.jsonl", b"".join(each.line() for each in outcomes))
    log = verify_log(work_store, "run/outcomes.jsonl", tmp_path, sizes, lengths)
    assert log.name == "verify.log"
    assert log.read_text().splitlines() == [
        "mini is missing items for image size top-crop",
        "knee is missing items for image size top-crop",
        f"ERROR - {key(0, ALIAS)}: 0 bytes",
        f"ERROR - {key(2)}: missing",
        f"ERROR - {key(2, ALIAS)}: missing",
        f"ERROR - {key(3)}: missing",
        r"ERROR - odd\nkey: unexpected",
    ]


def test_the_log_is_empty_where_nothing_is_wrong(work_store, tmp_path):
    work_store.put("run/outcomes.jsonl", Outcome("a", State.DONE, detail={"checked": 1}).line())
    log = verify_log(work_store, "run/outcomes.jsonl", tmp_path, SIZES, ["knee"])
    assert log.read_text() == ""


def test_of_many_wrong_files_all_are_counted(bucket, workers, work_store, tmp_path):
    sizes = (Cut("a", "fit", 1, 1), Cut("b", "fit", 1, 1))
    item = stack("front", 2, LISTED)
    does = VerifyItems(rendering_of(sizes, (PNG,)), bucket, PREFIX, workers, tmp_path)
    outcome = attempt(does.process, item)
    assert len(outcome.detail["wrong"]) == LISTED
    assert outcome.detail["wrong_files"] == 2 * LISTED
    half = LISTED // 2
    assert outcome.detail["missing"] == {each: {"a": half, "b": half} for each in ("knee", "mini")}
    work_store.put("run/outcomes.jsonl", outcome.line())
    log = verify_log(work_store, "run/outcomes.jsonl", tmp_path, sizes, ["knee", "mini"])
    lines = log.read_text().splitlines()
    assert "mini is missing items for image size b" in lines
    assert len(lines) == 4 + LISTED + 1
    assert lines[-1] == f"ERROR - {item['key']}: {LISTED} more files are wrong"


def test_outcomes_longer_than_one_read_are_read_whole(work_store, tmp_path, monkeypatch):
    monkeypatch.setattr("imagecore.report._PIECE", 7)
    lines = [Outcome(f"k{number}", State.FAILED, "bad").line() for number in range(5)]
    work_store.put("run/outcomes.jsonl", b"".join(lines).rstrip(b"\n"))
    log = verify_log(work_store, "run/outcomes.jsonl", tmp_path, SIZES, ["knee"])
    assert log.read_text() == "".join(f"ERROR - k{number}: bad\n" for number in range(5))


def test_base_names_say_which_colours_they_lack():
    index = LayerIndex(
        files={},
        refused={("t1_belt_front", 2): "a and b would be one layer"},
        absent={"base_bottom_front": (0, 2), "t9_belt_back": (0, 1, 2)},
        without_files=(),
        folders={},
        remarks=(),
    )
    dress = Style(name="dress", title="Dress", colours=3, lengths={"knee": "Knee"}, codes=("t1",))
    assert list(colours(index, dress)) == [
        "base_bottom_front is missing in 2 of 3 colours: 0000, 0002",
        "t9_belt_back is missing in all 3 colours",
        "t1_belt_front_0002.png is refused: a and b would be one layer",
    ]
