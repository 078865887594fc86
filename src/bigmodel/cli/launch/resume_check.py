"""Which settings may differ when a run is resumed, and which would make it another run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import BaseModel

from bigmodel.cli.launch.resume_config import comparable, flatten, read_config, run_settings
from bigmodel.cli.launch.run_folder import kept_table
from bigmodel.config import RunConfig
from bigmodel.errors import ConfigError, setting
from bigmodel.redaction import looks_secret, redact

FREE = (
    *("trainer", "device", "output_dir", "plugins", "metrics", "logger", "run"),
    *("scheduler.extend", "data.workers", "data.timeout", "data.on_device", "data.cache"),
)
"""Settings that may differ, except those in `FIXED`."""

FIXED = (
    *("trainer.accumulate", "trainer.clip_norm", "trainer.ema"),
    *("trainer.limit.train", "trainer.limit.val", "trainer.limit.test"),
    *("trainer.checkpoint.monitor", "trainer.checkpoint.mode"),
    *("trainer.early_stopping.monitor", "trainer.early_stopping.mode"),
)
"""Settings that would change the steps, or the metric of the best checkpoint so far."""


def check_plugins(folder: Path, config: DictConfig) -> None:
    """Checks that the plugins of a run are named again.

    Raises:
        ConfigError: a plugin is missing.
    """
    ours = comparable(config).get("plugins") or []
    forgotten = [plugin for plugin in read_config(folder).get("plugins") or [] if plugin not in ours]
    if forgotten:
        raise ConfigError(
            f"resume={folder}: the run uses plugins, whose code runs only when you name them again:"
            f" {setting('plugins', forgotten)}"
        )


def check_same(
    folder: Path, config: DictConfig, typed: RunConfig, settings: dict[str, Any] | None, may_change: bool
) -> list[str] | None:
    """Checks that only settings differ from the old run that may.

    Args:
        folder: the old run's folder.
        config: the configuration to resume with, as composed.
        typed: the same, parsed.
        settings: the settings stored in the checkpoint; they may be older than the folder's if a run
            ended before its first save with new ones. None if the checkpoint has none.
        may_change: whether the user allows any difference.

    Returns:
        The differing keys that define the run; None if none may differ.

    Raises:
        ConfigError: lists each difference, old and new.
    """
    if settings is None:
        old, new = flatten(run_settings(read_config(folder))), flatten(comparable(config))
    else:
        old, new = flatten(run_settings(settings)), flatten(run_settings(typed.values))
    defaults = dict(_defaults(typed))  # an earlier version behaved as the defaults of newer settings say
    old = {key: defaults[key] for key in new if key in defaults} | old
    table = kept_table(folder, old.get("data.path"))
    if table is not None and new.get("data.path") == str(table):  # the folder may have been moved
        old["data.path"] = str(table)
    if new.get("model.lora.rank") is not None:  # the base may have been moved: it has a digest
        old["model.pretrained"] = new.get("model.pretrained")
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    deciding = [key for key in changed if key in FIXED or not _is_free(key)]
    deciding = [key for key in deciding if not _is_hidden(key, old.get(key), new.get(key))]
    if may_change:
        return deciding
    if deciding:
        pairs = [(key, redact(key, old.get(key)), redact(key, new.get(key))) for key in deciding]
        listed = "\n".join(f"  {key}: was {before!r}, now {now!r}" for key, before, now in pairs)
        raise ConfigError(
            f"resume={folder}: this would be a different run:\n{listed}\n"
            "Leave these as they were, or start a new run.",
            "Or add resume_changed=true to continue anyway.",
        )
    return None


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _is_hidden(key: str, *values: Any) -> bool:
    """Whether a setting is a secret, which may change; runs of the first version store its value."""
    return looks_secret(key) and all(value is None or isinstance(value, str) for value in values)


_SECTIONS = {"top": "", "fine_tuning": "model", "rates": "optimizer"}
"""Where the settings are that have another name in `RunConfig`."""


def _defaults(typed: RunConfig) -> Iterator[tuple[str, Any]]:
    """Dotted key and default of every setting of the chosen entries."""
    for group, settings in vars(typed).items():
        if isinstance(settings, BaseModel):
            group = _SECTIONS.get(group, group)
            prefix = f"{group}." if group else ""
            for name, field in type(settings).model_fields.items():
                default = field.get_default(call_default_factory=True)
                if isinstance(default, BaseModel):
                    yield from flatten(default.model_dump(), f"{prefix}{name}.").items()
                elif not field.is_required():
                    yield f"{prefix}{name}", default
