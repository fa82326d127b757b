"""Which file each layer of a style is in each colour, by the legacy search rule.

For each code the first search directory with any `**/<code>_*.png` wins, and for each default
layer the first that has it. Names are compared without regard to case; a folder whose name
begins with a dot is not searched.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from imagecore.renderstyle import Style, parse_base
from imagecore.sides import Entry, Side
from imagecore.stacks import layer_file
from imagecore.text import printable

_FILE = re.compile(r"(.+)_([0-9]{4})\.png", re.DOTALL)
_NO_COLOUR = "is left out: its name does not end in _<4-digit colour>.png"
_COLOUR = re.compile(r"[0-9]{4}\.[^.]+")
_COLOURED = re.compile(r".+_[0-9]{4}\.[^.]+", re.DOTALL)


class LayerFile(NamedTuple):
    """The file of one layer in one colour; `folder` is the search directory it was found in."""

    base: str
    colour: int
    folder: str
    entry: Entry


class Remark(NamedTuple):
    """Something a person should know: `name` is a key, a search directory or a layer."""

    name: str
    text: str


@dataclass(frozen=True)
class LayerIndex:
    """What there is of a style's layers.

    `files` has the layers by base name and colour. `refused` says of a base name and colour why
    none of its files is taken. `absent` are, for each base name that the style or a folder
    names, the colours without any file; a base name whose colours are complete is not in it.
    `without_files` are the codes that no search directory has. `folders` says which search
    directory was taken for each code, and for each base name that begins with none.
    """

    files: Mapping[str, Mapping[int, LayerFile]]
    refused: Mapping[tuple[str, int], str]
    absent: Mapping[str, tuple[int, ...]]
    without_files: tuple[str, ...]
    folders: Mapping[str, str]
    remarks: tuple[Remark, ...]

    @property
    def colours(self) -> dict[str, set[int]]:
        """The colours of each base name that has any."""
        return {base: set(found) for base, found in self.files.items()}


def output_key(base: str, colour: int) -> str:
    """Where a layer lies below a style's prefix.

    >>> output_key("t13_neckline_front", 3)
    't13/t13_neckline_front_0003.png'
    """
    return f"{base.partition('_')[0]}/{layer_file(base, colour)}"


def layer_of(name: str) -> tuple[str, int] | None:
    """The base name and colour of a layer file's name; None: it is none.

    >>> layer_of("T13_Neckline_front_0003.PNG")
    ('t13_neckline_front', 3)
    """
    found = _FILE.fullmatch(name.lower())
    return (found.group(1), int(found.group(2))) if found else None


def is_hidden(folders: Sequence[str]) -> bool:
    """Whether layers below such folders are not looked for, as programs keep them there."""
    return any(folder.startswith(".") for folder in folders)


def index_layers(style: Style, side: Side, also: Collection[str] = ()) -> LayerIndex:
    """Look through a style's search directories below `side`.

    Holds memory in proportion to the style's own files, whatever else lies there.

    Parameters:
        also: base names that combination files use; they may be built in any way.

    Raises:
        PlanRefused: there is no such folder.
        InfrastructureError: the listing would not be whole.
    """
    search = _Search(style, side, also)
    for number in range(len(style.search)):
        search.look(number)
    return search.index()


class _Search:
    """The search under way. A *subject* is what a file is looked for by: its code, or the whole
    base name where that begins with no code."""

    def __init__(self, style: Style, side: Side, also: Collection[str]) -> None:
        self._style = style
        self._side = side
        defaults = (
            base
            for sides in style.defaults.values()
            for layers in sides.values()
            for base in layers.values()
        )
        used = {*defaults, *also}
        self._named = used | {base.name for base in style.layers}
        self._known = [*style.codes, *style.ignored]
        self._codes = [code for code in style.codes if code not in style.ignored]
        self._subjects = set(self._codes)
        loose = {base for base in self._named if base.partition("_")[0] not in self._subjects}
        self._loose = tuple(f"{base}_" for base in sorted(loose, key=len, reverse=True))
        self._below = ["" if each == "." else f"{each.strip('/')}/" for each in style.search]
        self._winners: dict[str, int] = {}
        self._claims: dict[tuple[str, int], list[LayerFile]] = {}
        self._shadowed: Counter[tuple[str, int]] = Counter()
        self._remarks: list[Remark] = []

    def look(self, number: int) -> None:
        """Take what the search directory of this number has, where no earlier one has any."""
        below = self._below[number]
        won: set[str] = set()

        def reject(key: str, reason: str) -> None:
            # Counted as a hit all the same: else a later directory's file would pass for it.
            subject = self._subject_at(key, below)
            if subject and subject not in self._winners and key.lower().endswith(".png"):
                won.add(subject)
                self._remark(key, f"is not read: {reason}")

        for entry in self._side.entries(below, reject):
            subject = self._subject_at(entry.key, below)
            if subject is None:
                self._look_odd(entry.key)
            elif subject in self._winners:
                if not entry.key.startswith(self._below[self._winners[subject]]):
                    self._shadowed[subject, number] += 1
            elif entry.key.lower().endswith(".png"):
                won.add(subject)
                self._take(entry, number)
            elif _COLOURED.fullmatch(entry.key):
                self._remark(entry.key, "is left out: layer files end in .png")
        self._winners |= dict.fromkeys(won, number)
        if not won and not any(where == number for _, where in self._shadowed):
            self._remark(self._style.search[number], "has no layer file of this style")

    def _look_odd(self, key: str) -> None:
        if key.lower().rpartition("/")[2].startswith(self._loose):
            self._remark(key, _NO_COLOUR)

    def _subject_at(self, key: str, below: str) -> str | None:
        """What the file is looked for by; None: it is none of the style's."""
        *folders, name = key[len(below) :].lower().split("/")
        if is_hidden(folders):
            return None
        code, line, _ = name.partition("_")
        if line and code in self._subjects:
            return code
        if name.startswith(self._loose):
            for each in self._loose:
                if name.startswith(each) and _COLOUR.fullmatch(name[len(each) :]):
                    return each[:-1]
        return None

    def _take(self, entry: Entry, number: int) -> None:
        named = layer_of(entry.key.rpartition("/")[2])
        if named is None:
            self._remark(entry.key, _NO_COLOUR)
            return
        base, colour = named
        if colour >= self._style.colours:
            highest = self._style.colours - 1
            self._remark(entry.key, f"is left out: the style's highest colour is {highest:04d}")
            return
        if base not in self._named:
            try:
                parse_base(base, self._known, list(self._style.lengths))
            except ValueError as error:
                self._remark(entry.key, f"is left out: {error}")
                return
        found = LayerFile(base, colour, self._style.search[number], entry)
        self._claims.setdefault((base, colour), []).append(found)

    def _remark(self, name: str, text: str) -> None:
        self._remarks.append(Remark(printable(name), text))

    def index(self) -> LayerIndex:
        """Everything found, in order of names."""
        files: dict[str, dict[int, LayerFile]] = {}
        refused: dict[tuple[str, int], str] = {}
        for (base, colour), claims in sorted(self._claims.items()):
            if len(claims) == 1:
                files.setdefault(base, {})[colour] = claims[0]
                continue
            names = " and ".join(sorted(printable(each.entry.key) for each in claims))
            reason = f"{names} would be one layer: rename or remove all but one"
            refused[base, colour] = reason
            self._remark(output_key(base, colour), f"is refused: {reason}")
        self._remarks += self._about_folders()
        self._remarks += self._about_unused({base for base, _ in self._claims})
        folders = {each: self._style.search[at] for each, at in sorted(self._winners.items())}
        without = tuple(code for code in self._codes if code not in self._winners)
        remarks = tuple(sorted(self._remarks))
        return LayerIndex(files, refused, self._absent(), without, folders, remarks)

    def _about_folders(self) -> Iterator[Remark]:
        for (subject, number), count in self._shadowed.items():
            before = printable(self._style.search[self._winners[subject]])
            yield Remark(
                printable(self._style.search[number]),
                f"is not used for {printable(subject)}, of which it has {count:,} "
                f"file{'' if count == 1 else 's'}: {before}, searched before it, has some",
            )

    def _about_unused(self, bases: set[str]) -> Iterator[Remark]:
        for base in bases - self._named:
            yield Remark(
                base, "is in no combination: the style file does not name it among its layers"
            )

    def _absent(self) -> dict[str, tuple[int, ...]]:
        bases = self._named | {base for base, _ in self._claims}
        missing = {
            base: tuple(
                each for each in range(self._style.colours) if (base, each) not in self._claims
            )
            for base in sorted(bases)
        }
        return {base: colours for base, colours in missing.items() if colours}
