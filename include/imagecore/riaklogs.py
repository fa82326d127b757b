"""The logs of the legacy script, from a run's outcomes."""

from __future__ import annotations

from pathlib import Path

from imagecore.report import reported
from imagecore.riaksync import HASH_MISMATCH, MISSING, UPLOADED
from imagecore.text import printable
from imagecore.workstore import WorkStore

_LEGACY = {
    MISSING: "ERROR - Error could not find match for {key}",
    HASH_MISMATCH: "WARNING - Error could not match hashes of {key}",
}


def write_logs(store: WorkStore, outcomes: str, folder: Path) -> dict[str, Path]:
    """Write `upload.log` and `error.log` into `folder`; both are there also when empty.

    `upload.log`: the key of each picture that Riak has confirmed, one a line. `error.log`:
    `LEVEL - message`, in the legacy script's words where it had any.
    """
    paths = {name: folder / name for name in ("upload.log", "error.log")}
    with (
        paths["upload.log"].open("w", encoding="utf-8") as uploads,
        paths["error.log"].open("w", encoding="utf-8") as errors,
    ):
        for outcome in reported(store, outcomes):
            key, result = _line(outcome["key"]), outcome["detail"].get("result")
            if result == UPLOADED:
                uploads.write(f"{key}\n")
            elif outcome["state"] in ("failed", "quarantined"):
                usual = "ERROR - {key}: {reason}"
                text = _LEGACY.get(result, usual)
                errors.write(f"{text.format(key=key, reason=outcome['reason'])}\n")
    return paths


def _line(key: str) -> str:
    """The bare key, unless it would not be one line of UTF-8."""
    whole = key.splitlines() == [key] and key.encode(errors="ignore").decode() == key
    return key if whole else printable(key)
