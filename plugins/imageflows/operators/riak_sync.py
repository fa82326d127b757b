"""eZ's images: the assets made ready for all batches, each reference brought to Riak, the logs."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Param

from imagecore.errors import PlanRefused
from imageflows.operators.batch import ImageBatchOperator
from imageflows.operators.report import ReportOperator, commands
from imageflows.params import conn_param, setting
from imageflows.sides import inside
from imageflows.work import folder_of_run, work_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from imagecore.batch import Process
    from imagecore.workstore import WorkStore

INDEX = "assets.sqlite"
UNPACKED = ".imageflows-unpacked"


def assets_root() -> str:
    """The folder of `[imageflows] assets_root`: all that may be read of assets."""
    return setting("assets_root", "/srv/imageflows/assets").rstrip("/")


def riak_sync_params() -> dict[str, Param]:
    """Where pictures come from, where they go, and as what."""
    return {
        "assets": Param(
            None,
            type=["null", "string"],
            pattern=r"^(s3://[^/]+/.+|([^/].*)?)$",
            title="Assets",
            description="A folder or a tar archive below [imageflows] assets_root of airflow.cfg, "
            "or an archive s3://bucket/key. Empty: all of that folder.",
            section="Where",
        ),
        **conn_param(
            "assets_conn_id",
            "Connection of the assets",
            "The Airflow connection to S3, for an archive there.",
            installed="assets_conn_id",
            default="imageflows_s3",
        ),
        **conn_param(
            "riak_conn_id",
            "Riak connection",
            "The Airflow connection of type riak.",
            installed="riak_conn_id",
            default="imageflows_riak",
        ),
        "riak_bucket": Param(
            setting("riak_bucket", "ez"),
            type="string",
            minLength=1,
            title="Riak bucket",
            description="Default: [imageflows] riak_bucket in airflow.cfg.",
            section="Where",
        ),
        "payload": Param(
            "original",
            type="string",
            enum=["original", "reencode"],
            title="Payload",
            description="original: the file's own bytes. reencode: decoded and saved again, as "
            "the legacy script did, which loses quality and metadata.",
            section="What to do",
        ),
    }


class AssetsOperator(BaseOperator):
    """Makes the assets ready: unpacks an archive, and writes one index of all files.

    Returns what RiakAdlerSyncOperator and RemoveAssetsOperator need: the `folder` of the files,
    the `index` in the work store, and the folder `unpacked`, if any; None in a dry run. Workers
    must share `[imageflows] assets_root`; the index goes through the work store.
    """

    def execute(self, context: Context) -> dict[str, str | None] | None:
        from imagecore.assets import build_index
        from imagecore.tempspace import disk_errors, removed_on_error, temp_space

        params = context["params"]
        root = Path(assets_root()).resolve()
        unpacked = root / UNPACKED / hashlib.sha256(folder_of_run(context).encode()).hexdigest()
        shutil.rmtree(unpacked, ignore_errors=True)  # of an earlier try
        if params["mode"] == "dryrun":
            return None
        with removed_on_error(unpacked), temp_space() as temp, disk_errors(temp):
            folder = self._folder(params, root, unpacked, temp)
            index = temp / INDEX
            indexed = build_index(folder, index, leave_out=UNPACKED)
            if not indexed.files:
                raise PlanRefused(
                    f"There is no file in {folder}: is the drive mounted, and `assets` right?"
                )
            path = f"{folder_of_run(context)}/{INDEX}"
            work_store().put(path, index)
        self.log.info(
            "Indexed %d files of %s; left out %d links and special files",
            indexed.files,
            folder,
            indexed.left_out,
        )
        was_unpacked = str(unpacked) if unpacked.exists() else None
        return {"folder": str(folder), "index": path, "unpacked": was_unpacked}

    def _folder(self, params: dict[str, Any], root: Path, unpacked: Path, temp: Path) -> Path:
        from imagecore.archive import unpack

        assets = params["assets"] or ""
        if assets.startswith("s3://"):
            archive = self._fetched(assets, params["assets_conn_id"], temp)
        else:
            archive = inside(root / assets, assets_root())
            if archive.is_dir():
                return archive
            if not archive.is_file():
                raise PlanRefused(f"There are no assets {archive}: correct `assets`, or mount it.")
        found = unpack(archive, unpacked)
        self.log.info(
            "Unpacked %d files, %d bytes; left out %d links",
            found.files,
            found.bytes,
            found.links_left_out,
        )
        top = unpacked / "assets"
        return top if top.is_dir() and list(unpacked.iterdir()) == [top] else unpacked

    def _fetched(self, address: str, conn_id: str, temp: Path) -> Path:
        from imagecore.s3 import Bucket
        from imageflows.hooks.s3 import refused_when_unusable, s3_client

        bucket_name, _, key = address.removeprefix("s3://").partition("/")
        with refused_when_unusable(conn_id):
            bucket = Bucket(bucket_name, s3_client(conn_id, connections=1))
            bucket.check()
        archive = temp / "archive"
        bucket.fetch(bucket.head(key), archive)
        return archive


class RemoveAssetsOperator(BaseOperator):
    """Removes what AssetsOperator unpacked, and its index.

    :param assets: what AssetsOperator returned. (templated)
    """

    template_fields = ("assets",)

    def __init__(self, *, assets: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.assets = assets

    def execute(self, context: Context) -> None:
        if self.assets is None:
            return
        if self.assets["unpacked"]:
            with suppress(FileNotFoundError):
                shutil.rmtree(self.assets["unpacked"])
        work_store().delete([self.assets["index"]])


class RiakAdlerSyncOperator(ImageBatchOperator):
    """Brings the references of a batch to Riak: those that are there are skipped, the others are
    looked for in the assets by exact name and hash, encoded, stored, and compared.

    A reference without exactly one matching file is quarantined with its reason.

    :param assets: what AssetsOperator returned. (templated)
    :param riak_conn_id: the connection of type riak. (templated)
    :param riak_bucket: the bucket. (templated)
    :param makers: how many pictures are decoded at once.
    :param timeout_s: seconds one may take.
    :param memory_mb: MB that one may take.
    """

    template_fields = ("assets", "riak_conn_id", "riak_bucket")

    def __init__(
        self,
        *,
        assets: Any,
        riak_conn_id: str,
        riak_bucket: str,
        threads: int = 8,
        makers: int = 1,
        timeout_s: float = 120,
        memory_mb: int = 1_024,
        **kwargs: Any,
    ) -> None:
        super().__init__(threads=threads, **kwargs)
        self.assets = assets
        self.riak_conn_id = riak_conn_id
        self.riak_bucket = riak_bucket
        self.makers = makers
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb

    @contextmanager
    def processor(self, context: Context) -> Iterator[Process]:
        from imagecore.assets import AssetIndex, build_index
        from imagecore.riaksync import RiakImages
        from imagecore.sandbox import picture_workers
        from imagecore.tempspace import temp_space
        from imageflows.hooks.riak_hook import RiakHook

        with closing(RiakHook(self.riak_conn_id).get_conn()) as client, temp_space() as temp:
            bucket = client.bucket(self.riak_bucket)
            keeps_siblings = bool(bucket.properties().get("allow_mult"))
            file = temp / INDEX
            try:
                file.write_bytes(work_store().get(self.assets["index"]))
            except FileNotFoundError as error:  # cleared after the teardown
                if self.assets["unpacked"]:
                    raise PlanRefused(
                        "The unpacked assets were removed when the run ended: clear the whole run, "
                        "not only what failed. What is in Riak is skipped."
                    ) from error
                build_index(Path(self.assets["folder"]), file, leave_out=UNPACKED)
            limits = {"timeout_s": self.timeout_s, "memory_mb": self.memory_mb, "file_mb": None}
            with (
                AssetIndex(file) as index,
                picture_workers(self.makers, temp_dir=temp, **limits) as workers,  # type: ignore[arg-type]
            ):
                yield RiakImages(
                    bucket,
                    Path(self.assets["folder"]),
                    index,
                    workers,
                    temp,
                    payload=context["params"]["payload"],
                    keeps_siblings=keeps_siblings,
                    force=context["params"]["force"],
                ).process


class RiakReportOperator(ReportOperator):
    """The report, with the two logs of the legacy script: `upload.log` has the keys that were
    stored, `error.log` a line for each that has no picture in Riak."""

    def commands(self, context: Context, failed_uri: str) -> list[str]:
        """An unpacked archive was removed when the run ended, so that only all of it can be
        cleared."""
        assets = context["ti"].xcom_pull(task_ids="assets")
        return commands(context, failed_uri, whole_run=bool(assets and assets["unpacked"]))

    def write_lists(self, store: WorkStore, run: str) -> None:
        from imagecore.riaklogs import write_logs

        with tempfile.TemporaryDirectory(prefix="imageflows-logs-") as folder:
            for name, path in write_logs(store, f"{run}/outcomes.jsonl", Path(folder)).items():
                store.put(f"{run}/{name}", path)
