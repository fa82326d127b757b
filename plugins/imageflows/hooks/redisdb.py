"""Redis through Airflow's own hook: its connections, passwords and certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagecore.errors import PlanRefused

if TYPE_CHECKING:
    from imagecore.redisdb import Database


def redis_database(redis_conn_id: str) -> Database:
    """The database of a connection, or its cluster where its extra has `{"cluster": true}`.

    Raises:
        PlanRefused: there is no such connection, it is wrong, or it does not let us in.
        InfrastructureError: Redis cannot be reached.
    """
    from airflow.providers.redis.hooks.redis import RedisHook
    from airflow.sdk.exceptions import AirflowNotFoundException
    from redis.exceptions import RedisError

    from imagecore.redisdb import Database, Unusable
    from imagecore.text import printable

    try:
        client = RedisHook(redis_conn_id=redis_conn_id).get_conn()
    except (AirflowNotFoundException, ValueError, TypeError) as error:
        raise PlanRefused(
            f"The connection {redis_conn_id} cannot be used: {printable(error)}"
        ) from error
    except (RedisError, OSError) as error:  # a cluster is reached at once
        raise Unusable(
            f"Redis {redis_conn_id} cannot be reached: {printable(error)}. Check that it runs and "
            "the connection's address."
        ) from error
    database = Database(client, redis_conn_id)
    database.check()
    return database
