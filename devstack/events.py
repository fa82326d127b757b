"""What Airflow hears of uploads by: a queue, and the source bucket's notifications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from devstack.processes import HOST

QUEUE = "imageflows-uploads"
ACCOUNT = "123456789012"
"""moto's own."""

UPLOADS = (
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:Post",
    "s3:ObjectCreated:CompleteMultipartUpload",
)


def queue_url(ports: Mapping[str, int]) -> str:
    """The address of the queue in the embedded SQS."""
    return f"http://{HOST}:{ports['moto']}/{ACCOUNT}/{QUEUE}"


def make_queue(sqs: Any) -> None:
    """Make the queue; one that is there stays as it is."""
    sqs.create_queue(QueueName=QUEUE)


def notify(s3: Any, bucket: str, *, events: bool = True) -> None:
    """Have the bucket tell the queue of every upload, or of none. S3 sends a test event first."""
    queue = {"QueueArn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:{QUEUE}", "Events": [*UPLOADS]}
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={"QueueConfigurations": [queue]} if events else {},
    )
