"""From names, as `metrics=[…]` has them, to metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bigmodel.errors import ConfigError, did_you_mean
from bigmodel.metrics.base import SumMetric, WholeMetric
from bigmodel.metrics.choice import metric_names
from bigmodel.metrics.chosen import ChosenMetrics
from bigmodel.registry import EntryConfig, metrics
from bigmodel.spec import Target

_USUAL = ("loss", "accuracy", "top5_accuracy", "mae", "rmse", "r2", "perplexity", "bits_per_character")
"""Figures of every evaluation, which nobody has to choose."""


def parse_metrics(chosen: Sequence[str | Mapping[str, Any]], key: str = "metrics") -> list[EntryConfig]:
    """The configuration of metrics that are chosen by name, or by name and options.

    Args:
        key: what the user has typed them after.

    Raises:
        ConfigError: there is no such metric, or an option is wrong.
    """
    entries = [{"name": entry} if isinstance(entry, str) else entry for entry in chosen]
    names = metrics.names() if entries else []
    for entry in entries:
        name = entry.get("name")
        if name in _USUAL:
            raise ConfigError(
                f"{key}: {name} is computed anyway where it suits the target. Leave it out."
            )
        if name not in names:
            raise ConfigError(
                f"{key}: there is no metric {name!r}.{did_you_mean(str(name), names)} There are"
                f" {', '.join(names)}. (A plugin's own names need 'plugins=[module]'.)"
            )
    return [metrics.parse(entry) for entry in entries]


def choose_metrics(configs: Sequence[EntryConfig], target: Target) -> ChosenMetrics:
    """Metrics for a target, empty.

    Raises:
        SpecError: one does not suit the target.
        ConfigError: two of them have a figure of the same name, or a plugin's metric is none.
    """
    built = [metrics.build(config, target) for config in configs]
    owners: dict[str, str] = {}
    for config, metric in zip(configs, built, strict=True):
        if not isinstance(metric, SumMetric | WholeMetric):
            raise ConfigError(
                f"metrics=[{config.name}]: it is a {type(metric).__name__}. A metric derives from"
                " SumMetric or WholeMetric of bigmodel.metrics.base."
            )
        ways = metric.directions
        if not ways or set(ways.values()) - {"max", "min"}:
            raise ConfigError(
                f"metrics=[{config.name}]: directions={dict(ways)!r} should hold the names of its"
                ' figures, each with "max" or "min": which way it is better.'
            )
        for name in ways:
            taken = name in metric_names(target) and not metrics.is_builtin(config.name)
            if name in owners or taken:
                raise ConfigError(
                    f"metrics=[{config.name}]: its figure {name!r} is that of"
                    f" {owners.get(name, 'every evaluation')}, too. Leave one out, or rename it."
                )
            owners[name] = config.name
    return ChosenMetrics(built)
