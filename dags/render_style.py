"""### A style file from a folder of layers

Reads the names of a folder of rendered layers and writes the beginning of a style file: codes,
lengths, colours, default layers, conditional layers. What names cannot tell, such as which codes
exclude each other, is marked in it for a person to decide. By hand.

    skeleton

The file, `<style>.yaml`, is in the run's folder of the work store; its address is the task's XCom
and in its log. Move it to `[imageflows] styles_folder`, and see `render_composites` with `mode` =
`dryrun`. Nothing else is written, so running it again is always safe.

#### To run it again
- **In the same run**: *Clear*, or `airflow dags clear render_style --run-id RUN --only-failed -y`.
- It has no items, so there is no `failed.jsonl` for a `manifest_uri`, and no schedule, so there is
  no day to backfill.
"""

from airflow.sdk import DAG

from imageflows.alerts import alerts
from imageflows.operators.render_layers import StyleSkeletonOperator
from imageflows.renderparams import source_params, style_param
from imageflows.retry import DEFAULT_ARGS

with DAG(
    "render_style",
    schedule=None,
    catchup=False,
    default_args=DEFAULT_ARGS,
    **alerts(),
    doc_md=__doc__,
    tags=["imageflows", "renders"],
    params={**style_param("What the new style is to be called."), **source_params()},
) as dag:
    StyleSkeletonOperator(task_id="skeleton")
