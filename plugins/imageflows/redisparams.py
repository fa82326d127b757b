"""The parameters of what reads a Redis, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Param

from imagecore.refrules import KEY_NAMES, MAX_DOCUMENT_BYTES, PATTERNS, PREFIX, RefRules
from imageflows.params import conn_param

if TYPE_CHECKING:
    from collections.abc import Mapping

WHAT = "What to do"

MEGABYTE = 10**6


def redis_conn_param(role: str, name: str = "redis_conn_id") -> dict[str, Param]:
    """A connection to a Redis that is, for instance, the `source`."""
    return conn_param(
        name,
        f"{role.capitalize()} connection",
        f"The Airflow connection to the {role} Redis. Default: [imageflows] {name} in airflow.cfg.",
        installed=name,
        default=f"imageflows_{name.removesuffix('_conn_id')}",
    )


def document_params() -> dict[str, Param]:
    """Which documents are read."""
    return {
        "patterns": Param(
            list(PATTERNS),
            type="array",
            items={"type": "string", "minLength": 1},
            minItems=1,
            title="Key patterns",
            description="Redis keys that match any of these, as SCAN has them: * ? [abc].",
            section=WHAT,
        ),
        "max_document_mb": Param(
            MAX_DOCUMENT_BYTES // MEGABYTE,
            type="number",
            exclusiveMinimum=0,
            maximum=512,
            title="Largest document, in MB",
            description="A larger document is reported and not read.",
            section="Limits",
        ),
    }


def redis_ref_params() -> dict[str, Param]:
    """What the search for image references asks for."""
    return {
        **document_params(),
        "key_names": Param(
            list(KEY_NAMES),
            type="array",
            items={"type": "string"},
            minItems=1,
            title="Key-names",
            description="Names in the JSON documents whose values are image references.",
            section=WHAT,
        ),
        "reference_prefix": Param(
            PREFIX,
            type="string",
            minLength=1,
            title="Reference prefix",
            description="What a reference begins with; values without it are reported as foreign.",
            section=WHAT,
        ),
    }


def redis_copy_params() -> dict[str, Param]:
    """Which keys are copied and how."""
    return {
        **document_params(),
        "existing": Param(
            "skip",
            type="string",
            enum=["skip", "replace"],
            title="Keys that are there",
            description="What becomes of keys that the destination has with another value.",
            section=WHAT,
        ),
        "partials": Param(
            False,
            type="boolean",
            title="Follow partials",
            description="Also copy the documents that a url with _partial in it leads to, and "
            "those that these lead to.",
            section=WHAT,
        ),
        "partial_prefix": Param(
            "content:v1:de:de:live:",
            type="string",
            title="Key prefix of partials",
            description="The key of a partial is this and its url.",
            section=WHAT,
        ),
    }


def ref_rules(params: Mapping[str, Any]) -> RefRules:
    """The rules of a run."""
    return RefRules(
        patterns=tuple(params["patterns"]),
        key_names=tuple(params["key_names"]),
        prefix=params["reference_prefix"],
        max_document_bytes=int(params["max_document_mb"] * MEGABYTE),
    )
