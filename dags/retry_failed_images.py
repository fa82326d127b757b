"""### What failed, once more

Clears the failed instances of a run, or of all failed runs of a window, and nothing else: the
scheduler then runs just those again. By hand; a dry run unless told otherwise.

    retry

| `mode` | |
|---|---|
| `dryrun` | lists, run by run, what would be cleared: images by their labels, and the report |
| `clear` | clears it |

- **One run**: `dag_id` and `run_id`. **A night**: `window_from` and `window_to`, with `dag_id` or,
  without, for all Imageflows DAGs. A run counts by the time it was due, or was started by hand.
- Left, with the reason: runs that have not ended (so a second call right after finds nothing to
  do), runs of a paused DAG, and runs that can only be run again as a whole.
- At most `limit` runs, the oldest first; those beyond are counted.

Tasks cannot reach Airflow's database, so it goes through Airflow's REST API: the connection
`airflow_api` (docs/INSTALL.md). From a shell that has the database, this does the same for one run:
`airflow dags clear DAG --run-id RUN --only-failed -y`.

#### To run it again
- Run it once more: what runs meanwhile is left, what failed again is cleared again.
- It has no items, so there is no `failed.jsonl` for a `manifest_uri`, and no schedule.
"""

from airflow.sdk import DAG

from imageflows.alerts import alerts
from imageflows.operators.retry_failed import RetryFailedOperator, retry_failed_params
from imageflows.retry import DEFAULT_ARGS

with DAG(
    "retry_failed_images",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    **alerts(),
    doc_md=__doc__,
    tags=["imageflows"],
    params=retry_failed_params(),
) as dag:
    RetryFailedOperator(task_id="retry", airflow_api_conn_id="{{ params.airflow_api_conn_id }}")
