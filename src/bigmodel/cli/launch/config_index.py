"""The index of all groups, choices and settings, read from the configuration files and their comments.

`--help`, tab completion and the error messages need every group, choice and key together with the
comment that explains it. YAML parsers drop comments, but their marks say where each value ends: the
rest of that line is its comment. Nothing is constructed and no alias is followed, so the work is
proportional to the file's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from bigmodel.cli.launch.input_limits import fault_of_file
from bigmodel.errors import did_you_mean

GLOBAL = "_global_"
_OVERRIDE = re.compile(r"(?:optional\s+)?override\s+/?([\w/]+)$")
_COMMENT = re.compile(r"(?:^|\s)#\s*(.*)")

# The C parser is 15 times as fast. The base loaders skip type resolution: values are shown as written.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class Key(NamedTuple):
    """One setting: its dotted path, its default as written, and the comment beside it.

    `value` is None for the name of a nested mapping, whose own settings follow.
    """

    path: str
    value: str | None
    description: str


class Choice(NamedTuple):
    """One file of a group.

    Attributes:
        description: the file's first comment.
        keys: its settings, with the group's name in front of each path, and then those that every
            choice of the group has.
        overrides: the choices of other groups that it makes (`override /model: cnn`).
        own: it comes from the user's folder.
    """

    group: str
    name: str
    description: str
    keys: tuple[Key, ...]
    overrides: dict[str, str]
    own: bool


class Group(NamedTuple):
    """One folder: its choices, and the one that applies when none is named (None: none does)."""

    name: str
    choices: dict[str, Choice]
    default: str | None


class ConfigIndex(NamedTuple):
    """Everything that can be chosen and set: the settings outside groups, and the groups in order."""

    top: tuple[Key, ...]
    groups: dict[str, Group]

    def chosen(self, overrides: Iterable[str]) -> dict[str, list[str]]:
        """The choices that `group=choice` (several with commas) in `overrides` makes, by group."""
        chosen: dict[str, list[str]] = {}
        for override in overrides:
            group, equals, value = override.lstrip("+").partition("=")
            group = group.partition("@")[0]
            if equals and group in self.groups:
                chosen[group] = [name.strip().strip("'\"") for name in value.split(",")]
        for group, names in list(chosen.items()):  # an experiment chooses a model
            for choice in filter(None, map(self.groups[group].choices.get, names)):
                for other, name in choice.overrides.items():
                    chosen.setdefault(other, [name])
        return chosen

    def keys(self, overrides: Iterable[str]) -> list[Key]:
        """Every setting under the choices made, defaults included."""
        chosen = self.chosen(overrides)
        keys = list(self.top)
        for group in self.groups.values():
            for name in chosen.get(group.name, [group.default]):
                if name in group.choices:
                    keys += group.choices[name].keys
        return keys

    def paths(self, overrides: Iterable[str]) -> list[str]:
        """The dotted paths of these settings."""
        return list(dict.fromkeys(key.path for key in self.keys(overrides)))

    def open_paths(self) -> set[str]:
        """Settings that accept keys chosen by the user, such as a table's columns: `{}` by default."""
        return {key.path for key in self.all_keys() if key.value == "{}"}

    def all_keys(self) -> list[Key]:
        """Every setting, whatever is chosen."""
        choices = [choice for group in self.groups.values() for choice in group.choices.values()]
        return [*self.top, *(key for choice in choices for key in choice.keys)]


def no_such_choice(group: str, name: str, choices: Iterable[str]) -> str:
    """The message for an unknown choice of a group."""
    known = sorted(choices)
    return (
        f"{group}={name}: no such {group}.{did_you_mean(name, known)}"
        f" Choices: {', '.join(known) or 'none'}."
    )


def read_index(folders: Sequence[Path], config_name: str = "train") -> ConfigIndex:
    """Reads the shipped folder, then the user's; of two choices with one name, the first wins.

    Raises:
        OSError: a folder or file cannot be read.
    """
    primary = _read(folders[0] / f"{config_name}.yaml", trusted=True)
    groups: dict[str, Group] = {}
    for item, value in primary.defaults:
        group = item.removeprefix("override ").removeprefix("optional ").strip("/ ").partition("@")[0]
        if group != "_self_" and not group.startswith("hydra"):
            groups[group] = Group(group, {}, None if value in ("null", "~", "") else value)
    shared: dict[str, list[Key]] = {}
    for key in primary.keys:
        shared.setdefault(key.path.partition(".")[0], []).append(key)
    for number, folder in enumerate(folders):
        for path in sorted(folder.glob("*/*.yaml")):
            name = path.parent.name
            if name == "hydra" or name.startswith(".") or not path.is_file():
                continue
            choices = groups.setdefault(name, Group(name, {}, None)).choices
            of_all = [key for key in shared.get(name, []) if "." in key.path]
            choices.setdefault(path.stem, _choice(path, of_all, own=number > 0))
    top = tuple(key for key in primary.keys if key.path.partition(".")[0] not in ("hydra", *groups))
    return ConfigIndex(top, {name: group for name, group in groups.items() if group.choices})


