"""Replaces secrets, typed or from a file, by references before Hydra writes anything."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write

from bigmodel.errors import ConfigError
from bigmodel.redaction import MASK, REFERENCE, is_count, looks_secret, remember, store_secret


def redact_argv(argv: Sequence[str]) -> list[str]:
    """Replaces each secret on the command line by a reference.

    In a sweep, everything after the `=` is treated as one value.

    Raises:
        ConfigError: a sweep over groups of settings with a secret in each.
    """
    for flag, value in itertools.pairwise(argv):  # `--token abc` is a mistake, which the message quotes
        if flag.startswith("-") and "=" not in flag and looks_secret(flag):
            remember(value)
    return [_redact_word(word) for word in argv]


def redact_config(config: DictConfig, mask: bool = False) -> None:
    """Replaces secrets from files by references in a composed configuration.

    Args:
        config: as composed, with Hydra's own part; changed in place.
        mask: hide even the references, since the configuration is printed with them resolved.
    """
    with read_write(config), open_dict(config):
        for key in config:
            if key != "hydra":
                _redact_node(config, key, str(key), False, mask)
        if "hydra" in config:
            _redact_hydra(config.hydra, mask)


def take_swept_secrets(config: DictConfig) -> list[str]:
    """Removes the secrets that a file sweeps over from a configuration.

    Hydra's sweeper stores its settings, and resolves them more than once.

    Returns:
        Overrides with references, for every job.
    """
    params = (config.hydra.get("sweeper") or {}).get("params") or {}
    plain: Any = OmegaConf.to_container(params, resolve=False) if params else {}
    taken = [f"{key}={value}" for key, value in plain.items() if looks_secret(key) and value]
    with read_write(config), open_dict(config):
        for word in taken:
            del params[word.partition("=")[0]]
    return redact_argv(taken)


def _redact_word(word: str) -> str:
    key, equals, value = word.partition("=")
    name = key.lstrip("+~-")
    if word.startswith("-") or not equals:  # a mistake, which the message will quote
        mistaken = re.match(r"-*([\w.]+)[=: ]+(.+)", word)
        if mistaken and looks_secret(mistaken[1]):
            remember(mistaken[2])
        return word
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        override = None
    if override is None and value[:1] in {"'", '"'} and looks_secret(name):  # it is not closed
        remember(value)
        return word
    if override is None or override.is_sweep_override():
        if looks_secret(name) and value and "${" not in value:
            return f"{key}={store_secret(name, value)}"
        if override is not None and _redact_value(getattr(override._value, "list", []), name, False)[1]:
            raise ConfigError(
                f"{name}: a sweep over several settings with a secret in each would write the secrets "
                "to its files. Pass the secret by itself, with its full key."
            )
        return word
    if isinstance(override._value, int | float) and looks_secret(name):
        exact = isinstance(override._value, bool) or is_count(name, override._value)
        return word if exact else f"{key}={store_secret(name, value.strip())}"
    new, changed = _redact_value(override._value, name, looks_secret(name))
    return f"{key}={Override._get_value_element_as_str(new)}" if changed else word


def _redact_value(value: Any, path: str, secret: bool) -> tuple[Any, bool]:
    """A parsed value with references instead of secrets, and whether there are any."""
    if isinstance(value, dict):
        pairs = {
            key: _redact_value(inner, f"{path}.{_text(key)}", secret or looks_secret(_text(key)))
            for key, inner in value.items()
        }
        return {key: new for key, (new, _) in pairs.items()}, any(c for _, c in pairs.values())
    if isinstance(value, list):
        items = [_redact_value(inner, f"{path}.{at}", secret) for at, inner in enumerate(value)]
        return [new for new, _ in items], any(changed for _, changed in items)
    text = _text(value)
    if not secret or not isinstance(value, str | QuotedString) or not text or "${" in text:
        return value, False
    return QuotedString(store_secret(path, text), Quote.single), True


def _text(value: Any) -> str:
    return value.text if isinstance(value, QuotedString) else str(value)


def _redact_node(parent: Any, key: Any, path: str, secret: bool, mask: bool) -> None:
    """Hides secrets below `parent[key]`: everything, if its key or one above it is that of a secret."""
    secret = secret or looks_secret(path)
    if OmegaConf.is_missing(parent, key):
        return
    if OmegaConf.is_interpolation(parent, key):
        if secret and mask:
            parent[key] = MASK
        return
    value = parent[key]
    if isinstance(value, DictConfig | ListConfig):
        for inner in list(value) if isinstance(value, DictConfig) else range(len(value)):
            _redact_node(value, inner, f"{path}.{inner}", secret, mask)
    elif secret and isinstance(value, str) and value:
        parent[key] = MASK if mask else store_secret(path, value)


def _redact_hydra(hydra: DictConfig, mask: bool) -> None:
    """Hydra stores the command line, and makes folder names of it."""
    plain: Any = OmegaConf.to_container(hydra, resolve=False)
    named = (plain.get("job") or {}).get("override_dirname")
    if named and "${oc.env:" in named:
        hydra.job.override_dirname = REFERENCE.sub(r"\1", named)
    if mask:
        for name, words in (plain.get("overrides") or {}).items():
            hydra.overrides[name] = [_literal(word) for word in words]
        for name in (plain.get("job") or {}).get("env_set") or {}:
            _redact_node(hydra.job.env_set, name, name, False, mask)


def _literal(text: str) -> str:
    """A text that OmegaConf does not change when resolving."""
    return text.replace("${", "\\${")
