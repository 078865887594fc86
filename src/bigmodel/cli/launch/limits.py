"""How much a configuration may ask for: what is beyond is refused by number, before it is worked out.

Hydra's grammar, YAML and OmegaConf take time that grows with the square of a value's length, or with all
that an alias (`*name`) stands for; and a sweep is written out, job by job, before the first begins.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from bigmodel.errors import ConfigError
from bigmodel.runtime.disk import check_regular

MOST_JOBS = 10_000
MOST_TYPED = 2_000
"""Values in one argument of the command line."""
MOST_IN_FILE = 20_000
"""Values in one configuration file, counting those that its aliases stand for."""
MOST_DEPTH = 100
"""Levels of lists and mappings within each other."""
MOST_DIGITS = 1_000
"""Digits of a number."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it: the same events, many times as fast."""

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_LONG = re.compile(rf"\d[\d_]{{{MOST_DIGITS},}}")
_NUMBER = re.compile(r"[-+]?[\d_]+")


@functools.cache
def install() -> None:
    """Has Hydra look at these bounds, wherever it reads a file or an argument, or writes a sweep out."""
    Plugins.instance()  # which makes these classes anew
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra._internal.core_plugins.file_config_source import FileConfigSource

    parse, load, split = (
        OverridesParser.parse_rule,
        FileConfigSource.load_config,
        BasicSweeper.split_arguments,
    )

    def parse_rule(self: OverridesParser, text: str, rule_name: str) -> Any:
        check_argument(text)
        return parse(self, text, rule_name)

    def load_config(self: FileConfigSource, config_path: str) -> ConfigResult:
        path = Path(self.path, self._normalize_file_name(config_path))
        if (fault := fault_of_file(path)) is not None:
            raise ConfigError(f"{path}: {fault}")
        return load(self, config_path)

    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> Any:
        check_sweep(overrides)
        return split(overrides, max_batch_size)

    OverridesParser.parse_rule = parse_rule  # type: ignore[method-assign, assignment]
    FileConfigSource.load_config = load_config  # type: ignore[method-assign]
    BasicSweeper.split_arguments = staticmethod(split_arguments)  # type: ignore[method-assign]


def check_argument(text: str) -> None:
    """Raises ConfigError where an argument of the command line holds too much to be read in time."""
    key, _, value = text.partition("=")
    plain = _QUOTED.sub("''", value)
    if number := _LONG.search(plain):
        raise ConfigError(
            f"{key}: a number of {len(number[0]):,} digits; {MOST_DIGITS:,} are read at most."
        )
    if (values := 1 + plain.count(",")) > MOST_TYPED:
        raise ConfigError(
            f"{key}: {values:,} values; {MOST_TYPED:,} are read at most in one argument. Put them into a"
            " file of your own: --config-dir <folder>."
        )
    steps = (1 if sign in "[{(" else -1 for sign in plain if sign in "[{()}]")
    if (depth := max(itertools.accumulate(steps), default=0)) > MOST_DEPTH:
        raise ConfigError(f"{key}: brackets are nested {depth:,} deep; {MOST_DEPTH} are read at most.")


def fault_of_file(path: Path) -> str | None:
    """What is too much in a YAML file, or why it is none that can be read; None where nothing is.

    What is no valid YAML is left to whoever reads it.
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
    """Counts values as they are parsed, and looks at no more of the file once they are too many."""
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
                    digits = len(event.value)
                    return (
                        f"line {line}: a number of {digits:,} digits; {MOST_DIGITS:,} are read at most."
                    )
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


def check_sweep(overrides: Sequence[Override]) -> None:
    """Raises ConfigError where a sweep has no job, or more than `MOST_JOBS`."""
    counts = {
        override.get_key_element(): _count(override)
        for override in overrides
        if override.is_sweep_override() and override.is_discrete_sweep()
    }
    for key, count in counts.items():
        if count == 0:
            raise ConfigError(
                f"{key}: its sweep is over no value at all, so that there is no job to run."
            )
    jobs = math.prod(counts.values())
    if jobs > MOST_JOBS:
        told = " × ".join(f"{count:,} of {key}" for key, count in counts.items() if count > 1)
        raise ConfigError(
            f"The sweep has {jobs:,} jobs ({told}); {MOST_JOBS:,} are run at most. Sweep over fewer"
            " values, or in parts."
        )


def _count(override: Override) -> int:
    """How many values a sweep is over, none of which is made."""
    sweep = override._value
    if not isinstance(sweep, RangeSweep):
        return sum(1 for _ in override.sweep_iterator())
    start, stop, step = (Decimal(value or 0) for value in (sweep.start, sweep.stop, sweep.step))
    if not (start.is_finite() and stop.is_finite() and step.is_finite() and step):
        raise ConfigError(
            f"{override.input_line}: a range needs a start, a stop and a step that are finite, and a"
            " step other than 0."
        )
    return max(0, math.ceil((stop - start) / step))
