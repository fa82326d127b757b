"""### Make pyramids again

Writes notes again for pictures chosen by name or date, so that the next run of `pyramid_tiff` makes
their pyramids again. By hand; a dry run, which only counts, unless told otherwise.

    plan ──▶ note (mapped) ──▶ report        then: pyramid_tiff

**plan** lists the pictures and counts: how many were listed, how many match, how many of these
have a note waiting already (one under the old name, by its stem, is not seen), and how many were
skipped for which reason. The report shows these numbers. **note** writes `rbsc/<key>.json` of each
that matches, and reads it back; what a waiting note says of copyright stays.

| parameter | takes |
|---|---|
| `prefix`, or else `source_prefixes` | pictures below it, or below any of these |
| `manifest_uri` | no listing, but what a failed.jsonl names, of this DAG or of `pyramid_tiff` |
| `glob` | keys of a pattern, as a whole; upper and lower case differ |
| `extensions` | file names that end so, in any case |
| `changed_from`, `changed_to` | what was uploaded from a time on, and before another |

All that are given must hold. In a glob `*` matches anything, slashes too, `?` one character, and
`[0-9]` one of these. Where `extensions` is not given, a listing takes all that `pyramid_tiff` takes
for pictures (jpg, jpeg, png, tif, tiff, bmp, eps, pdf, gif, webp, avif, heic, svg). Names that
begin with a dot are skipped when listed.

With `force` (on, unless switched off) the notes carry `"force": true`, and `pyramid_tiff` makes
their pictures again even if they are up to date; without, it skips those.

#### To run it again
- **What failed, in the same run**: *Clear* with *only failed*, or
  `airflow dags clear pyramid_rerun --run-id RUN --only-failed -y`.
- **What failed, in a new run**: parameter `manifest_uri` = the run's `failed.jsonl`.

A note written twice is one note. Millions of pictures: one run writes some hundred notes a second
in each task; the next `pyramid_tiff` takes them all, or as many as its `limit` says.
"""

from airflow.sdk import DAG

from imageflows.alerts import alerts
from imageflows.operators.batch import BATCH_LABEL
from imageflows.operators.report import ReportOperator
from imageflows.operators.rerun import RerunOperator, RerunPlanOperator, rerun_params
from imageflows.params import bucket_params, shared_params
from imageflows.pyramidparams import source_prefixes_param
from imageflows.retry import DEFAULT_ARGS

S3 = {
    "aws_conn_id": "{{ params.aws_conn_id }}",
    "process_bucket": "{{ params.process_bucket }}",
}

with DAG(
    "pyramid_rerun",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    **alerts(),
    doc_md=__doc__,
    tags=["imageflows", "pyramids"],
    params={
        **shared_params(
            modes=("dryrun", "copy"),
            prefix="Only pictures below this prefix, in place of the source prefixes.",
        ),
        **rerun_params(),
        **bucket_params("pyramid", "source", "process"),
        **source_prefixes_param("Where pictures are listed when there is no prefix."),
    },
) as dag:
    plan = RerunPlanOperator(
        task_id="plan", min_batch=1_000, source_bucket="{{ params.source_bucket }}", **S3
    )
    notes = RerunOperator.partial(
        task_id="note", pool="s3_transfer", map_index_template=BATCH_LABEL, **S3
    ).expand(batch=plan.output)
    notes >> ReportOperator(task_id="report")
