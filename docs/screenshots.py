"""Makes docs/images/*: Airflow's pages as they are after a run with a picture that failed.

python -m docs.screenshots

It starts a stack of its own, with an S3 that refuses one pyramid, and needs Chromium or Chrome.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import moto.s3.models
import pyvips
from moto.s3.exceptions import S3AccessDeniedError
from moto.server import ThreadedMotoServer
from playwright.sync_api import sync_playwright

from devstack.demo_stores import LADDER
from devstack.environment import S3_CONNECTION
from devstack.layout import ROOT, Layout
from devstack.runs import Run, run_dag
from devstack.samples import IMAGE_BUCKET, seed
from devstack.stack import down, up
from devstack.stores import seed_stores

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

IMAGES = ROOT / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DAG_ID = "pyramid_tiff"
REFUSED = "digital/awkward/rocket_sideways.tif"
ZOOMED = "digital/awkward/hubble_large.jpg"
CONF = {"prefix": "digital/awkward/"}
SECONDS = 60
WIDTH, HEIGHT = 1280, 800


class NoBrowser(Exception):
    """There is neither Chromium nor Chrome on the path."""


@contextmanager
def browser_page(base: str) -> Iterator[Page]:
    """A page of a browser, whose addresses begin with `base`.

    Raises:
        NoBrowser: there is none.
    """
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        raise NoBrowser(f"No browser: install one of {', '.join(BROWSERS)}.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, base_url=base, color_scheme="light"
        )
        page.set_default_timeout(SECONDS * 1000)
        try:
            yield page
        finally:
            browser.close()


def open_form(page: Page, dag_id: str) -> Locator:
    """The form that triggers a DAG."""
    page.goto(f"/dags/{dag_id}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    form.get_by_role("button", name="Trigger").wait_for()
    return form


def run_address(run: Run) -> str:
    """The page of a run."""
    return f"/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}"


@contextmanager
def refusing_s3() -> Iterator[str]:
    """The address of an S3 with the sample pictures; it takes every pyramid but one."""
    plain = moto.s3.models.S3Backend.put_object

    def put(self: Any, bucket_name: str, key_name: str, *args: Any, **kwargs: Any) -> Any:
        if (bucket_name, key_name) == (IMAGE_BUCKET, REFUSED):
            raise S3AccessDeniedError
        return plain(self, bucket_name, key_name, *args, **kwargs)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    moto.s3.models.S3Backend.put_object = put  # type: ignore[method-assign]
    try:
        host, port = server.get_host_and_port()
        seed(f"http://{host}:{port}")
        yield f"http://{host}:{port}"
    finally:
        moto.s3.models.S3Backend.put_object = plain  # type: ignore[method-assign]
        server.stop()


def take(page: Page, run: Run) -> None:
    """All pictures of the documentation."""
    form = open_form(page, DAG_ID)
    form.get_by_role("button", name="What to do").click()
    form.get_by_text("Prefix", exact=True).wait_for()
    save(page, "trigger-form", height=1150)

    page.goto(f"{run_address(run)}/tasks/pyramid/mapped")
    page.get_by_text("rocket_sideways").first.wait_for()
    save(page, "failed-run")

    page.goto(f"{run_address(run)}/tasks/report")
    page.get_by_text("To run them again").first.wait_for()
    save(page, "run-again", above=page.get_by_text('File "').first)

    page.goto(run_address(run))
    page.get_by_role("button", name="Press shift+c to clear").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Only Failed").click()
    save(page, "clear-failed")

    form = open_form(page, DAG_ID)
    form.get_by_text("Backfill", exact=True).click()
    for _ in ("From", "To"):
        form.get_by_text("Select date and time").first.click()
        page.get_by_placeholder("YYYY/MM/DD").locator("visible=true").fill("2026/11/20")
        page.get_by_placeholder("HH:mm").locator("visible=true").fill("10:30")
        form.get_by_text("Date Range").click()
    form.get_by_text("All Runs").click()
    save(page, "backfill", height=900)


def take_images(page: Page, run: Run, dryrun: Run) -> None:
    """Pictures of the page "Images", as Airflow shows it."""
    frame = page.frame_locator("iframe")
    page.goto("/")
    page.get_by_role("link", name="Images").click()
    frame.get_by_role("link", name=DAG_ID).first.wait_for()
    save(page, "images-runs")

    page.goto(images_address("run", run))
    frame.get_by_role("button", name="Retry what failed").wait_for()
    save(page, "images-run", height=1500)

    page.goto(images_address("picture", run, key=ZOOMED))
    frame.get_by_role("button", name="Zoom in").click()
    save(page, "images-picture.jpg", height=1100)

    page.goto(images_address("run", dryrun))
    frame.get_by_role("button", name="Approve this plan").click()
    save(page, "images-approve", height=900)


def images_address(name: str, run: Run, **more: str) -> str:
    """One of our pages within Airflow's frame, about a run."""
    asked = {"dag_id": run.dag_id, "run_id": run.run_id, **more}
    pairs = (f"{name}={quote(value, safe='')}" for name, value in asked.items())
    return f"/plugin/images/imageflows/{name}?{'&'.join(pairs)}"


def save(page: Page, name: str, height: int = HEIGHT, above: Locator | None = None) -> None:
    """Write the page, or what of it is above a line."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(2_000)  # dialogs and charts move in
    box = above.bounding_box() if above else None
    picture = pyvips.Image.new_from_buffer(page.screenshot(), "")
    picture = picture.crop(0, 0, WIDTH, int(box["y"]) if box else height)
    target = IMAGES / (name if "." in name else f"{name}.png")
    options = {"Q": 85} if target.suffix == ".jpg" else {"compression": 9}
    picture[:3].write_to_file(target, **options)
    print(f"{target.relative_to(ROOT)}  {target.stat().st_size / 1000:.0f} kB", flush=True)
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})


def connection(endpoint: str) -> str:
    """An Airflow connection to an S3 server, as its environment variable holds it."""
    extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    return json.dumps({"conn_type": "aws", "login": "test", "password": "test", "extra": extra})


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    with refusing_s3() as s3, tempfile.TemporaryDirectory(prefix="imageflows-") as folder:
        layout = Layout(ROOT, Path(folder, "state"))
        try:
            state, _ = up(layout, plain | {S3_CONNECTION: connection(s3)}, stays=False)
            run = run_dag(layout, state, DAG_ID, CONF)
            with browser_page(state.url("airflow")) as page:
                take(page, run)
            seed_stores(s3, layout.upload)
            run_dag(layout, state, "store_photo_upload", {})
            dryrun = run_dag(layout, state, "store_bucket_sync", {**LADDER, "mode": "dryrun"})
            with browser_page(state.url("airflow")) as page:
                take_images(page, run, dryrun)
        finally:
            down(layout)


if __name__ == "__main__":
    main()
