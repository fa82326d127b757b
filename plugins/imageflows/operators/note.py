"""Notes of uploads, from the events that S3 sends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from imagecore.errors import InfrastructureError, ItemFailed
from imagecore.text import printable
from imageflows.params import refuse_unknown

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.s3 import Bucket
    from imagecore.s3events import Upload

LATE_EVENTS = 200
"""How many asset events that no run has taken are taken at once; each holds some messages."""

NAMED = 10
"""How many notes that could not be written an error names."""


class PyramidNoteOperator(BaseOperator):
    """Writes a note for every picture that the run's asset events say was uploaded.

    Which uploads count: the run's parameter `source_prefixes`. Everything else in the messages is
    ignored, with a count by its reason. Done twice, it changes nothing.

    To the run's own events come those that no run has: a run by hand has only them. So the asset
    must be one of the task's `inlets`.

    XCom `counts`: `messages`, `records`, `written`, `known` (a note, or another record of the
    run, is of the same upload or of a newer one), `failed`, and `ignored` by reason. Records that
    are not ignored are written, known or failed.

    Raises PlanRefused when the process bucket cannot be used, and InfrastructureError when notes
    could not be written, after all others were: the next try writes them.

    :param aws_conn_id: connection to S3. (templated)
    :param source_bucket: where pictures are uploaded. (templated)
    :param process_bucket: where notes lie, below `rbsc/`. (templated)
    :param threads: how many notes are written at once.
    """

    template_fields = ("aws_conn_id", "source_bucket", "process_bucket")

    def __init__(
        self,
        *,
        aws_conn_id: str,
        source_bucket: str,
        process_bucket: str,
        threads: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.source_bucket = source_bucket
        self.process_bucket = process_bucket
        self.threads = threads

    def execute(self, context: Context) -> None:
        from imagecore.s3events import read_events

        refuse_unknown(context["dag_run"].conf, context["dag"].params)
        prefixes = context["params"]["source_prefixes"]
        events = read_events(_bodies(_asset_events(context)), self.source_bucket, prefixes)
        written, failed = self._write(events.newest())
        counts = {
            "messages": events.messages,
            "records": events.records,
            "written": written,
            "known": len(events.uploads) - written - len(failed),
            "failed": len(failed),
            "ignored": dict(events.ignored),
        }
        context["ti"].xcom_push(key="counts", value=counts)
        self._tell(counts)
        if failed:
            raise InfrastructureError(
                f"{len(failed)} notes could not be written: {'; '.join(failed[:NAMED])}. The next "
                "try writes them; if there is none left, clear this task when it is mended."
            )

    def _write(self, uploads: list[Upload]) -> tuple[int, list[str]]:
        """Write their notes; how many were, and why others could not be."""
        from imagecore.s3 import ServerFault

        if not uploads:
            return 0, []
        process = self._checked_bucket()

        def write(upload: Upload) -> bool | str:
            try:
                return _write_note(process, upload)
            except (ItemFailed, ServerFault) as error:
                return printable(error)

        with ThreadPoolExecutor(self.threads) as pool:
            done = list(pool.map(write, uploads))  # what is raised cancels those not begun
        return done.count(True), [each for each in done if isinstance(each, str)]

    def _checked_bucket(self) -> Bucket:
        """The process bucket, which can be used: a wrong name is not worth another try."""
        from imagecore.s3 import Bucket
        from imageflows.hooks.s3 import refused_when_unusable, s3_client

        with refused_when_unusable(self.aws_conn_id):
            client = s3_client(self.aws_conn_id, connections=self.threads)
            bucket = Bucket(self.process_bucket, client)
            bucket.check()
        return bucket

    def _tell(self, counts: dict[str, Any]) -> None:
        if not counts["messages"]:
            self.log.info("No messages: there are none that no run has taken.")
        self.log.info(
            "%d messages, %d records: %d notes written, %d known, %d failed, %d ignored",
            *(counts[name] for name in ("messages", "records", "written", "known", "failed")),
            sum(counts["ignored"].values()),
        )
        for reason, count in sorted(counts["ignored"].items()):
            self.log.info("Ignored: %d × %s", count, reason)


def _write_note(process: Bucket, upload: Upload) -> bool:
    from imagecore.notes import write_note

    return write_note(process, upload.key, etag=upload.etag, sequencer=upload.sequencer)


def _asset_events(context: Context) -> list[Any]:
    """The run's events, and those that no run has.

    Airflow 3.3.2 gives a run the events until the first one that waits for it. What came between
    that one and the run's making has no run, and would wait for the next upload; so has what came
    while the DAG was paused.
    """
    triggering = list(chain.from_iterable(context["triggering_asset_events"].values()))
    inlets = context["inlet_events"]
    late: list[Any] = []
    for asset in inlets:
        events = inlets[asset].limit(LATE_EVENTS)
        if triggering:
            events = events.after(max(event.timestamp for event in triggering).isoformat())
        else:
            events = events.ascending(False)
        late += [event for event in events if not _is_taken(event, context["dag_run"].dag_id)]
    return triggering + sorted(late, key=lambda event: event.timestamp)


def _is_taken(event: Any, dag_id: str) -> bool:
    return any(run.dag_id == dag_id for run in event.created_dagruns)


def _bodies(events: Iterable[Any]) -> Iterator[Any]:
    """The bodies of all messages. An event that a person made may hold anything."""
    for event in events:
        payload = event.extra.get("payload")
        batch = payload.get("message_batch") if isinstance(payload, dict) else None
        for message in batch if isinstance(batch, list) else ():
            yield message.get("Body") if isinstance(message, dict) else None
