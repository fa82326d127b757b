"""YAML read with the line of every value, and checked against a JSON schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]

from imagecore.text import printable

Place = tuple[str | int, ...]
"""Where a value is: the keys and indexes that lead to it."""

_KINDS = {
    "string": "text",
    "integer": "a whole number",
    "object": "a mapping (key: value)",
    "array": "a list",
    "null": "empty",
}
_LIMITS = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "minItems": "must have {} or more entries",
    "maxItems": "must have {} or fewer entries",
    "minProperties": "must have {} or more entries",
    "minLength": "must not be empty",
}
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    # 17.0 and true are integers to JSON schema and Python, and not to a reader.
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: type(value) is int
    ),
)


class Document:
    """The YAML file `path`: `data`, and what is wrong with it so far.

    After a fault that leaves nothing to check, `data` is None. Aliases are refused: a few lines
    of them can stand for any amount of data.
    """

    def __init__(self, path: Path) -> None:
        self.data: Any = None
        self._path = path
        self._lines: dict[Place, int] = {}
        self._problems: list[tuple[int, str]] = []
        raw = path.read_bytes()
        try:
            self._read(raw.decode())
        except UnicodeDecodeError as error:
            self._add(
                raw.count(b"\n", 0, error.start) + 1, "this line is not UTF-8: save it as UTF-8"
            )

    @property
    def problems(self) -> list[str]:
        """`file:line: …`, by line."""
        return [f"{printable(self._path)}:{line}: {text}" for line, text in sorted(self._problems)]

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest one around it that has one."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)

    def problem(self, place: Place, text: str) -> None:
        """Note what is wrong at a place; `text` also says what to do."""
        self._add(self.line(place), f"{_shown(place)}: {text}" if place else text)

    def validate(self, schema: Mapping[str, Any]) -> None:
        """Note every violation of `schema`, and drop the top-level entries that have one."""
        if self.data is None and self._problems:
            return
        known = {line for line, _ in self._problems}
        faulty: set[str | int] = set()
        for error in _Validator(schema).iter_errors(self.data):
            for place, text in _violations(error):
                faulty.update(place[:1])
                if self.line(place) not in known:
                    self.problem(place, text)
        if isinstance(self.data, dict):
            self.data = {name: value for name, value in self.data.items() if name not in faulty}

    def _add(self, line: int, text: str) -> None:
        self._problems.append((line, printable(text)))

    def _read(self, text: str) -> None:
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            if node is None:
                self._add(1, "the file is empty")
            else:
                self.data = self._value(loader, node, ())
        except yaml.reader.ReaderError as error:
            self._add(
                text.count("\n", 0, error.position) + 1,
                f"the character {chr(error.character)!r} cannot stand in YAML: remove it",
            )
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = ", ".join(part for part in (error.context, error.problem) if part)
            self._add(mark.line + 1, f"not YAML: {said}")
        except RecursionError:
            self._add(1, "nested too deeply for a style: write it flat")

    def _value(self, loader: yaml.SafeLoader, node: Any, place: Place) -> Any:
        line = node.start_mark.line + 1
        self._lines.setdefault(place, line)
        if isinstance(node, yaml.ScalarNode):
            try:
                return loader.construct_object(node)
            except (yaml.constructor.ConstructorError, ValueError):
                self._add(line, f"{node.value!r} cannot be read: put it in quotes, without a tag")
                return None
        if node.tag not in _PLAIN_TAGS:
            self._add(line, f"the tag {node.tag!r} has no meaning here: remove it")
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, each, (*place, i)) for i, each in enumerate(node.value)]
        return self._mapping(loader, node, place)

    def _mapping(self, loader: yaml.SafeLoader, node: Any, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            child: Place = (*place, key)
            if key_node.tag != "tag:yaml.org,2002:str":
                shown = repr(key) if isinstance(key, str) else "this"
                self._add(line, f"{shown} is no text, and cannot be a key: put it in quotes")
            elif key in values:
                first = self._lines[child]
                self._add(line, f"the key {key!r} is there twice, first in line {first}: keep one")
            else:
                self._lines[child] = line
                values[key] = self._value(loader, value_node, child)
        return values


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(None, None, "an alias (*): write the value out", mark)
        return super().compose_node(parent, index)


def _violations(error: Any) -> Iterator[tuple[Place, str]]:
    """The places and texts of one violation."""
    place: Place = tuple(error.absolute_path)
    rule, value, found = error.validator, error.validator_value, error.instance
    if rule == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        for name in sorted(set(found) - set(known)):
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"
            yield (*place, name), f"there is no such setting: {hint}"
    elif rule == "required":
        for name in value:
            if error.message.startswith(repr(name)):
                yield place, f"{name!r} is missing: add it"
    elif rule == "uniqueItems":
        for index, each in enumerate(found):
            if each in found[:index]:
                yield (*place, index), f"{each!r} is there twice: remove one"
    else:
        name = (found,) if "propertyNames" in error.absolute_schema_path else ()
        yield (*place, *name), _text(rule, value, found, error.schema)


def _text(rule: str, value: Any, found: Any, schema: Mapping[str, Any]) -> str:
    if rule == "type":
        kinds = [value] if isinstance(value, str) else value
        quotes = ": put it in quotes" if "string" in kinds and found is not None else ""
        quotes = "" if isinstance(found, (list, dict)) else quotes
        return f"must be {' or '.join(_KINDS[kind] for kind in kinds)}, not {found!r}{quotes}"
    if rule == "enum":
        return f"{found!r} must be one of {', '.join(value)}"
    if rule == "pattern":
        return f"{found!r} is no name here: {schema['says']}"
    return _LIMITS[rule].format(value) + f", not {found!r}"


def _shown(place: Place) -> str:
    return ".".join(part for part in place if isinstance(part, str))
