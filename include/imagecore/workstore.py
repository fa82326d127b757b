"""Where a run keeps what it planned and what became of it: a folder, or a prefix in S3.

    <work>/<dag_id>/<run_id>/
        plan-1-…/manifest.jsonl          the items, sorted, written once
        plan-1-…/plan.json               what was planned, and with which parameters
        plan-1-…/outcomes/0007/…         the outcomes of batch 0007
        report.json outcomes.jsonl failed.jsonl

Every path below the root is made by this project, so obstore serves: it is one interface to
both kinds of store. (It cannot address every S3 key there is, so pictures go through boto3.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from imagecore.errors import InfrastructureError
from imagecore.text import printable


@dataclass(frozen=True)
class WorkStore:
    """A root URL (`file://…` or `s3://connection@bucket/prefix`) and the store that serves it.

    Every method takes a `path` relative to the root, and raises InfrastructureError when the
    store cannot be reached or written; a missing object raises FileNotFoundError.
    """

    url: str
    store: ObjectStore = field(compare=False)

    def put(self, path: str, data: bytes | Path) -> str:
        """Write an object whole (never seen half-written) and return its URI."""
        with self._reaching(path):
            obstore.put(self.store, path, data)
        return self.uri(path)

    def get(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or `length` of them from `offset`, fewer where it ends before."""
        with self._reaching(path):
            if length is None:
                return bytes(obstore.get(self.store, path).bytes())
            try:
                return bytes(obstore.get_range(self.store, path, start=offset, length=length))
            except BaseError:
                if offset < obstore.head(self.store, path)["size"]:
                    raise
                return b""

    def paths(self, folder: str) -> list[str]:
        """Paths of every object below `folder`, sorted."""
        with self._reaching(folder):
            pages = obstore.list(self.store, folder)
            return sorted(entry["path"] for page in pages for entry in page)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly below `folder`, sorted; none where it does not exist."""
        with self._reaching(folder):
            found = obstore.list_with_delimiter(self.store, folder)["common_prefixes"]
            return sorted(path.rpartition("/")[2] for path in found)

    def files(self, folder: str) -> list[str]:
        """Names of the objects directly in `folder`, sorted; none where it does not exist."""
        with self._reaching(folder):
            found = obstore.list_with_delimiter(self.store, folder)["objects"]
            return sorted(entry["path"].rpartition("/")[2] for entry in found)

    def delete(self, paths: list[str]) -> None:
        """Delete objects; one that is gone already is no error."""
        with self._reaching(paths[0] if paths else ""):
            try:
                obstore.delete(self.store, paths)
            except FileNotFoundError:
                for path in paths:
                    with suppress(FileNotFoundError):
                        obstore.delete(self.store, path)

    def uri(self, path: str) -> str:
        """The address of `path` as people and descriptors carry it."""
        return f"{self.url}/{path}"

    @contextmanager
    def _reaching(self, path: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            if isinstance(error, FileNotFoundError) and "<Code>NoSuchBucket<" not in str(error):
                raise
            what = printable(str(error).partition("\n")[0])  # obstore adds its internals below
            raise InfrastructureError(
                f"The work store cannot be used at {self.uri(path)}: {what}. Check the "
                "setting [imageflows] work_store, its connection and its free space."
            ) from error


def local_work_store(url: str) -> WorkStore:
    """The work store of a `file://` URL; its folder is made when missing."""
    folder = Path(unquote(urlsplit(url).path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InfrastructureError(
            f"The work store {url} cannot be made: {error}. Set [imageflows] work_store to a "
            "folder the workers can write to."
        ) from error
    return WorkStore(url.rstrip("/"), LocalStore(os.fspath(folder)))


def run_folder(dag_id: str, run_id: str) -> str:
    """The path of a run below the root. Reversible; no run id can leave its DAG's folder."""
    name = quote(run_id, safe=":+")
    if set(name) == {"."}:
        name = name.replace(".", "%2E")
    return f"{dag_id}/{name}"


def split_uri(uri: str) -> tuple[str, str]:
    """`scheme://…/folder/name` as its folder's URL and the name.

    Raises:
        ValueError: it is not an address of a file in a folder.
    """
    folder, slash, name = uri.rpartition("/")
    if not slash or not name or "://" not in folder:
        raise ValueError(
            f"{uri!r} is not the address of a file, such as s3://conn@bucket/failed.jsonl"
        )
    return folder, name
