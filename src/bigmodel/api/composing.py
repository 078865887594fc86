"""Composes a run's configuration from the words of a command line, in the caller's process."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from bigmodel.cli.launch import flags, redact_overrides, resume
from bigmodel.cli.launch.config_index import read_index
from bigmodel.cli.launch.safe_loader import GuardedLoader, Rules, check_overrides, named_plugins
from bigmodel.cli.train import config_dir
from bigmodel.errors import ConfigError


class Composed(NamedTuple):
    """A run's configuration.

    Attributes:
        config: without Hydra's own part.
        hydra: that part.
        folder: the run's, which has been created for it.
        resumed: the folder of the run to resume; None for a new run.
        may_change: whether it may resume with other settings or data.
    """

    config: DictConfig
    hydra: DictConfig
    folder: Path
    resumed: Path | None
    may_change: bool


def compose(words: Sequence[str]) -> Composed:
    """Composes as `bigmodel-train` does.

    Args:
        words: settings, and the flag `--config-dir`.

    Raises:
        ConfigError: they ask for more than one run in this process, or would run code.
        Exception: Hydra's own, which `explained` translates.
    """
    shipped = config_dir()
    argv = redact_overrides.redact_argv(words)
    argv = flags.expand_device_index(flags.flags_first(argv, shipped))
    argv = flags.add_pluses(argv, read_index([shipped]).open_paths())
    _check_one_run(argv, shipped)
    argv, resumed, may_change = resume.expand_resume(argv, shipped)
    arguments = flags.parse_flags(argv, shipped)
    check_overrides(arguments.overrides)
    search = create_config_search_path(arguments.config_path or str(shipped))
    if arguments.config_dir:
        added = Path(arguments.config_dir).absolute()
        if not added.is_dir():
            raise ConfigError(f"--config-dir={arguments.config_dir}: there is no such folder.")
        search.prepend("command-line", f"file://{added}", SearchPathQuery(provider="schema"))
    loader = GuardedLoader(Rules(shipped.resolve(), named_plugins(arguments.overrides)), search)
    config = loader.load_configuration(
        arguments.config_name or "train", arguments.overrides, RunMode.RUN
    )
    HydraConfig.instance().set_config(config)
    folder = Path(str(OmegaConf.select(config, "hydra.run.dir"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    runtime = config.hydra.runtime
    with read_write(runtime), open_dict(runtime):
        runtime.output_dir = str(folder)
    hydra, config = config.hydra, copy.deepcopy(config)
    with read_write(config), open_dict(config):
        del config["hydra"]
    return Composed(config, hydra, folder, resumed, may_change)


def _check_one_run(argv: Sequence[str], shipped: Path) -> None:
    if finds := [word for word in argv if word.lstrip("+").startswith("find=")]:
        raise ConfigError(
            f"{finds[-1]}: trains nothing. Use bigmodel-train for it, or train with optimizer.lr=auto."
        )
    arguments = flags.parse_flags(argv, shipped)
    wanted = {"--multirun": arguments.multirun, "--cfg": arguments.cfg, "--info": arguments.info}
    wanted |= {"--help": arguments.help, "--hydra-help": arguments.hydra_help}
    used = next((flag for flag, value in wanted.items() if value), None)
    if used is not None:
        raise ConfigError(f"{used}: train runs a single run. Use bigmodel-train for it.")
    sweep = next((w for w in argv if w.lstrip("+~").startswith(("sweep.", "sweep="))), None)
    if sweep is not None:
        raise ConfigError(f"{sweep}: train runs a single run. Use bigmodel-train -m for sweeps.")
