"""### Bucket to bucket

Brings a destination bucket into line with a source bucket: what is new, modified, and no longer
needed. Daily; by hand with parameters; for a day that is over as a backfill.

    plan ──▶ transfer (mapped) ──▶ removals ──▶ remove (mapped) ──▶ report

**plan** lists both buckets and compares them. **transfer** copies what is new or modified, each
object verified in the destination. **removals** opens the way to **remove** when every transfer
ended well. **report** holds what was planned against what happened.

| `mode` | |
|---|---|
| `copy` | what is new or modified |
| `sync` | also removes what is no longer in the source, with `delete` |
| `dryrun` | plans only: lists, counts, what would be refused, and the plan to approve |

#### What protects the destination
- Refused before the first write: an empty or missing source, sides that overlap, more deletions
  than `max_delete` or `max_delete_ratio` allow, a plan older than `max_plan_age`.
- An object that is no longer what was planned is reported and left alone.
- What is replaced or removed is first moved to the trash. `sync_undo` brings it back.
- Before a picture is removed, the source is asked once more whether it is really gone.

#### Lists, in the run's folder
`new.txt` `modified.txt` `duplicate_stores.txt` (to be removed), `success.txt` (to be copied),
`error.txt` (rejected, with the reason after a tab), `combined.txt` (`+ * - = !`, as rclone's).

#### To run it again
- **What failed, in the same run**: *Clear* with *only failed*, or
  `airflow dags clear store_bucket_sync --run-id RUN --only-failed -y`. What is done stays so. What
  failed because it changed needs a new plan: clear the task `plan` too, or start a new run.
- **What failed, in a new run**: parameter `manifest_uri` = the run's `failed.jsonl`.
- **A day**: `airflow backfill create --dag-id store_bucket_sync --from-date D --to-date D
  --reprocess-behavior completed`: what changed in the source in that day's data interval, and what
  did not end well in that day's run. A backfill removes nothing.
- **To take a run back**: `sync_undo`.
"""

import pendulum
from airflow.sdk import DAG, CronDataIntervalTimetable

from imageflows.alerts import alerts
from imageflows.operators.batch import BATCH_LABEL
from imageflows.operators.report import ReportOperator
from imageflows.operators.sync import RemovalsOperator, S3ApplyOperator, S3DiffOperator
from imageflows.params import shared_params
from imageflows.retry import DEFAULT_ARGS
from imageflows.syncparams import conn_params, place_params, sync_params

with DAG(
    "store_bucket_sync",
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    **alerts(daily=True),
    doc_md=__doc__,
    tags=["imageflows", "sync"],
    params={
        **shared_params(modes=("copy", "sync", "dryrun")),
        **sync_params(compare="newer", naming="none", both_buckets=True),
        **conn_params("source", "destination"),
        **place_params(
            "store_sync",
            source="imageflows-originals",
            destination="imageflows-store",
            trash="imageflows-trash",
        ),
    },
) as dag:
    plan = S3DiffOperator(
        task_id="plan",
        source="s3://{{ params.source_bucket }}/{{ params.source_prefix or '' }}",
        destination="s3://{{ params.destination_bucket }}/{{ params.destination_prefix or '' }}",
        trash="s3://{{ params.trash_bucket or '' }}/{{ params.trash_prefix or '' }}",
        source_conn_id="{{ params.source_conn_id }}",
        destination_conn_id="{{ params.destination_conn_id }}",
    )
    transfers = S3ApplyOperator.partial(
        task_id="transfer", pool="s3_transfer", map_index_template=BATCH_LABEL
    ).expand(batch=plan.output)
    removals = RemovalsOperator(task_id="removals")
    removed = S3ApplyOperator.partial(
        task_id="remove", pool="s3_transfer", map_index_template=BATCH_LABEL
    ).expand(batch=removals.output)
    transfers >> removals
    [transfers, removed] >> ReportOperator(task_id="report")
