"""The command line's flags: Hydra's own, read in any order, and refused in one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from bigmodel.cli.launch import other_tools
from bigmodel.cli.launch.config_index import read_index
from bigmodel.cli.launch.help import own_folders
from bigmodel.data.tabular.column_options import PLAIN_NAME, WrittenForm, as_one_text, parse_entries
from bigmodel.errors import ConfigError, did_you_mean, nearest, shell_quoted
from bigmodel.runtime.device_names import is_device


def parse_flags(argv: Sequence[str], config_dir: Path) -> argparse.Namespace:
    """The arguments as Hydra reads them, flags in any place.

    Args:
        config_dir: the shipped configurations, whose settings a wrong flag may mean.

    Raises:
        ConfigError: an unknown flag, or one without its value.
    """
    parser = get_args_parser()

    def fail(message: str) -> NoReturn:
        if (hint := _other_tool_hint(message, argv, config_dir)) is not None:
            raise ConfigError(f"{message}. Settings are written without dashes. {hint}")
        flag = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        # A setting with dashes before it may be nearer than any flag: `--resum` is no `--run`.
        index = read_index([config_dir, *own_folders(argv)])
        settings = [*index.groups, *index.paths(argv)]
        near = (
            nearest(flag[1], [*parser._option_string_actions, *(f"--{name}" for name in settings)])
            if flag
            else None
        )
        if near in parser._option_string_actions:
            raise ConfigError(
                f"{message}. Did you mean '{near}'? bigmodel-train --help lists the flags."
            )
        if flag and (meant := did_you_mean(flag[1].lstrip("-"), settings)):
            raise ConfigError(f"{message}. Settings are written without dashes.{meant}")
        raise ConfigError(
            f"{message}. Settings are written without dashes, as in trainer.epochs=3;"
            " bigmodel-train --help lists the flags."
        )

    parser.error = fail  # type: ignore[method-assign]
    return parser.parse_intermixed_args(list(argv))


def _other_tool_hint(message: str, argv: Sequence[str], config_dir: Path) -> str | None:
    """What was meant by a flag of another tool's, such as `--lr 0.1`."""
    unknown = re.match(r"unrecognized arguments: (-\S+)", message)
    if unknown is None or unknown[1] not in argv:
        return None
    key, equals, value = unknown[1].partition("=")
    after = argv[argv.index(unknown[1]) + 1 :][:1]
    if not equals and after and not after[0].startswith("-") and "=" not in after[0]:
        value = after[0]
    key = key.lstrip("-")
    index = read_index([config_dir, *own_folders(argv)])
    if (hint := other_tools.suggest(key, value, index, argv)) is not None:
        return hint
    return f"Did you mean {shell_quoted(f'{key}={value}')}?" if "." in key and value else None


def add_pluses(argv: Sequence[str], open_keys: Iterable[str]) -> list[str]:
    """The same arguments, with Hydra's plus signs before settings that take keys of the user's own.

    Hydra asks for `+` where a key is new, and for none where a file has it already: `++` is both. Where
    a key is none that its grammar takes, such as `data.columns.größe`, all of a setting's come in one
    text, or the last would take the place of the others.
    """
    words = list(argv)
    for name in open_keys:
        places = [place for place, word in enumerate(words) if _sets(word, name)]
        if all(_fits_grammar(words[place], name) for place in places):
            for place in places:
                words[place] = f"++{words[place]}"
            continue
        entries: dict[str, str | WrittenForm] = {}
        for place in places:
            entries |= _entries(words[place], name)
        words = [word for place, word in enumerate(words) if place not in places[1:]]
        words[places[0]] = f"++{as_one_text(name, entries)}"
    return words


def expand_device_index(argv: Iterable[str]) -> list[str]:
    """The same arguments with `device=cuda:1`, which no file is called, as `device.name=cuda:1`."""
    words: list[str] = []
    for word in argv:
        group, _, value = word.partition("=")
        names = value.split(",")
        if group == "device" and ":" in value and all(map(is_device, names)):
            kinds = {name.partition(":")[0] for name in names}
            words += [f"device={kinds.pop() if len(kinds) == 1 else 'auto'}", f"device.name={value}"]
        else:
            words.append(word)
    return words


def _sets(argument: str, name: str) -> bool:
    """Whether an argument sets something of a setting that takes keys of the user's own."""
    key, equals, _ = argument.lstrip("+").partition("=")
    return bool(equals) and not argument.startswith("+") and (key == name or key.startswith(f"{name}."))


def _fits_grammar(argument: str, name: str) -> bool:
    """Whether Hydra reads it as it stands: `name.key=value`, or a mapping in braces."""
    key, _, value = argument.partition("=")
    if key == name:
        return value[:1] not in ("'", '"')
    return PLAIN_NAME.fullmatch(key.removeprefix(f"{name}.")) is not None


def _entries(argument: str, name: str) -> Mapping[str, str | WrittenForm]:
    key, _, value = argument.partition("=")
    if key != name:
        return {key.removeprefix(f"{name}."): value}
    if value.startswith("{"):
        value = re.sub(r"\\(.)", r"\1", value)  # what Hydra's grammar asks to be escaped
    try:
        return parse_entries(value)
    except ValueError as error:
        raise ConfigError(f"{argument}: {error}.") from None


def flags_first(argv: Sequence[str], config_dir: Path) -> list[str]:
    """The same arguments with the flags before the overrides, the one order that Hydra reads them in.

    `model=cnn -m optimizer.lr=0.1,0.2` is as good as `-m model=cnn optimizer.lr=0.1,0.2`.

    Raises:
        ConfigError: an unknown flag.
    """
    parser = get_args_parser()
    arguments = parse_flags(argv, config_dir)
    flags: list[str] = []
    for action in parser._actions:
        value = getattr(arguments, action.dest, action.default)
        if action.option_strings and value != action.default:
            flags += [action.option_strings[0], *([value] if action.nargs != 0 else [])]
    return [*flags, *arguments.overrides]
