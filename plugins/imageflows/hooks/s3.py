"""S3 through Airflow's own hook: its connections, credentials and roles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.config import Config

from imagecore.errors import PlanRefused

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import S3Store

    from imagecore.s3 import Bucket


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


def s3_store(aws_conn_id: str, bucket: str, prefix: str | None = None, **options: Any) -> S3Store:
    """The same bucket through obstore."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    hook = S3Hook(aws_conn_id=aws_conn_id)
    endpoint = hook.conn_config.get_service_endpoint_url("s3")
    if endpoint:
        options["endpoint"] = endpoint
    return S3Store(
        bucket,
        prefix=prefix,
        region=hook.region_name or "us-east-1",
        credential_provider=Boto3CredentialProvider(hook.get_session()),
        client_options={"allow_http": True, "connect_timeout": "10s", "timeout": "60s"},
        **options,
    )


def s3_bucket(aws_conn_id: str, name: str, *, connections: int) -> Bucket:
    """A bucket of a connection. It has the shortcut unless the connection asks for what obstore
    does not know: other certificates, or settings of botocore."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    from imagecore.s3 import Bucket

    client, shortcut = s3_client(aws_conn_id, connections=connections), None
    hook = S3Hook(aws_conn_id=aws_conn_id)
    if hook.conn_config.botocore_config is None and hook.verify in (None, True):
        shortcut = s3_store(aws_conn_id, name, retry_config={"max_retries": 0})
    return Bucket(name, client, shortcut)


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
