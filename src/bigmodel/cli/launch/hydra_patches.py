"""All replacements of Hydra's own methods; Hydra has no settings for them.

* `limit_input` refuses long arguments, deep files and huge sweeps before they take minutes;
* `guard` has Hydra compose with `safe_loader.GuardedLoader`, since a configuration can name code to run;
* `sweeping_with` has sweeps run by our own sweeper.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import hydra._internal.hydra as hydra_internals
from hydra import version
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.plugins.config_source import ConfigResult

from bigmodel.cli.launch import run_folder
from bigmodel.cli.launch.flags import parse_flags
from bigmodel.cli.launch.input_limits import check_argument, fault_of_file
from bigmodel.cli.launch.safe_loader import GuardedLoader, Rules, check_overrides, named_plugins
from bigmodel.errors import ConfigError

MOST_JOBS = 10_000
VERSION_BASE = "1.3"
"""The version whose behaviour Hydra is to have."""

_GET_MODE = hydra_internals.Hydra.get_mode


@functools.cache
def limit_input() -> None:
    """Has Hydra check the limits whenever it reads a file or an argument, or lists a sweep's jobs."""
    Plugins.instance()  # imports its plugins again, which creates new classes
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra._internal.core_plugins.file_config_source import FileConfigSource

    parse, load = OverridesParser.parse_rule, FileConfigSource.load_config
    split = BasicSweeper.split_arguments

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


def guard(config_dir: Path, argv: Sequence[str]) -> None:
    """Checks the command line, and every configuration that Hydra composes from now on.

    Args:
        config_dir: the shipped configurations.
        argv: the arguments that Hydra will get, without the program's name.

    Raises:
        ConfigError: an unknown flag, or an override that would run code.
    """
    arguments = parse_flags(argv, config_dir)
    if arguments.experimental_rerun is not None:
        raise ConfigError(
            "--experimental-rerun loads a pickle, which can run any code in it."
            " Use resume=<run folder> to resume a run."
        )
    if (path := arguments.config_path) and path.startswith("pkg:"):
        raise ConfigError(f"--config-path={path}: a package is code. Use a folder.")
    check_overrides(arguments.overrides)
    rules = Rules(config_dir.resolve(), named_plugins(arguments.overrides), arguments.resolve)
    hydra_internals.ConfigLoaderImpl = functools.partial(GuardedLoader, rules)  # type: ignore
    # To look up `hydra.mode`, Hydra composes everything once more, a twentieth of the start-up time. No
    # shipped file sets it, so the lookup is skipped unless the command line could set it.
    may_set_mode = any("hydra" in override for override in arguments.overrides)
    elsewhere = arguments.config_dir or arguments.config_path or arguments.config_name
    skip = not (may_set_mode or elsewhere)
    hydra_internals.Hydra.get_mode = (lambda *_, **__: None) if skip else _GET_MODE  # type: ignore


def set_globals() -> None:
    """Sets what Hydra and OmegaConf keep in globals; a process that was not forked has nothing of it."""
    setup_globals()
    version.setbase(VERSION_BASE)
    run_folder.register_resolver()


@contextlib.contextmanager
def sweeping_with(sweeper: Callable[..., Any]) -> Iterator[None]:
    """Within it, Hydra gets its sweeper from a function.

    Args:
        sweeper: called with keywords, as `Plugins.instantiate_sweeper` is.
    """
    instantiate = Plugins.instantiate_sweeper
    Plugins.instantiate_sweeper = (  # type: ignore[method-assign]
        lambda self, **context: sweeper(**context)  # noqa: ARG005
    )
    try:
        yield
    finally:
        Plugins.instantiate_sweeper = instantiate  # type: ignore[method-assign]


def check_sweep(overrides: Sequence[Override]) -> None:
    """Makes sure that a sweep has jobs, and `MOST_JOBS` at most. Ranges are not listed for that.

    Raises:
        ConfigError: it has none, or more.
    """
    counts = {
        override.get_key_element(): _count(override)
        for override in overrides
        if override.is_sweep_override() and override.is_discrete_sweep()
    }
    for key, count in counts.items():
        if count == 0:
            raise ConfigError(f"{key}: the sweep has no values, so there is no job to run.")
    jobs = math.prod(counts.values())
    if jobs > MOST_JOBS:
        factors = " × ".join(f"{count:,} of {key}" for key, count in counts.items() if count > 1)
        raise ConfigError(
            f"The sweep has {jobs:,} jobs ({factors}); {MOST_JOBS:,} are run at most. Sweep over fewer"
            " values, or in parts."
        )


def _count(override: Override) -> int:
    """How many values a sweep is over; a range is counted without listing it."""
    values = override._value
    if not isinstance(values, RangeSweep):
        return sum(1 for _ in override.sweep_iterator())
    start, stop, step = (Decimal(value or 0) for value in (values.start, values.stop, values.step))
    if not (start.is_finite() and stop.is_finite() and step.is_finite() and step):
        raise ConfigError(
            f"{override.input_line}: a range needs a finite start, stop and step, and a step other"
            " than 0."
        )
    return max(0, math.ceil((stop - start) / step))
