"""The command line's flags: Hydra's, in any order, with errors of one line."""

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
    """The arguments as Hydra parses them, with flags in any position.

    Args:
        config_dir: the shipped configurations, to suggest settings for an unknown flag.

    Raises:
        ConfigError: an unknown flag, or one without its value.
    """
    parser = get_args_parser()

    def fail(message: str) -> NoReturn:
        raise ConfigError(f"{message}. {_advice(message, argv, config_dir, parser)}")

    parser.error = fail  # type: ignore[method-assign]
    return parser.parse_intermixed_args(list(argv))


def _advice(message: str, argv: Sequence[str], config_dir: Path, parser: argparse.ArgumentParser) -> str:
    """What was probably meant by an unknown flag: a setting, as in `--lr 0.1`, or another flag."""
    index = read_index([config_dir, *own_folders(argv)])
    settings, flags = [*index.groups, *index.paths(argv)], parser._option_string_actions
    undashed = "Settings are written without dashes"
    unknown = re.match(r"unrecognized arguments: (-\S+)", message)
    word = unknown[1] if unknown else ""
    if word in argv:
        key, equals, value = word.lstrip("-").partition("=")
        after = argv[argv.index(word) + 1 :][:1]
        if not equals and after and not after[0].startswith("-") and "=" not in after[0]:
            value = after[0]
        if (hint := other_tools.suggest(key, value, index, argv)) is not None:
            return f"{undashed}. {hint}"
        if "." in key and value:
            return f"{undashed}. Did you mean {shell_quoted(f'{key}={value}')}?"
    if flag := re.match(r"--[\w-]+", word):
        # A setting with dashes before it may be nearer than any flag: `--resum` is no `--run`.
        near = nearest(flag[0], [*flags, *(f"--{name}" for name in settings)])
        if near in flags:
            return f"Did you mean '{near}'? bigmodel-train --help lists the flags."
        if meant := did_you_mean(flag[0].lstrip("-"), settings):
            return f"{undashed}.{meant}"
    return f"{undashed}, as in trainer.epochs=3; bigmodel-train --help lists the flags."


_IN_ONE_TEXT = "data.columns"  # which its schema reads as one text, too


def add_pluses(argv: Sequence[str], open_keys: Iterable[str]) -> list[str]:
    """Adds Hydra's plus signs to settings that accept keys chosen by the user.

    Hydra requires `+` for a new key and forbids it for an existing one; `++` works for both. If its
    grammar does not accept a column's name, such as `data.columns.größe`, all columns are passed as one
    text; otherwise the last would replace the others.
    """
    words = list(argv)
    for name in open_keys:
        places = [place for place, word in enumerate(words) if _sets(word, name)]
        if name != _IN_ONE_TEXT or all(_fits_grammar(words[place], name) for place in places):
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
    """Replaces `device=cuda:1`, for which there is no file, by `device=cuda device.name=cuda:1`."""
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
    """Whether an argument sets a key of the setting `name`."""
    key, equals, _ = argument.lstrip("+").partition("=")
    return bool(equals) and not argument.startswith("+") and (key == name or key.startswith(f"{name}."))


def _fits_grammar(argument: str, name: str) -> bool:
    """Whether Hydra can parse it unchanged: `name.key=value`, or a mapping in braces."""
    key, _, value = argument.partition("=")
    if key == name:
        return value[:1] not in ("'", '"')
    return PLAIN_NAME.fullmatch(key.removeprefix(f"{name}.")) is not None


def _entries(argument: str, name: str) -> Mapping[str, str | WrittenForm]:
    key, _, value = argument.partition("=")
    if key != name:
        return {key.removeprefix(f"{name}."): value}
    if value.startswith("{"):
        value = re.sub(r"\\(.)", r"\1", value)  # escapes that Hydra's grammar requires
    try:
        return parse_entries(value)
    except ValueError as error:
        raise ConfigError(f"{argument}: {error}.") from None


def flags_first(argv: Sequence[str], config_dir: Path) -> list[str]:
    """Moves the flags before the overrides, the only order that Hydra accepts.

    `model=cnn -m optimizer.lr=0.1,0.2` then works like `-m model=cnn optimizer.lr=0.1,0.2`.

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
