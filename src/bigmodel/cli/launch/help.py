"""`bigmodel-train --help`: every choice and every setting with its meaning, without loading anything.

Neither torch nor Hydra is imported: the page is read off the configuration files, and a test keeps the
comments in those files equal to the schemas' descriptions.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from bigmodel import redaction
from bigmodel.cli.launch.config_index import Choice, Group, Key, read_options
from bigmodel.errors import ConfigError, did_you_mean
from bigmodel.runtime.escaping import escape_line

EXAMPLES = (
    ("bigmodel-train", "learns handwritten digits, in seconds"),
    ("bigmodel-train model=cnn data=mnist", "another model, other data; the loss follows"),
    ("bigmodel-train trainer.epochs=20", "another setting"),
    ("bigmodel-train -m optimizer.lr=0.1,0.01", "a sweep: every combination"),
    ("bigmodel-train resume=<run folder>", "goes on from its last checkpoint"),
    ("bigmodel-train model=transformer --help", "that model's settings"),
    ("tensorboard --logdir outputs", "the curves"),
)
FLAGS = (
    ("-h, --help", "this page; after choices, such as model=cnn, their settings"),
    ("--help=all", "every choice with all settings"),
    ("--version", "the version of bigmodel-train"),
    ("-m, --multirun", "a sweep: one run for each combination of values separated by commas"),
    ("-c job, --cfg job", "print the configuration instead of running it"),
    ("-cd DIR, --config-dir DIR", "add your own choices: DIR/model/mine.yaml is model=mine"),
    ("-sc install=bash", 'tab completion: eval "$(bigmodel-train -sc install=bash)"; zsh, fish too'),
    ("--hydra-help", "the flags of Hydra, which reads the command line"),
)
NARROWEST, WIDEST = 60, 120
Row = tuple[str, str, str]


def help_page(config_dir: Path, argv: Sequence[str]) -> str:
    """The page for the choices in `argv`, as wide as the terminal, or 80 columns off one.

    Raises:
        ConfigError: a choice or folder named in `argv` is not there, or a page of help.
    """
    wanted = next((word for word in argv if word.startswith("--help=")), "--help=all")
    if wanted != "--help=all":
        raise ConfigError(f"{wanted}: expected --help, or --help=all. For a model: model=cnn --help.")
    width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    return help_text(config_dir, argv, width=width, bold=_emphasised())


def help_text(config_dir: Path, argv: Sequence[str] = (), *, width: int = 80, bold: bool = False) -> str:
    """The page as text.

    Args:
        config_dir: the shipped configurations.
        argv: the command line. Without more, all choices have a line each; `model=cnn` shows that
            model's settings, `--help=all` those of all choices; `--config-dir DIR` adds the user's own.
        width: columns to fill.
        bold: emphasise heads with ANSI codes.

    Raises:
        ConfigError: a choice or folder named in `argv` is not there.
    """
    options = read_options([config_dir, *own_folders(argv)])
    picked = options.picked(argv)
    for name, chosen in picked.items():
        check_choices(options.groups[name], chosen)
    page = _Page(width, bold)
    page.line("bigmodel-train trains a neural network from a configuration.")
    page.head("Usage")
    page.line("bigmodel-train [GROUP=CHOICE ...] [KEY=VALUE ...] [FLAGS]", indent=2)
    page.head("Examples")
    page.table([(command, "", meaning) for command, meaning in EXAMPLES])
    everything = "--help=all" in argv
    groups = options.groups.values()
    shown = [group for group in groups if everything or not picked or group.name in picked]
    page.head("Choices", "* is taken where nothing is said" + ("; > is yours now" if picked else ""))
    for group in shown:
        if everything or picked or group.default:
            _choices(page, group, picked.get(group.name, []))
        else:  # presets, which are many
            page.table([(f"{group.name}=", "", ", ".join(group.choices))])
    if everything or picked:
        page.head("Settings", "key, value where nothing is said, meaning")
    if everything and options.top:
        page.line("the run", indent=2, bold=True)
        page.table([_row(key) for key in options.top], indent=4)
    for group in shown if everything or picked else []:
        _settings(page, group, picked.get(group.name))
    page.head("Flags")
    page.table([(flag, "", meaning) for flag, meaning in FLAGS])
    return page.text()


def own_folders(argv: Sequence[str]) -> list[Path]:
    """The folder that `--config-dir DIR` names, in any of its spellings, or none.

    Raises:
        ConfigError: it is not there.
    """
    found: list[Path] = []
    for at, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            found = [Path(value if equals else "".join(argv[at + 1 : at + 2]))]
    for folder in found:
        if not folder.is_dir():
            raise ConfigError(
                f"--config-dir {folder}: there is no such folder. It is looked for from {Path.cwd()}."
            )
    return found


def check_choices(group: Group, names: Iterable[str]) -> None:
    """Raises a ConfigError with the nearest name for each of `names` that the group does not have."""
    for name in names:
        if name not in group.choices and name != "null":
            raise ConfigError(
                f"{group.name}={name}: no such {group.name}.{did_you_mean(name, group.choices)}"
                f" Choices: {', '.join(sorted(group.choices))}."
            )


def _choices(page: _Page, group: Group, picked: list[str]) -> None:
    """A group's choices with their meanings, a line each; the default and the picked ones are marked."""
    page.line(f"{group.name}=", indent=2, bold=True)
    width = max(map(len, group.choices))
    for choice in group.choices.values():
        mark = ">" if choice.name in picked else "*" if choice.name == group.default else " "
        meaning = choice.meaning + (" (yours)" if choice.own else "")
        page.line(f"{mark} {choice.name:<{width}}  {meaning}".rstrip(), indent=4, whole=False)


