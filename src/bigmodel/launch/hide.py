"""Secrets that are typed or stand in files: references take their place before Hydra writes anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from bigmodel.secrets import hidden, looks_secret


def hide_typed(argv: Sequence[str]) -> list[str]:
    """The command line with a reference in the place of every secret.

    In a sweep, too, all that follows the `=` is one value.
    """
    return [_typed(word) for word in argv]


def hide_composed(config: DictConfig) -> None:
    """Puts references in the place of secrets that files have brought, in a whole configuration."""
    with read_write(config), open_dict(config):
        for key in config:
            if key != "hydra":
                _hide_below(config, str(key), str(key))


def _typed(word: str) -> str:
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if not equals or word.startswith("-") or not looks_secret(name) or not value or "${" in value:
        return word
    if value.lower() in {"null", "???", "true", "false"}:
        return word
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return f"{key}={hidden(name, value[1:-1] if quoted else value)}"


def _hide_below(parent: Any, key: Any, path: str) -> None:
    if OmegaConf.is_interpolation(parent, key) or OmegaConf.is_missing(parent, key):
        return
    value = parent[key]
    if isinstance(value, DictConfig):
        for inner in list(value):
            _hide_below(value, inner, f"{path}.{inner}")
    elif isinstance(value, str) and value and looks_secret(path):
        parent[key] = hidden(path, value)
