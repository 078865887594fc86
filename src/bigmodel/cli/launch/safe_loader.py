"""Makes sure that no configuration runs code, whoever wrote it.

Hydra instantiates whatever a `_target_` names: callbacks, log handlers, sweepers and launchers, all
before the first line of our code. So each configuration is checked inside Hydra's own loader, after it
is composed and before anything is instantiated: the main one, those of a sweep's jobs, and those in
worker processes.

What is trusted depends on where it comes from:

* what ships with bigmodel, Hydra and installed Hydra plugins is trusted;
* a configuration file from anywhere else sets settings, and only a few of Hydra's (`FILE_KEYS`);
* the command line may set most of Hydra's (`TYPED_KEYS`), but no code either.

The user's own code is loaded in one way: `plugins=[module]`, typed on the command line.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from hydra._internal.config_repository import IConfigRepository
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bigmodel.cli.launch.redact_overrides import redact_config, take_swept_secrets
from bigmodel.cli.launch.sweep_loader import SweepLoader
from bigmodel.errors import ConfigError, setting
from bigmodel.redaction import looks_secret

FILE_KEYS = (
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"),
    *("hydra.sweeper.params", "hydra.sweeper.max_batch_size"),
    *(f"hydra.sweeper.{key}" for key in ("n_trials", "n_jobs", "direction", "sampler")),
    *("hydra.sweeper.storage", "hydra.sweeper.study_name"),
    *("hydra.job.chdir", "hydra.job.config.override_dirname", "hydra.mode", "hydra.verbose"),
)
TYPED_KEYS = (
    *FILE_KEYS,
    *("hydra.sweeper", "hydra.launcher", "hydra.job", "hydra.help"),
    *("hydra.output_subdir", "hydra.searchpath"),
    *("hydra.job_logging.root.level", "hydra.hydra_logging.root.level"),
)
FOLDER_KEYS = ("output_dir", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
BUILT_BY_HYDRA = ("hydra.launcher", "hydra.sweeper")
USER_PROVIDERS = ("main", "command-line", "hydra.searchpath in main", "hydra.searchpath in command-line")
PLUGIN_HINT = "Code of your own is loaded as a plugin: 'plugins=[my_module]' on the command line."


def check_overrides(overrides: Iterable[str], typed: bool = True) -> None:
    """Refuses overrides that would run code, or set what only trusted files may.

    Args:
        overrides: as on the command line. Hydra itself reports those that it cannot parse.
        typed: whether the user typed them; a sweep's may also come from files.

    Raises:
        ConfigError: names the override, and what is allowed.
    """
    for override in overrides:
        parsed = _parse_override(override)
        if parsed is not None:
            _check_override(parsed, override, typed)


@dataclass(frozen=True)
class Rules:
    """What a loader needs to know: the shipped folder, the modules that the user allows, and whether the
    configuration is only printed, with references resolved (`--cfg job --resolve`)."""

    config_dir: Path
    plugins: frozenset[str]
    printed: bool = False

    def trusts(self, config_path: str, provider: str, source: str) -> bool:
        """Whether a file ships with bigmodel, with Hydra, or with an installed Hydra plugin."""
        inside = PurePosixPath(config_path)
        if inside.is_absolute() or ".." in inside.parts:  # it leads out of its folder
            return False
        if provider not in USER_PROVIDERS:
            return True
        return Path(source.removeprefix("file://")).resolve() == self.config_dir


class GuardedLoader(SweepLoader):
    """Hydra's loader, which also checks each file that it reads and the composed configuration."""

    def __init__(self, rules: Rules, config_search_path: Any) -> None:
        super().__init__(config_search_path)
        self.rules = rules
        self.swept: list[str] = []  # overrides with secrets, which are hidden from the sweeper

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        check_overrides(overrides)
        config = super().load_configuration(
            config_name, overrides, run_mode, from_shell, validate_sweep_overrides
        )
        _check_composed(config, self.rules)
        redact_config(config, mask=self.rules.printed)
        self.swept = take_swept_secrets(config)
        return config

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        check_overrides(sweep_overrides, typed=False)
        return super().load_sweep_config(master_config, [*self.swept, *sweep_overrides])

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: Any
    ) -> None:
        """Hydra imports packages that a search path names, so the primary file is checked first."""
        if config_name is not None:
            self._check_file(config_name, None, repo)
        super()._process_config_searchpath(config_name, parsed_overrides, repo)

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        self._check_file(default.config_path or "", default.package, repo)
        return super()._load_single_config(default, repo)

    def _check_file(self, config_path: str, package: str | None, repo: IConfigRepository) -> None:
        """Checks a file's content at the position where it will be merged."""
        loaded = repo.load_config(config_path=config_path)
        if loaded is None or self.rules.trusts(config_path, loaded.provider, loaded.path):
            return
        file = f"{loaded.path.removeprefix('file://')}/{config_path.removesuffix('.yaml')}.yaml"
        placed = self._embed_result_config(loaded, package).config
        for path, value in _leaves(OmegaConf.to_container(placed, resolve=False)):
            if _names_code(path, value):
                _refuse_target(file, path)
            if "${new_folder" in str(value) and not _is_under(path, FILE_KEYS):
                raise ConfigError(
                    f"{file}: {path}: `new_folder` creates folders and is only for hydra.run.dir."
                )
            if _is_under(path, ("hydra",)) and not _is_under(path, FILE_KEYS) and value != {}:
                raise ConfigError(
                    f"{file}: {path} cannot be set by a configuration file of your own, because"
                    f" Hydra runs code that it names. Allowed there: {', '.join(FILE_KEYS)}."
                    f" {PLUGIN_HINT}"
                )


