"""Pictures uploaded without notes: bucket, queue, notes, pyramids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote_plus

from devstack.api import Api
from devstack.errors import DevstackError
from devstack.layout import Layout, State
from devstack.results import outcomes_of
from devstack.runs import keep, run_dag
from devstack.samples import (
    IMAGE_BUCKET,
    NOTES,
    PROCESS_BUCKET,
    SOURCE_BUCKET,
    client,
    photograph,
)

FOLDER = "collections/ead_xml/images/"
PICTURES = {
    f"{FOLDER}Käse + Brot.jpg": "rocket.jpg",
    f"{FOLDER}left/0001.png": "chelsea.png",
    f"{FOLDER}right/0001.jpg": "retina.jpg",
}
"""A key with all that events escape, and two pictures of one name."""

NO_PICTURE = f"{FOLDER}left/read me.txt"
RUN_SECONDS = 120
TAKEN_SECONDS = 60


def events(layout: Layout, state: State, target: Path) -> bool:
    """Upload pictures and have what the bucket tells of them made into notes, and pyramids.

    Schedules are off in the demo, so `pyramid_note` is started by hand: it takes the messages for
    which no run was started.

    Returns:
        Whether everything came out as expected.
    """
    s3, api = client(state.url("moto")), Api(state.url("airflow"))
    for key in PICTURES:
        s3.delete_object(Bucket=IMAGE_BUCKET, Key=f"{key.rpartition('.')[0]}.tif")
    before = len(_told(api))
    print(
        "\nEvents: pictures are uploaded without notes, and the bucket tells the queue.", flush=True
    )
    for key, name in PICTURES.items():
        s3.put_object(Bucket=SOURCE_BUCKET, Key=key, Body=photograph(name))
    s3.put_object(Bucket=SOURCE_BUCKET, Key=NO_PICTURE, Body=b"two pictures of one name")
    _wait_until_taken(api, before + len(PICTURES) + 1)
    noted = run_dag(layout, state, "pyramid_note", {}, RUN_SECONDS)
    keep(layout, noted, target / "1-pyramid_note")
    counts = api.xcom("pyramid_note", noted.run_id, "note", "counts")
    if counts is None:
        raise DevstackError(f"The run {noted.run_id} of pyramid_note ended {noted.state}.")
    notes = {key for key in PICTURES if _exists(s3, PROCESS_BUCKET, f"{NOTES}{key}.json")}
    made = run_dag(layout, state, "pyramid_tiff", {}, RUN_SECONDS)
    outcomes = outcomes_of(made, keep(layout, made, target / "2-pyramid_tiff"))
    ends = {key: outcomes.get(key, {"state": "missing"})["state"] for key in PICTURES}
    print(_table(notes, ends, counts), flush=True)
    right = notes == set(PICTURES) and set(ends.values()) == {"done"}
    return right and "record: not a picture by its name" in counts["ignored"]


def _told(api: Api) -> list[str]:
    """The messages about the folder that the triggerer has taken from the queue."""
    return [body for body in api.messages() if quote_plus(FOLDER) in body]


def _wait_until_taken(api: Api, messages: int) -> None:
    deadline = monotonic() + TAKEN_SECONDS
    while (taken := len(_told(api))) < messages:
        if monotonic() > deadline:
            raise DevstackError(
                f"Of {messages} messages of the bucket Airflow's triggerer has taken {taken} after "
                f"{TAKEN_SECONDS} seconds. See logs/airflow-triggerer.log below the stack's state."
            )
        sleep(0.5)


def _exists(s3: Any, bucket: str, key: str) -> bool:
    return bool(s3.list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"])


def _table(notes: set[str], ends: Mapping[str, str], counts: Mapping[str, Any]) -> str:
    width = max(map(len, PICTURES))
    lines = ["", f"{'picture':<{width}}  note  pyramid"]
    lines += [f"{key:<{width}}  {'yes' if key in notes else 'NO':<4}  {ends[key]}" for key in ends]
    lines.append(
        "Of {messages} messages with {records} records: {written} notes written, {known} known, "
        "{failed} failed.".format(**counts)
    )
    lines += [f"Ignored: {count} × {reason}" for reason, count in counts["ignored"].items()]
    return "\n".join(lines)
