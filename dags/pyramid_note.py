"""### Notes of new uploads

Writes a note for every picture that is uploaded, so that the next run of `pyramid_tiff` makes its
pyramid. Runs when messages come: S3 tells an SQS queue of an upload, Airflow's triggerer takes the
messages (up to 50 at a time, every 10 seconds) and starts a run with them.

    upload ──▶ bucket ──▶ SQS ──▶ triggerer ──▶ note ──▶ rbsc/<key>.json ──▶ pyramid_tiff

This DAG is there only where the setting `[imageflows] pyramid_notes_queue` names the queue. How to
set up queue, bucket and rights: `docs/EVENTS.md`.

**note** reads all records of all messages: uploads by Put, Post and in parts (not copies), into the
source bucket, below `source_prefixes`, of files that are pictures by their names. All else is
ignored: the task's log says how many and why, as does its XCom `counts`. Messages that come twice
or in the wrong order change nothing: the newest upload of a key counts, by its `sequencer`.

A message is delivered at most once: it is deleted as soon as it is received. So

- a run that failed is cleared, for its messages are kept with it and nowhere else:
  `airflow dags clear pyramid_note --run-id RUN --only-failed -y`;
- what is lost on the way (a triggerer killed at the wrong moment) is found by the next daily run
  of `pyramid_tiff` (`reconcile`);
- started by hand, it takes those of the last 200 asset events that started no run, also what an
  earlier run by hand took; there are some when it was paused.
"""

from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger
from airflow.sdk import DAG, Asset, AssetWatcher

from imageflows.alerts import alerts
from imageflows.operators.note import PyramidNoteOperator
from imageflows.params import bucket_params, setting
from imageflows.pyramidparams import source_prefixes_param
from imageflows.retry import DEFAULT_ARGS

QUEUE = setting("pyramid_notes_queue", "")

if QUEUE:  # the watcher of a queue that is not there logs an error every two seconds
    uploads = Asset(
        "imageflows_uploads",
        watchers=[
            AssetWatcher(
                name="imageflows_uploads_sqs",
                trigger=MessageQueueTrigger(
                    scheme="sqs",
                    sqs_queue=QUEUE,
                    aws_conn_id=setting("aws_conn_id", "imageflows_s3"),
                    max_messages=10,
                    num_batches=5,
                    # Not waiting for more keeps short the time in which messages that are deleted
                    # already are in the triggerer's memory alone.
                    wait_time_seconds=0,
                    waiter_delay=10,
                ),
            )
        ],
    )

    with DAG(
        "pyramid_note",
        schedule=[uploads],
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        **alerts(),
        doc_md=__doc__,
        tags=["imageflows", "pyramids"],
        params={
            **bucket_params("pyramid", "source", "process"),
            **source_prefixes_param("Uploads below these get a note."),
        },
    ) as dag:
        PyramidNoteOperator(
            task_id="note",
            inlets=[uploads],
            aws_conn_id="{{ params.aws_conn_id }}",
            source_bucket="{{ params.source_bucket }}",
            process_bucket="{{ params.process_bucket }}",
        )
