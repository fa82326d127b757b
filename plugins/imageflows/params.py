"""Parameters: the ones all workflows share, and settings that give the others their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow.sdk import Param
from airflow.sdk.configuration import conf

from imagecore.errors import PlanRefused
from imagecore.text import printable

MAPPED_TASKS = 1024
"""`core.max_map_length` as Airflow ships it: the most mapped tasks a parameter may ask for."""


def setting(name: str, default: str) -> str:
    """An installation's own default, from the section `[imageflows]` of airflow.cfg.

    `AIRFLOW__IMAGEFLOWS__<NAME>` in the environment serves as well.
    """
    return conf.get("imageflows", name, fallback=default)


def shared_params(
    *,
    modes: tuple[str, ...] = ("copy", "dryrun"),
    prefix: str = "Only what has a name that begins with this.",
) -> dict[str, Param]:
    """The parameters every workflow has, under the same names. The first mode is the default,
    and `prefix` the description of that parameter."""
    return {
        "mode": Param(
            modes[0],
            type="string",
            enum=list(modes),
            title="Mode",
            description="`dryrun` plans and reports; nothing is written outside the work store.",
            section="What to do",
        ),
        "prefix": Param(
            None,
            type=["null", "string"],
            title="Prefix",
            description=prefix,
            section="What to do",
        ),
        "manifest_uri": Param(
            None,
            type=["null", "string"],
            pattern=r"^(file:///|s3://[^@/]+@[^/]+/).+\.jsonl$",
            title="Manifest",
            description="Exactly the items of this file: an earlier run's failed.jsonl.",
            section="What to do",
        ),
        "limit": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Limit",
            description="At most this many items, the first by name.",
            section="What to do",
        ),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Do again what is up to date.",
            section="What to do",
        ),
        "max_failed": Param(
            0,
            type="integer",
            minimum=0,
            title="Failures allowed",
            description="The run fails when more items than this failed.",
            section="What to do",
        ),
        "max_quarantined": Param(
            100,
            type="integer",
            minimum=0,
            title="Quarantined allowed",
            description="The run fails when more items than this were quarantined: so many bad "
            "ones at once are likely to have another cause.",
            section="What to do",
        ),
        "max_fanout": Param(
            100,
            type="integer",
            minimum=1,
            maximum=MAPPED_TASKS,
            title="Most mapped tasks",
            description="Up to so many images, one task an image; beyond, the batches grow.",
            section="Fan-out",
        ),
        "images_per_task": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Images a task",
            description="Batches of exactly this size, whatever the number of images.",
            section="Fan-out",
        ),
    }


def conn_param(
    name: str, title: str, description: str, *, installed: str, default: str
) -> dict[str, Param]:
    """The parameter of an Airflow connection; `installed` is the setting of its default."""
    return {
        name: Param(
            setting(installed, default),
            type="string",
            minLength=1,
            title=title,
            description=description,
            section="Where",
        )
    }


def bucket_params(workflow: str, *roles: str) -> dict[str, Param]:
    """A connection, and a bucket for each role; their defaults are the installation's settings."""
    where = conn_param(
        "aws_conn_id",
        "Connection",
        "The Airflow connection to S3.",
        installed="aws_conn_id",
        default="imageflows_s3",
    )
    for role in roles:
        where[f"{role}_bucket"] = Param(
            setting(f"{workflow}_{role}_bucket", f"imageflows-{role}"),
            type="string",
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$",
            title=f"{role.capitalize()} bucket",
            description=f"Default: [imageflows] {workflow}_{role}_bucket in airflow.cfg.",
            section="Where",
        )
    return where


def refuse_unknown(conf: Mapping[str, Any] | None, known: Mapping[str, Any]) -> None:
    """Airflow accepts parameters nobody knows, so that a typo would run with the default.

    Raises:
        PlanRefused: naming them, and those there are.
    """
    unknown = sorted(set(conf or {}) - set(known))
    if unknown:
        raise PlanRefused(
            f"Unknown parameter {', '.join(unknown)}. This DAG has: {', '.join(sorted(known))}."
        )


def moment(params: Mapping[str, Any], name: str) -> datetime | None:
    """The time that a parameter holds; None where it is empty.

    Raises:
        PlanRefused: it holds none, or one without a time zone.
    """
    text = params[name]
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise PlanRefused(f"{name} is no date and time: {printable(text)}") from error
    if time.utcoffset() is None:
        raise PlanRefused(f"{name} {text} has no time zone: add Z, or an offset such as +01:00.")
    return time
