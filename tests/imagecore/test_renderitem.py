"""Stacks brought to the bucket: under every name, once, resumed, and never another's."""

import io
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from composites import MEDIA_TYPES, PNG, PREFIX, SIZES, WEBP, stack
from drawnlayers import part, save
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from randomstyles import load, style_data

from devstack.samples import client
from imagecore import renderitem
from imagecore.batch import run_batch
from imagecore.composite import MODES
from imagecore.errors import DiskFull, InfrastructureError, ItemFailed, UnreadableImage
from imagecore.layerfiles import LayerFiles
from imagecore.outcome import OutcomeLog, State
from imagecore.renderitem import Rendering, RenderItems
from imagecore.renderstyle import Cut, Format
from imagecore.renderverify import VerifyItems
from imagecore.s3 import Bucket
from imagecore.sandbox import picture_workers
from imagecore.sides import LocalSide, S3Side
from imagecore.stacks import layer_file, plan_stacks
from imagecore.syncitem import BucketSource, FolderSource
from tests.faults import FaultProxy, call, denied, drop, header, status
from tests.objects import impatient, kept, new_bucket_of, put, snapshot, through, versions

JPEG = Format("jpeg", 85, (250, 240, 230))
LAYERS = {
    layer_file(f"{base}_{side}", colour): (drawing, colour)
    for base, drawing in {
        "base_bottom": "bottom",
        "t1_belt": "belt",
        "t2_neckline": "neckline",
        "a9_infront": "infront",
    }.items()
    for side in ("front", "back")
    for colour in (0, 1)
}


def stacked(side, colour, names, *bases):
    """An item whose names no other one has."""
    item = stack(side, colour, names, ("base_bottom", *bases))
    codes = "-".join(base.partition("_")[0] for base in bases) or "b0"
    return {**item, "names": [f"{codes}-{name}" for name in item["names"]]}


THREE = stacked("front", 0, 3, "t1_belt")
ONE = stacked("front", 1, 1, "t1_belt")
NECKLINE = stacked("front", 0, 1, "t2_neckline")
BACK = stacked("back", 0, 2, "t2_neckline")
ITEMS = [THREE, ONE, NECKLINE, BACK]
BELT = "t1_belt_front_0000.png"


def drawn(name, folder, shade=0):
    """A layer file of its name's part and colour; `shade` draws it otherwise."""
    drawing, colour = LAYERS[name]
    pixels = part(drawing, 60, 80).astype(np.uint16)
    pixels[..., 2] = (pixels[..., 2] + 90 * colour + 30 * ("_back_" in name) + shade) % 256
    return save(pixels.astype(np.uint8), folder / name)