def named_plugins(overrides: Iterable[str]) -> frozenset[str]:
    """The modules named by `plugins=`, in any form: one, a list, or several lists to sweep over."""
    named = [override.partition("=") for override in overrides]
    values = [value for key, _, value in named if key.lstrip("+").split(".")[0] == "plugins"]
    return frozenset(re.findall(r"[^\s,\[\]'\"]+", " ".join(values)))


def _check_composed(config: DictConfig, rules: Rules) -> None:
    """Checks the composed configuration."""
    for path, value in _leaves(OmegaConf.to_container(config, resolve=False)):
        if _names_code(path, value) and not _is_under(path, BUILT_BY_HYDRA):
            _refuse_target("the configuration", path)
        if _is_under(path, ("plugins",)):
            _check_plugin(path, value, rules)
        if path in FOLDER_KEYS and _refers_to_secret(str(value)):
            raise ConfigError(f"{path}={value}: a secret cannot be part of a folder's name.")


def _check_plugin(path: str, value: Any, rules: Rules) -> None:
    """A plugin is code: a file may name only those that the user has named."""
    if value not in (None, [], "") and str(value) not in rules.plugins:
        raise ConfigError(
            f"{path}={value!r}: a configuration file names a module to import, which would run its"
            f" code. If you trust it, name it on the command line: {setting('plugins', [str(value)])}."
        )


def _check_override(override: Override, text: str, typed: bool) -> None:
    key = override.key_or_group.replace("/", ".")
    if "_target_" in text:
        _refuse_target("the command line", text)
    if "hydra" in re.split(r"\W+", override.package or ""):
        raise ConfigError(f"{text}: nothing can be added to Hydra's own configuration. {PLUGIN_HINT}")
    if not _is_under(key, ("hydra",)):
        return
    allowed = TYPED_KEYS if typed else FILE_KEYS
    is_choice = "/" in override.key_or_group  # hydra/launcher=joblib: its file is checked when read
    if not (typed and key != "hydra.callbacks" if is_choice else _is_under(key, allowed)):
        raise ConfigError(
            f"{text}: cannot be set, because Hydra runs code that it names."
            f" Allowed: {', '.join(allowed)}. {PLUGIN_HINT}"
        )
    if key == "hydra.searchpath" and "pkg:" in str(override.value()):
        raise ConfigError(f"{text}: a package is code. Use a folder: 'hydra.searchpath=[my/configs]'.")


def _refuse_target(source: str, path: str) -> NoReturn:
    raise ConfigError(
        f"{source}: {path}: a configuration cannot name code to run, so `_target_` is not allowed."
        f" Remove it. {PLUGIN_HINT}"
    )


def _names_code(path: str, value: Any) -> bool:
    """Whether a key is `_target_`, or a value brings one in by `${oc.create:…}` and the like."""
    refers = isinstance(value, str) and "${" in value and "_target_" in value
    return refers or "_target_" in path.split(".")


def _refers_to_secret(text: str) -> bool:
    return any(map(looks_secret, re.findall(r"\$\{\s*(?:oc\.env:\s*)?([\w.]+)", text)))


def _is_under(path: str, keys: Iterable[str]) -> bool:
    return any(path == key or path.startswith(f"{key}.") for key in keys)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of each leaf; empty containers are leaves too."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and value:
        for inner in value:
            yield from _leaves(inner, path)
    else:
        yield path, value


@functools.lru_cache(maxsize=256)
def _parse_override(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None
