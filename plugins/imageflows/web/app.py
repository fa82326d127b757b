"""The page's addresses: who may ask, what is answered, and how an answer is made safe."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from html import escape
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import anyio.to_thread
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, get_user, requires_access_dag
from anyio import CapacityLimiter
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from imagecore.errors import ImageflowsError, InfrastructureError
from imageflows.web.pictures import NotShown
from imageflows.web.previews import Busy, Image, previews
from imageflows.web.runs import LISTS, Run, place_of

STATIC = Path(__file__).parent / "static"
PAGES = {"": "runs", "run": "run", "picture": "picture"}
"""By their address: the script that makes them."""
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The hash is of the one style that OpenSeadragon 6.1.1 adds by itself.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; img-src 'self' blob:; "
    "style-src 'self' 'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
SIDES = {160, 1200}
"""Of previews, in pixels: in a list, and beside a result."""

ROWS = 50
SECONDS = 2.0
"""How long one request looks for rows; the next one goes on where it stopped."""

# Airflow's own requests wait for the same threads, so the page may have only some at a time.
_RECORDS = CapacityLimiter(8)
_PIECE = 1 << 16
OUTCOME_FIELDS = ("key", "state", "reason", "seconds", "at", "detail")
_CSV_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

T = TypeVar("T")
Looks: TypeAlias = Iterator[dict[str, Any] | None]


class PlainJSON(JSONResponse):
    """JSON in ASCII: a name may hold what is no valid Unicode."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


app = FastAPI(
    title="Imageflows",
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
    default_response_class=PlainJSON,
    dependencies=[Depends(get_user)],
)


