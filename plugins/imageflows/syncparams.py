"""The parameters of syncs, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Param

from imagecore.errors import PlanRefused
from imageflows.params import conn_param, setting
from imageflows.work import left_over, read_items

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.syncplan import SyncRules

CONDITION = "How to compare"
LIMITS = "Limits"


def sync_params(*, compare: str, naming: str, both_buckets: bool) -> dict[str, Param]:
    """What a sync does and how; a local source is not laid out anew, and nothing is deleted."""
    more = {**_layout(), **_deletion()} if both_buckets else {}
    return {**more, **_comparison(compare=compare, naming=naming), **_applying()}


def _comparison(*, compare: str, naming: str) -> dict[str, Param]:
    """How the sides are compared, and which names are taken."""
    return {
        "compare": Param(
            compare,
            type="string",
            enum=["newer", "size", "etag", "checksum"],
            title="Comparison",
            description="What makes a picture modified. newer: the source is strictly later, at "
            "whole seconds. size: another size. etag: another content, by ETag. checksum: another "
            "content, by checksum or by reading it.",
            section=CONDITION,
        ),
        "naming": Param(
            naming,
            type="string",
            enum=["none", "stores"],
            title="Naming rule",
            description="stores: only stores/(store)/(photos|menus)/(number).jpg is taken; the "
            "others are listed in error.txt with the reason. none: every name.",
            section=CONDITION,
        ),
        "naming_chains": Param(
            False,
            type="boolean",
            title="Also chains",
            description="The naming rule stores also takes chains/ in place of stores/.",
            section=CONDITION,
        ),
        "naming_png": Param(
            False,
            type="boolean",
            title="Also PNG",
            description="The naming rule stores also takes .png in place of .jpg.",
            section=CONDITION,
        ),
        "ignore": Param(
            ["*.ini"],
            type="array",
            items={"type": "string"},
            title="Ignored files",
            description="File names that are no candidates at all, as patterns: * ? [abc].",
            section=CONDITION,
        ),
    }


def _layout() -> dict[str, Param]:
    """How the destination is laid out, and what is made of the pictures."""
    return {
        "mapping": Param(
            setting("store_sync_mapping", "identity"),
            type="string",
            enum=["identity", "width_folders"],
            title="Key mapping",
            description="identity: both sides use the same keys. width_folders: "
            "stores/slug/photos/1.jpg is slug/photos/__w-200-400__/1.jpg in the destination.",
            section=CONDITION,
        ),
        "transform": Param(
            setting("store_sync_transform", "none"),
            type="string",
            enum=["none", "photo_ladder"],
            title="Transformation",
            description="photo_ladder: the full size (at most 1600 wide) and its smaller widths, "
            "with a watermark. Needs mapping width_folders and comparison newer.",
            section="What to do",
        ),
    }


def _deletion() -> dict[str, Param]:
    """Whether and how much may be deleted."""
    return {
        "delete": Param(
            False,
            type="boolean",
            title="Delete",
            description="In mode sync: take out of the destination what is no longer in the "
            "source. It is moved to the trash.",
            section=LIMITS,
        ),
        "max_delete": Param(
            1_000,
            type="integer",
            minimum=0,
            title="Most deletions",
            description="A plan that would delete more pictures is refused.",
            section=LIMITS,
        ),
        "max_delete_ratio": Param(
            0.1,
            type="number",
            minimum=0,
            maximum=1,
            title="Most deletions, as a share",
            description="A plan that would delete a larger share of the destination is refused.",
            section=LIMITS,
        ),
    }


def _applying() -> dict[str, Param]:
    """How a plan is carried out."""
    return {
        "approved_plan": Param(
            None,
            type=["null", "string"],
            pattern=r"^(file:///|s3://[^@/]+@[^/]+/).+/plan\.json#[0-9a-f]{64}$",
            title="Approved plan",
            description="Carry out exactly this plan of a dry run, whose report prints the "
            "address. Nothing is compared again; what changed since is reported and left alone.",
            section="What to do",
        ),
        **age_param(),
        "acl": Param(
            None,
            type=["null", "string"],
            enum=[None, "private", "public-read", "bucket-owner-full-control"],
            title="ACL",
            description="A canned ACL for what is written. Empty: the bucket's own rules.",
            section="Where",
        ),
    }


def age_param() -> dict[str, Param]:
    """How old a plan may be."""
    return {
        "max_plan_age": Param(
            24,
            type="number",
            exclusiveMinimum=0,
            title="Oldest plan, in hours",
            description="A plan whose comparison is older is refused, also when tasks are cleared.",
            section=LIMITS,
        ),
    }


def upload_root() -> str:
    """The folder of `[imageflows] upload_root`: all that an upload may read."""
    return setting("upload_root", "/srv/imageflows/upload").rstrip("/")


def folder_param() -> dict[str, Param]:
    """Which folder is uploaded."""
    return {
        "folder": Param(
            None,
            type=["null", "string"],
            pattern=r"^([^/].*)?$",
            title="Folder",
            description="Below [imageflows] upload_root of airflow.cfg. Empty: all of it.",
            section="Where",
        )
    }


def place_params(workflow: str, **buckets: str) -> dict[str, Param]:
    """A bucket and a prefix for each role; defaults are the installation's, or these buckets."""
    places = {}
    for role, bucket in buckets.items():
        places[f"{role}_bucket"] = Param(
            setting(f"{workflow}_{role}_bucket", bucket),
            type=["null", "string"] if role == "trash" else "string",
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$",
            title=f"{role.capitalize()} bucket",
            description=f"Default: [imageflows] {workflow}_{role}_bucket in airflow.cfg."
            + (" Empty: what is replaced or deleted is lost." if role == "trash" else ""),
            section="Where",
        )
        places[f"{role}_prefix"] = Param(
            setting(f"{workflow}_{role}_prefix", "") or None,
            type=["null", "string"],
            pattern=r"^([^/].*)?$",
            title=f"{role.capitalize()} prefix",
            description="Only what lies in this folder of the bucket. Empty: the whole bucket.",
            section="Where",
        )
    return places


