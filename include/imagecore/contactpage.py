"""The HTML of contact sheets. Everything that is shown is escaped; no page runs a script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import quote

from imagecore.text import printable

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src 'self' file: http: https:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.4 system-ui, sans-serif; }}
body {{ margin: 0 auto; max-width: 110rem; padding: 1rem; }}
main {{ overflow-x: auto; }}
nav a, td a {{ display: inline-block; min-width: 1.5rem; padding: .3rem; }}
table {{ border-collapse: collapse; margin-block: 1rem; }}
th, td {{ border-bottom: 1px solid GrayText; padding: .2rem 1.2rem .2rem 0;
  text-align: start; vertical-align: baseline; }}
.number {{ text-align: end; }}
.sheet {{ display: grid; gap: 1rem; list-style: none; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax({side}px, 1fr)); }}
.sheet img {{ display: block; object-fit: none; }}
.name {{ display: block; font-size: .85rem; overflow-wrap: anywhere; }}
.why {{ font-size: .85rem; font-weight: bold; overflow-wrap: anywhere;
  color: light-dark(#b2182b, #ff8a80); }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


class Cell(NamedTuple):
    """A composite on a page: its key and address in the bucket, why it is not shown (empty: it
    is), and where on the sheet it stands, in pixels."""

    name: str
    key: str
    address: str
    why: str
    left: int
    top: int


class IndexRow(NamedTuple):
    """The pages of one side and size: how many composites, how many of them are not shown, and
    the pages' files."""

    side: str
    size: str
    shown: int
    bad: int
    pages: Sequence[str]


def sheet_page(
    heading: str,
    number: int,
    cells: Iterable[Cell],
    picture: str,
    side: int,
    before: str,
    after: str,
) -> str:
    """A page of cells, each `side` pixels wide and high on `picture`, with links to the files of
    the pages before and after, where there are any."""
    links = [("index.html", "All pages"), (before, "Previous"), (after, "Next")]
    nav = " ".join(
        _link(file, text) for file, text in [*links, (picture, "As one picture")] if file
    )
    items = "\n".join(_cell(cell, picture, side) for cell in cells)
    body = (
        f"<h1>{_shown(heading)}</h1>\n"
        f'<nav aria-label="Pages">Page {number}. {nav}</nav>\n'
        f'<main>\n<ul class="sheet">\n{items}\n</ul>\n</main>'
    )
    return _PAGE.format(title=_shown(f"{heading}, page {number}"), body=body, side=side)


def index_page(style: str, counts: Mapping[str, object], rows: Iterable[IndexRow]) -> str:
    """What was planned, and where its pictures are."""
    planned = "\n".join(
        f'<tr><th scope="row">{_shown(label)}</th><td class="number">{_count(value)}</td></tr>'
        for label, value in counts.items()
    )
    pages = "\n".join(_row(row) for row in rows)
    heads = "".join(
        f'<th scope="col"{kind}>{text}</th>'
        for text, kind in (
            ("Side", ""),
            ("Size", ""),
            ("Composites", ' class="number"'),
            ("Missing or broken", ' class="number"'),
            ("Pages", ""),
        )
    )
    body = (
        f"<h1>Composites of {_shown(style)}</h1>\n<main>\n"
        f"<h2>Plan</h2>\n<table>\n<tbody>\n{planned}\n</tbody>\n</table>\n"
        f"<h2>Pages</h2>\n<table>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{pages}\n</tbody>\n</table>\n</main>"
    )
    return _PAGE.format(title=_shown(f"Composites of {style}"), body=body, side=0)


def _cell(cell: Cell, picture: str, side: int) -> str:
    name = _shown(cell.name)
    alt = f"{name}, not shown: {_shown(cell.why)}" if cell.why else name
    why = f'<span class="why">{_shown(cell.why)}</span>' if cell.why else ""
    return (
        f'<li><a href="{escape(cell.address)}" title="{_shown(cell.key)}">'
        f'<img src="{quote(picture)}" alt="{alt}" width="{side}" height="{side}" '
        f'style="object-position: -{cell.left}px -{cell.top}px">'
        f'<span class="name">{name}</span></a>{why}</li>'
    )


def _row(row: IndexRow) -> str:
    pages = " ".join(_link(file, str(page)) for page, file in enumerate(row.pages, 1))
    bad = f'<span class="why">{row.bad:,}</span>' if row.bad else "0"
    return (
        f'<tr><td>{_shown(row.side)}</td><th scope="row">{_shown(row.size)}</th>'
        f'<td class="number">{row.shown:,}</td><td class="number">{bad}</td><td>{pages}</td></tr>'
    )


def _link(file: str, text: str) -> str:
    return f'<a href="{quote(file)}">{text}</a>'


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else _shown(str(value))


def _shown(text: str) -> str:
    return escape(printable(text))