class Renders:
    """Drawn layers in a folder or bucket, a plan of them, and what renders its stacks."""

    def __init__(self, place, bucket, workers, temp):
        self.place, self.bucket, self.workers = place, bucket, workers
        self.temp, self.fetched = temp / "temp", temp / "fetched"
        self.drawings = temp / "drawings"
        for folder in (self.temp, self.fetched, self.drawings):
            folder.mkdir(parents=True)

    def draw(self, *names, shade=0):
        for name in names:
            self.put(name, drawn(name, self.drawings, shade).read_bytes())

    def put(self, name, data):
        if isinstance(self.place, Bucket):
            put(self.place, f"drawn/{name}", data)
        else:
            (self.place / name).write_bytes(data)

    def remove(self, name):
        if isinstance(self.place, Bucket):
            self.place.delete(f"drawn/{name}")
        else:
            (self.place / name).unlink()

    @property
    def side(self):
        local = not isinstance(self.place, Bucket)
        return LocalSide(self.place) if local else S3Side(self.place, "drawn/")

    def plan(self, sizes=SIZES, formats=(PNG, WEBP), compositing="exact"):
        """What a plan made now fixes."""
        layers = {
            entry.key: {
                "key": self.side.key(entry.key),
                "size": entry.size,
                "modified": entry.modified,
                "etag": entry.etag,
            }
            for entry in self.side.entries("", lambda key, reason: None)
        }
        return Rendering("dress", sizes, formats, 172, compositing, layers)

    def items(self, plan=None, *, bucket=None, source=None, fetched=None, prefix=PREFIX, **options):
        """What renders the plan's stacks; those at work at the same time have each a `fetched`."""
        if source is None and isinstance(self.place, Bucket):
            source = BucketSource(self.place, server_side=False)
        source = source or FolderSource(self.side, self.side.identity())
        return RenderItems(
            plan or self.plan(),
            bucket or self.bucket,
            prefix,
            LayerFiles(source, fetched or self.fetched, 10**6),
            self.workers,
            self.temp,
            cache_mb=64,
            **options,
        )

    def run(self, items=ITEMS, plan=None, **options):
        """The results of items, one after the other; in the end nothing is left of them."""
        does = self.items(plan, **options)
        try:
            return [does.process(item) for item in items]
        finally:
            assert list(self.temp.iterdir()) == []

    def batch(self, items, plan=None, threads=2, **options):
        """The outcomes of a batch, by key."""
        record = OutcomeLog(self.store, "run/outcomes/0000")
        does = self.items(plan, **options).process
        try:
            run_batch(items, does, record, threads=threads, stop=Event())
        finally:
            assert list(self.temp.iterdir()) == []
        return {each.key: each for each in record.outcomes()}

    def wrong(self, plan, items=ITEMS, prefix=PREFIX):
        """What verification finds."""
        does = VerifyItems(plan, self.bucket, prefix, self.workers, self.temp)
        found = {}
        for item in items:
            try:
                does.process(item)
            except ItemFailed as error:
                found[item["key"]] = error.detail["wrong"]
        return found


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    temp = tmp_path_factory.mktemp("workers")
    with picture_workers(2, temp_dir=temp, timeout_s=60, memory_mb=2048, file_mb=None) as found:
        yield found


@pytest.fixture
def renders(tmp_path, workers, s3_endpoint, work_store):
    place = tmp_path / "drawn"
    place.mkdir()
    made = Renders(place, new_bucket_of(client(s3_endpoint), "renders"), workers, tmp_path)
    made.store = work_store
    made.draw(*LAYERS)
    return made


@pytest.fixture
def from_bucket(renders, s3_endpoint, tmp_path):
    """The same layers, in a bucket."""
    place = new_bucket_of(client(s3_endpoint), "drawn")
    made = Renders(place, renders.bucket, renders.workers, tmp_path / "second")
    made.draw(*LAYERS)
    return made


@pytest.fixture
def proxied(renders, s3_endpoint, monkeypatch):
    """A proxy before the server, and the bucket of the composites behind it."""
    impatient(monkeypatch)
    with FaultProxy(s3_endpoint) as proxy:
        yield proxy, through(renders.bucket, proxy.url)


def names_of(items, plan):
    """The key of every file that rendering items leaves."""
    return {
        PREFIX + output.key(name)
        for item in items
        for output in plan.outputs
        for name in item["names"]
    }


def writes(proxy):
    """How many objects were put, and how many copied."""
    return proxy.requests.count("PutObject"), proxy.requests.count("CopyObject")


def states(results):
    return [result.state for result in results]


# What is delivered


