"""The child of `imagecore.sandbox`: reads requests, one JSON line each, and answers likewise.

It ends when its parent does. The kernel's parent-death signal cannot be used: it fires when the
*thread* that started the child ends, and threads of a batch come and go.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import itertools
import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

if TYPE_CHECKING:
    from imagecore.composite import CompositeInfo
    from imagecore.compositor import Compositor
    from imagecore.examine import Examined
    from imagecore.ladder import LadderInfo
    from imagecore.layerpicture import LayerInfo
    from imagecore.preview import Preview
    from imagecore.pyramid import PyramidInfo
    from imagecore.viewing import Viewed

_PARENT_CHECK_S = 1.0
_COMPOSITES = 32
"""They take the same memory one after another: to give it back each time costs them a sixth."""


def main() -> None:
    answers = _keep_stdout_for_answers()
    _limit(json.loads(sys.argv[1]))
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    for number in itertools.count():
        request = json.loads(requests.get())
        often = request["make"] != "composite" or not number % _COMPOSITES
        answer = _answer(request)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()
        if often:
            _give_memory_back()
        if not number:
            gc.freeze()  # the modules: looking through them would take longer than a picture


def _give_memory_back() -> None:
    """Return what the last picture took: glibc would keep it, and the next one take more."""
    gc.collect()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in every C library
        if trim is not None:
            trim(0)


def _keep_stdout_for_answers() -> BinaryIO:
    """Whatever a library prints goes to stderr and cannot be taken for an answer."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "wb")


def _limit(limits: dict[str, int | None]) -> None:
    if not sys.platform.startswith("linux"):
        return
    import resource

    # RLIMIT_AS would count what is only mapped, such as libraries and temporary pictures.
    for name, megabytes in (
        (resource.RLIMIT_DATA, limits["memory_mb"]),
        (resource.RLIMIT_FSIZE, limits["file_mb"]),
        (resource.RLIMIT_CORE, 0),
    ):
        if megabytes is not None:
            most = resource.getrlimit(name)[1]
            wanted = megabytes << 20
            value = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
            resource.setrlimit(name, (value, value))


def _read_requests(requests: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


def _watch_parent(parent: int) -> None:
    """Another process may hold the other end of stdin, so its end is not always seen."""
    while os.getppid() == parent:
        threading.Event().wait(_PARENT_CHECK_S)
    os._exit(0)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from imagecore.errors import ImageflowsError

    try:
        return {"info": asdict(_MAKERS[request.pop("make")](request))}
    except (ImageflowsError, MemoryError) as error:
        return {"error": type(error).__name__, "text": str(error)}
    except Exception as error:  # noqa: BLE001 -- the parent reports it, the child goes on
        return {"error": type(error).__name__, "text": f"{type(error).__name__}: {error}"}


def _pyramid(request: dict[str, Any]) -> PyramidInfo:
    from imagecore.picture import allow_only
    from imagecore.pyramid import make_pyramid
    from imagecore.recipe import recipe_from_json

    recipe = recipe_from_json(request["recipe"])
    allow_only(recipe.loaders)
    source, target = Path(request["source"]), Path(request["target"])
    return make_pyramid(source, target, recipe, copyright=request["copyright"])


def _ladder(request: dict[str, Any]) -> LadderInfo:
    from imagecore.ladder import LOADERS, make_ladder
    from imagecore.picture import allow_only

    allow_only(LOADERS)
    source, folder = Path(request["source"]), Path(request["folder"])
    return make_ladder(source, folder, request["kind"], request["name"])


def _layer(request: dict[str, Any]) -> LayerInfo:
    from imagecore.layerpicture import LOADERS, LayerRecipe, make_layer
    from imagecore.picture import allow_only

    allow_only(LOADERS)
    recipe = LayerRecipe(**request["recipe"])
    return make_layer(Path(request["source"]), Path(request["target"]), recipe)


def _composite(request: dict[str, Any]) -> CompositeInfo:
    from imagecore.composite import request_from_json
    from imagecore.compositor import LOADERS
    from imagecore.picture import allow_only

    allow_only(LOADERS)
    folder = Path(request.pop("folder"))
    asked = request_from_json(request)
    return _compositor(asked.cache_mb).make(asked, folder)


@functools.lru_cache(maxsize=1)
def _compositor(cache_mb: float) -> Compositor:
    """One for as long as the child lives, or the cache has this size."""
    from imagecore.compositor import Compositor

    return Compositor(cache_mb)


def _examine(request: dict[str, Any]) -> Examined:
    from imagecore.examine import LOADERS, examine
    from imagecore.picture import allow_only

    allow_only(LOADERS)
    return examine(Path(request["source"]), request["saved"] and Path(request["saved"]))


def _view(request: dict[str, Any]) -> Viewed:
    from imagecore.picture import allow_only
    from imagecore.viewing import LOADERS, view

    allow_only(LOADERS)
    small = request["small"] and Path(request["small"])
    return view(Path(request["source"]), small, request["side"])


def _preview(request: dict[str, Any]) -> Preview:
    from imagecore.picture import allow_only
    from imagecore.preview import LOADERS, make_preview

    allow_only(LOADERS)
    return make_preview(Path(request["source"]), Path(request["target"]), request["side"])


_Info: TypeAlias = (
    "PyramidInfo | LadderInfo | LayerInfo | CompositeInfo | Examined | Viewed | Preview"
)

_MAKERS: dict[str, Callable[[dict[str, Any]], _Info]] = {
    "pyramid": _pyramid,
    "ladder": _ladder,
    "layer": _layer,
    "composite": _composite,
    "examine": _examine,
    "view": _view,
    "preview": _preview,
}


if __name__ == "__main__":
    main()
