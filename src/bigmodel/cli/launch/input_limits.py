"""Limits on the size of arguments and configuration files, checked before they are parsed.

Hydra's grammar, YAML and OmegaConf take time that grows with the square of a value's length, or with
everything that an alias (`*name`) stands for. `hydra_patches.limit_input` applies the limits.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from bigmodel.errors import ConfigError
from bigmodel.runtime.disk import check_regular

MOST_TYPED = 2_000
"""Values in one argument of the command line."""
MOST_IN_FILE = 20_000
"""Values in one configuration file, counting those that its aliases stand for."""
MOST_DEPTH = 100
"""Levels of nested lists and mappings."""
MOST_DIGITS = 1_000
"""Digits of a number."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser if PyYAML has it: the same events, many times faster."""

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_LONG = re.compile(rf"\d[\d_]{{{MOST_DIGITS},}}")
_NUMBER = re.compile(r"[-+]?[\d_]+")


def check_argument(text: str) -> None:
    """Raises ConfigError if an argument of the command line is too large to be parsed in time."""
    key, _, value = text.partition("=")
    plain = _QUOTED.sub("''", value)
    if number := _LONG.search(plain):
        raise ConfigError(f"{key}: {_too_many_digits(len(number[0]))}")
    if (values := 1 + plain.count(",")) > MOST_TYPED:
        raise ConfigError(
            f"{key}: {values:,} values; {MOST_TYPED:,} are read at most in one argument. Put them into a"
            " file of your own: --config-dir <folder>."
        )
    steps = (1 if sign in "[{(" else -1 for sign in plain if sign in "[{()}]")
    if (depth := max(itertools.accumulate(steps), default=0)) > MOST_DEPTH:
        raise ConfigError(f"{key}: brackets are nested {depth:,} deep; {MOST_DEPTH} are read at most.")


def _too_many_digits(count: int) -> str:
    return f"a number of {count:,} digits; {MOST_DIGITS:,} are read at most."


def fault_of_file(path: Path) -> str | None:
    """Why a YAML file exceeds the limits or cannot be opened; None if it is fine.

    Invalid YAML is reported when the file is loaded.
    """
    try:
        check_regular(path)
        with path.open(encoding="utf-8") as file:
            return _fault_of_events(yaml.parse(file, Loader=_LOADER))
    except OSError as error:
        return f"{error.strerror}."
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


def _fault_of_events(events: Any) -> str | None:
    """Counts values as they are parsed, and stops as soon as there are too many."""
    anchored: dict[str | None, int] = {}  # values below each anchor
    around: list[tuple[str | None, int]] = []  # lists and mappings: anchor, and how many values before
    values = 0
    for event in events:
        line = event.start_mark.line + 1
        match event:
            case yaml.ScalarEvent():
                values += 1
                anchored[event.anchor] = 1
                if len(event.value) > MOST_DIGITS and _NUMBER.fullmatch(event.value):
                    return f"line {line}: {_too_many_digits(len(event.value))}"
            case yaml.AliasEvent():
                if any(anchor == event.anchor for anchor, _ in around):
                    name = event.anchor
                    return f"line {line}: it contains itself: the alias *{name} is inside its anchor."
                values += anchored.get(event.anchor, 1)
            case yaml.CollectionStartEvent():
                around.append((event.anchor, values))
                if len(around) > MOST_DEPTH:
                    return f"line {line}: values are nested more than {MOST_DEPTH} deep."
            case yaml.CollectionEndEvent():
                anchor, before = around.pop()
                anchored[anchor] = values - before
        if values > MOST_IN_FILE:
            return (
                f"line {line}: more than {MOST_IN_FILE:,} values in one file, counting those that"
                " aliases (*name) stand for."
            )
    return None
