"""What can be chosen and set, read from the text of the configuration files.

`--help` and the error messages need every group, choice and key together with the comment that
explains it. YAML parsers throw comments away and take longer to import than to read these files, so
this reads the simple shape they have: `key: value  # meaning`, nested by indentation, below a first
comment that says what the choice is. A user's own file may be written in any other way; then some of
its keys are left out here, and nothing else goes wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

KEY = re.compile(r"( *)([\w./@ -]+?|\"[^\"]*\"|'[^']*')\s*:(?:\s+(.*))?$")
OVERRIDE = re.compile(r"(?:optional\s+)?override\s+/?([\w/]+)$")
BLOCK_SCALAR = re.compile(r"[|>][+-]?\d?$")
GLOBAL = "_global_"


@dataclass(frozen=True)
class Key:
    """One setting: its dotted path, its default as written, and the comment beside it.

    `value` is None for the name of a nested mapping, whose own settings follow.
    """

    path: str
    value: str | None
    meaning: str


@dataclass(frozen=True)
class Choice:
    """One file of a group.

    Attributes:
        meaning: the file's first comment.
        keys: its settings, with the group's name in front of each path.
        picks: the choices of other groups that it makes (`override /model: cnn`).
        own: it comes from the user's folder.
    """

    group: str
    name: str
    meaning: str
    keys: tuple[Key, ...]
    picks: dict[str, str] = field(default_factory=dict)
    own: bool = False


@dataclass(frozen=True)
class Group:
    """One folder: its choices, and the one taken where nothing is said (None: none is)."""

    name: str
    choices: dict[str, Choice]
    default: str | None


@dataclass(frozen=True)
class Options:
    """All that can be chosen and set: the settings outside groups, and the groups in order."""

    top: tuple[Key, ...]
    groups: dict[str, Group]

    def picked(self, overrides: Iterable[str]) -> dict[str, list[str]]:
        """The choices that `group=choice` (several with commas) in `overrides` makes, by group."""
        found: dict[str, list[str]] = {}
        for override in overrides:
            group, equals, value = override.lstrip("+").partition("=")
            group = group.partition("@")[0]
            if equals and group in self.groups:
                found[group] = [name.strip().strip("'\"") for name in value.split(",")]
        for group, names in list(found.items()):  # an experiment picks a model
            for choice in filter(None, map(self.groups[group].choices.get, names)):
                for other, name in choice.picks.items():
                    found.setdefault(other, [name])
        return found

    def settings(self, overrides: Iterable[str]) -> list[Key]:
        """Every setting there is under the choices made, the defaults' included."""
        picked = self.picked(overrides)
        found = list(self.top)
        for group in self.groups.values():
            for name in picked.get(group.name, [group.default]):
                if name in group.choices:
                    found += group.choices[name].keys
        return found

    def keys(self, overrides: Iterable[str]) -> list[str]:
        """The dotted paths of these settings."""
        return list(dict.fromkeys(key.path for key in self.settings(overrides)))


def read_options(folders: Sequence[Path], config_name: str = "train") -> Options:
    """Reads the shipped folder and, after it, the user's; what the first says stands.

    Raises:
        OSError: a folder or file cannot be read.
    """
    primary = _read(folders[0] / f"{config_name}.yaml")
    defaults = dict(_defaults(primary.defaults))
    groups = {name: Group(name, {}, default) for name, default in defaults.items()}
    for number, folder in enumerate(folders):
        for path in sorted(folder.glob("*/*.yaml")):
            name = path.parent.name
            if name == "hydra" or name.startswith(".") or not path.is_file():
                continue
            group = groups.setdefault(name, Group(name, {}, None))
            group.choices.setdefault(path.stem, _choice(path, own=number > 0))
    top = tuple(key for key in primary.keys if key.path.partition(".")[0] != "hydra")
    return Options(top, {name: group for name, group in groups.items() if group.choices})


def open_keys(options: Options) -> set[str]:
    """Settings that take keys of the user's own, such as the columns of a table: `{}` by default."""
    return {
        key.path
        for group in options.groups.values()
        for choice in group.choices.values()
        for key in choice.keys
        if key.value == "{}"
    }


