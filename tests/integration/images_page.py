"""The page "Images" in a browser, on an Airflow where people sign in, with runs to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from urllib.parse import quote, urlencode, urlsplit

import moto.s3.models
from moto.s3.exceptions import S3AccessDeniedError

from devstack.samples import IMAGE_BUCKET, SAMPLES, SOURCE_BUCKET, photograph, seed
from devstack.stores import BUCKETS, ORIGINALS_BUCKET, STORE_BUCKET
from imagecore.outcome import State
from imagecore.workstore import local_work_store
from tests.integration.airflow_stack import AirflowStack, signing_in
from tests.webapp import ended, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, FrameLocator, Page

PEOPLE = {"ann": "op", "vic": "viewer"}
PASSWORD = "s3cret"
PAGE = "/imageflows/"
PATIENCE_MS = 120_000  # a run goes on while a page is looked at

PYRAMIDS, SYNC, RERUN = "pyramid_tiff", "store_bucket_sync", "pyramid_rerun"
SPACE, AGAIN, NAMES = "digital/space/", "digital/again/", "digital/names/"
HUBBLE, REFUSED = f"{SPACE}hubble_deep_field.jpg", f"{SPACE}rocket.jpg"
DAMAGED = f"{SPACE}astronaut_truncated.jpg"

MARKUP = "<img src=x onerror=window.hacked=1>"
HELD = f"{AGAIN}{MARKUP} rocket.jpg"
TAG = f"{NAMES}{MARKUP}.png"
SHOWN_TAG = f"{NAMES}<svg onload=window.hacked=1>.png"
STRANGE = f"{NAMES}\"'><script>window.hacked=1</script> \u202egnp.exe &amp; 50% #?+.png"
LINES = f"digital/two\n{MARKUP}lines.jpg"  # which moto has no address for
ODD_NAMES = (TAG, SHOWN_TAG, STRANGE)

MANY = 46_000
NEEDLE = f"digital/{23_456:06}.jpg"


class Takes:
    """What the image bucket takes: no key that is denied, and nothing while it is held."""

    def __init__(self) -> None:
        self.denied = {pyramid_of(REFUSED), pyramid_of(HELD)}
        self.open = Event()
        self.open.set()

    @contextmanager
    def at_work(self) -> Iterator[Takes]:
        """Have the S3 of this process be so."""
        plain = moto.s3.models.S3Backend.put_object

        def put(backend: Any, bucket_name: str, key_name: str, *more: Any, **given: Any) -> Any:
            if bucket_name == IMAGE_BUCKET:
                self.open.wait(60)
                if key_name in self.denied:
                    raise S3AccessDeniedError
            return plain(backend, bucket_name, key_name, *more, **given)

        with patch.object(moto.s3.models.S3Backend, "put_object", put):
            yield self


def pyramid_of(key: str) -> str:
    """The key of a picture's pyramid."""
    return f"{key.rpartition('.')[0]}.tif"


