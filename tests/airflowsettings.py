"""Which settings this version of Airflow and the installed providers know."""

from __future__ import annotations

from typing import Any

from airflow.configuration import conf

OURS = "imageflows"


def described(section: str, key: str) -> dict[str, Any]:
    """What Airflow says of a setting; `key` may end in _cmd or _secret where that is allowed.

    Raises:
        AssertionError: it is not known, or is no longer called that.
    """
    for ending in ("_cmd", "_secret"):
        plain = key.removesuffix(ending)
        if plain != key and (section, plain) in conf.sensitive_config_values:
            key = plain
    options = conf.configuration_description.get(section, {}).get("options", {})
    assert key in options, f"Airflow does not know [{section}] {key}"
    renamed = {old[:2]: new for new, old in conf.deprecated_options.items()}
    assert (section, key) not in renamed, f"[{section}] {key} is now {renamed[section, key]}"
    option: dict[str, Any] = options[key]
    assert not option.get("version_deprecated"), f"[{section}] {key} is deprecated"
    return option


def refuse_wrong_type(option: dict[str, Any], value: str) -> None:
    """A value that Airflow would stumble over when it reads it.

    Raises:
        ValueError: it is no number; AssertionError: it is neither yes nor no.
    """
    if option["type"] in ("integer", "float"):
        {"integer": int, "float": float}[option["type"]](value)
    elif option["type"] == "boolean":
        assert value.lower() in {"true", "false"}, value