def nearest(name: str, known: Iterable[str]) -> str | None:
    """What was probably meant: `optimizer.lr` for `lr`, `optimizer.lrr` or `optimiser.lr`."""
    paths = list(dict.fromkeys(known))
    last = name.rpartition(".")[2]
    for candidates in ([p for p in paths if p.rpartition(".")[2] == last], paths):
        if near := get_close_matches(name, candidates, n=1, cutoff=0.6):
            return near[0]
    if same := [p for p in paths if p.rpartition(".")[2] == last]:
        return same[0]
    by_last = {p.rpartition(".")[2]: p for p in reversed(paths)}
    near = get_close_matches(last, by_last, n=1, cutoff=0.75)
    return by_last[near[0]] if near else None


@dataclass
class _File:
    meaning: str
    package: str | None
    keys: list[Key]
    defaults: list[str]


def _choice(path: Path, own: bool) -> Choice:
    group, file = path.parent.name, _read(path)
    prefix = "" if file.package == GLOBAL else f"{file.package or group}."
    keys = tuple(Key(prefix + key.path, key.value, key.meaning) for key in file.keys)
    picks = {
        match[1]: value
        for key, value in map(_pair, file.defaults)
        if value and (match := OVERRIDE.match(key))
    }
    return Choice(group, path.stem, file.meaning, keys, picks, own)


def _defaults(items: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Group and default choice of each item of a defaults list."""
    for key, value in map(_pair, items):
        group = key.removeprefix("override ").removeprefix("optional ").strip("/ ")
        if group != "_self_" and not group.startswith("hydra"):
            yield group.partition("@")[0], None if value in ("null", "~", "") else value


def _pair(item: str) -> tuple[str, str]:
    key, _, value = item.partition(":")
    return key.strip(), value.strip().strip("'\"")


def _read(path: Path) -> _File:
    """The comments, keys and values of one YAML file, line by line."""
    file = _File("", None, [], [])
    open_keys: list[tuple[int, str]] = []  # the mappings around the current line, outermost first
    skip_deeper_than: int | None = None  # inside a block of text, whose lines are no keys
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        content, comment = _split(line)
        indent = len(content) - len(content.lstrip(" "))
        if not content.strip():
            _header(file, comment)
            continue
        if skip_deeper_than is not None and indent > skip_deeper_than:
            continue
        skip_deeper_than = None
        match = KEY.match(content)
        is_item = content.lstrip().startswith("- ")
        if is_item or match is None:
            if open_keys and (indent > open_keys[-1][0] or (is_item and indent == open_keys[-1][0])):
                _continue(file, content.strip())
            continue
        while open_keys and open_keys[-1][0] >= indent:
            open_keys.pop()
        open_keys.append((indent, match[2].strip("\"'")))
        value = match[3].strip() if match[3] else None
        if value and BLOCK_SCALAR.match(value):
            skip_deeper_than, value = indent, "…"
        file.keys.append(Key(".".join(key for _, key in open_keys), value, comment))
    file.keys = [key for key in file.keys if key.path.partition(".")[0] != "defaults"]
    parents = {key.path.rpartition(".")[0] for key in file.keys}
    file.keys = [
        Key(key.path, "null", key.meaning) if key.value is None and key.path not in parents else key
        for key in file.keys
    ]
    return file


def _header(file: _File, comment: str) -> None:
    """Takes up a line that is only a comment, where it stands above the first key."""
    if file.keys or not comment:
        return
    if comment.startswith("@package"):
        file.package = comment.removeprefix("@package").strip()
    elif not file.meaning:
        file.meaning = comment


def _continue(file: _File, content: str) -> None:
    """Takes up a line that belongs to the key above it: an item of a list, or more of its value."""
    if not file.keys:
        return
    key = file.keys[-1]
    item = content.removeprefix("- ").strip()
    if key.path == "defaults":
        file.defaults.append(item)
        return
    before = key.value or ""
    if content.startswith("- "):
        value = f"{before[:-1]}, {item}]" if before.endswith("]") else f"[{item}]"
    else:
        value = f"{before} {content}".strip()
    file.keys[-1] = Key(key.path, value, key.meaning)


def _split(line: str) -> tuple[str, str]:
    """A line's content and its comment; a `#` within quotes or a word begins none."""
    quote = ""
    for at, char in enumerate(line):
        before = line[at - 1] if at else " "
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and before in " [{,:":
            quote = char
        elif char == "#" and before in " \t":
            return line[:at].rstrip(), line[at + 1 :].strip()
    return line.rstrip(), ""