@app.middleware("http")
async def safe(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """The headers every answer has. What is no page is nothing a browser may run."""
    response = await call_next(request)
    page = response.headers.get("content-type", "").startswith("text/html")
    response.headers.setdefault("Content-Security-Policy", PAGE_POLICY if page else DATA_POLICY)
    response.headers.setdefault("Cache-Control", "private, no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Referrer-Policy"] = "same-origin"
    return response


@app.exception_handler(HTTPException)
async def refused(request: Request, error: HTTPException) -> Response:
    """As JSON; to someone who opened a page, as one."""
    if "text/html" not in request.headers.get("accept", ""):
        return PlainJSON({"detail": error.detail}, error.status_code)
    what = {
        401: "You are not signed in, or no longer. Sign in to Airflow and load this page again.",
        403: "Your Airflow role does not allow this. Ask whoever runs Airflow for it.",
    }.get(error.status_code, str(error.detail))
    return HTMLResponse(
        f'<!doctype html><html lang="en"><title>Images</title><p role="alert">{escape(what)}</p>',
        error.status_code,
    )


@app.exception_handler(ImageflowsError)
async def not_done(request: Request, error: ImageflowsError) -> Response:
    """Not done: the text says why, and what to do."""
    if isinstance(error, NotShown):
        return PlainJSON({"detail": str(error)}, 403)
    if isinstance(error, Busy | InfrastructureError):
        return PlainJSON({"detail": str(error)}, 503, {"Retry-After": "2"})
    return PlainJSON({"detail": str(error)}, 422)


@app.exception_handler(FileNotFoundError)
async def not_there(request: Request, error: FileNotFoundError) -> Response:
    return PlainJSON(
        {"detail": "The work store has no such thing: the run was removed, or never planned."}, 404
    )


@app.exception_handler(json.JSONDecodeError)
async def damaged(request: Request, error: json.JSONDecodeError) -> Response:
    what = "A file of this run is no JSON: clear the task that wrote it, to write it again."
    return PlainJSON({"detail": what}, 422)


async def _records(function: Callable[..., T], *arguments: Any) -> T:
    return await anyio.to_thread.run_sync(function, *arguments, limiter=_RECORDS)


def _page(text: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:  # without parameters: FastAPI would take them from the address
        return HTMLResponse(text)

    return page


for _path, _name in PAGES.items():
    app.get(f"/{_path}")(_page((STATIC / "page.html").read_text().replace("{page}", _name)))


@app.get("/static/{name}")
async def static(name: str, request: Request) -> Response:
    """A file of the page."""
    path = STATIC / name
    if name not in _STATIC or path.suffix not in MEDIA_TYPES:
        raise HTTPException(404, "There is no such file.")
    found = path.stat()
    etag = f'"{found.st_size:x}-{found.st_mtime_ns:x}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(path.read_bytes(), media_type=MEDIA_TYPES[path.suffix], headers=headers)


_STATIC = frozenset(path.name for path in STATIC.iterdir())

READING = [Depends(requires_access_dag("GET", DagAccessEntity.RUN))]
DagId = Annotated[str, Query(pattern=r"^\.*[A-Za-z0-9_-][A-Za-z0-9_.-]*$", max_length=250)]
RunId = Annotated[str, Query(min_length=1, max_length=250)]
Part = Annotated[str, Query(pattern=r"^[a-z_]{0,40}$")]
Key = Annotated[str, Query(max_length=4096)]


@app.get("/api/reports", dependencies=READING)
async def reports(
    dag_id: DagId, run_id: Annotated[list[RunId], Query(max_length=100)]
) -> dict[str, Any]:
    """What is told of runs in a list: counts, bytes, seconds; null where there is no report."""
    return await _records(lambda: {each: Run(dag_id, each).told() for each in run_id})


@app.get("/api/run", dependencies=READING)
async def run(request: Request, user: GetUserDep, dag_id: DagId, run_id: RunId) -> dict[str, Any]:
    """A run: its plan, its report, its files, and what the user may do with it."""

    def described() -> dict[str, Any]:
        return Run(dag_id, run_id).described() | {"may": _allowed(request, user, dag_id)}

    return await _records(described)


@app.get("/api/may", dependencies=READING)
async def may(request: Request, user: GetUserDep, dag_id: DagId) -> dict[str, bool]:
    """What the user may do with a DAG."""
    return await _records(_allowed, request, user, dag_id)


_DEEDS: dict[str, tuple[Any, DagAccessEntity]] = {
    "retry": ("PUT", DagAccessEntity.TASK_INSTANCE),
    "trigger": ("POST", DagAccessEntity.RUN),
}


def _allowed(request: Request, user: Any, dag_id: str) -> dict[str, bool]:
    return {name: _may(request, user, dag_id, *what) for name, what in _DEEDS.items()}


def _may(request: Request, user: Any, dag_id: str, method: Any, entity: DagAccessEntity) -> bool:
    try:
        requires_access_dag(method, entity, param_dag_id=dag_id)(request, user)
    except HTTPException:
        return False
    return True


@app.get("/api/progress", dependencies=READING)
async def progress(dag_id: DagId, run_id: RunId, part: Part = "") -> dict[str, Any] | None:
    """The counts of a run that is at work; null before it has planned."""
    return await _records(Run(dag_id, run_id).progress, part)


class Rows:
    """The rows that a request asks for."""

    def __init__(
        self,
        dag_id: DagId,
        run_id: RunId,
        list: Literal[LISTS] = "outcomes",  # type: ignore[valid-type]
        part: Part = "",
        state: Annotated[set[str], Query(max_length=8)] = set(),  # noqa: B006 -- pydantic copies it
        reason: Annotated[str, Query(max_length=1000)] = "",
        key: Key = "",
        batch: Annotated[str, Query(pattern=r"^[a-z0-9-]{0,40}$")] = "",
        live: bool = False,
    ) -> None:
        self.run = Run(dag_id, run_id)
        self.name = list
        self.part = part
        self.wanted = {"states": frozenset(state), "reason": reason, "key": key}
        self.batch = batch
        self.live = live


@app.get("/api/rows", dependencies=READING)
async def rows(
    asked: Annotated[Rows, Depends()],
    cursor: Annotated[str, Query(max_length=40)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = ROWS,
) -> dict[str, Any]:
    """Outcomes, or items of a manifest, from where the cursor says."""

    def read() -> dict[str, Any]:
        try:
            return asked.run.rows(
                asked.name,
                asked.wanted,
                cursor or None,
                limit,
                SECONDS,
                part=asked.part,
                batch=asked.batch,
                live=asked.live,
            )
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            raise HTTPException(400, f"{error}. Begin from the first page.") from error

    return await _records(read)


@app.get("/api/download", dependencies=READING)
async def download(
    asked: Annotated[Rows, Depends()], format: Literal["csv", "jsonl"] = "jsonl"
) -> Response:
    """All rows, as JSON Lines as they lie in the work store, or as CSV for a spreadsheet."""

    def begun() -> Looks:
        found = asked.run.looks(asked.name, asked.wanted, part=asked.part)
        return chain([next(found, None)], found)  # what is not there is an error, not a file

    found = await _records(begun)
    fields = OUTCOME_FIELDS if asked.name == "outcomes" else ("key",)
    lines = _csv(found, fields) if format == "csv" else _json_lines(found)
    name = f"{asked.run.dag_id}-{asked.run.run_id}-{asked.name}.{format}"
    media = "text/csv; charset=utf-8" if format == "csv" else "application/x-ndjson"
    return _attachment(_pieces(lines), name, media)


@app.get("/api/file", dependencies=READING)
async def file(
    dag_id: DagId, run_id: RunId, name: Annotated[str, Query(max_length=250)]
) -> Response:
    """A file of the run's folder, such as the lists that the legacy systems wrote."""
    pieces = await _records(Run(dag_id, run_id).file, name)
    return _attachment(pieces, f"{dag_id}-{run_id}-{name}", "text/plain; charset=utf-8")


@app.get("/api/sheet", dependencies=READING)
async def sheet(
    dag_id: DagId, run_id: RunId, name: Annotated[str, Query(max_length=250)]
) -> Response:
    """A contact sheet's picture."""
    return Response(await _records(Run(dag_id, run_id).sheet, name), media_type="image/jpeg")


@app.get("/api/picture", dependencies=READING)
async def picture(dag_id: DagId, run_id: RunId, key: Key, part: Part = "") -> dict[str, Any]:
    """An item, its outcome, and its pictures, each with what is known of it."""
    return await _records(Run(dag_id, run_id).picture, key, part)


@app.get("/preview", dependencies=READING)
async def preview(
    request: Request,
    dag_id: DagId,
    run_id: RunId,
    key: Key,
    role: Part,
    number: Annotated[int, Query(ge=0, le=100_000)] = 0,
    side: int = 160,
    part: Part = "",
) -> Response:
    """A picture in small."""
    if side not in SIDES:
        raise HTTPException(400, f"side is one of {', '.join(map(str, sorted(SIDES)))}.")
    found = await _records(place_of, dag_id, run_id, key, role, number, part)
    return await _image(request, lambda: previews().preview(found, side, _known(request)))


@app.get("/tile", dependencies=READING)
async def tile(
    request: Request,
    dag_id: DagId,
    run_id: RunId,
    key: Key,
    role: Part,
    level: Annotated[int, Query(ge=0, le=64)],
    column: Annotated[int, Query(ge=0)],
    row: Annotated[int, Query(ge=0)],
    number: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> Response:
    """A tile of a pyramid, of exactly the file it is."""
    found = await _records(place_of, dag_id, run_id, key, role, number)
    return await _image(
        request, lambda: previews().tile(found, (level, column, row), _known(request))
    )


def _known(request: Request) -> str:
    return request.headers.get("if-none-match", "")


async def _image(request: Request, make: Callable[[], Image]) -> Response:
    """Nothing else than the two kinds of picture that a preview can be leaves here."""
    image = await previews().within_limits(make)
    headers = {"ETag": image.etag, "Cache-Control": "private, no-cache"}
    if image.data is None:
        return Response(status_code=304, headers=headers)
    return Response(image.data, media_type=image.media_type, headers=headers)


def _attachment(pieces: Iterator[bytes], name: str, media_type: str) -> Response:
    async def threaded() -> AsyncIterator[bytes]:
        while (piece := await _records(next, pieces, None)) is not None:
            if piece:
                yield piece

    plain = re.sub(r"[^A-Za-z0-9_.+-]", "_", name)
    headers = {"Content-Disposition": f'attachment; filename="{plain}"'}
    return StreamingResponse(threaded(), media_type=media_type, headers=headers)


def _pieces(lines: Iterator[str]) -> Iterator[bytes]:
    """Few large pieces: each is a turn of a thread, which ends also where nothing was found."""
    piece = bytearray()
    for line in lines:
        piece += line.encode(errors="backslashreplace")
        if len(piece) >= _PIECE or not line:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _json_lines(found: Looks) -> Iterator[str]:
    for row in found:
        yield json.dumps(row, separators=(",", ":")) + "\n" if row else ""


def _csv(found: Looks, names: Sequence[str]) -> Iterator[str]:
    """Outcomes field by field, items with all but their key in one column. What a spreadsheet
    would take for a formula gets a quote in front: a key may be anything."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*names, "more"])
    for row in found:
        if row:
            known = [_cell(row.pop(name, "")) for name in names]
            writer.writerow([*known, json.dumps(row) if row else ""])
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        value = json.dumps(value)
    if isinstance(value, str) and value.startswith(_CSV_FORMULA):
        return f"'{value}"
    return value