@pytest.mark.parametrize("source", ["renders", "from_bucket"])
def test_every_name_is_there_in_every_size_and_format_and_tells_what_it_was_made_of(
    source, request
):
    renders = request.getfixturevalue(source)
    plan = renders.plan(formats=(PNG, WEBP, JPEG))
    results = renders.run(plan=plan)
    found = snapshot(renders.bucket)
    assert found.keys() == names_of(ITEMS, plan)
    assert renders.wrong(plan) == {}
    for item, result in zip(ITEMS, results, strict=True):
        first = [PREFIX + output.key(item["names"][0]) for output in plan.outputs]
        detail = {**result.detail}
        assert set(detail.pop("seconds_of")) == {
            "decode",
            "composite",
            "resize",
            "encode",
            "verify",
        }
        assert (result.state, detail) == (
            State.DONE,
            {
                "names": len(item["names"]),
                "copied": (len(item["names"]) - 1) * 6,
                "rendered": 6,
                "bytes": sum(len(found[key].data) for key in first),
            },
        )
        for output in plan.outputs:
            main, *others = (found[PREFIX + output.key(name)] for name in item["names"])
            picture = Image.open(io.BytesIO(main.data))
            assert picture.format == output.format.name.upper()
            assert main.content_type == f"image/{picture.format.lower()}"
            assert main.metadata["recipe"] == plan.recipe(item, output)
            assert (main.metadata["width"], main.metadata["height"]) == tuple(
                map(str, picture.size)
            )
            assert picture.size == ((45, 60) if output.cut.name == "60x60" else (24, 24))
            assert others == [main] * len(others)


def test_different_stacks_are_different_pictures(renders):
    renders.run()
    first = [PREFIX + renders.plan().outputs[0].key(item["names"][0]) for item in ITEMS]
    assert len({kept(renders.bucket, key).data for key in first}) == len(ITEMS)


def test_a_layer_that_a_stack_has_twice_is_laid_twice(renders):
    twice = stacked("front", 0, 1, "t1_belt", "t1_belt")
    plan = renders.plan()
    assert states(renders.run([THREE, twice], plan)) == [State.DONE] * 2
    assert renders.wrong(plan, [twice]) == {}


def test_a_trial_delivers_nothing_and_tells_the_bytes_of_all_but_the_first(renders):
    plan = renders.plan()
    seconds, size = renders.items(plan).trial([THREE, NECKLINE, ONE])
    assert seconds > 0
    assert versions(renders.bucket) == {}
    assert list(renders.temp.iterdir()) == []
    assert size == sum(result.detail["bytes"] for result in renders.run([NECKLINE, ONE], plan))


# What is there already


def test_what_is_up_to_date_is_neither_rendered_nor_written(renders, proxied):
    proxy, bucket = proxied
    plan = renders.plan()
    renders.run(plan=plan)
    before = snapshot(renders.bucket)
    results = renders.run(plan=plan, bucket=bucket)
    assert [(each.state, each.reason) for each in results] == [(State.SKIPPED, "up to date")] * 4
    assert [each.detail for each in results] == [
        {"names": len(item["names"]), "copied": 0} for item in ITEMS
    ]
    assert writes(proxy) == (0, 0)
    assert snapshot(renders.bucket) == before


def test_force_renders_again_and_copies_what_is_another(renders, proxied):
    proxy, bucket = proxied
    plan = renders.plan()
    renders.run([THREE], plan)
    [result] = renders.run([THREE], plan, bucket=bucket, force=True)
    assert (result.state, result.detail["rendered"], result.detail["copied"]) == (State.DONE, 4, 0)
    assert writes(proxy) == (4, 0)


def test_a_try_killed_before_copying_goes_on_by_copying_alone(renders, proxied):
    proxy, bucket = proxied
    plan = renders.plan()
    with (
        proxy.fault("CopyObject", denied()),
        pytest.raises(ItemFailed, match="access denied"),
    ):
        renders.run([THREE], plan, bucket=bucket)
    assert proxy.requests.count("PutObject") == 4
    proxy.requests.clear()
    [result] = renders.run([THREE], plan, bucket=bucket)
    assert (result.state, result.reason, result.detail) == (
        State.DONE,
        "",
        {"names": 3, "copied": 8},
    )
    assert writes(proxy) == (0, 8)
    assert renders.wrong(plan, [THREE]) == {}


