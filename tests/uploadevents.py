"""Event messages as Amazon S3 sends them, without what nobody here reads."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

SEQUENCER = "0055AED6DCD90281E5"


def record(
    key: str = "digital/a.jpg",
    *,
    event: str = "ObjectCreated:Put",
    bucket: str = "uploads",
    sequencer: str | None = SEQUENCER,
) -> dict[str, Any]:
    """What a message says of one upload. moto's have no `sequencer`."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": event,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": quote_plus(key), "size": 7, "eTag": "d41d8c", "sequencer": sequencer},
        },
    }


def message(*records: Any) -> str:
    """The body of a message with these records."""
    return json.dumps({"Records": list(records)})


TEST_EVENT = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads"})
"""What S3 sends when notifications are set up."""
