"""Decode pictures nobody vouches for in a child process that may crash, hang or overeat."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NoReturn

from imagecore import errors
from imagecore.composite import CompositeImage, CompositeInfo, CompositeRequest, request_to_json
from imagecore.errors import ImageflowsError, ItemFailed, UnreadableImage
from imagecore.examine import Examined
from imagecore.ladder import LadderImage, LadderInfo
from imagecore.layerpicture import LayerInfo, LayerRecipe
from imagecore.layout import VerificationFailed
from imagecore.parts import remove_parts
from imagecore.preview import Preview
from imagecore.pyramid import PyramidInfo
from imagecore.recipe import Recipe, recipe_to_json
from imagecore.viewing import Viewed

# Of a picture. SIGILL, SIGBUS and SIGSYS would speak of the machine.
_CRASHES = {"SIGSEGV", "SIGABRT", "SIGTRAP", "SIGFPE"}
_OUT_OF_MEMORY = ("failed to allocate", "out of memory", "bad_alloc", "memoryerror")
_KEPT_STDERR = 8192
_INCLUDE = Path(__file__).resolve().parents[1]
# Everything else of our environment stays here: it may hold credentials.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_CLASSES: dict[str, type[ImageflowsError]] = {
    **{
        name: each
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, ImageflowsError)
    },
    "VerificationFailed": VerificationFailed,
}


class PictureWorker:
    """One child process that decodes pictures, one after another; for use by one thread.

    After a crash, a timeout or an exhausted limit the next picture starts a new child.

    :param temp_dir: where the child keeps temporary files, in a folder of its own that is
        removed with it
    :param timeout_s: seconds one picture may take
    :param memory_mb: most memory of the child in MB (Linux)
    :param file_mb: most size of one file the child writes in MB, or None
    """

    def __init__(
        self,
        *,
        temp_dir: Path,
        timeout_s: float,
        memory_mb: int,
        file_mb: int | None,
    ) -> None:
        self._temp_dir = temp_dir
        self._timeout_s = timeout_s
        self._limits = {"memory_mb": memory_mb, "file_mb": file_mb}
        self._child: subprocess.Popen[bytes] | None = None
        self._own_temp: Path | None = None
        self._stderr = b""

    def __enter__(self) -> PictureWorker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, or None while there is none."""
        return self._child.pid if self._child else None

    def make_pyramid(
        self, source: Path, target: Path, recipe: Recipe, *, copyright: bool = False
    ) -> PyramidInfo:
        """As `pyramid.make_pyramid`, in the child.

        Raises:
            UnreadableImage: also when the decoder crashed.
            ItemFailed: also when time or memory ran out.
            DiskFull: no space left beside `target` or in the temporary folder.
        """
        request = {
            "source": os.path.abspath(source),
            "target": os.path.abspath(target),
            "recipe": recipe_to_json(recipe),
            "copyright": copyright,
        }
        info = self._ask("pyramid", request, target.parent)
        return PyramidInfo(**{**info, "notes": tuple(info["notes"])})

    def make_ladder(self, source: Path, folder: Path, kind: str, name: str) -> LadderInfo:
        """As `ladder.make_ladder`, in the child.

        Raises:
            UnreadableImage: also when the decoder crashed.
            ItemFailed: also when time or memory ran out.
            InfrastructureError: a watermark cannot be used.
            DiskFull: no space left in `folder` or in the temporary folder.
        """
        request = {
            "source": os.path.abspath(source),
            "folder": os.path.abspath(folder),
            "kind": kind,
            "name": name,
        }
        info = self._ask("ladder", request, folder)
        images = tuple(LadderImage(**each) for each in info["images"])
        lists = {"widths": tuple(info["widths"]), "notes": tuple(info["notes"])}
        return LadderInfo(**{**info, **lists, "images": images})

    def make_layer(self, source: Path, target: Path, recipe: LayerRecipe) -> LayerInfo:
        """As `layerpicture.make_layer`, in the child.

        Raises:
            UnreadableImage: also when the decoder crashed.
            ItemFailed: also when time or memory ran out.
            DiskFull: no space left beside `target` or in the temporary folder.
        """
        request = {
            "source": os.path.abspath(source),
            "target": os.path.abspath(target),
            "recipe": asdict(recipe),
        }
        info = self._ask("layer", request, target.parent)
        return LayerInfo(**{**info, "notes": tuple(info["notes"])})

    def make_composite(self, request: CompositeRequest, folder: Path) -> CompositeInfo:
        """As `compositor.Compositor.make`, in the child, which keeps its cache for the next one.

        Raises:
            UnreadableImage: also when the decoder crashed.
            ItemRefused: the layers do not belong together.
            ItemFailed: also when time or memory ran out.
            DiskFull: no space left in `folder` or in the temporary folder.
        """
        sent = {**request_to_json(request), "folder": os.path.abspath(folder)}
        info = self._ask("composite", sent, folder)
        images = tuple(CompositeImage(**each) for each in info["images"])
        return CompositeInfo(**{**info, "images": images, "notes": tuple(info["notes"])})

    def examine(self, source: Path, saved: Path | None = None) -> Examined:
        """As `examine.examine`, in the child; `saved` in the folder of `source`.

        Raises:
            UnreadableImage: also when the decoder crashed.
            ItemFailed: also when time or memory ran out.
        """
        request = {
            "source": os.path.abspath(source),
            "saved": saved and os.path.abspath(saved),
        }
        return Examined(**self._ask("examine", request, source.parent))

    def view(self, source: Path, small: Path | None = None, side: int = 0) -> Viewed:
        """As `viewing.view`, in the child; `small` in the folder of `source`.

        Raises:
            UnreadableImage: also when the decoder crashed.
            ItemFailed: also when time or memory ran out.
            DiskFull: no space left for `small`.
        """
        request = {
            "source": os.path.abspath(source),
            "small": small and os.path.abspath(small),
            "side": side,
        }
        return Viewed(**self._ask("view", request, source.parent))

    def preview(self, source: Path, target: Path, side: int) -> Preview:
        """As `preview.make_preview`, in the child.

        Raises:
            UnreadableImage: also when the decoder crashed.
            ItemFailed: also when time or memory ran out.
            DiskFull: no space left for `target`.
        """
        request = {
            "source": os.path.abspath(source),
            "target": os.path.abspath(target),
            "side": side,
        }
        return Preview(**self._ask("preview", request, target.parent))

    def _ask(self, make: str, request: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Have the child make something in `folder`; returns its description."""
        deadline = time.monotonic() + self._timeout_s
        child = self._child or self._start()
        try:
            line = self._exchange(child, {"make": make, **request}, deadline)
        except TimeoutError:
            self._discard(folder)
            raise ItemFailed(f"took longer than {self._timeout_s:g} s and was stopped") from None
        except BaseException:
            self._discard(folder)
            raise
        if line is None:
            self._explain_death(folder)
        return self._read_answer(line)

    def close(self) -> None:
        """End the child and remove its temporary files; a later picture starts a new one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
        if self._own_temp is not None:
            shutil.rmtree(self._own_temp, ignore_errors=True)
            self._own_temp = None

    def _start(self) -> subprocess.Popen[bytes]:
        self._own_temp = Path(tempfile.mkdtemp(prefix="picture-", dir=self._temp_dir))
        self._stderr = b""
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {
            "PYTHONPATH": str(_INCLUDE),
            "TMPDIR": str(self._own_temp.resolve()),
            "VIPS_CONCURRENCY": "1",  # a batch makes several pictures at once instead
            "OPENBLAS_NUM_THREADS": "1",
            "NUMPY_MADVISE_HUGEPAGE": "0",  # clearing them takes a fifth of a composite's time
            "MALLOC_ARENA_MAX": "2",  # glibc keeps freed pixels in an arena for each thread
        }
        self._child = subprocess.Popen(
            [sys.executable, "-m", "imagecore.sandbox_child", json.dumps(self._limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=_INCLUDE,
            bufsize=0,
        )
        return self._child

    def _exchange(
        self, child: subprocess.Popen[bytes], request: dict[str, Any], deadline: float
    ) -> bytes | None:
        """Send one request; returns the answer's line, or None when the child ended instead."""
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            return None
        answer = b""
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdout, selectors.EVENT_READ, "answer")
            ready.register(child.stderr, selectors.EVENT_READ, "stderr")
            while not answer.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                for key, _ in ready.select(left):
                    data = os.read(key.fd, 65536)
                    if key.data == "stderr":
                        self._stderr = (self._stderr + data)[-_KEPT_STDERR:]
                    elif data:
                        answer += data
                    else:
                        return None
                    if not data:
                        ready.unregister(key.fileobj)
        return answer

    def _discard(self, folder: Path) -> None:
        """End the child and remove what it may have left, also in the folder of its result."""
        pid = self.pid
        self.close()
        remove_parts(folder, pid)

    def _explain_death(self, folder: Path) -> NoReturn:
        assert self._child is not None
        assert self._child.stderr is not None
        code = self._child.wait()
        os.set_blocking(self._child.stderr.fileno(), False)
        self._stderr = (self._stderr + (self._child.stderr.read() or b""))[-_KEPT_STDERR:]
        said = self._stderr.decode(errors="replace").strip()
        self._discard(folder)
        name = _signal_name(-code) if code < 0 else f"exit code {code}"
        hint = f": {said.splitlines()[-1][:300]}" if said else ""
        if any(words in said.lower() for words in _OUT_OF_MEMORY):
            raise ItemFailed(f"more memory was needed than {self._limits['memory_mb']} MB ({name})")
        if name in _CRASHES:
            raise UnreadableImage(f"the decoder crashed ({name}){hint}")
        if name == "SIGKILL":
            raise ItemFailed("the worker was killed (SIGKILL), probably for lack of memory")
        raise ItemFailed(f"the worker ended unexpectedly ({name}){hint}")

    def _read_answer(self, line: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(line)
        if "info" in answer:
            info: dict[str, Any] = answer["info"]
            return info
        if answer["error"] == "MemoryError":
            self.close()
            raise ItemFailed(f"more memory was needed than {self._limits['memory_mb']} MB")
        raise _CLASSES.get(answer["error"], ItemFailed)(answer["text"])


@contextmanager
def picture_workers(
    count: int, *, temp_dir: Path, timeout_s: float, memory_mb: int, file_mb: int | None
) -> Iterator[SimpleQueue[PictureWorker]]:
    """So many workers, for threads that take one and put it back; all end at the end.

    Parameters: as for PictureWorker.
    """
    workers: SimpleQueue[PictureWorker] = SimpleQueue()
    with ExitStack() as stack:
        for _ in range(count):
            worker = PictureWorker(
                temp_dir=temp_dir, timeout_s=timeout_s, memory_mb=memory_mb, file_mb=file_mb
            )
            workers.put(stack.enter_context(worker))
        yield workers


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