def _settings(page: _Page, group: Group, picked: list[str] | None) -> None:
    """The settings of a group: first those that all of its choices share, then each one's own.

    A choice that sets other groups' keys, such as an experiment, is shown where it is picked.
    """
    names = picked or list(group.choices)
    shown = [group.choices[name] for name in names if name in group.choices]
    if not picked:
        shown = [choice for choice in shown if _is_of_its_group(choice)]
    if not shown:
        return
    shared = _shared(shown) if len(shown) > 1 else []
    if shared:
        page.line(f"{group.name}: every choice", indent=2, bold=True)
        page.table([_row(key) for key in shared], indent=4)
    alike: dict[tuple[Key, ...], list[str]] = {}  # choices whose other settings are the same
    for choice in shown:
        picks = [Key(other, name, "the choice it makes") for other, name in choice.picks.items()]
        said = {key.path for key in shared if key in choice.keys or key.path == f"{group.name}.name"}
        rest = (*picks, *(key for key in choice.keys if key.path not in said))
        alike.setdefault(rest, []).append(choice.name)
    for keys, chosen in alike.items():
        if keys:
            page.line(f"{group.name}={','.join(chosen)}", indent=2, bold=True)
            page.table([_row(key) for key in keys], indent=4)


def _shared(choices: list[Choice]) -> list[Key]:
    """The settings that mean the same, with the same default, in every one of the choices."""
    group = choices[0].group
    shared = [key for key in choices[0].keys if all(key in choice.keys for choice in choices)]
    name = [key for key in choices[0].keys if key.path == f"{group}.name"]
    return [Key(key.path, "…", key.meaning) for key in name if key not in shared] + shared


def _is_of_its_group(choice: Choice) -> bool:
    return all(key.path.startswith(f"{choice.group}.") for key in choice.keys) and not choice.picks


def _row(key: Key) -> Row:
    return (key.path, redaction.redact_text(key.path, key.value or ""), key.meaning)


def _emphasised() -> bool:
    """Whether heads are bold, which is no colour."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


class _Page:
    """Lines of text with heads and aligned tables, `width` columns wide."""

    def __init__(self, width: int, bold: bool) -> None:
        self._width = width
        self._bold = bold
        self._lines: list[str] = []

    def text(self) -> str:
        return "\n".join(self._lines)

    def line(self, text: str, indent: int = 0, bold: bool = False, whole: bool = True) -> None:
        """A line of its own; one that need not be `whole` is cut where the page ends."""
        shown = escape_line(text)
        if not whole and len(shown) > self._width - indent:
            shown = shown[: self._width - indent - 1].rstrip() + "…"
        emphasised = f"\033[1m{shown}\033[0m" if bold and self._bold else shown
        self._lines.append(" " * indent + emphasised)

    def head(self, text: str, remark: str = "") -> None:
        self._lines.append("")
        self.line(text, bold=True)
        if remark:
            self._lines[-1] += f"  ({remark})"

    def table(self, rows: Sequence[Row], indent: int = 2) -> None:
        """Rows of name, value and meaning; long meanings go on below themselves."""
        rows = [(escape_line(name), escape_line(value), escape_line(text)) for name, value, text in rows]
        room = self._width - indent
        first = min(max((len(row[0]) for row in rows), default=0), room * 9 // 20)
        second = min(max((len(row[1]) for row in rows), default=0), room // 5)
        start = indent + first + 2 + (second + 2 if second else 0)
        for name, value, meaning in rows:
            line = " " * indent + f"{name:<{first}}"
            if second:
                line += f"  {value:<{second}}"
            line = line.rstrip()
            wrapped = textwrap.wrap(meaning, self._width - start, break_on_hyphens=False)
            if wrapped and len(line) + 2 <= start:
                line = f"{line:<{start}}{wrapped.pop(0)}"
            self._lines += [line, *(" " * start + rest for rest in wrapped)]
