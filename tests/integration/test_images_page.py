"""The page "Images", as people use it: in a browser, in Airflow, on runs that were made."""

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
import tifffile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from docs.screenshots import NoBrowser, browser_page
from tests.integration.airflow_stack import airflow_stack, until
from tests.integration.images_page import (
    DAMAGED,
    HELD,
    HUBBLE,
    LINES,
    MANY,
    MARKUP,
    NEEDLE,
    ODD_NAMES,
    PAGE,
    PATIENCE_MS,
    PYRAMIDS,
    REFUSED,
    RERUN,
    SHOWN_TAG,
    SPACE,
    SYNC,
    TAG,
    Shown,
    Watched,
    address_of,
    frame,
    pyramid_of,
    shown,
    sign_in,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page


@pytest.fixture(scope="module", autouse=True)
def patience() -> None:
    expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    try:
        with browser_page("") as page:
            assert page.context.browser
            yield page.context.browser
    except NoBrowser as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def images(
    browser: "Browser",  # before an Airflow is started for nothing
    s3_endpoint: str,
    s3_client: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("stack")
    with airflow_stack(folder, s3_endpoint, s3_client) as stack:
        until(lambda: {PYRAMIDS, SYNC, RERUN} <= set(stack.api.dag_ids()))
        with shown(stack, s3_endpoint, folder) as made:
            yield made


@pytest.fixture(scope="module")
def watched(images: Shown) -> Watched:
    return Watched(images.address)


@pytest.fixture(autouse=True)
def nothing_to_complain(watched: Watched) -> Iterator[None]:
    """No test may make the browser say that something is wrong, or ask another host."""
    watched.expected = {"a status of 422"}  # a picture that cannot be shown
    yield
    problems, watched.problems = watched.problems, []
    assert not problems
    assert watched.hosts <= {watched.address.removeprefix("http://")}


@pytest.fixture(scope="module")
def ann(browser: "Browser", watched: Watched) -> "Page":
    """The page of Ann, who may do things."""
    return sign_in(browser, watched, "ann")


def another_page(browser: "Browser", watched: Watched, page: "Page", **options: Any) -> "Page":
    """A new window of somebody who is signed in, with nothing in its cache."""
    size = {"width": options.pop("width", 1280), "height": 900}
    state = page.context.storage_state()
    context = browser.new_context(
        base_url=watched.address, storage_state=state, viewport=size, **options
    )
    return watched.watch(context).new_page()


@pytest.fixture(scope="module")
def vic(browser: "Browser", watched: Watched) -> "Page":
    """The page of Vic, who may look."""
    return sign_in(browser, watched, "vic")


def rows(page: "Page") -> "Locator":
    """The rows of a list of pictures, but its head."""
    table = page.get_by_role("table", name="Pictures, one a row")
    return table.get_by_role("row").filter(has=page.get_by_role("cell"))


def keys(page: "Page") -> list[str]:
    """The pictures of a list."""
    links = rows(page).locator("a.key")
    links.first.wait_for()
    return [str(text) for text in links.evaluate_all("all => all.map(one => one.textContent)")]


def drawn(image: "Locator") -> None:
    """Wait until a picture is there, and has pixels."""
    image.scroll_into_view_if_needed()
    expect(image).to_have_js_property("complete", True)
    assert image.evaluate("it => it.naturalWidth") > 0


def show(page: "Page", **chosen: str) -> None:
    """Choose in the filter of a run and have it shown."""
    form = page.get_by_role("search")
    for label, value in chosen.items():
        if label in {"List", "State"}:
            form.get_by_role("combobox", name=label).select_option(value)
        else:
            form.get_by_role("searchbox", name=label.replace("_", " ")).fill(value)
    with page.expect_navigation():
        form.get_by_role("button", name="Show").click()
    page.get_by_role("navigation", name="Pages").wait_for()


def saved(page: "Page", link: "Locator") -> bytes:
    """What a link downloads."""
    with page.expect_download() as download:
        link.click()
    return download.value.path().read_bytes()


def opened_run(page: "Page", dag_id: str, *, but: str) -> str:
    """The run on whose page the browser comes from that of another."""
    page.wait_for_url(lambda url: "/run?" in url and but not in unquote(url))
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text("manual__")
    run_id = heading.inner_text()
    assert f"dag_id={dag_id}&" in page.url
    return run_id


# Where it is


def test_the_way_from_the_navigation_to_a_picture_and_back(images, ann):
    inner = frame(ann)
    ann.goto("/")
    ann.get_by_role("link", name="Images").first.click()
    dag_id, run_id = images.runs["space"]
    runs = inner.get_by_role("region", name=f"Runs of {dag_id}")
    run = runs.locator(f'a[href="{images.of("space").removeprefix(PAGE)}"]')
    expect(ann).to_have_url(re.compile(r"/plugin/images/imageflows/$"))
    run.click()
    title = inner.get_by_role("heading", level=1)
    expect(title).to_have_text(run_id)
    expect(ann).to_have_url(f"{images.address}/plugin/images{images.of('space')}")
    inner.get_by_role("link", name=HUBBLE, exact=True).click()
    expect(title).to_have_text(HUBBLE)
    expect(ann).to_have_url(f"{images.address}/plugin/images{images.picture('space', HUBBLE)}")
    ann.go_back()
    expect(title).to_have_text(run_id)
    expect(ann).to_have_url(f"{images.address}/plugin/images{images.of('space')}")
    ann.reload()
    expect(title).to_have_text(run_id)
    inner.get_by_role("link", name="this run in Airflow").click()
    expect(ann).to_have_url(re.compile(rf"{images.address}/dags/{dag_id}/runs/manual__[^/]*$"))


def test_the_tabs_of_a_workflow_a_run_and_a_task(images, ann):
    inner, (dag_id, run_id) = frame(ann), images.runs["space"]
    outcomes = images.outcomes("space")
    in_run = f"/dags/{dag_id}/runs/{run_id.replace('+', '%2B')}"

    def open_tab(address: str) -> None:
        ann.goto(address)
        links = ann.get_by_role("link", name="Images")
        expect(links).to_have_count(2)  # that of the navigation is there first
        links.last.click()

    open_tab(f"/dags/{dag_id}")
    expect(inner.get_by_label("Workflow")).to_have_value(dag_id)
    inner.get_by_role("region", name=f"Runs of {dag_id}").wait_for()
    open_tab(in_run)
    expect(inner.get_by_role("heading", level=1)).to_have_text(run_id)
    assert keys(inner) == sorted(outcomes)
    open_tab(f"{in_run}/tasks/pyramid/mapped/2")
    expect(inner.get_by_role("heading", name=re.compile("Pictures of this task"))).to_be_visible()
    assert keys(inner) == [sorted(outcomes)[2]]


# The list of runs


def runs_of(page: "Page", dag_id: str) -> "Locator":
    """The rows of a workflow's runs, but their head."""
    region = page.get_by_role("region", name=f"Runs of {dag_id}")
    return region.get_by_role("row").filter(has=page.get_by_role("link"))


def test_the_list_of_runs_counts_as_their_reports_do(images, ann):
    ann.goto(PAGE)
    for name, (dag_id, _) in list(images.runs.items()):
        link = ann.locator(f'a[href="{images.of(name).removeprefix(PAGE)}"]')
        cells = runs_of(ann, dag_id).filter(has=link).get_by_role("cell")
        cells.first.wait_for()
        state, mode, *counts = cells.all_inner_texts()[:6]
        report = images.report(name)
        assert (state, mode) == (images.state(name), report["mode"])
        told = [int(text.rpartition(" ")[2].replace(",", "").replace("–", "0")) for text in counts]
        assert told == [report["counts"][of] for of in ("done", "skipped", "failed", "quarantined")]


def test_the_list_of_runs_is_filtered_by_workflow_state_and_date(images, ann):
    def chosen(**fields: str) -> None:
        ann.goto(PAGE)
        for label, value in fields.items():
            if label in {"Workflow", "State"}:
                ann.get_by_role("combobox", name=label).select_option(value)
            else:
                ann.get_by_label(label, exact=True).fill(value)
        with ann.expect_navigation():
            ann.get_by_role("button", name="Show").click()

    chosen(Workflow=SYNC)
    expect(runs_of(ann, SYNC)).not_to_have_count(0)
    expect(runs_of(ann, PYRAMIDS)).to_have_count(0)
    chosen(Workflow=PYRAMIDS, State="failed")
    failed = [each for each, state in images.stack.runs(PYRAMIDS).items() if state == "failed"]
    expect(runs_of(ann, PYRAMIDS)).to_have_count(len(failed))
    chosen(From="2001-01-01")
    expect(runs_of(ann, SYNC)).not_to_have_count(0)
    chosen(To="2001-01-01")
    expect(ann.get_by_text("No run is like that. Change the filter")).to_be_visible()


def test_a_backfill_made_last_stands_first_though_its_day_is_long_over(images, ann):
    day = "2026-02-01"
    images.stack.scheduler.suspend()  # it waits, and has not begun
    try:
        body = {"dag_id": PYRAMIDS, "from_date": f"{day}T05:00Z", "to_date": f"{day}T20:00Z"}
        made = ann.request.post("/api/v2/backfills", data=body)
        assert made.ok, made.text()
        yesterday = datetime.now(timezone.utc).date() - timedelta(days=1)
        ann.goto(f"{PAGE}?dag_id={PYRAMIDS}&from={yesterday}")
        run = runs_of(ann, PYRAMIDS).first
        expect(run).to_contain_text("backfill of")
        expect(run.locator("time").last).to_have_attribute("datetime", re.compile(day))
        expect(run.get_by_text("queued")).to_be_visible()
        run.get_by_role("link").click()
        expect(ann.get_by_role("heading", level=1)).to_contain_text("backfill__")
        assert ann.request.put(f"/api/v2/backfills/{made.json()['id']}/cancel").ok
    finally:
        images.stack.scheduler.resume()


@pytest.mark.parametrize(
    ("zone", "begins", "ends"),
    [
        ("Asia/Tokyo", "2026-03-07T15:00", "2026-03-08T15:00"),
        ("America/New_York", "2026-03-08T05:00", "2026-03-09T04:00"),  # where an hour was left out
        (None, "2026-03-08T08:00", "2026-03-09T07:00"),
    ],
)
def test_a_date_is_one_of_the_zone_that_airflow_shows(
    images, browser, watched, ann, zone, begins, ends
):
    page = another_page(browser, watched, ann, timezone_id="America/Los_Angeles")
    page.goto(PAGE)
    if zone:
        page.evaluate("zone => localStorage.setItem('timezone', JSON.stringify(zone))", zone)
    with page.expect_request(lambda request: "start_date_gte=" in request.url) as asked:
        page.goto(f"{PAGE}?from=2026-03-08&to=2026-03-08")
    query = dict(parse_qsl(urlsplit(asked.value.url).query))
    assert query["start_date_gte"] == f"{begins}:00.000Z"
    assert query["start_date_lt"] == f"{ends}:00.000Z"
    page.context.close()


# A run


def test_a_run_has_every_outcome_with_its_pictures(images, ann):
    ann.goto(images.of("space"))
    outcomes = images.outcomes("space")
    assert keys(ann) == list(outcomes)
    for number, (key, outcome) in enumerate(outcomes.items()):
        row = rows(ann).nth(number)
        expect(row).to_contain_text(outcome["reason"])
        expect(row.get_by_text(outcome["state"], exact=True)).to_be_visible()
        if outcome["state"] == "done":
            for role in ("source", "result"):
                drawn(row.get_by_role("img", name=f"{role} of {key}"))
            row.get_by_text("Details").click()
            expect(row).to_contain_text(f'"target": "{outcome["detail"]["target"]}"')
    drawn(rows(ann).get_by_role("img", name=f"source of {REFUSED}"))
    expect(rows(ann).get_by_role("img", name=f"result of {REFUSED}")).to_have_count(0)


def test_a_damaged_picture_is_told_with_its_reason(images, ann):
    ann.goto(images.picture("space", DAMAGED))
    expect(ann.get_by_text(images.outcomes("space")[DAMAGED]["reason"])).to_be_visible()
    drawn(ann.get_by_role("img", name=f"source of {DAMAGED}"))  # as far as it goes
    expect(ann.get_by_role("region", name=re.compile("^result"))).to_have_count(0)
    ann.goto(images.picture("names", TAG))
    expect(ann.get_by_text("not shown", exact=False)).to_contain_text("this is not a picture")


@pytest.mark.parametrize(
    ("chosen", "takes"),
    [
        ({"State": "done"}, lambda outcome: outcome["state"] == "done"),
        ({"State": "failed"}, lambda outcome: outcome["state"] == "failed"),
        ({"Reason_has": "ACCESS den"}, lambda outcome: "access denied" in outcome["reason"]),
        ({"Name_has": "astro"}, lambda outcome: "astro" in outcome["key"]),
        ({"Name_has": "astro", "State": "done"}, lambda it: it["key"].endswith("astronaut.png")),
    ],
    ids=["done", "failed", "reason", "name", "name and state"],
)
def test_a_filter_shows_those_and_no_others(images, ann, chosen, takes):
    ann.goto(images.of("space"))
    show(ann, **chosen)
    wanted = [key for key, outcome in images.outcomes("space").items() if takes(outcome)]
    assert wanted
    assert keys(ann) == wanted


def test_a_run_that_never_came_to_its_report_shows_what_is_on_record(images, ann):
    outcomes = images.outcomes("space")
    folder = images.stack.folder(*images.runs["space"])
    kept = {name: (folder / name).read_bytes() for name in ("report.json", "outcomes.jsonl")}
    try:
        for name in kept:
            (folder / name).unlink()
        ann.goto(images.of("space"))
        assert keys(ann) == sorted(outcomes)
    finally:
        for name, data in kept.items():
            (folder / name).write_bytes(data)


def test_nothing_like_the_filter_says_what_to_do(images, ann):
    ann.goto(images.of("space"))
    show(ann, Name_has="no such name")
    expect(ann.get_by_text("Nothing is like that. Change the filter.")).to_be_visible()


def test_the_counts_lead_to_their_pictures(images, ann):
    counts = images.report("space")["counts"]
    outcomes = images.outcomes("space")
    for state in ("done", "failed", "quarantined"):
        ann.goto(images.of("space"))
        result = ann.get_by_role("region", name="Result")
        result.get_by_role("link", name=re.compile(rf"^{counts[state]}\s*{state}$")).click()
        expect(ann.get_by_role("combobox", name="State")).to_have_value(state)
        assert keys(ann) == [key for key, it in outcomes.items() if it["state"] == state]


def test_every_row_can_be_downloaded(images, ann):
    ann.goto(images.of("space"))
    outcomes = images.outcomes("space")
    lines = saved(ann, ann.get_by_role("link", name="JSON Lines")).decode().splitlines()
    assert [json.loads(line) for line in lines] == list(outcomes.values())
    text = saved(ann, ann.get_by_role("link", name="CSV")).decode()
    found = list(csv.DictReader(io.StringIO(text)))
    assert [(row["key"], row["state"], row["reason"]) for row in found] == [
        (key, it["state"], it["reason"]) for key, it in outcomes.items()
    ]


def test_the_files_of_older_systems_can_be_downloaded(images, ann):
    ann.goto(images.of("dry"))
    ann.get_by_text("Files", exact=True).click()
    file = saved(ann, ann.get_by_role("link", name="combined.txt"))
    folder = images.stack.folder(*images.runs["dry"])
    assert file == (folder / "combined.txt").read_bytes()
    assert b"- gone.png" in file


def test_many_rows_are_paged_and_one_of_them_is_found(images, ann):
    ann.goto(images.of("many"))
    expect(ann.get_by_role("region", name="Result")).to_contain_text(f"{MANY:,}")
    first = keys(ann)
    assert first == [f"digital/{number:06}.jpg" for number in range(len(first))]
    with ann.expect_navigation():
        ann.get_by_role("link", name="Next page").click()
    expect(rows(ann).filter(has_text=first[-1])).to_have_count(0)
    second = keys(ann)
    assert second == [f"digital/{len(first) + number:06}.jpg" for number in range(len(second))]
    show(ann, Name_has=NEEDLE[-10:])
    assert keys(ann) == [NEEDLE]
    show(ann, Name_has="", State="failed")
    assert keys(ann) == [NEEDLE, LINES]


# A picture


def zoom_by_button(page: "Page") -> None:
    for _ in range(2):
        page.get_by_role("button", name="Zoom in").click()


def zoom_by_key(page: "Page") -> None:
    page.get_by_role("application").focus()
    for _ in range(8):
        page.keyboard.press("+", delay=100)  # milliseconds; what is shorter than a frame is lost


@pytest.mark.parametrize("zoom", [zoom_by_button, zoom_by_key])
def test_a_pyramid_is_drawn_and_zoomed_into(images, browser, watched, ann, zoom):
    page = another_page(browser, watched, ann, width=400)
    asked = set[str]()
    page.on("request", lambda request: asked.add(request.url))
    largest = re.compile(r"/tile\?.*&level=0&")
    page.goto(images.picture("space", HUBBLE))
    viewer = page.get_by_role("application")
    viewer.wait_for()
    page.wait_for_load_state("networkidle")
    assert any("/tile?" in url for url in asked)
    assert not any(map(largest.search, asked))
    colours = viewer.locator("canvas").first.evaluate(
        "it => new Set(new Uint32Array("
        "it.getContext('2d').getImageData(0, 0, it.width, it.height).data.buffer)).size"
    )
    assert colours > 100
    with page.expect_request(largest):
        zoom(page)
    page.context.close()


def test_a_pyramid_is_described_and_found_right(images, ann):
    ann.goto(images.picture("space", HUBBLE))
    result = ann.get_by_role("region", name=f"result: {pyramid_of(HUBBLE)}")
    levels = result.get_by_role("table", name="Levels of the pyramid").get_by_role("row")
    levels.first.wait_for()
    assert [text.split() for text in levels.all_inner_texts()[1:]] == [
        ["0", "1,000", "872", "56"],
        ["1", "500", "436", "16"],
        ["2", "250", "218", "4"],
        ["3", "125", "109", "1"],
    ]
    expect(result).to_contain_text("every level and tile is there")
    object_there = images.stack.s3.head_object(Bucket="imageflows-image", Key=pyramid_of(HUBBLE))
    assert object_there["Metadata"]
    result.get_by_text("Written with it").click()
    for name, value in object_there["Metadata"].items():
        expect(result.get_by_text(name, exact=True).last).to_be_visible()
        expect(result).to_contain_text(value)


def without_its_end(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def with_a_tile_that_is_nowhere(whole: bytes) -> bytes:
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        at = file.pages.first.tags["TileOffsets"].valueoffset
    return whole[:at] + b"\xf0\xff\xff\xff" + whole[at + 4 :]


@pytest.mark.parametrize(
    ("damage", "says"),
    [(without_its_end, "it was cut short"), (with_a_tile_that_is_nowhere, "end behind the file")],
)
def test_a_pyramid_that_was_damaged_in_its_bucket_is_told(images, ann, watched, damage, says):
    watched.expected.add("failed to load")  # as OpenSeadragon says
    key = f"{SPACE}astronaut.png"
    there = {"Bucket": "imageflows-image", "Key": pyramid_of(key)}
    whole = images.stack.s3.get_object(**there)["Body"].read()
    images.stack.s3.put_object(**there, Body=damage(whole))
    try:
        ann.goto(images.picture("space", key))
        result = ann.get_by_role("region", name=f"result: {pyramid_of(key)}")
        expect(result).to_contain_text(says)
        expect(result.get_by_text("every level and tile is there")).to_have_count(0)
    finally:
        ann.goto("about:blank")  # or its viewer goes on asking for tiles during the next test
        images.stack.s3.put_object(**there, Body=whole)


# Names


def as_text(page: "Page") -> None:
    """Nothing in a name or a reason was taken for markup, in no frame."""
    page.wait_for_load_state("networkidle")
    for each in page.frames:
        assert each.evaluate("window.hacked") is None
        assert each.locator("img[src=x], svg[onload], main script").count() == 0


@pytest.mark.parametrize("within", ["", "/plugin/images"], ids=["alone", "in Airflow"])
def test_a_name_that_looks_like_markup_is_text(images, ann, within):
    inner: Any = frame(ann) if within else ann
    outcomes = images.outcomes("names")
    assert set(outcomes) == set(ODD_NAMES)
    ann.goto(within + images.of("names"))
    assert keys(inner) == list(outcomes)
    for key, outcome in outcomes.items():
        if outcome["state"] == "quarantined":
            expect(inner.get_by_role("region", name="Result")).to_contain_text(key)
    drawn(inner.get_by_role("img", name=f"source of {SHOWN_TAG}", exact=True))
    as_text(ann)
    for key in ODD_NAMES:
        ann.goto(within + images.picture("names", key))
        expect(inner.get_by_role("heading", level=1)).to_have_text(key)
        expect(inner.get_by_role("region", name=re.compile("^source"))).to_be_visible()
        as_text(ann)
        if not within:
            assert key.split() == ann.title().split()


def test_a_problem_leads_to_its_picture_whatever_its_name(images, ann):
    for key, outcome in images.outcomes("names").items():
        if outcome["state"] == "quarantined":
            ann.goto(images.of("names"))
            result = ann.get_by_role("region", name="Result")
            result.get_by_role("link", name=key, exact=True).click()
            expect(ann.get_by_role("region", name=re.compile("^source"))).to_be_visible()


def test_a_reason_that_looks_like_markup_is_text(images, ann):
    ann.goto(images.of("many", state="failed"))
    assert keys(ann) == [NEEDLE, LINES]
    expect(rows(ann).first).to_contain_text(f"refused: {MARKUP}")
    expect(ann.get_by_role("region", name="Result")).to_contain_text(f"refused: {MARKUP}")
    as_text(ann)
    ann.goto(images.picture("many", LINES))
    expect(ann.get_by_role("heading", level=1)).to_have_text(LINES)
    expect(ann.get_by_role("main")).to_contain_text(f"refused: {MARKUP}")
    as_text(ann)


# What people do


def dialog_of(page: "Page", button: str) -> "Locator":
    """The dialog that a button opens."""
    page.get_by_role("button", name=button).click()
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    return dialog


def test_what_failed_is_retried_and_seen_done(images, ann):
    dag_id, run_id = images.runs["again"]
    ann.goto(images.of("again"))
    dialog = dialog_of(ann, "Retry what failed")
    expect(dialog).to_contain_text(f"2 task instances are cleared and run again: pyramid {HELD}")
    expect(dialog).to_contain_text("report")
    as_text(ann)
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    assert images.stack.api.run_state(dag_id, run_id) == "failed"
    before = images.done_by("ann", dag_id)

    images.takes.denied.discard(pyramid_of(HELD))
    images.takes.open.clear()
    try:
        dialog_of(ann, "Retry what failed").get_by_role("button", name="Retry").click()
        expect(ann.get_by_role("progressbar")).to_be_visible()
        expect(ann.get_by_text(re.compile(r"At work: \d of 2 pictures"))).to_be_visible()
    finally:
        images.takes.open.set()
    expect(ann.get_by_role("progressbar")).to_have_count(0)
    expect(ann.get_by_text("success", exact=True)).to_be_visible()
    row = rows(ann).filter(has_text=HELD)
    expect(row.get_by_text("done", exact=True)).to_be_visible()
    drawn(row.get_by_role("img", name=f"result of {HELD}"))
    assert images.state("again") == "success"
    new = images.done_by("ann", dag_id) - before
    assert any("clear" in event for event, _ in new)


def test_a_dry_run_shows_what_it_would_do_and_is_approved(images, ann):
    dry = images.runs["dry"]
    planned = images.plan(*dry)
    ann.goto(images.of("dry"))
    plan = ann.get_by_role("group").filter(has_text="Plan: 2 planned")
    expect(plan).to_contain_text(planned["fingerprint"])
    for name, found in planned["summary"].items():
        if isinstance(found, dict) and "count" in found:
            row = plan.get_by_role("row", name=re.compile(rf"^{name} {found['count']} "))
            expect(row).to_be_visible()
    plan.get_by_role("link", name=re.compile("^The .*deletion")).click()
    expect(ann.get_by_role("heading", name="Deletions")).to_be_visible()
    assert keys(ann) == ["gone.png"]

    images.stack.s3.put_object(Bucket="imageflows-originals", Key="later.jpg", Body=b"later")
    before, runs = images.done_by("ann", SYNC), images.stack.runs(SYNC)
    dialog = dialog_of(ann, "Approve this plan")
    expect(dialog).to_contain_text("1 pictures are written and 1 deleted")
    expect(dialog).to_contain_text(planned["fingerprint"])
    dialog.get_by_role("button", name="Cancel").click()
    assert images.stack.runs(SYNC) == runs
    dialog = dialog_of(ann, "Approve this plan")
    dialog.get_by_role("button", name="Approve, and delete 1").click()
    started = SYNC, opened_run(ann, SYNC, but=dry[1])
    images.runs["approved"] = started
    assert images.state("approved") == "success"
    carried_out = images.plan(*started)
    assert carried_out["fingerprint"] == planned["fingerprint"]
    assert carried_out["params"]["approved_plan"].endswith(planned["fingerprint"])
    assert set(images.outcomes("approved")) == {"gone.png", "new.jpg"}
    listing = images.stack.s3.list_objects_v2(Bucket="imageflows-store")["Contents"]
    assert {entry["Key"] for entry in listing} == {"new.jpg", "same.jpg"}
    new = images.done_by("ann", SYNC) - before
    assert any("trigger" in event for event, _ in new)
    expect(ann.get_by_role("progressbar")).to_have_count(0)
    drawn(ann.get_by_role("img", name="result of new.jpg"))


def test_a_refused_plan_cannot_be_approved_and_says_why(images, ann):
    [why] = images.plan(*images.runs["refused"])["summary"]["refused"]
    ann.goto(images.of("refused"))
    expect(ann.get_by_role("group").filter(has_text="Plan: ")).to_contain_text(why)
    button = ann.get_by_role("button", name="Approve this plan")
    expect(button).to_be_disabled()
    expect(button).to_have_accessible_description(re.compile("refused"))


def test_what_failed_is_run_again_by_its_manifest(images, ann):
    dag_id, run_id = images.runs["names"]
    ann.goto(images.of("names"))
    dialog = dialog_of(ann, "Run the failed ones again")
    dialog.get_by_role("button", name="Start the run").click()
    images.runs["names again"] = dag_id, opened_run(ann, dag_id, but=run_id)
    images.state("names again")
    wanted = images.stack.folder(dag_id, run_id) / "failed.jsonl"
    again = images.stack.folder(*images.runs["names again"])
    [manifest] = again.glob("plan-*/manifest.jsonl")
    assert manifest.read_bytes() == wanted.read_bytes()
    assert len(manifest.read_bytes().splitlines()) == 2


def test_the_pyramids_of_a_prefix_are_asked_for_again(images, ann):
    ann.goto(PAGE)
    dialog = dialog_of(ann, "Pyramids of a prefix again")
    dialog.get_by_role("button", name="Start the run").click()  # not without a prefix
    expect(dialog).to_be_visible()
    dialog.get_by_label("Prefix").fill(SPACE)
    dialog.get_by_role("button", name="Start the run").click()
    images.runs["rerun"] = RERUN, opened_run(ann, RERUN, but=" ")
    assert images.state("rerun") == "success"
    assert images.plan(*images.runs["rerun"])["params"]["prefix"] == SPACE


# Who may


def test_a_viewer_sees_everything_and_may_do_nothing(images, vic, watched):
    vic.goto(images.of("space"))
    assert keys(vic) == list(images.outcomes("space"))
    drawn(rows(vic).get_by_role("img", name=f"result of {HUBBLE}"))
    dag_id, run_id = images.runs["space"]
    for address, *buttons in (
        (images.of("space"), "Retry what failed", "Run the failed ones again"),
        (images.of("dry"), "Approve this plan"),
    ):
        vic.goto(address)
        for name in buttons:
            button = vic.get_by_role("button", name=name)
            expect(button).to_be_disabled()
            expect(button).to_have_accessible_description(re.compile("role does not allow"))
    watched.expected.add("a status of 403")
    before = images.stack.runs(dag_id)
    for path, body in (
        ("clearTaskInstances", {"dag_run_id": run_id, "only_failed": True, "dry_run": False}),
        ("dagRuns", {"logical_date": None, "conf": {}}),
    ):
        status = vic.evaluate(
            """([path, body]) => fetch(path, {method: "POST", body: JSON.stringify(body),
                headers: {"Content-Type": "application/json"}}).then((it) => it.status)""",
            [f"../api/v2/dags/{dag_id}/{path}", body],
        )
        assert status == 403
    assert images.stack.runs(dag_id) == before


def test_a_viewer_may_not_ask_for_pyramids_again(images, vic):
    vic.goto(PAGE)
    button = vic.get_by_role("button", name="Pyramids of a prefix again")
    expect(button).to_be_disabled()
    expect(button).to_have_accessible_description(re.compile("role does not allow"))


def test_who_is_no_longer_signed_in_is_told_so(images, browser, watched, ann):
    watched.expected.add("a status of 401")
    page = another_page(browser, watched, ann)
    page.goto(images.of("space"))
    button = page.get_by_role("button", name="Retry what failed")
    button.wait_for()
    page.context.clear_cookies()
    button.click()
    expect(page.get_by_role("alert")).to_contain_text("Sign in to Airflow")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("Sign in to Airflow")
    assert page.request.get(PAGE).status == 401
    page.context.close()


# For everybody


def three_pages(images: Shown) -> dict[str, str]:
    return {
        "runs": PAGE,
        "run": images.of("space"),
        "picture": images.picture("space", HUBBLE),
    }


@pytest.mark.parametrize("name", ["runs", "run", "picture"])
def test_a_page_without_pictures_is_small(images, browser, watched, ann, name):
    page = another_page(browser, watched, ann)
    page.goto(three_pages(images)[name])
    page.wait_for_load_state("networkidle")
    sizes = page.evaluate(
        """() => performance.getEntries()
            .filter((it) => it.entryType === "navigation"
                || (it.entryType === "resource" && /\\/static\\//.test(it.name)))
            .map((it) => it.transferSize)"""
    )
    assert len(sizes) > 3
    assert all(sizes)
    assert sum(sizes) < 300_000
    page.context.close()


def complaints(page: "Page") -> list[str]:
    """What axe finds wrong, and whether the page has to be moved sideways."""
    page.wait_for_load_state("networkidle")
    found = [
        f"{each['id']}: {node['html']}"
        for each in Axe().run(page).response["violations"]
        for node in each["nodes"]
    ]
    wide = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
    return [*found, f"{wide} pixels too wide"] if wide > 0 else found


def complaints_of_both(page: "Page") -> list[str]:
    """Those in light and in dark."""
    found = []
    for theme in ("light", "dark"):
        page.evaluate(
            "it => { localStorage.theme = it; dispatchEvent(new Event('storage')); }", theme
        )
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        found += [f"{theme}: {each}" for each in complaints(page)]
    return found


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_stands_in_anybodys_way(images, browser, watched, ann, width):
    watched.expected.add("a status of 404")
    page = another_page(browser, watched, ann, width=width)
    addresses = {
        **three_pages(images),
        "plan": images.of("dry"),
        "damaged": images.picture("names", TAG),
        "no such runs": f"{PAGE}?to=2001-01-01",
        "no such rows": images.of("space", key="no such name"),
        "no such run": address_of("run", dag_id=PYRAMIDS, run_id="none"),
        "no such picture": images.picture("space", "none"),
    }
    found = {}
    for name, address in addresses.items():
        page.goto(address)
        expect(page.get_by_text("Reading …")).to_have_count(0)
        found[name] = complaints_of_both(page)
    page.goto(images.of("space"))
    dialog_of(page, "Retry what failed")
    found["dialog"] = complaints_of_both(page)
    page.goto(PAGE)
    dialog_of(page, "Pyramids of a prefix again")
    found["dialog with fields"] = complaints_of_both(page)
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    page.context.close()


def test_light_and_dark_are_airflows(images, browser, watched, ann):
    page = another_page(browser, watched, ann, color_scheme="light")
    page.goto(f"/plugin/images{PAGE}")
    body = frame(page).locator("body")
    colour = "it => getComputedStyle(it).backgroundColor"
    body.wait_for()
    seen = [body.evaluate(colour)]
    body.evaluate("() => { window.here = true; }")
    for theme in ("Dark", "Light"):
        page.get_by_role("button", name="User").click()
        page.get_by_role("menuitem", name="Appearance").hover()
        page.get_by_role("menuitemradio", name=f"{theme} Mode").click()
        expect(body).not_to_have_css("background-color", seen[-1])
        seen.append(body.evaluate(colour))
    assert seen[0] == seen[2]
    assert body.evaluate("() => window.here")  # it was not loaded again
    page.context.close()


def tab_to(page: "Page", wanted: "Locator") -> None:
    """Press Tab until it has the focus."""
    wanted.wait_for()
    for _ in range(150):
        page.keyboard.press("Tab")
        if wanted.evaluate("it => it === document.activeElement"):
            return
    pytest.fail(f"Tab does not lead to {wanted}")


def test_the_keyboard_is_enough(images, ann):
    dag_id, run_id = images.runs["space"]
    ann.goto(PAGE)
    tab_to(ann, ann.get_by_role("combobox", name="Workflow"))
    ann.keyboard.type(dag_id)
    tab_to(ann, ann.get_by_role("button", name="Show"))
    with ann.expect_navigation():
        ann.keyboard.press("Enter")
    tab_to(ann, ann.locator(f'tbody a[href="{images.of("space").removeprefix(PAGE)}"]'))
    ann.keyboard.press("Enter")
    expect(ann.get_by_role("heading", level=1)).to_have_text(run_id)

    retry = ann.get_by_role("button", name="Retry what failed")
    tab_to(ann, retry)
    ann.keyboard.press("Enter")
    dialog = ann.get_by_role("dialog")
    dialog.wait_for()
    assert dialog.evaluate("it => it.contains(document.activeElement)")
    ann.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(retry).to_be_focused()
    assert images.stack.api.run_state(dag_id, run_id) == "failed"

    tab_to(ann, ann.get_by_role("searchbox", name="Name has"))
    ann.keyboard.type("hubble")
    with ann.expect_navigation():
        ann.keyboard.press("Enter")
    tab_to(ann, ann.get_by_role("link", name=HUBBLE, exact=True).last)
    ann.keyboard.press("Enter")
    expect(ann.get_by_role("heading", level=1)).to_have_text(HUBBLE)
    tab_to(ann, ann.get_by_role("application"))
    tab_to(ann, ann.get_by_role("button", name="Zoom in"))
