"""### Verification of a style

Looks at every composite of a style in the bucket, whenever it was rendered. By hand.

    plan ──▶ verify (mapped) ──▶ report

**plan** makes the same plan as `render_composites`; **verify** fetches every file under every name:
there, whole, decoded, of the right size, made of these layers, its bytes as recorded when it was
made. **report** names each that is not, and writes `verify.log`.

#### To run it again
- **What failed, in the same run**: *Clear* with *only failed*, or
  `airflow dags clear render_verify --run-id RUN --only-failed -y`.
- **To mend what it found**: `render_composites` with `manifest_uri` = this run's `failed.jsonl`.
- It has no schedule, so there is no day to backfill.
"""

from airflow.sdk import DAG

from imageflows.alerts import alerts
from imageflows.operators.batch import BATCH_LABEL
from imageflows.operators.render_composites import RenderCompositePlanOperator
from imageflows.operators.render_verify import RenderVerifyOperator, RenderVerifyReportOperator
from imageflows.params import shared_params
from imageflows.renderparams import render_params
from imageflows.retry import DEFAULT_ARGS

with DAG(
    "render_verify",
    schedule=None,
    catchup=False,
    default_args=DEFAULT_ARGS,
    **alerts(),
    doc_md=__doc__,
    tags=["imageflows", "renders"],
    params={
        **shared_params(prefix="Only stacks with a composite whose name begins with this."),
        **render_params(),
    },
) as dag:
    plan = RenderCompositePlanOperator(task_id="plan", trial=False)
    verify = RenderVerifyOperator.partial(
        task_id="verify", pool="image_cpu", map_index_template=BATCH_LABEL
    ).expand(batch=plan.output)
    verify >> RenderVerifyReportOperator(task_id="report")
