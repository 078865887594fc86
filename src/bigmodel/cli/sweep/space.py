"""What a search may set, from Hydra's grammar: lists, ranges and intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from bigmodel.cli.sweep.grid import check_once, is_of_sweep
from bigmodel.errors import ConfigError
from bigmodel.sweeps.search_space import Choices, Range


def search_space(overrides: Sequence[Override]) -> tuple[list[str], dict[str, Choices | Range]]:
    """What every job sets, and what is searched.

    Of `a,b` and `choice(a,b)` one value is taken, of `range(1,5)` one of its numbers, of
    `interval(0.1,1)` any number, of `int(interval(1,9))` a whole one; `tag(log,interval(1e-4,1))` has
    small ones as often as large ones.

    Raises:
        ConfigError: a key is given twice, or values are none that can be searched.
    """
    overrides = [override for override in overrides if not is_of_sweep(override)]
    check_once(overrides)
    fixed = [o.input_line or "" for o in overrides if not o.is_sweep_override()]
    space = {o.get_key_element(): _values(o) for o in overrides if o.is_sweep_override()}
    return fixed, space


def _values(override: Override) -> Choices | Range:
    words, values = override.input_line, override._value
    if isinstance(values, IntervalSweep):
        return _interval(words or "", values)
    if isinstance(values, RangeSweep) and not values.shuffle and values.step and values.step > 0:
        return _range(words or "", values)
    choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not choices:
        raise ConfigError(f"{words}: there is no value to choose from.")
    return Choices(choices)


def _interval(words: str, interval: IntervalSweep) -> Range:
    low, high = interval.start, interval.end
    assert low is not None
    assert high is not None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"{words}: an interval needs finite bounds.")
    if low > high:
        right = f"interval({high},{low})"
        raise ConfigError(f"{words}: the interval begins with its larger bound. Write {right}.")
    if unknown := interval.tags - {"log"}:
        raise ConfigError(f"{words}: no such tag: {', '.join(sorted(unknown))}. There is one: log.")
    log = "log" in interval.tags
    if log and low <= 0:
        raise ConfigError(
            f"{words}: on a logarithmic scale both bounds have to be above 0, such as"
            " tag(log,interval(1e-4,1))."
        )
    return Range(low, high, log)


def _range(words: str, values: RangeSweep) -> Range:
    start, stop, step = (
        Decimal(str(number or 0)) for number in (values.start, values.stop, values.step)
    )
    if not (start.is_finite() and stop.is_finite() and step.is_finite()):
        raise ConfigError(f"{words}: a range needs a finite start, stop and step.")
    count = math.ceil((stop - start) / step)  # its end is not one of its values
    if count < 1:
        raise ConfigError(f"{words}: there is no value to choose from.")
    last = start + (count - 1) * step
    if all(isinstance(number, int) for number in (values.start, values.step)):
        return Range(int(start), int(last), step=int(step))
    return Range(float(start), float(last), step=float(step))
