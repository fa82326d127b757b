"""S3 through Airflow's own hook: its connections, credentials and roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.config import Config

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