def conn_params(*roles: str) -> dict[str, Param]:
    """A connection for each role."""
    more = " With the source's own the server copies by itself." if len(roles) > 1 else ""
    params: dict[str, Param] = {}
    for role in roles:
        params |= conn_param(
            f"{role}_conn_id",
            f"{role.capitalize()} connection",
            f"The Airflow connection to the {role}.{more}",
            installed="aws_conn_id",
            default="imageflows_s3",
        )
    return params


def rules_of(context: Context) -> SyncRules:
    """The rules of a run: of its parameters, and of the day that a backfill is for."""
    from imagecore.naming import NamingRule
    from imagecore.syncplan import SyncRules

    params = context["params"]
    only, changed = None, None
    if params["manifest_uri"]:
        only = _names(read_items(params["manifest_uri"]))
    elif context["dag_run"].run_type == "backfill":
        only, changed = _names(left_over(context)), _interval(context)
    return SyncRules(
        compare=params["compare"],
        mapping=params.get("mapping", "identity"),
        naming=NamingRule(params["naming"], params["naming_chains"], params["naming_png"]),
        transform=params.get("transform", "none"),
        ignore=tuple(params["ignore"]),
        delete=bool(
            params.get("delete", False) and params["mode"] != "copy" and params["limit"] is None
        ),
        max_delete=params.get("max_delete", 0),
        max_delete_ratio=params.get("max_delete_ratio", 0.0),
        force=params["force"],
        prefix=params["prefix"] or "",
        only=only,
        changed=changed,
    )


def _names(items: list[dict[str, Any]]) -> frozenset[str]:
    return frozenset(item.get("name", item["key"]) for item in items)


def _interval(context: Context) -> tuple[int, int]:
    start, end = context["data_interval_start"], context["data_interval_end"]
    if start is None or end is None:
        raise PlanRefused("A backfill has a data interval, and this run has none.")
    return int(start.timestamp() * 10**9), int(end.timestamp() * 10**9)
