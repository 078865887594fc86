"""The jobs that a command line stands for: every combination of the values that it sweeps over."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from hydra.core.override_parser.types import Override

from bigmodel.errors import ConfigError


def combinations(overrides: Sequence[Override]) -> list[tuple[str, ...]]:
    """The overrides of each job, in the order in which they were typed; the last varies fastest.

    Raises:
        ConfigError: a key is swept over twice, or over an interval, which has no list of values.
    """
    counts = Counter(override.get_key_element() for override in overrides)
    choices = []
    for override in overrides:
        if is_of_sweep(override):
            continue
        key = override.get_key_element()
        if not override.is_sweep_override():
            choices.append([override.input_line or ""])
            continue
        if counts[key] > 1:
            values = " and ".join(o.input_line or "" for o in overrides if o.get_key_element() == key)
            raise ConfigError(f"{key}: is given more than once ({values}). Write all its values in one.")
        if not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line}: an interval has no list of values to run. Use"
                f" {key}=0.1,0.01 or {key}='range(1,5)', or search it with sweep=optuna."
            )
        choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    return [tuple(words) for words in itertools.product(*choices)]


def is_of_sweep(override: Override) -> bool:
    """Whether it sets something of the sweep itself."""
    return override.key_or_group.replace("/", ".").split(".")[0] == "sweep"
