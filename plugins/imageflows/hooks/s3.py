"""S3 through Airflow's own hook: its connections, credentials and roles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from botocore.config import Config

from imagecore.errors import PlanRefused

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def s3_client(aws_conn_id: str, *, connections: int) -> S3Client:
    """A client that many threads may use, over at most `connections` connections.

    Time limits and retries are set so that a server that hangs is noticed; `config_kwargs` in the
    connection's extra wins, for instance `{"request_checksum_calculation": "when_required"}` for
    servers that store boto3's checksum trailers inside the object.
    """
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    ours = Config(
        max_pool_connections=connections,
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "max_attempts": 5},
    )
    theirs = S3Hook(aws_conn_id=aws_conn_id).conn_config.botocore_config
    client: S3Client = S3Hook(
        aws_conn_id=aws_conn_id, config=ours.merge(theirs) if theirs else ours
    ).get_conn()
    return client


@contextmanager
def refused_when_unusable(aws_conn_id: str) -> Iterator[None]:
    """A bucket or connection that is not there is a wrong parameter, and not worth another try.

    Raises:
        PlanRefused: in place of what says so.
    """
    from airflow.sdk.exceptions import AirflowNotFoundException

    from imagecore.s3 import BucketUnusable

    try:
        yield
    except (BucketUnusable, AirflowNotFoundException) as error:
        raise PlanRefused(f"{error} (connection {aws_conn_id})") from error
