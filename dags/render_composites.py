"""### Composites of a style

Lays the layers of a configurable product over each other in every valid combination, in all sizes
and cuts. By hand; two styles may run at once.

    plan ──▶ render (mapped) ──▶ report
                  ├──▶ verify (mapped) ──▶ verify_report
                  └──▶ contact_sheet

**plan** makes every combination the style's rules allow (or its combination files list), finds the
layers of each, and lists all missing layer files at once. Combinations that look the same are one
stack. **render** renders each stack once, in batches that share their lower layers, to
`renders/composites/<style>/<size>/<name>`, verifies it there, and copies it to its other names.
**verify** looks at every file again and names what is missing, damaged, or another's.
**contact_sheet** writes pages to look through, next to the report.

`mode`: `dryrun` plans only: combinations, files, missing layers, estimated hours and bytes. `copy`
renders. What is up to date is skipped: after a change of one layer exactly the stacks that contain
it are rendered. A missing layer fails the stacks that need it, and no others.

#### To run it again
- **What failed, in the same run**: *Clear* with *only failed*, or
  `airflow dags clear render_composites --run-id RUN --only-failed -y`. What is done stays so.
- **What failed, in a new run**: parameter `manifest_uri` = the run's `failed.jsonl`, or
  `verify/failed.jsonl` for what verification found.
- It has no schedule, so there is no day to backfill.
"""

from airflow.sdk import DAG, TriggerRule

from imageflows.alerts import alerts
from imageflows.operators.batch import BATCH_LABEL
from imageflows.operators.render_composites import (
    RenderCompositeOperator,
    RenderCompositePlanOperator,
    RenderReportOperator,
)
from imageflows.operators.render_verify import (
    ContactSheetOperator,
    RenderVerifyOperator,
    RenderVerifyReportOperator,
)
from imageflows.params import shared_params
from imageflows.renderparams import (
    cache_param,
    compositing_param,
    contact_sheet_param,
    render_params,
)
from imageflows.retry import DEFAULT_ARGS

with DAG(
    "render_composites",
    schedule=None,
    catchup=False,
    default_args=DEFAULT_ARGS,
    **alerts(),
    doc_md=__doc__,
    tags=["imageflows", "renders"],
    params={
        **shared_params(prefix="Only stacks with a composite whose name begins with this."),
        **render_params(),
        **compositing_param(),
        **cache_param(),
        **contact_sheet_param(),
    },
) as dag:
    plan = RenderCompositePlanOperator(task_id="plan")
    rendered = RenderCompositeOperator.partial(
        task_id="render", pool="image_cpu", map_index_template=BATCH_LABEL
    ).expand(batch=plan.output)
    verified = RenderVerifyOperator.partial(
        task_id="verify",
        pool="image_cpu",
        map_index_template=BATCH_LABEL,
        trigger_rule=TriggerRule.ALL_DONE,
    ).expand(batch=plan.output)
    rendered >> [
        RenderReportOperator(task_id="report"),
        verified,
        ContactSheetOperator(task_id="contact_sheet"),
    ]
    verified >> RenderVerifyReportOperator(task_id="verify_report", part="verify")
