"""Checks suggested settings against the schemas before a message suggests them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from bigmodel.cli.launch.config_index import ConfigIndex
from bigmodel.errors import ConfigError
from bigmodel.runtime.device_names import is_device


def are_allowed(words: Sequence[str], index: ConfigIndex, argv: Sequence[str]) -> bool:
    """Whether `key=value` words are valid with the choices made.

    Args:
        words: as Hydra parses them, without the shell's quotation marks.
        index: the groups, choices and settings.
        argv: the other arguments.
    """
    line = [*argv, *words]
    known = index.paths(line)
    settings: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key in index.groups:
            if value not in index.groups[key].choices and not (key == "device" and is_device(value)):
                return False
            continue
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:
            return False
        if key not in known or override.is_sweep_override():
            return False
        settings[key] = override.value()
    for group in {key.partition(".")[0] for key in settings}:
        own = {key: value for key, value in settings.items() if key.partition(".")[0] == group}
        if not all(_group_allows(group, own, name) for name in _entries(group, index, line)):
            return False
    return True


def _entries(group: str, index: ConfigIndex, line: Sequence[str]) -> list[str]:
    """The registered entries configured by the choices made in a group."""
    if group not in index.groups:
        return [""]
    names = index.chosen(line).get(group, [index.groups[group].default or ""])
    known = index.groups[group].choices
    choices = [known[name] for name in names if name in known]
    return [
        next((key.value or "" for key in choice.keys if key.path == f"{group}.name"), choice.name)
        for choice in choices
    ]


def _group_allows(group: str, settings: dict[str, Any], name: str) -> bool:
    """Whether the settings of one group cause no additional errors."""
    without = _errors(group, {}, name)
    is_known = not any(line.startswith(f"{group}.name=") for line in without)
    return is_known and not (_errors(group, settings, name) - without)


def _errors(group: str, settings: dict[str, Any], name: str) -> set[str]:
    from bigmodel.config import TopConfig, without_auto_rate  # brings torch
    from bigmodel.registry import REGISTRIES, validate
    from bigmodel.runtime.device import DeviceConfig
    from bigmodel.training.plan import TrainerConfig

    values: dict[str, Any] = {}
    for path, value in settings.items():
        in_group = group in REGISTRIES or group in ("trainer", "device")
        *sections, last = path.split(".")[1 if in_group else 0 :]
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    try:
        if group in REGISTRIES:
            entry: Any = {"name": name, **values}
            REGISTRIES[group].parse(without_auto_rate(entry)[0] if group == "optimizer" else entry)
            REGISTRIES[group].parse_shared(entry)
        elif group in ("trainer", "device"):
            validate(TrainerConfig if group == "trainer" else DeviceConfig, values, group)
        else:
            validate(TopConfig, values, "")
    except ConfigError as error:
        return set(str(error).splitlines())
    return set()
