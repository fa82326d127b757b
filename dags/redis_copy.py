"""### Redis to Redis

Copies keys of any type from one Redis to another, with their time to live. By hand; a dry run
unless told otherwise.

    plan ──▶ copy (mapped) ──▶ report

**plan** lists the keys that match `patterns`, with SCAN, and counts which of them the destination
has. **copy** brings them over as they are, byte for byte, and looks at what then is there.

| `mode` | |
|---|---|
| `dryrun` | lists and counts |
| `copy` | copies |

- A key that is there already, the same, is skipped. One with another value is skipped too, or
  replaced with `existing` = `replace`; `force` then also replaces what is the same.
- A key that expires meanwhile is skipped. One that the destination cannot take fails by itself.
- With `partials`, pages bring the documents that their partials are in: the key of a `url` with
  `_partial` in it is `partial_prefix` and that url.
- Refused: a source and a destination that are the same database, whatever their addresses say, or
  replicas of one.

#### To run it again
- **What failed, in the same run**: *Clear* with *only failed*, or
  `airflow dags clear redis_copy --run-id RUN --only-failed -y`.
- **What failed, in a new run**: parameter `manifest_uri` = the run's `failed.jsonl`.
- Or the same once more: what is there already is skipped.
"""

from airflow.sdk import DAG

from imageflows.alerts import alerts
from imageflows.operators.batch import BATCH_LABEL
from imageflows.operators.redis_copy import RedisCopyOperator, RedisCopyPlanOperator
from imageflows.operators.report import ReportOperator
from imageflows.params import shared_params
from imageflows.redisparams import redis_conn_param, redis_copy_params
from imageflows.retry import DEFAULT_ARGS

CONNECTIONS = {
    "source_conn_id": "{{ params.redis_source_conn_id }}",
    "destination_conn_id": "{{ params.redis_destination_conn_id }}",
}

with DAG(
    "redis_copy",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    **alerts(),
    doc_md=__doc__,
    tags=["imageflows", "ez"],
    params={
        **shared_params(modes=("dryrun", "copy"), prefix="Only keys that begin with this."),
        **redis_copy_params(),
        **redis_conn_param("source", "redis_source_conn_id"),
        **redis_conn_param("destination", "redis_destination_conn_id"),
    },
) as dag:
    plan = RedisCopyPlanOperator(task_id="plan", **CONNECTIONS)
    copies = RedisCopyOperator.partial(
        task_id="copy", pool="s3_transfer", map_index_template=BATCH_LABEL, **CONNECTIONS
    ).expand(batch=plan.output)
    copies >> ReportOperator(task_id="report")
