"""Contact sheets show what they should, escaped, in its place, and say what cannot be shown."""

import io
import tracemalloc
from collections import Counter
from html.parser import HTMLParser
from itertools import chain, islice
from math import ceil
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from composites import PREFIX, SIZES, deliver, drawn, put_picture, rendering_of, stack
from PIL import Image

from devstack.samples import client
from imagecore.contactsheet import COLUMNS, SIDE, Choice, ContactSheets, choose
from imagecore.errors import InfrastructureError
from imagecore.renderstyle import Cut
from imagecore.renderverify import length_of
from imagecore.s3 import Bucket
from imagecore.sandbox import PictureWorker, picture_workers
from tests.faults import FaultProxy, status
from tests.objects import impatient, new_bucket_of, put, through

RENDERING = rendering_of()
ITEMS = [stack("front", colour, 3) for colour in range(5)] + [stack("back", 0, 2)]
HOSTILE = '<script>alert("x")</script>&\n\u202e\'"><img src=x onerror=alert(1)>-knee-front-0000'
COUNTS = {"Composites": 123456, "Stacks <b>": "a & b"}


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    temp = tmp_path_factory.mktemp("workers")
    with picture_workers(1, temp_dir=temp, timeout_s=60, memory_mb=2048, file_mb=None) as found:
        yield found


@pytest.fixture(scope="module")
def delivered(s3_endpoint, tmp_path_factory):
    bucket = new_bucket_of(client(s3_endpoint), "composites")
    for item in ITEMS:
        deliver(bucket, RENDERING, item, tmp_path_factory.mktemp("deliver"))
    return bucket


@pytest.fixture
def write(delivered, workers, tmp_path):
    """Writes sheets of a bucket; returns the folder, and checks that nothing else is left."""

    def run(choices, bucket=delivered, rendering=RENDERING, **options):
        folder, temp = tmp_path / "sheets", tmp_path / "temp"
        folder.mkdir()
        temp.mkdir()
        sheets = ContactSheets(rendering, bucket, PREFIX, workers, temp, **options)
        files = sheets.write(choices, folder, COUNTS)
        assert sorted(files) == sorted(folder.iterdir())
        assert list(temp.iterdir()) == []
        return folder

    return run


class Page(HTMLParser):
    """A page's elements, each of which must end where it should."""

    VOID = ("meta", "img")

    def __init__(self, path):
        super().__init__()
        self.open, self.elements, self.text = [], [], {}
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.text.setdefault(self.open[-1], []).append(data.strip())

    def all(self, tag):
        return [attributes for each, attributes in self.elements if each == tag]


def pages_of(folder, pattern="*-*.html"):
    return [Page(path) for path in sorted(folder.glob(pattern))]


def test_a_page_shows_each_name_once_with_its_picture_and_its_object(write, delivered):
    folder = write(choose(ITEMS, None))
    names = [name for item in ITEMS if item["side"] == "front" for name in item["names"]]
    for cut in ("60x60", "top-crop"):
        page = Page(folder / f"front-{cut}-1.html")
        assert [each["alt"] for each in page.all("img")] == names
        assert [text for text in page.text["span"]] == names
        targets = [urlsplit(each["href"]).path for each in page.all("a") if "title" in each]
        assert targets == [f"/{delivered.name}/{PREFIX}{cut}/{name}.png" for name in names]


