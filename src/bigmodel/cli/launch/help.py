"""`bigmodel-train --help`: every choice and every setting with its meaning, without loading anything.

Neither torch nor Hydra is imported: the page is read off the configuration files, and a test keeps the
comments in those files equal to the schemas' descriptions.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bigmodel import redaction
from bigmodel.cli.launch.config_index import Choice, ConfigIndex, Group, Key, no_such_choice, read_index
from bigmodel.errors import ConfigError
from bigmodel.runtime.escaping import escape_line

EXAMPLES = (
    ("bigmodel-train", "learns handwritten digits, in seconds"),
    ("bigmodel-train model=cnn data=mnist", "another model and data; the loss follows"),
    ("bigmodel-train trainer.epochs=20", "another setting"),
    ("bigmodel-train find=lr", "suggests a learning rate"),
    ("bigmodel-train -m model=fnn,cnn", "a sweep: one run for each"),
    ("bigmodel-train resume=<run folder>", "resumes from its last checkpoint"),
    ("bigmodel-train model=cnn --help", "that model's settings"),
    ("tensorboard --logdir outputs", "the curves"),
)
FLAGS = (
    ("-h, --help", "this page; after model=cnn, also its settings"),
    ("--help=all", "every choice with all settings"),
    ("--version", "the version of bigmodel-train"),
    ("-m, --multirun", "a sweep over values separated by commas"),
    ("-c job, --cfg job", "print the configuration instead of running it"),
    ("-cd DIR, --config-dir DIR", "your own choices: DIR/model/mine.yaml is model=mine"),
    ("-sc install=bash", 'tab completion: eval "$(bigmodel-train -sc install=bash)"; zsh, fish too'),
    ("--hydra-help", "the flags of Hydra, which reads the command line"),
)
NARROWEST, WIDEST = 60, 120
Row = tuple[str, str, str]
"""Name, value and meaning."""


class Choices(NamedTuple):
    """A group on the page: its choices with a mark (`*` default, `>` chosen) and a description."""

    group: str
    rows: list[Row]


class Settings(NamedTuple):
    """Settings under one head, such as `model=cnn`."""

    head: str
    rows: list[Row]


class Help(NamedTuple):
    """What a page of help says.

    Attributes:
        choices: the groups with a line for each choice.
        presets: the groups whose choices are only listed by name.
        settings: the settings of the choices shown.
        any_chosen: whether the command line makes a choice.
    """

    choices: list[Choices]
    presets: list[Row]
    settings: list[Settings]
    any_chosen: bool


def help_page(config_dir: Path, argv: Sequence[str]) -> str:
    """The page for the choices in `argv`, as wide as the terminal, or 80 columns if there is none.

    Raises:
        ConfigError: `argv` names a choice, folder or page of help that does not exist.
    """
    wanted = next((word for word in argv if word.startswith("--help=")), "--help=all")
    if wanted != "--help=all":
        raise ConfigError(f"{wanted}: expected --help, or --help=all. For a model: model=cnn --help.")
    width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    bold = sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return help_text(config_dir, argv, width=width, bold=bold)


def help_text(config_dir: Path, argv: Sequence[str] = (), *, width: int = 80, bold: bool = False) -> str:
    """The page as text.

    Args:
        config_dir: the shipped configurations.
        argv: the command line. Without more, all choices have a line each; `model=cnn` shows that
            model's settings, `--help=all` those of all choices; `--config-dir DIR` adds the user's.
        width: columns to fill.
        bold: emphasise heads with ANSI codes.

    Raises:
        ConfigError: `argv` names a choice or folder that does not exist.
    """
    index = read_index([config_dir, *own_folders(argv)])
    for group, names in index.chosen(argv).items():
        known = index.groups[group].choices
        if unknown := [name for name in names if name not in known and name != "null"]:
            raise ConfigError(no_such_choice(group, unknown[0], known))
    return _printed(collect(index, argv), width, bold)


def collect(index: ConfigIndex, argv: Sequence[str]) -> Help:
    """The content of the page for a command line."""
    chosen, everything = index.chosen(argv), "--help=all" in argv
    content = Help([], [], [], bool(chosen))
    if everything and index.top:
        content.settings.append(Settings("the run", list(map(_row, index.top))))
    for group in index.groups.values():
        if not (everything or not chosen or group.name in chosen):
            continue
        if everything or chosen or group.default:
            content.choices.append(_choices(group, chosen.get(group.name, [])))
        else:  # there are many presets
            content.presets.append((f"{group.name}=", "", ", ".join(group.choices)))
        if everything or chosen:
            content.settings.extend(_settings(group, chosen.get(group.name)))
    return content


def own_folders(argv: Sequence[str]) -> list[Path]:
    """The folder given by `--config-dir DIR`, in any spelling, as a list of one, or none.

    Raises:
        ConfigError: it does not exist.
    """
    folders: list[Path] = []
    for at, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            folders = [Path(value if equals else "".join(argv[at + 1 : at + 2]))]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"--config-dir {folder}: there is no such folder. Relative paths start at {Path.cwd()}."
            )
    return folders


def _choices(group: Group, chosen: list[str]) -> Choices:
    rows = [
        (
            ">" if choice.name in chosen else "*" if choice.name == group.default else " ",
            choice.name,
            choice.description + (" (yours)" if choice.own else ""),
        )
        for choice in group.choices.values()
    ]
    return Choices(group.name, rows)


def _settings(group: Group, chosen: list[str] | None) -> Iterator[Settings]:
    """The settings of a group: first those that its choices share, then each one's own.

    A choice that sets other groups' keys, such as an experiment, is shown only when it is chosen.
    """
    choices = [group.choices[name] for name in chosen or group.choices if name in group.choices]
    if not chosen:
        choices = [choice for choice in choices if not choice.overrides and _is_within(group, choice)]
    shared = _shared(choices) if len(choices) > 1 else []
    if shared:
        yield Settings(f"{group.name}: every choice", list(map(_row, shared)))
    shared_paths = {key.path for key in shared}
    alike: dict[tuple[Key, ...], list[str]] = {}  # choices whose other settings are the same
    for choice in choices:
        overrides = (Key(other, name, "the choice it makes") for other, name in choice.overrides.items())
        keys = (*overrides, *(key for key in choice.keys if key.path not in shared_paths))
        alike.setdefault(keys, []).append(choice.name)
    for keys, names in alike.items():
        if keys:
            yield Settings(f"{group.name}={','.join(names)}", list(map(_row, keys)))


def _shared(choices: list[Choice]) -> list[Key]:
    """The settings with the same default and meaning in all of the choices; the name, which differs."""
    shared = [key for key in choices[0].keys if all(key in choice.keys for choice in choices)]
    name = [key for key in choices[0].keys if key.path == f"{choices[0].group}.name"]
    return [Key(key.path, "…", key.description) for key in name if key not in shared] + shared


def _is_within(group: Group, choice: Choice) -> bool:
    return all(key.path.startswith(f"{group.name}.") for key in choice.keys)


def _row(key: Key) -> Row:
    return (key.path, redaction.redact_text(key.path, key.value or ""), key.description)


def _printed(content: Help, width: int, bold: bool) -> str:
    page = _Page(width, bold)
    page.line("bigmodel-train trains a neural network from a configuration.")
    page.head("Usage")
    page.line("bigmodel-train [GROUP=CHOICE ...] [KEY=VALUE ...] [FLAGS]", indent=2)
    page.head("Examples")
    page.table([(command, "", meaning) for command, meaning in EXAMPLES])
    page.head("Choices", "* is the default" + ("; > is chosen" if content.any_chosen else ""))
    for group in content.choices:
        page.line(f"{group.group}=", indent=2, bold=True)
        page.table([(f"{mark} {name}", "", meaning) for mark, name, meaning in group.rows], indent=4)
    for row in content.presets:
        page.table([row])
    if content.settings:
        page.head("Settings", "key, default, meaning")
    for settings in content.settings:
        page.line(settings.head, indent=2, bold=True)
        page.table(settings.rows, indent=4)
    page.head("Flags")
    page.table([(flag, "", meaning) for flag, meaning in FLAGS])
    return page.text()


class _Page:
    """Lines of text with heads and aligned tables, `width` columns wide."""

    def __init__(self, width: int, bold: bool) -> None:
        self._width = width
        self._bold = bold
        self._lines: list[str] = []

    def text(self) -> str:
        return "\n".join(self._lines)

    def line(self, text: str, indent: int = 0, bold: bool = False) -> None:
        shown = escape_line(text)
        emphasised = f"\033[1m{shown}\033[0m" if bold and self._bold else shown
        self._lines.append(" " * indent + emphasised)

    def head(self, text: str, remark: str = "") -> None:
        self._lines.append("")
        self.line(text, bold=True)
        if remark:
            self._lines[-1] += f"  ({remark})"

    def table(self, rows: Sequence[Row], indent: int = 2) -> None:
        """Rows of name, value and meaning; long values and meanings are wrapped."""
        rows = [(escape_line(name), escape_line(value), escape_line(text)) for name, value, text in rows]
        available = self._width - indent
        first = min(max((len(row[0]) for row in rows), default=0), available * 9 // 20)
        second = min(max((len(row[1]) for row in rows), default=0), available // 5)
        start = indent + first + 2 + (second + 2 if second else 0)
        for name, value, meaning in rows:
            line = " " * indent + f"{name:<{first}}"
            if second:
                line += f"  {value:<{second}}"
            line = line.rstrip()
            wrapped = textwrap.wrap(meaning, self._width - start, break_on_hyphens=False)
            if wrapped and len(line) + 2 <= start:
                line = f"{line:<{start}}{wrapped.pop(0)}"
            lines = [line]
            if len(line) > self._width:  # the value is a long list
                lines = textwrap.wrap(
                    line, self._width, subsequent_indent=" " * (indent + 2), break_long_words=False
                )
            self._lines += [*lines, *(" " * start + rest for rest in wrapped)]
