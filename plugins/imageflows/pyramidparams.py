"""The parameters that the pyramid DAGs have in common."""

from __future__ import annotations

from airflow.sdk import Param

from imageflows.params import setting

SOURCE_PREFIXES = "digital/, collections/ead_xml/images/"


def source_prefixes_param(description: str) -> dict[str, Param]:
    """Below which prefixes of the source bucket pictures are uploaded.

    The default is the setting `[imageflows] pyramid_source_prefixes`, separated by commas.
    """
    prefixes = setting("pyramid_source_prefixes", SOURCE_PREFIXES).split(",")
    return {
        "source_prefixes": Param(
            [prefix.strip() for prefix in prefixes if prefix.strip()],
            type="array",
            items={"type": "string"},
            minItems=1,
            title="Source prefixes",
            description=f"{description} Default: [imageflows] pyramid_source_prefixes.",
            section="Where",
        )
    }
