"""The three ways a piece of work can go wrong, told apart by what to do next."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class ImageflowsError(Exception):
    """Base of every error this project raises on purpose; its text is for a person."""


class ItemRefused(ImageflowsError):
    """The item itself is bad: trying again changes nothing. Its outcome is `quarantined`."""


class UnreadableImage(ItemRefused):
    """The picture is damaged, or of a kind the recipe refuses."""


class ItemFailed(ImageflowsError):
    """This item could not be done now, others can. Its outcome is `failed`.

    `detail` is what had been done of it all the same, for the outcome.
    """

    detail: Mapping[str, Any] = MappingProxyType({})


class InfrastructureError(ImageflowsError):
    """No item can be done until something outside is mended: the task stops and is retried."""


class DiskFull(InfrastructureError):
    """The temporary folder or the work store has no space left."""


class PlanRefused(ImageflowsError):
    """The plan is not carried out: a parameter is wrong, or what it asks for is missing."""
