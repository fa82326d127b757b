"""The two requests a sync makes most, HEAD and a small PUT, at a tenth of botocore's cost.

botocore takes some 1.1 ms of CPU a request, obstore 0.1 (`python -m bench sync-copy`). obstore
cannot address every key, so this is for plain keys only; and whatever it cannot answer with
certainty is asked again through boto3, whose errors and retries then count.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*", re.ASCII)
"""Keys that obstore sends as they are: no empty segment, none that begins with a dot, and no
character that needs escaping."""


class Seen(NamedTuple):
    """An object in passing: its ETag, whatever that is made of, and its size in bytes."""

    version: str
    size: int


class NotSure(Exception):
    """Ask through boto3."""


class Refused(Exception):
    """The condition does not hold."""


def head(store: S3Store | None, key: str) -> Seen | None:
    """What is at `key`, None where nothing is.

    Raises:
        NotSure: it could not be found out here.
    """
    try:
        found = obstore.head(_sure(store, key), key)
    except FileNotFoundError:
        return None
    except BaseError as error:
        raise NotSure from error
    return Seen(_etag(found["e_tag"]), found["size"])


def put(
    store: S3Store | None,
    key: str,
    data: bytes,
    content_type: str,
    expected: str | None,
    conditional: bool,
) -> str:
    """Write a small object in one request, and return its ETag.

    Parameters:
        expected: the ETag of what is to be replaced, or None where there must be nothing.
        conditional: whether to make that the request's condition.

    Raises:
        Refused: something else is there.
        NotSure: it is not known to be written.
    """
    mode = "overwrite" if not conditional else {"e_tag": f'"{expected}"'} if expected else "create"
    try:
        answer = obstore.put(
            _sure(store, key),
            key,
            data,
            attributes={"Content-Type": content_type},
            mode=mode,  # type: ignore[arg-type]
            use_multipart=False,
        )
    except (AlreadyExistsError, PreconditionError) as error:
        raise Refused from error
    except (BaseError, OSError) as error:
        raise NotSure from error
    return _etag(answer["e_tag"])


def _sure(store: S3Store | None, key: str) -> S3Store:
    if store is None or not _PLAIN.fullmatch(key):
        raise NotSure
    return store


def _etag(found: str | None) -> str:
    if not found:
        raise NotSure
    return found.strip('"')