def test_each_picture_stands_where_its_page_says(write):
    choices = list(choose(ITEMS, None))
    folder = write(choices)
    page = Page(folder / "front-60x60-1.html")
    sheet = np.asarray(Image.open(folder / "front-60x60-1.jpg")).astype(int)
    count = len(page.all("img"))
    assert sheet.shape == (ceil(count / COLUMNS) * SIDE, min(count, COLUMNS) * SIDE, 3)
    places = [each["style"].removeprefix("object-position: ") for each in page.all("img")]
    assert len(set(places)) == count
    of_side = [item for item in ITEMS if item["side"] == "front"]
    stacks = [item for item in of_side for _ in item["names"]]
    for item, place in zip(stacks, places, strict=True):
        left, top = (-int(each.removesuffix("px")) for each in place.split())
        cell = sheet[top : top + SIDE, left : left + SIDE]
        output = RENDERING.outputs[0]
        data = drawn(f"{item['key']}{output}", 40, 60)
        meant = np.asarray(Image.open(io.BytesIO(data))).astype(int)
        shown = cell[(SIDE - 60) // 2 :, (SIDE - 40) // 2 :][20:40, 15:25]
        assert abs(shown.mean((0, 1)) - meant[20:40, 15:25, :3].mean((0, 1))).max() < 12
        assert abs(cell[:8, :8] - 255).max() < 12  # checks beside it
        assert abs(cell[:8, 8:16] - 208).max() < 12
        assert cell[50:56, 60:64].min() > 190  # and where it is transparent


@pytest.mark.parametrize("width", [400, 90])
def test_large_pictures_are_fitted_into_their_cell(write, delivered, tmp_path_factory, width):
    rendering = rendering_of((Cut("big", "fit", 400, 400),))
    item, folder = stack("front", 9), tmp_path_factory.mktemp("big")
    output, data = rendering.outputs[0], drawn("big", width, 400, shape="full")
    put_picture(delivered, rendering, item, output, data, folder)
    sheet = write(choose([item]), rendering=rendering) / "front-big-1.jpg"
    cell = np.asarray(Image.open(sheet)).astype(int)
    columns = np.flatnonzero((abs(cell[SIDE // 2 - 3] - 255).min(1) > 60)[None].any(0))
    assert cell.shape == (SIDE, SIDE, 3)
    assert abs((columns[-1] - columns[0] + 1) - width * SIDE / 400) < 12


def test_hostile_names_are_text_and_nothing_else(write, delivered):
    names = [HOSTILE, "../../up", "\ud800", "javascript:alert(1)", ""]
    item = {**ITEMS[0], "names": names, "side": 'front/../"<'}
    folder = write(choose([item], None))
    for path in folder.glob("*.html"):
        page = Page(path)
        assert page.all("script") == []
        assert not any(name.startswith("on") for _, each in page.elements for name in each)
        assert all(
            urlsplit(each["href"]).scheme in ("", urlsplit(delivered.client.meta.endpoint_url)[0])
            for each in page.all("a")
        )
        assert "<b>" not in path.read_text()
        assert "\u202e" not in path.read_text()
    shown = [name for page in pages_of(folder, "*60x60-1.html") for name in page.text["span"]]
    assert any(text.startswith('<script>alert("x")</script>&\\n\\u202e') for text in shown)


def test_links_lead_to_files_that_are_there(write):
    folder = write(choose(ITEMS, None), cells=4)
    linked = set()
    for path in folder.glob("*.html"):
        page = Page(path)
        for link in [each["href"] for each in page.all("a") if "title" not in each]:
            assert (folder / unquote(link)).is_file()
            linked.add(unquote(link))
        assert all((folder / unquote(each["src"])).is_file() for each in page.all("img"))
    assert linked == {path.name for path in folder.iterdir()}


def test_all_are_paged_without_gap_or_repetition(write):
    folder = write(choose(ITEMS, None), cells=4)
    names = [name for item in ITEMS if item["side"] == "front" for name in item["names"]]
    shown = [
        [each["alt"] for each in Page(folder / f"front-top-crop-{page}.html").all("img")]
        for page in range(1, 5)
    ]
    assert [len(page) for page in shown] == [4, 4, 4, 3]
    assert list(chain.from_iterable(shown)) == names
    texts = [pages_of(folder, f"front-60x60-{page}.html")[0].text["a"] for page in (1, 2, 4)]
    assert [("Previous" in each, "Next" in each) for each in texts] == [
        (False, True),
        (True, True),
        (True, False),
    ]


def test_the_index_has_the_counts_of_the_plan_and_of_each_page(write):
    text = (write(choose(ITEMS, None)) / "index.html").read_text()
    assert ">123,456<" in text
    assert ">Stacks &lt;b&gt;<" in text
    assert ">a &amp; b<" in text
    assert '<th scope="row">60x60</th><td class="number">15</td><td class="number">0</td>' in text


def test_pages_can_be_read_by_everyone(write):
    for page in pages_of(write(choose(ITEMS)), "*.html"):
        assert page.all("html") == [{"lang": "en"}]
        assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
            "meta"
        )
        assert all(each["alt"] for each in page.all("img"))
        assert "color-scheme: light dark" in page.text["style"][0]


@pytest.fixture
def own(s3_endpoint):
    return new_bucket_of(client(s3_endpoint), "broken")


def test_what_is_missing_or_broken_is_a_red_cell_with_its_reason(write, own, tmp_path_factory):
    item = stack("front", 0, 6, lengths=("knee",))
    deliver(own, RENDERING, item, tmp_path_factory.mktemp("deliver"))
    keys = [f"{PREFIX}60x60/{name}.png" for name in item["names"]]
    own.delete(keys[0])
    put(own, keys[1], b"")
    put(own, keys[2], own.read(keys[2])[:90])
    put(own, keys[3], b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>")
    put(own, keys[4], bytes(2 << 20))
    folder = write(choose([item]), own)
    page = Page(folder / "front-60x60-1.html")
    why = dict(zip(item["names"], page.text["span"][1::2], strict=False))
    assert [each["alt"].partition(", not shown: ")[2] for each in page.all("img")] == [
        *list(why.values())[:5],
        "",
    ]
    starts = [
        "missing",
        "0 bytes",
        "does not decode: ",
        "does not decode: ",
        "2,097,152 bytes",
    ]
    for name, start in zip(item["names"], starts, strict=False):
        assert why[name].startswith(start)
    sheet = np.asarray(Image.open(folder / "front-60x60-1.jpg")).astype(int)
    corners = [sheet[8:24, at * SIDE + 8 : at * SIDE + 24].mean((0, 1)) for at in range(6)]
    red = [corner[0] - corner[1] > 100 for corner in corners]
    assert red == [True] * 5 + [False]
    row = '<th scope="row">60x60</th><td class="number">6</td><td class="number">'
    index = (folder / "index.html").read_text()
    assert f'{row}<span class="why">5</span></td>' in index
    assert page.text["span"].count("missing") == 1


def test_a_crash_of_the_decoder_is_one_red_cell(write, monkeypatch, own, tmp_path_factory):
    item = stack("front", 0, 3)
    deliver(own, RENDERING, item, tmp_path_factory.mktemp("deliver"))
    view, calls = PictureWorker.view, []

    def crash_once(worker, *arguments):
        calls.append(arguments)
        if len(calls) == 1:
            worker._start().kill()
        return view(worker, *arguments)

    monkeypatch.setattr(PictureWorker, "view", crash_once)
    folder = write(choose([item]), own, threads=1)
    alts = [each["alt"] for each in Page(folder / "front-60x60-1.html").all("img")]
    assert [", not shown: could not be decoded: " in alt for alt in alts] == [True, False, False]


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "away"])
def test_a_bucket_that_is_away_ends_the_sheet(write, own, monkeypatch, s3_endpoint, gone):
    impatient(monkeypatch)
    with FaultProxy(s3_endpoint) as proxy:
        if gone:
            own.client.delete_bucket(Bucket=own.name)
        else:
            proxy.on("HeadObject", status(503))
        with pytest.raises(InfrastructureError):
            write(choose(ITEMS), through(own, proxy.url))


def test_memory_holds_one_page(delivered, workers, tmp_path):
    one = rendering_of(SIZES[:1])
    bucket = Bucket(delivered.name, delivered.client)

    def peak(pages):
        folder = tmp_path / str(pages)
        folder.mkdir()
        sheets = ContactSheets(one, bucket, PREFIX, workers, tmp_path, threads=1, cells=10)
        names = (Choice("front", ITEMS[0]["names"][0]) for _ in range(pages * 10))
        tracemalloc.start()
        try:
            sheets.write(names, folder, {})
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # what is imported and cached on the way counts in neither
    page = 10 * SIDE * SIDE * 3
    assert peak(12) < peak(2) + 4 * page


def plan(colours, stacks, lengths=("knee", "mini", "maxi"), aliases=2):
    """The items of a plan as a stream, in its order."""
    for colour in range(colours):
        for side in ("back", "front"):
            for number in range(stacks):
                names = [
                    f"a{number}-b{alias}-{lengths[(number + alias) % len(lengths)]}"
                    f"-{side}-{colour:04d}"
                    for alias in range(aliases)
                ]
                yield {"key": str(number), "names": names, "colour": colour, "side": side}


@pytest.mark.parametrize("count", [1, 7, 60, 100])
@pytest.mark.parametrize(("colours", "stacks"), [(18, 200), (3, 500), (40, 1), (1, 90)])
def test_a_sample_is_even_over_colours_and_lengths(colours, stacks, count):
    everything = list(plan(colours, stacks))
    chosen = list(choose(everything, count))
    assert len(set(chosen)) == len(chosen)
    names = {name: side for item in everything for side in [item["side"]] for name in item["names"]}
    assert all(names[each.name] == each.side for each in chosen)
    order = {name: number for number, name in enumerate(names)}
    for side in ("front", "back"):
        of_side = [each.name for each in chosen if each.side == side]
        assert len(of_side) == min(count, colours * stacks * 2)
        assert sorted(of_side, key=order.__getitem__) == of_side
        by_colour = Counter(name[-4:] for name in of_side)
        assert max(by_colour.values()) - min(by_colour.values()) <= 1
        assert len(by_colour) == min(colours, len(of_side))
        by_length = Counter(map(length_of, of_side))
        if stacks > 1:
            assert max(by_length.values()) - min(by_length.values()) <= ceil(count / 10)
        codes = Counter(name.rsplit("-", 3)[0] for name in of_side)
        if stacks > 100:
            assert max(codes.values()) <= 2


def test_a_sample_is_the_same_each_time_and_all_is_all():
    assert list(choose(plan(3, 50), 20)) == list(choose(plan(3, 50), 20))
    everything = [Choice(item["side"], name) for item in plan(3, 5) for name in item["names"]]
    assert list(choose(plan(3, 5), None)) == everything
    assert list(choose(plan(3, 5), 1000)) == sorted(everything, key=lambda each: each.side)
    assert len(list(islice(choose(plan(10**9, 1), None), 2))) == 2


def test_colours_with_few_composites_do_not_make_a_sample_smaller():
    few = [stack("front", colour) for colour in range(17)]
    many = [stack("front", 17, 200)]
    chosen = [each.name for each in choose([*few, *many], 60)]
    assert len(chosen) == 60
    assert Counter(name[-4:] for name in chosen) == {
        "0017": 43,
        **{f"{colour:04d}": 1 for colour in range(17)},
    }


def test_choosing_holds_no_more_of_a_longer_plan():
    def peak(stacks):
        tracemalloc.start()
        try:
            list(choose(plan(3, stacks), 60))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(2000) < 1.5 * peak(200)