@pytest.mark.parametrize("delivered", [1, 2, 3])
def test_a_try_killed_between_two_files_delivers_only_the_missing_ones(renders, proxied, delivered):
    proxy, bucket = proxied
    plan = renders.plan()
    with (
        proxy.fault("PutObject", status(503), after=delivered),
        pytest.raises(InfrastructureError),
    ):
        renders.run([THREE], plan, bucket=bucket)
    files = [PREFIX + output.key(THREE["names"][0]) for output in plan.outputs]
    assert versions(renders.bucket).keys() == set(files[:delivered])
    proxy.requests.clear()
    [result] = renders.run([THREE], plan, bucket=bucket)
    assert [request.key for request in proxy.requests.select("PutObject")] == files[delivered:]
    assert result.detail["rendered"] == len(files) - delivered
    sizes = [len(kept(renders.bucket, key).data) for key in files[delivered:]]
    assert result.detail["bytes"] == sum(sizes)
    assert renders.wrong(plan, [THREE]) == {}


@pytest.mark.parametrize("keeps", [False, True], ids=["no metadata", "our metadata"])
def test_a_copy_that_somebody_wrote_over_is_copied_again(renders, proxied, keeps):
    proxy, bucket = proxied
    plan = renders.plan()
    renders.run([THREE], plan)
    before = snapshot(renders.bucket)
    key = PREFIX + plan.outputs[0].key(THREE["names"][1])
    metadata = before[key].metadata if keeps else {}
    put(renders.bucket, key, b"x" * len(before[key].data), Metadata=metadata)
    [result] = renders.run([THREE], plan, bucket=bucket)
    assert (result.state, result.detail) == (State.DONE, {"names": 3, "copied": 1})
    assert writes(proxy) == (0, 1)
    assert snapshot(renders.bucket) == before


def test_a_composite_that_somebody_wrote_over_is_rendered_again(renders, proxied):
    proxy, bucket = proxied
    plan = renders.plan()
    renders.run([THREE], plan)
    before = snapshot(renders.bucket)
    put(renders.bucket, PREFIX + plan.outputs[1].key(THREE["names"][0]))
    [result] = renders.run([THREE], plan, bucket=bucket)
    assert (result.detail["rendered"], result.detail["copied"]) == (1, 0)
    assert writes(proxy) == (1, 0)
    assert snapshot(renders.bucket) == before


def test_a_copy_that_is_not_what_was_made_fails(renders, proxied):
    proxy, bucket = proxied
    key = PREFIX + renders.plan().outputs[0].key(THREE["names"][2])
    meddle = call(lambda request: put(renders.bucket, key), after_upstream=True)
    proxy.on("CopyObject", meddle, key=key)
    with pytest.raises(ItemFailed, match=rf"s3://{renders.bucket.name}/{key} is not the copy"):
        renders.run([THREE], bucket=bucket)


def test_a_server_that_keeps_no_metadata_fails_the_stack(renders, proxied):
    proxy, bucket = proxied
    proxy.on("HeadObject", header("x-amz-meta-recipe", None))
    with pytest.raises(ItemFailed, match="the metadata was not stored"):
        renders.run([ONE], bucket=bucket)
    assert versions(renders.bucket) == {}


# What changes a picture


@given(st.data())
def test_another_layer_file_changes_the_recipe_of_exactly_the_stacks_with_it(
    tmp_path_factory, data
):
    style = load(data.draw(style_data()), tmp_path_factory.mktemp("style"))
    everything = {base: range(style.colours) for base in _bases(style)}
    items = list(plan_stacks(style, everything).items())
    etag = data.draw(st.booleans())
    layers = {
        layer_file(base, colour): {
            "key": f"{base}/{colour}",
            "size": 7,
            "modified": 8,
            "etag": f"{base} {colour}" if etag else "",
        }
        for base in everything
        for colour in everything[base]
    }
    plan = Rendering(style.name, style.sizes, style.formats, style.ppi, "exact", layers)
    if not layers:
        return
    name = data.draw(st.sampled_from(sorted(layers)))
    field = data.draw(st.sampled_from(["key", "etag"] if etag else ["key", "size", "modified"]))
    other = "other" if field in ("key", "etag") else 9
    changed = replace(plan, layers={**layers, name: {**layers[name], field: other}})
    for output in plan.outputs:
        anew = {
            item["key"]
            for item in items
            if plan.recipe(item, output) != changed.recipe(item, output)
        }
        assert anew == {item["key"] for item in items if name in plan.files(item)}