@dataclass
class Shown:
    """An Airflow with a sign-in at `address`, what its S3 takes, and its runs by their names."""

    stack: AirflowStack
    address: str
    takes: Takes
    runs: dict[str, tuple[str, str]] = field(default_factory=dict)

    def of(self, name: str, **query: str) -> str:
        """The address of a run's page."""
        dag_id, run_id = self.runs[name]
        return address_of("run", dag_id=dag_id, run_id=run_id, **query)

    def picture(self, name: str, key: str) -> str:
        """The address of a picture's page."""
        dag_id, run_id = self.runs[name]
        return address_of("picture", dag_id=dag_id, run_id=run_id, key=key)

    def outcomes(self, name: str) -> dict[str, dict[str, Any]]:
        """What became of a run's pictures."""
        return self.stack.outcomes(*self.runs[name])

    def report(self, name: str) -> dict[str, Any]:
        """A run's report."""
        return self.stack.report(*self.runs[name])

    def state(self, name: str) -> str:
        """A run's state, once it has ended."""
        return self.stack.ended(*self.runs[name])

    def plan(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """A run's plan."""
        [file] = self.stack.folder(dag_id, run_id).glob("plan-*/plan.json")
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def done_by(self, person: str, dag_id: str) -> set[tuple[str, str]]:
        """What Airflow's audit log has a person do with a DAG: the event, and the run."""
        log = self.stack.api._all("/api/v2/eventLogs", "event_logs")
        mine = [each for each in log if (each["owner"], each["dag_id"]) == (person, dag_id)]
        return {(each["event"], each["run_id"]) for each in mine}


def address_of(path: str, **query: str) -> str:
    """An address of the page."""
    return f"{PAGE}{path}?{urlencode(query, quote_via=quote, safe='')}"


@contextmanager
def shown(stack: AirflowStack, endpoint: str, folder: Path) -> Iterator[Shown]:
    """The runs that the tests look at, and the sign-in."""
    with Takes().at_work() as takes, signing_in(stack, folder, PEOPLE, PASSWORD) as address:
        made = Shown(stack, address, takes)
        _put_pictures(stack.s3, endpoint)
        for name, dag_id, conf in (
            ("space", PYRAMIDS, {"prefix": SPACE, "tile": 128}),
            ("again", PYRAMIDS, {"prefix": AGAIN}),
            ("names", PYRAMIDS, {"prefix": NAMES}),
            ("many", PYRAMIDS, {"prefix": "digital/none/"}),
            ("dry", SYNC, _removing()),
            ("refused", SYNC, _removing(max_delete=0)),
        ):
            made.runs[name] = dag_id, stack.api.trigger(dag_id, conf)
        for name in made.runs:
            made.state(name)
        _many(stack, *made.runs["many"])
        yield made


def _removing(**more: Any) -> dict[str, Any]:
    return {"mode": "dryrun", "delete": True, "compare": "size", "max_delete_ratio": 1.0, **more}


def _put_pictures(s3: Any, endpoint: str) -> None:
    seed(endpoint)
    truncated = next(each for each in SAMPLES if each.key.endswith("astronaut_truncated.jpg"))
    pictures = {
        DAMAGED: truncated.data(),
        f"{AGAIN}coffee.png": photograph("coffee.png"),
        HELD: photograph("rocket.jpg"),
        **dict.fromkeys(ODD_NAMES, b"no picture"),
        SHOWN_TAG: photograph("chelsea.png"),
    }
    for key, data in pictures.items():
        s3.put_object(Bucket=SOURCE_BUCKET, Key=key, Body=data)
    for bucket in BUCKETS:
        s3.create_bucket(Bucket=bucket)
    rocket, coffee = photograph("rocket.jpg"), photograph("coffee.png")
    for bucket, key, data in (
        (ORIGINALS_BUCKET, "new.jpg", rocket),
        (ORIGINALS_BUCKET, "same.jpg", rocket),
        (STORE_BUCKET, "same.jpg", rocket),
        (STORE_BUCKET, "gone.png", coffee),
    ):
        s3.put_object(Bucket=bucket, Key=key, Body=data)


def _many(stack: AirflowStack, dag_id: str, run_id: str) -> None:
    """Give a run the records of one with MANY pictures, of which one failed."""
    keys = [*(f"digital/{number:06}.jpg" for number in range(MANY - 1)), LINES]
    reasons = dict.fromkeys((NEEDLE, LINES), f"refused: {MARKUP}")
    outcomes = (
        ended(key, State.FAILED, reasons[key]) if key in reasons else ended(key) for key in keys
    )
    params = {
        "aws_conn_id": "imageflows_s3",
        "source_bucket": SOURCE_BUCKET,
        "image_bucket": IMAGE_BUCKET,
    }
    write_run(
        local_work_store(stack.layout.work.as_uri()),
        ({"key": key} for key in keys),
        outcomes,
        dag_id=dag_id,
        run_id=run_id,
        params=params,
        size=2_000,
    )


@dataclass
class Watched:
    """What a browser says that it should not, and where it asks; `expected` is what a
    test has it say."""

    address: str
    expected: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def watch(self, context: BrowserContext) -> BrowserContext:
        context.set_default_timeout(PATIENCE_MS)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.problems.append(f"error: {error.error}"))
        context.on("request", lambda request: self._asked(request.url))
        return context

    def _said(self, message: ConsoleMessage) -> None:
        page = message.page.url if message.page else ""
        ours = PAGE in message.location.get("url", "") or urlsplit(page).path.startswith(PAGE)
        expected = any(text in message.text for text in self.expected)
        if ours and message.type == "error" and not expected:
            self.problems.append(f"{message.type}: {message.text} ({message.location})")

    def _asked(self, url: str) -> None:
        if urlsplit(url).scheme not in {"data", "blob"}:
            self.hosts.add(urlsplit(url).netloc)


def sign_in(browser: Browser, watched: Watched, person: str, **options: Any) -> Page:
    """A page of somebody who has signed in as people do."""
    options = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"} | options
    context = browser.new_context(base_url=watched.address, **options)
    page = watched.watch(context).new_page()
    page.set_default_timeout(60_000)
    page.goto("/")
    page.get_by_label("Username").fill(person)
    page.get_by_label("Password").first.fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Images").first.wait_for()
    return page


def frame(page: Page) -> FrameLocator:
    """Our page, within Airflow's."""
    return page.frame_locator("iframe")
