"""### eZ images: Redis to Riak

Finds the image references in the JSON documents of a Redis, and stores those that a Riak lacks,
from the dumped assets. Daily; by hand with parameters.

    plan ──▶ sync (mapped) ──▶ report
    assets ─┘      └──▶ remove_assets

**plan** reads the documents whose keys match `patterns` and lists every reference once.
**assets** unpacks the archive, if it is one, and indexes all files; **remove_assets** takes it away
again. **sync** asks Riak for each reference; what is not there is looked for by its exact file name
and the Adler-32 of its path, stored as a JSON document, read back and compared. **report** holds
what was planned against what happened, and writes `upload.log` and `error.log`.

`mode`: `copy` stores; `dryrun` lists the references and what is wrong with documents. `force`
stores also what Riak has, which mends a bad document.

A reference ends as present, siblings (present, with several values: `force` makes them one),
uploaded, missing (no file of its name), hash mismatch, ambiguous (several files with its hash: all
are named, none is taken), unreadable (broken, or of a kind nobody decodes here, such as BMP and
SVG), too large for Riak, bad reference, or failed. What is no reference is in `findings.jsonl`.

A try that is killed, or loses Riak, between storing a picture and comparing it leaves a document
that the next try finds present: nobody compared it, and it is in no `upload.log`.

#### To run it again
- **What failed, in the same run**: *Clear* with *only failed*, or
  `airflow dags clear ez_image_sync --run-id RUN --only-failed -y`. What is done stays so. With an
  archive as `assets` clear the whole run (no `--only-failed`), as it was removed at the run's end.
- **What failed, in a new run**: parameter `manifest_uri` = the run's `failed.jsonl`.
- **A day**: `airflow backfill create --dag-id ez_image_sync --from-date D --to-date D
  --reprocess-behavior completed`: all references that Redis has now, as it keeps no history; what
  Riak has is skipped.
"""

import pendulum
from airflow.sdk import DAG, CronDataIntervalTimetable

from imageflows.alerts import alerts
from imageflows.operators.batch import BATCH_LABEL
from imageflows.operators.redis_refs import RedisImageRefOperator
from imageflows.operators.riak_sync import (
    AssetsOperator,
    RemoveAssetsOperator,
    RiakAdlerSyncOperator,
    RiakReportOperator,
    riak_sync_params,
)
from imageflows.params import shared_params
from imageflows.redisparams import redis_conn_param, redis_ref_params
from imageflows.retry import DEFAULT_ARGS

with DAG(
    "ez_image_sync",
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    **alerts(daily=True),
    doc_md=__doc__,
    tags=["imageflows", "ez"],
    params={
        **shared_params(prefix="Only references that begin with this."),
        **redis_ref_params(),
        **redis_conn_param("eZ"),
        **riak_sync_params(),
    },
) as dag:
    plan = RedisImageRefOperator(task_id="plan", redis_conn_id="{{ params.redis_conn_id }}")
    assets = AssetsOperator(task_id="assets").as_setup()
    sync = RiakAdlerSyncOperator.partial(
        task_id="sync",
        pool="s3_transfer",
        map_index_template=BATCH_LABEL,
        assets=assets.output,
        riak_conn_id="{{ params.riak_conn_id }}",
        riak_bucket="{{ params.riak_bucket }}",
    ).expand(batch=plan.output)
    removed = RemoveAssetsOperator(task_id="remove_assets", assets=assets.output)
    sync >> [removed.as_teardown(setups=assets), RiakReportOperator(task_id="report")]
