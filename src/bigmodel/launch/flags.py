"""The command line's flags: Hydra's own, read in any order, and refused in one line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from bigmodel.errors import ConfigError


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments as Hydra reads them, flags in any place.

    Raises:
        ConfigError: an unknown flag, or one without its value.
    """
    parser = get_args_parser()

    def complain(message: str) -> NoReturn:
        raise ConfigError(
            f"{message}. Settings are written without dashes, as in trainer.epochs=3;"
            " bigmodel-train --help lists the flags."
        )

    parser.error = complain  # type: ignore[method-assign]
    return parser.parse_intermixed_args(list(argv))


def adding(argv: Sequence[str], open_keys: Iterable[str]) -> list[str]:
    """The same arguments, with Hydra's plus signs before settings that take keys of the user's own.

    Hydra asks for `+` where a key is new, and for none where a file has it already: `++` is both.
    """
    known = tuple(open_keys)

    def is_own(argument: str) -> bool:
        key, equals, _ = argument.partition("=")
        return bool(equals) and any(key == name or key.startswith(f"{name}.") for name in known)

    return [f"++{argument}" if is_own(argument) else argument for argument in argv]


def flags_first(argv: Sequence[str]) -> list[str]:
    """The same arguments with the flags before the overrides, the one order that Hydra reads them in.

    `model=cnn -m optimizer.lr=0.1,0.2` is as good as `-m model=cnn optimizer.lr=0.1,0.2`.

    Raises:
        ConfigError: an unknown flag.
    """
    parser = get_args_parser()
    arguments = parse_flags(argv)
    flags: list[str] = []
    for action in parser._actions:
        value = getattr(arguments, action.dest, action.default)
        if action.option_strings and value != action.default:
            flags += [action.option_strings[0], *([value] if action.nargs != 0 else [])]
    return [*flags, *arguments.overrides]