class _File(NamedTuple):
    description: str
    package: str | None
    keys: list[Key]
    defaults: list[tuple[str, str]]


def _choice(path: Path, shared: Sequence[Key], own: bool) -> Choice:
    group, file = path.parent.name, _read(path, trusted=not own)
    bases = (path.with_stem(item) for item, value in file.defaults if not value and item.isidentifier())
    files = [file, *(_read(base, trusted=not own) for base in bases if base.is_file())]
    keys = [key for one in files for key in _placed(one, group)]
    if file.package != GLOBAL:
        known = {key.path for key in keys}
        keys += [key for key in shared if key.path not in known]
    matches = [(_OVERRIDE.match(item), value) for item, value in file.defaults if value]
    overrides = {match[1]: value for match, value in matches if match}
    return Choice(group, path.stem, file.description, tuple(keys), overrides, own)


def _placed(file: _File, group: str) -> Iterator[Key]:
    prefix = "" if file.package == GLOBAL else f"{file.package or group}."
    for key in file.keys:
        yield Key(prefix + key.path, key.value, key.description)


def _read(path: Path, trusted: bool) -> _File:
    """Reads one file. If it is not valid YAML, it has no keys here; loading it reports the error.

    Args:
        trusted: it ships with the program. Others may be nested so deeply that the parser would crash.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    file = _File(*_header(text), keys=[], defaults=[])
    if not trusted and fault_of_file(path) is not None:
        return file
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError:
        return file
    if isinstance(root, yaml.MappingNode):
        source = _Source(text)
        for name, value in root.value:
            if name.value == "defaults":
                file.defaults.extend(_defaults(value))
            else:
                file.keys.extend(source.keys(name, value))
    return file


def _header(text: str) -> tuple[str, str | None]:
    """The first comment above the keys, and the package that a `@package` comment names."""
    description, package = "", None
    for line in text.split("\n"):
        if line.strip() and not line.startswith("#") and line != "---":
            break
        comment = line.lstrip("#").strip()
        if comment.startswith("@package"):
            package = comment.removeprefix("@package").strip()
        elif line.startswith("#"):
            description = description or comment
    return description, package


def _defaults(node: Any) -> Iterator[tuple[str, str]]:
    """Group and choice of each item of a defaults list."""
    for item in node.value if isinstance(node, yaml.SequenceNode) else []:
        if isinstance(item, yaml.ScalarNode):
            yield item.value, ""
        elif isinstance(item, yaml.MappingNode):
            for name, value in item.value:
                yield str(name.value), str(value.value)


class _Source:
    """The text that nodes were parsed from, which has what they lack: spelling and comments."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = text.split("\n")

    def keys(self, name: Any, value: Any, parent: str = "") -> Iterator[Key]:
        """A setting, and those within it."""
        if not isinstance(name, yaml.ScalarNode) or name.value == "<<":
            return
        path = parent + name.value
        if value.start_mark.index < name.start_mark.index:  # an alias: the node of its anchor
            yield Key(path, self._rest(name.end_mark).lstrip(": "), "")
            return
        is_block = not getattr(value, "flow_style", True) or getattr(value, "style", None) in ("|", ">")
        comment = _COMMENT.search(self._rest(name.end_mark if is_block else value.end_mark))
        yield Key(path, self._spelling(value), comment[1].strip() if comment else "")
        if isinstance(value, yaml.MappingNode) and is_block:
            for inner_name, inner in value.value:
                yield from self.keys(inner_name, inner, f"{path}.")

    def _spelling(self, node: Any) -> str | None:
        """A value on one line as written; lists in brackets, None for a mapping over several lines."""
        if getattr(node, "flow_style", None) is False:
            if isinstance(node, yaml.MappingNode):
                return None
            return f"[{', '.join(str(self._spelling(item)) for item in node.value)}]"
        if getattr(node, "style", None) in ("|", ">"):
            return "…"
        written = self._text[node.start_mark.index : node.end_mark.index]
        return " ".join(written.split()) or "null"

    def _rest(self, mark: Any) -> str:
        """The rest of a line."""
        return self._lines[mark.line][mark.column :] if mark.line < len(self._lines) else ""
