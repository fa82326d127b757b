"""Make the buckets that are missing, through an Airflow connection: for the stack's own S3 server.

python config/buckets.py CONNECTION BUCKET…
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(connection: str, buckets: Sequence[str]) -> None:
    """Make each bucket that the connection does not list.

    Raises:
        botocore.exceptions.ClientError: the server refuses.
    """
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    client = S3Hook(aws_conn_id=connection).get_conn()
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for bucket in buckets:
        if bucket not in there:
            client.create_bucket(Bucket=bucket)
            print(f"made bucket {bucket}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
