"""### Layers of a style

Brings the rendered layers of a configurable product to the bucket, where they can be looked at
before the long work of compositing begins. By hand.

    plan ──▶ layers (mapped) ──▶ report

**plan** reads the style file and looks for its layer files: for each code the first search
directory that has any. **layers** fits each inside 800 × 800 (small ones are enlarged) at 172 ppi,
keeps its transparency, verifies it, and writes it to `renders/caddy/<style>/<code>/<file name>`.
**report** names codes without files and layers that lack colours.

`mode`: `copy` writes; `dryrun` reads and reports. A layer that is up to date is skipped.

#### To run it again
- **What failed, in the same run**: *Clear* with *only failed*, or
  `airflow dags clear render_layers --run-id RUN --only-failed -y`. What is done stays so.
- **What failed, in a new run**: parameter `manifest_uri` = the run's `failed.jsonl`.
- It has no schedule, so there is no day to backfill.
"""

from airflow.sdk import DAG

from imageflows.alerts import alerts
from imageflows.operators.batch import BATCH_LABEL
from imageflows.operators.render_layers import RenderLayerOperator, RenderLayerPlanOperator
from imageflows.operators.report import ReportOperator
from imageflows.params import shared_params
from imageflows.renderparams import render_params
from imageflows.retry import DEFAULT_ARGS

with DAG(
    "render_layers",
    schedule=None,
    catchup=False,
    default_args=DEFAULT_ARGS,
    **alerts(),
    doc_md=__doc__,
    tags=["imageflows", "renders"],
    params={
        **shared_params(prefix="Only layers whose key below the style begins with this."),
        **render_params(),
    },
) as dag:
    plan = RenderLayerPlanOperator(task_id="plan")
    layers = RenderLayerOperator.partial(
        task_id="layers", pool="image_cpu", map_index_template=BATCH_LABEL
    ).expand(batch=plan.output)
    layers >> ReportOperator(task_id="report")
