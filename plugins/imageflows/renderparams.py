"""The parameters of renders: which style, where its layers are, and where results go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param

from imagecore.errors import PlanRefused
from imageflows.params import bucket_params, conn_param, setting
from imageflows.sides import Where, open_side, where_local, where_s3
from imageflows.work import work_store

if TYPE_CHECKING:
    from imagecore.renderstyle import Style
    from imagecore.s3 import Bucket
    from imagecore.sides import LocalSide, S3Side

STYLES = Path(__file__).resolve().parents[2] / "include" / "styles"
RENDER = "render.json"
"""What a plan of renders fixes, in its folder."""

LAYERS_PREFIX, COMPOSITES_PREFIX = "renders/caddy", "renders/composites"


def renders_root() -> str:
    """The folder of `[imageflows] renders_root`: all that may be read of renders."""
    return setting("renders_root", "/srv/imageflows/renders").rstrip("/")


def styles_folder() -> Path:
    """Where style files lie."""
    return Path(setting("styles_folder", str(STYLES)))


def style_param(description: str) -> dict[str, Param]:
    """The name of a style."""
    return {
        "style": Param(
            "if-dr1001",
            type="string",
            pattern=r"^[a-z0-9][a-z0-9._-]*$",
            title="Style",
            description=description,
            section="What to do",
        )
    }


def render_params() -> dict[str, Param]:
    """Which style, where its layers are, and where results go."""
    return {
        **style_param("The name of a file in [imageflows] styles_folder, without .yaml."),
        **source_params(),
        **bucket_params("renders", "renders"),
    }


def cache_param() -> dict[str, Param]:
    """What a task that renders may keep."""
    return {
        "cache_mb": Param(
            1_024,
            type="integer",
            minimum=64,
            title="Cache",
            description="MB a task keeps of layers and unfinished stacks.",
            section="Fan-out",
        )
    }


def compositing_param() -> dict[str, Param]:
    """How layers are laid over each other."""
    return {
        "compositing": Param(
            "exact",
            type="string",
            enum=["exact", "fast"],
            title="Compositing",
            description="exact: layers are laid over each other at their own size. fast: they "
            "are made smaller first; some stacks of every run are compared with exact.",
            section="What to do",
        )
    }


def contact_sheet_param() -> dict[str, Param]:
    """What the contact sheets show."""
    return {
        "contact_sheet": Param(
            "sample",
            type="string",
            enum=["sample", "all", "none"],
            title="Contact sheet",
            description="Pages to look through, next to the report: of some 60 composites of each "
            "side, or of all.",
            section="What to do",
        )
    }


def source_params() -> dict[str, Param]:
    """Where layers lie."""
    return {
        "source": Param(
            None,
            type=["null", "string"],
            pattern=r"^(s3://[^/]+(/.*)?|([^/].*)?)$",
            title="Source",
            description="The folder of the style's search directories: below [imageflows] "
            "renders_root of airflow.cfg, or s3://bucket/prefix. Empty: all of renders_root.",
            section="Where",
        ),
        **conn_param(
            "source_conn_id",
            "Connection of the source",
            "The Airflow connection to S3, for layers there.",
            installed="renders_source_conn_id",
            default="imageflows_s3",
        ),
    }


def open_source(params: dict[str, Any]) -> tuple[Where, LocalSide | S3Side]:
    """The folder or prefix that `source` names.

    Raises:
        PlanRefused: it is not there, or may not be read.
    """
    source = params["source"] or ""
    if source.startswith("s3://"):
        where = where_s3(source, params["source_conn_id"])
    else:
        where = where_local(f"file://{renders_root()}/{source}", renders_root())
    return where, open_side(where)


def style_of(params: dict[str, Any]) -> Style:
    """The run's style.

    Raises:
        PlanRefused: there is none of that name, or its file is wrong.
    """
    from imagecore.renderstyle import load_style

    folder = styles_folder()
    path = folder / f"{params['style']}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(each.stem for each in folder.glob("*.yaml"))) or "none"
        raise PlanRefused(f"There is no style {params['style']!r} in {folder}; there are: {there}.")
    return load_style(path)


def renders_bucket(params: dict[str, Any], connections: int) -> Bucket:
    from imageflows.hooks.s3 import s3_bucket

    return s3_bucket(params["aws_conn_id"], params["renders_bucket"], connections=connections)


def checked_bucket(params: dict[str, Any]) -> Bucket:
    from imageflows.hooks.s3 import refused_when_unusable

    with refused_when_unusable(params["aws_conn_id"]):
        bucket = renders_bucket(params, 8)
        bucket.check()
    return bucket


def kept_of(folder: str) -> dict[str, Any]:
    """What the plan in this folder of the work store fixed."""
    kept: dict[str, Any] = json.loads(work_store().get(f"{folder}/{RENDER}"))
    return kept


def listed_bases(style: Style) -> set[str]:
    """The base names of a style's combination files."""
    from imagecore.combinations import combination_rows

    return {
        base
        for length in style.combination_files
        for _, *stacks in combination_rows(style, length)
        for stack in stacks
        for base in stack
    }