def _bases(style):
    plan = plan_stacks(style, {})
    return {base for item in plan.items() for base in item["layers"]}


def test_where_a_layer_has_an_etag_its_time_changes_nothing():
    known = {"key": "k", "size": 1, "modified": 1, "etag": "e"}
    plan = Rendering("dress", SIZES, (PNG,), 172, "exact", {"a_0000.png": known})
    touched = replace(plan, layers={"a_0000.png": {**known, "modified": 2}})
    assert plan.identity("a_0000.png") == touched.identity("a_0000.png")


@pytest.mark.parametrize(
    "other",
    [
        {"sizes": (replace(SIZES[0], width=61),)},
        {"sizes": (replace(SIZES[0], kind="trim"),)},
        {"formats": (Format("png", 90),)},
        {"ppi": 96},
        {"compositing": "fast"},
    ],
    ids=str,
)
def test_another_size_format_or_way_changes_the_recipe(other):
    known = {"key": "k", "size": 1, "modified": 1, "etag": "e"}
    layers = dict.fromkeys(LAYERS, known)
    plan = Rendering("dress", SIZES[:1], (PNG,), 172, "exact", layers)
    changed = replace(plan, **other)
    assert plan.recipe(THREE, plan.outputs[0]) != changed.recipe(THREE, changed.outputs[0])


def test_another_order_of_layers_is_another_recipe():
    layers = {name: {"key": name, "size": 1, "modified": 1, "etag": ""} for name in LAYERS}
    plan = Rendering("dress", SIZES, (PNG,), 172, "exact", layers)
    turned = {**THREE, "layers": THREE["layers"][::-1]}
    assert plan.recipe(THREE, plan.outputs[0]) != plan.recipe(turned, plan.outputs[0])


def test_of_a_changed_layer_the_stacks_with_it_are_rendered_again(renders):
    renders.run()
    renders.draw(BELT, shade=40)
    again = renders.run()
    assert states(again) == [State.DONE, *[State.SKIPPED] * 3]
    assert renders.wrong(renders.plan()) == {}


numbers = st.integers(1, 5000)
plans = st.builds(
    Rendering,
    st.text(min_size=1),
    st.lists(
        st.builds(
            Cut,
            st.text(min_size=1),
            st.sampled_from(["fit", "trim", "top", "bottom"]),
            numbers,
            numbers,
            st.integers(0, 99),
        )
    ).map(tuple),
    st.lists(
        st.builds(
            Format,
            st.sampled_from(sorted(MEDIA_TYPES)),
            st.none() | st.integers(1, 100),
            st.tuples(*[st.integers(0, 255)] * 3),
        )
    ).map(tuple),
    numbers,
    st.sampled_from(MODES),
    st.dictionaries(
        st.text(),
        st.fixed_dictionaries(
            {"key": st.text(), "size": numbers, "modified": numbers, "etag": st.text()}
        ),
    ),
)


@given(plans)
def test_what_a_plan_fixes_is_read_as_it_was_kept(plan):
    again = Rendering.from_json(json.loads(json.dumps(plan.as_json())))
    assert again == plan
    assert {*again.outputs} == {*plan.outputs}


# What goes wrong


@pytest.mark.parametrize("source", ["renders", "from_bucket"])
@pytest.mark.parametrize("change", ["drawn anew", "removed"])
def test_a_layer_that_changed_after_the_plan_fails_its_stacks_by_its_name(source, change, request):
    renders = request.getfixturevalue(source)
    plan = renders.plan()
    if change == "removed":
        renders.remove(BELT)
    else:
        renders.draw(BELT, shade=40)
    with pytest.raises(ItemFailed, match=BELT):
        renders.run([THREE], plan)
    assert states(renders.run([ONE, NECKLINE, BACK], plan)) == [State.DONE] * 3
    assert versions(renders.bucket).keys() == names_of([ONE, NECKLINE, BACK], plan)


