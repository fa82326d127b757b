"""Which names are taken: a declared rule, and the reason for each name that is not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

KINDS = ("photos", "menus")
_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class NamingRule:
    """The rule `none` (every name) or `stores`: `stores/{slug}/{photos|menus}/{digits}.jpg`.

    `chains` also takes `chains/` in place of `stores/`, `png` also `.png` in place of `.jpg`.
    All of it is lower case, as in the legacy rule
    `^stores/[^/]+/(photos|menus)/[0-9]+\\.jpg$`.
    """

    rule: str = "none"
    chains: bool = False
    png: bool = False

    def refusal(self, key: str) -> str:
        """Why the rule does not take this key; empty when it does."""
        if self.rule == "none":
            return ""
        roots = ("stores", "chains") if self.chains else ("stores",)
        suffixes = ("jpg", "png") if self.png else ("jpg",)
        parts = key.split("/")
        if parts[0] not in roots:
            return f"it is not below {_or(f'{root}/' for root in roots)}"
        if len(parts) != 4 or not parts[1]:
            return f"it is not {parts[0]}/(store)/({'|'.join(KINDS)})/(number).{suffixes[0]}"
        if parts[2] not in KINDS:
            return f"its folder is neither {' nor '.join(KINDS)}"
        stem, dot, suffix = parts[3].partition(".")
        if not dot or suffix not in suffixes:
            wrong = " (lower case counts)" if suffix.lower() in suffixes else ""
            return f"its extension is not {_or(f'.{name}' for name in suffixes)}{wrong}"
        if not _DIGITS.fullmatch(stem):
            return "its name is not a number"
        return ""


def _or(names: Iterable[str]) -> str:
    return " or ".join(names)
