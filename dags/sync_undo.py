"""### Take a sync back

Brings the destination of an earlier run of a sync back to what it was: same keys, same bytes, same
metadata. By hand; a dry run unless told otherwise.

    plan ──▶ transfer (mapped) ──▶ removals ──▶ remove (mapped) ──▶ report

**plan** reads the receipts of the run that `dag_id` and `run_id` name. **transfer** brings back
from the trash what the run replaced or removed. **remove** moves to the trash what the run had
added. An object that someone has changed since the run is reported and stays as it is.

What comes back has a new modification time, as S3 knows no other. The comparison `newer` therefore
takes it for up to date until its source changes; `size`, `etag` and `checksum` see the difference.
An object's ACL is not kept by S3's copies: what comes back has the run's `acl`.

#### To run it again
- **What failed, in the same run**: *Clear* with *only failed*, or
  `airflow dags clear sync_undo --run-id RUN --only-failed -y`.
- **What failed, in a new run**: parameter `manifest_uri` = the run's `failed.jsonl`, with the same
  `dag_id` and `run_id`.
- **To take the undoing back**: `dag_id` = `sync_undo`.
"""

from airflow.sdk import DAG

from imageflows.alerts import alerts
from imageflows.operators.batch import BATCH_LABEL
from imageflows.operators.report import ReportOperator
from imageflows.operators.sync import RemovalsOperator, S3ApplyOperator
from imageflows.operators.undo import UndoPlanOperator, undo_params
from imageflows.params import shared_params
from imageflows.retry import DEFAULT_ARGS
from imageflows.syncparams import age_param

with DAG(
    "sync_undo",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    **alerts(),
    doc_md=__doc__,
    tags=["imageflows", "sync"],
    params={**undo_params(), **shared_params(modes=("dryrun", "undo")), **age_param()},
) as dag:
    plan = UndoPlanOperator(task_id="plan", min_batch=500)
    transfers = S3ApplyOperator.partial(
        task_id="transfer", pool="s3_transfer", map_index_template=BATCH_LABEL
    ).expand(batch=plan.output)
    removals = RemovalsOperator(task_id="removals")
    removed = S3ApplyOperator.partial(
        task_id="remove", pool="s3_transfer", map_index_template=BATCH_LABEL
    ).expand(batch=removals.output)
    transfers >> removals
    [transfers, removed] >> ReportOperator(task_id="report")
