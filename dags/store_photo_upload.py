"""### Local drive to bucket

Uploads the pictures of a local folder or mounted drive that the bucket lacks, or holds in another
size. Daily; by hand with parameters; for a day that is over as a backfill. It never deletes.

    plan ──▶ transfer (mapped) ──▶ report

**plan** lists folder and bucket, and holds every candidate against the naming rule
`stores/(store)/(photos|menus)/(number).jpg`. **transfer** uploads, each object verified in the
bucket. **report** holds what was planned against what happened.

`mode`: `copy` and `sync` upload (the same here, as nothing is deleted); `dryrun` writes the lists.
What is replaced in the bucket is first moved to the trash; `sync_undo` brings it back.

`success.txt` lists what passed, `error.txt` what did not, with the reason after a tab; both are
written anew by every run. A folder that is empty or missing (is the drive mounted?) fails the run.
A file that changes while it is read fails alone and is not seen half in the bucket. Symbolic links
are not followed; they and names that are not UTF-8 are rejected with that reason.

#### To run it again
- **What failed, in the same run**: *Clear* with *only failed*, or
  `airflow dags clear store_photo_upload --run-id RUN --only-failed -y`. What is done stays so.
- **What failed, in a new run**: parameter `manifest_uri` = the run's `failed.jsonl`.
- **A day**: `airflow backfill create --dag-id store_photo_upload --from-date D --to-date D
  --reprocess-behavior completed`: the files that were modified in that day's data interval, and
  what did not end well in that day's run.
- **To take a run back**: `sync_undo`.
"""

import pendulum
from airflow.sdk import DAG, CronDataIntervalTimetable

from imageflows.alerts import alerts
from imageflows.operators.batch import BATCH_LABEL
from imageflows.operators.report import ReportOperator
from imageflows.operators.sync import S3ApplyOperator, S3DiffOperator
from imageflows.params import shared_params
from imageflows.retry import DEFAULT_ARGS
from imageflows.syncparams import (
    conn_params,
    folder_param,
    place_params,
    sync_params,
    upload_root,
)

with DAG(
    "store_photo_upload",
    schedule=CronDataIntervalTimetable("0 1 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    **alerts(daily=True),
    doc_md=__doc__,
    tags=["imageflows", "sync"],
    params={
        **shared_params(modes=("copy", "sync", "dryrun")),
        **folder_param(),
        **sync_params(compare="size", naming="stores", both_buckets=False),
        **conn_params("destination"),
        **place_params(
            "photo_upload", destination="imageflows-originals", trash="imageflows-trash"
        ),
    },
) as dag:
    plan = S3DiffOperator(
        task_id="plan",
        source=f"file://{upload_root()}/{{{{ params.folder or '' }}}}",
        destination="s3://{{ params.destination_bucket }}/{{ params.destination_prefix or '' }}",
        trash="s3://{{ params.trash_bucket or '' }}/{{ params.trash_prefix or '' }}",
        destination_conn_id="{{ params.destination_conn_id }}",
        local_root=upload_root(),
    )
    transfers = S3ApplyOperator.partial(
        task_id="transfer", pool="s3_transfer", map_index_template=BATCH_LABEL
    ).expand(batch=plan.output)
    transfers >> ReportOperator(task_id="report")
