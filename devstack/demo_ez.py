"""An editorial site's pictures, found in Redis and brought to Riak; and its Redis copied."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

from devstack.demo_runs import DemoRuns
from devstack.ez import EXPECTED, FINDINGS, UPLOADED, forget, seed_ez, stored
from devstack.layout import Layout, State
from devstack.results import outcomes_of


def ez(layout: Layout, state: State, target: Path) -> bool:
    """Run `ez_image_sync` twice, and `redis_copy`.

    Returns:
        Whether everything came out as expected.
    """
    riak = state.url("riak")
    shutil.rmtree(layout.assets, ignore_errors=True)
    forget(state.ports["redis"], riak)
    seed_ez(state.ports["redis"], riak, layout.assets)
    demo = DemoRuns(layout, state, target)
    named = len(EXPECTED) - len(UPLOADED) - 1
    first = demo.run(
        "eZ: the pictures that pages name, and Riak lacks, are stored.",
        "ez_image_sync",
        {},
        done=len(UPLOADED),
        skipped=1,
        quarantined=named,
    )
    outcomes = outcomes_of(first, demo.folder)
    report = json.loads((demo.folder / "report.json").read_text())
    uploaded = set(demo.lines("upload.log"))
    demo.run(
        "The same again: nothing is stored twice.",
        "ez_image_sync",
        {},
        skipped=len(UPLOADED) + 1,
        quarantined=named,
    )
    demo.run("The pages are copied to another Redis.", "redis_copy", {"mode": "copy"}, done=5)
    pictures = target / "riak"
    results = {key: outcome["detail"].get("result") for key, outcome in outcomes.items()}
    facts = {
        "every reference came to what it had to": results == EXPECTED,
        "what is no reference is counted": report["findings"] == FINDINGS,
        "upload.log has what was stored": uploaded == UPLOADED,
        "Riak has those pictures": _save(riak, pictures) == UPLOADED,
    }
    return demo.tell(facts)


def _save(riak: str, folder: Path) -> set[str]:
    """Decode the stored documents into files; the keys of those that are pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = set()
    for key in UPLOADED:
        document = stored(riak, key)
        if document is not None:
            (folder / key).write_bytes(base64.b64decode(json.loads(document)["imageBinary"]))
            saved.add(key)
    return saved
