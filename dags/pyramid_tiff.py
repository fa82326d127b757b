"""### Pyramid TIFFs

Makes a tiled, multi-resolution TIFF of every uploaded picture, for zooming viewers. Daily at
05:30 in New York; by hand with parameters; for a day that is over as a backfill.

    plan ──▶ pyramid (one mapped task an image, or a batch) ──▶ report

**plan** reads the notes below `rbsc/` of the process bucket, and finds pictures that have none and
should. **pyramid** fetches each picture, makes the pyramid, has another reader than the one that
wrote it check every level, uploads it to `<path><stem>.tif` in the image bucket, compares what the
bucket then holds, and deletes the note. A picture that is up to date (same source, same recipe) is
skipped without being fetched, unless its note has `"force": true`. **report** holds what was
planned against what happened.

| a picture that | ends | its note |
|---|---|---|
| is made and verified, or up to date | `done` or `skipped` | is deleted |
| cannot be read, or clashes with another | `quarantined` | is in `quarantine/`, with the reason |
| could not be made or delivered this time | `failed` | stays |

#### What events lose
An upload's event is delivered at most once, so its note may never come. With `reconcile` (on,
unless switched off) a daily run and a run by hand also list `source_prefixes`, the same folders of
the image bucket, and `quarantine/` and `current/` of the process bucket, and take every picture
that has no pyramid in its own folder, or an older one, and is not in quarantine since. Nothing is
looked at one by one: a day that lost nothing costs these listings, one request per 1,000 objects,
and per million pictures some 10 seconds of work (docs/PERFORMANCE.md). A dry run says which were
found, and why. The first run finds everything that never had a pyramid: begin with a dry run,
or with `limit`.

- A folder that a note chose before is kept in `elsewhere/` of the process bucket, and is that of
  later uploads too. Delete its entry there to have the picture's own folder again.
- No note speaks of their copyright: it is known of pictures that had a pyramid, or a note in
  quarantine, before. A picture whose note cannot be read goes to quarantine after its note; it
  is made when the note is mended and moved back.
- What is in quarantine is found again when its source is uploaded anew, and made again by hand
  with `prefix` or `pyramid_rerun`.
- Pictures that would become the same pyramid go to quarantine, naming each other; one whose
  pyramid it is keeps it.
- A picture uploaded again without a change keeps its pyramid. `current/` remembers that; it may be
  emptied at any time, at the cost of one more look at each.
- A pyramid newer than its source counts, whoever made it: those of the old system, with other
  presets or of another recipe, are made again with `prefix` or `force`, not by this.
- S3 dates an upload in parts by its beginning. One that began before its picture's pyramid was
  made, ended after it, and lost its event is not found.
- Where source and image bucket are one, a picture beside an uploaded `.tif` of its name counts as
  made, and `.tif` files are not looked for.

#### To run it again
- **What failed, in the same run**: *Clear* with *only failed*, or
  `airflow dags clear pyramid_tiff --run-id RUN --only-failed -y`. Pictures that are done stay so.
- **What failed, in a new run**: parameter `manifest_uri` = the run's `failed.jsonl`.
- **A day**: `airflow backfill create --dag-id pyramid_tiff --from-date D --to-date D
  --reprocess-behavior completed`: the pictures that changed in that day's data interval, and what
  did not end well in that day's run. What is up to date is skipped. (`failed` in place of
  `completed` passes over days that succeeded with pictures in quarantine.)

The report of a run with pictures that did not end well prints these, ready to paste; a run by hand
has no day, so it prints two.

#### Presets
`legacy`: at most 4000 × 4000 (copyright: 843 wide, 560 high), deflate. `iiif`: full size, JPEG,
sRGB. `lossless`: full size, deflate. What becomes of each kind of picture: `docs/PICTURES.md`.
"""

import pendulum
from airflow.sdk import DAG, CronDataIntervalTimetable

from imageflows.alerts import alerts
from imageflows.operators.batch import BATCH_LABEL
from imageflows.operators.pyramid import (
    PyramidPlanOperator,
    PyramidTiffOperator,
    pyramid_params,
    reconcile_param,
)
from imageflows.operators.report import ReportOperator
from imageflows.params import bucket_params, shared_params
from imageflows.pyramidparams import source_prefixes_param
from imageflows.retry import DEFAULT_ARGS

NEW_YORK = "America/New_York"
BUCKETS = {
    "aws_conn_id": "{{ params.aws_conn_id }}",
    "source_bucket": "{{ params.source_bucket }}",
    "process_bucket": "{{ params.process_bucket }}",
    "image_bucket": "{{ params.image_bucket }}",
}

with DAG(
    "pyramid_tiff",
    # Intervals from one 05:30 to the next: 23 and 25 hours when the clocks change.
    schedule=CronDataIntervalTimetable("30 5 * * *", timezone=NEW_YORK),
    start_date=pendulum.datetime(2026, 1, 1, tz=NEW_YORK),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    **alerts(daily=True),
    doc_md=__doc__,
    tags=["imageflows", "pyramids"],
    params={
        **shared_params(
            prefix="Every picture of the source below this prefix, with or without a note."
        ),
        **reconcile_param(),
        **pyramid_params(),
        **bucket_params("pyramid", "source", "process", "image"),
        **source_prefixes_param(
            "Where a backfill looks for what changed, and reconcile for what events lost."
        ),
    },
) as dag:
    plan = PyramidPlanOperator(task_id="plan", **BUCKETS)
    pyramids = PyramidTiffOperator.partial(
        task_id="pyramid", pool="image_cpu", map_index_template=BATCH_LABEL, **BUCKETS
    ).expand(batch=plan.output)
    pyramids >> ReportOperator(task_id="report")