def test_missing_layers_fail_a_stack_by_their_names(renders):
    missing = ["t1_belt_front_0000.png", "base_bottom_front_0000.png"]
    with pytest.raises(ItemFailed, match=f"layer files are missing: {', '.join(missing)}"):
        renders.run([{**THREE, "missing": missing}])
    assert versions(renders.bucket) == {}


@pytest.mark.parametrize("data", [b"", b"no picture", "half"])
def test_a_bad_layer_quarantines_the_stacks_with_it_and_no_others(renders, data):
    if data == "half":
        data = (renders.place / BELT).read_bytes()[:-300]
    renders.put(BELT, data)
    outcomes = renders.batch(ITEMS)
    assert {key: outcome.state for key, outcome in outcomes.items()} == {
        THREE["key"]: State.QUARANTINED,
        **{item["key"]: State.DONE for item in (ONE, NECKLINE, BACK)},
    }
    assert versions(renders.bucket).keys() == names_of([ONE, NECKLINE, BACK], renders.plan())


def test_a_bad_layer_is_named_as_people_know_it(renders):
    renders.put(BELT, b"no picture")
    with pytest.raises(UnreadableImage, match=BELT):
        renders.run([THREE])


def test_a_full_disk_ends_the_batch(renders):
    for name in renders.plan().layers:
        (renders.fetched / name).symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=f"No space left in {renders.temp}"):
        renders.batch(ITEMS, threads=1)
    assert renders.store.paths("run") == []
    assert versions(renders.bucket) == {}


def test_a_bucket_that_is_gone_ends_the_batch(renders):
    gone = Bucket("no-such-bucket", renders.bucket.client)
    with pytest.raises(InfrastructureError, match="the bucket does not exist"):
        renders.batch(ITEMS, bucket=gone)
    assert renders.store.paths("run") == []


def test_a_server_that_is_gone_ends_the_batch(renders, proxied):
    proxy, bucket = proxied
    renders.run([THREE])
    proxy.on(None, drop())
    with pytest.raises(InfrastructureError):
        renders.batch(ITEMS, bucket=bucket)
    assert renders.store.paths("run") == []


def test_a_source_bucket_that_is_gone_ends_the_batch(from_bucket, work_store):
    plan = from_bucket.plan()
    from_bucket.store = work_store
    gone = BucketSource(Bucket("no-such-bucket", from_bucket.bucket.client), server_side=False)
    with pytest.raises(InfrastructureError, match="no-such-bucket"):
        from_bucket.batch(ITEMS, plan, source=gone)


@pytest.mark.parametrize("operation", ["PutObject", "CopyObject"])
def test_a_stack_at_which_the_server_breaks_fails_alone(renders, proxied, operation):
    proxy, bucket = proxied
    proxy.on(operation, status(500), key=re.compile(THREE["names"][operation == "CopyObject"]))
    outcomes = renders.batch(ITEMS, bucket=bucket)
    assert outcomes[THREE["key"]].state is State.FAILED
    assert "the server answers for others" in outcomes[THREE["key"]].reason
    assert Counter(each.state for each in outcomes.values()) == {State.FAILED: 1, State.DONE: 3}


def test_a_file_that_arrives_otherwise_is_not_left_in_the_bucket(renders, proxied):
    proxy, bucket = proxied
    proxy.on("HeadObject", header("Content-Length", "1"), after=1)
    with pytest.raises(ItemFailed):
        renders.run([ONE], bucket=bucket)
    assert versions(renders.bucket) == {}


# `fast` is compared with `exact`


@pytest.fixture
def lenient(monkeypatch):
    """Layers as small as these lose more than 50 dB allow."""
    monkeypatch.setattr(renderitem, "CHECKED_PSNR", 20.0)


@pytest.mark.usefixtures("lenient")
def test_the_first_and_every_nth_fast_composite_is_compared(renders):
    items = [*ITEMS, *(stacked("back", 1, 1, *more) for more in ((), ["t1_belt"], ["t2_neckline"]))]
    results = renders.run(items, renders.plan(compositing="fast"), checked=3)
    compared = [each.detail.get("psnr") for each in results]
    assert [value is not None for value in compared] == [True, False, False] * 2 + [True]
    assert all(20 <= value < 99 for value in compared if value is not None)


@pytest.mark.usefixtures("lenient")
def test_what_is_up_to_date_is_not_counted_when_fast_is_compared(renders):
    plan = renders.plan(compositing="fast")
    renders.run([THREE], plan)
    skipped, rendered = renders.run([THREE, ONE], plan)
    assert (skipped.state, "psnr" in rendered.detail) == (State.SKIPPED, True)


def test_an_exact_composite_is_compared_with_nothing(renders):
    assert not any("psnr" in result.detail for result in renders.run())


def test_a_fast_composite_too_far_from_the_exact_one_fails(renders, monkeypatch):
    assert renderitem.CHECKED_PSNR == 50
    monkeypatch.setattr(renderitem, "CHECKED_PSNR", 100.0)
    said = r"dB near the exact one, and 100 are the least: run this style with compositing = exact"
    with pytest.raises(ItemFailed, match=said):
        renders.run([THREE], renders.plan(compositing="fast"))
    assert versions(renders.bucket) == {}


# At the same time


def test_two_runs_of_a_style_at_once_end_with_the_right_files(renders, tmp_path):
    plan = renders.plan()
    other = tmp_path / "other"
    other.mkdir()
    both = [renders.items(plan), renders.items(plan, fetched=other)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(does.process, item) for item in ITEMS for does in both]
        results = [job.result() for job in jobs]
    assert {result.state for result in results} <= {State.DONE, State.SKIPPED}
    assert versions(renders.bucket).keys() == names_of(ITEMS, plan)
    assert renders.wrong(plan) == {}


def test_two_styles_at_once_do_not_mix(renders, tmp_path, workers, s3_endpoint):
    place = tmp_path / "coat"
    place.mkdir()
    coat = Renders(place, renders.bucket, workers, tmp_path / "second")
    coat.draw(*LAYERS, shade=120)
    plans = {PREFIX: renders.plan(), "renders/composites/coat/": coat.plan()}
    both = {PREFIX: renders, "renders/composites/coat/": coat}
    work = [style.items(plans[prefix], prefix=prefix) for prefix, style in both.items()]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(does.process, item) for item in ITEMS for does in work]
        assert {job.result().state for job in jobs} == {State.DONE}
    for prefix, style in both.items():
        assert style.wrong(plans[prefix], prefix=prefix) == {}
        together = snapshot(style.bucket, prefix)
        style.bucket = new_bucket_of(client(s3_endpoint), "alone")
        style.run(plan=plans[prefix], prefix=prefix)
        assert snapshot(style.bucket, prefix) == together
    for key, one in snapshot(renders.bucket, PREFIX).items():
        other = kept(coat.bucket, f"renders/composites/coat/{key}")
        assert one.data != other.data


def test_many_threads_render_every_stack_once(renders, proxied):
    proxy, bucket = proxied
    plan = renders.plan()
    items = [
        stacked(side, colour, 2, *more)
        for side in ("front", "back")
        for colour in (0, 1)
        for more in ((), ("t1_belt",), ("t2_neckline",), ("t1_belt", "a9_infront"))
    ]
    outcomes = renders.batch(items, plan, threads=4, bucket=bucket)
    assert {outcome.state for outcome in outcomes.values()} == {State.DONE}
    assert writes(proxy) == (4 * len(items), 4 * len(items))
    assert renders.wrong(plan, items) == {}
