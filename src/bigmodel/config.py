"""Turns a composed configuration into typed objects: once, and completely, before anything starts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from bigmodel import redaction, registry
from bigmodel.data.base import DataConfig
from bigmodel.errors import ConfigError, did_you_mean, first_line
from bigmodel.metrics import parse_metrics
from bigmodel.metrics.threshold import Maximised
from bigmodel.models.fine_tuning import FineTuningConfig
from bigmodel.optim.rates_config import RatesConfig
from bigmodel.redaction import environment_variable, remember_referenced
from bigmodel.registry import Config, EntryConfig, load_plugins, validate
from bigmodel.reporting.base import Labels
from bigmodel.reporting.trackers import check_list, check_names
from bigmodel.runtime.device import DeviceConfig
from bigmodel.training.plan import TrainerConfig

if TYPE_CHECKING:  # a trained run is used without it, and it is slow to import
    from omegaconf import DictConfig


Find = Literal["lr", "batch_size"]
AUTO = "auto"


class TopConfig(Config):
    """The settings outside groups."""

    seed: int = Field(0, ge=0, lt=2**63, description="seed of weights, order of samples and dropout")
    plugins: list[str] = Field([], description="Python modules that register models, data, losses, …")
    metrics: list[str | dict[str, Any]] = Field(
        [], description="metrics to add to the usual ones, such as [auc, {name: ece, bins: 20}]"
    )
    threshold: Maximised | None = Field(
        None, description="of yes/no targets: what the decision threshold maximises; null: it is 0.5"
    )
    run: Labels = Field(Labels(), description="what to call it; any of these may change on resume")
    logger: Annotated[list[str], AfterValidator(check_names), BeforeValidator(check_list)] = Field(
        [], description="programs that keep the run as well: mlflow, trackio, wandb"
    )
    output_dir: str = Field("outputs", min_length=1, description="folder that holds all runs")
    resume: str | None = Field(
        None, description="run folder to resume; auto: the newest unfinished run of this config"
    )
    resume_changed: bool = Field(False, description="go on although settings or data have changed")
    profile: bool = Field(False, description="write a trace of a few steps, and print where time goes")
    find: Find | None = Field(
        None,
        description="instead of training, find a learning rate (lr) or how large batches can be"
        " (batch_size)",
    )


@dataclass(frozen=True)
class RunConfig:
    """The validated configuration of a run.

    Attributes:
        fine_tuning, rates: the settings of every model and of every optimizer, beside its own.
        values: plain ones for reports, without secrets.
        changed, in_sweep: the settings that were typed for it, as text by key; see `RunInfo`.
        finds_rate: whether `optimizer.lr=auto`; then `optimizer` has its default rate.
    """

    model: EntryConfig
    data: DataConfig
    loss: EntryConfig
    optimizer: EntryConfig
    scheduler: EntryConfig
    device: DeviceConfig
    trainer: TrainerConfig
    top: TopConfig
    values: dict[str, Any]
    fine_tuning: FineTuningConfig = field(default_factory=FineTuningConfig)
    rates: RatesConfig = field(default_factory=RatesConfig)
    metrics: tuple[EntryConfig, ...] = ()
    finds_rate: bool = False
    changed: Mapping[str, str] = field(default_factory=dict)
    in_sweep: bool = False


GROUPS = ("model", "data", "loss", "optimizer", "scheduler", "device", "trainer", "sweep")


def to_plain(config: DictConfig) -> dict[str, Any]:
    """The composed config as nested plain values, with interpolations resolved.

    Raises:
        ConfigError: an interpolation cannot be resolved.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    remember_referenced(str(OmegaConf.to_container(config, resolve=False)))
    try:
        return _resolved(config)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        if environment_variable(key) in str(error):
            raise ConfigError(
                f"{key}: is a secret and is stored in no file. Pass it again ({key}=…), or set"
                f" the environment variable {environment_variable(key)}."
            ) from error
        raise ConfigError(f"{key}: {first_line(error, type(error).__name__)}") from error


def to_shown(config: DictConfig) -> dict[str, Any]:
    """The same for reports: references to the environment, such as to secrets, stay unresolved.

    So do references to settings that contain one, directly or indirectly.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def literal(value: Any) -> Any:  # escaped, so that OmegaConf does not resolve it
        if isinstance(value, dict):
            return {key: literal(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [literal(inner) for inner in value]
        from_outside = isinstance(value, str) and "${oc.env:" in value
        return value.replace("${", "\\${") if from_outside else value

    plain: Any = OmegaConf.to_container(config, resolve=False)
    try:
        return _resolved(OmegaConf.create(literal(plain)))
    except OmegaConfBaseException:  # a resolver cannot process the escaped text
        return {str(key): value for key, value in plain.items()}


def _resolved(config: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def parse(values: dict[str, Any], shown: dict[str, Any] | None = None) -> RunConfig:
    """Validates plain values; imports the plugins that they name, which may register schemas.

    Args:
        values: from `to_plain`.
        shown: from `to_shown`, for reports; None uses `values`.

    Raises:
        ConfigError: all errors in one message.
    """
    error_messages: list[str] = []

    def attempt(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except ConfigError as error:
            error_messages.append(str(error))
            return None

    rest = {key: value for key, value in values.items() if key not in GROUPS}
    for key in sorted(set(rest) - set(TopConfig.model_fields)):
        meant = did_you_mean(key, [*GROUPS, *TopConfig.model_fields])
        error_messages.append(
            f"{key}: no such setting or group.{meant} bigmodel-train --help lists all."
        )
        del rest[key]
    top, metrics = attempt(lambda: validate(TopConfig, rest, "")), ()
    if top is not None:
        attempt(lambda: load_plugins(top.plugins))
        metrics = attempt(lambda: tuple(parse_metrics(top.metrics)))
    optimizer, finds_rate = without_auto_rate(values.get("optimizer"))
    values_of = {**values, "optimizer": optimizer}
    entries = {kind: attempt(partial(_entry, kind, values_of)) for kind in registry.REGISTRIES}

    def shared(kind: str) -> Any:
        if entries[kind] is None:  # its error is among the messages
            return None
        return attempt(lambda: registry.REGISTRIES[kind].parse_shared(values_of[kind]))

    plain = {
        "fine_tuning": shared("model"),
        "rates": shared("optimizer"),
        "device": attempt(lambda: validate(DeviceConfig, _group("device", values), "device")),
        "trainer": attempt(lambda: validate(TrainerConfig, _group("trainer", values), "trainer")),
    }
    if error_messages:
        raise ConfigError("\n".join(error_messages))
    shown = values if shown is None else shown
    return RunConfig(**entries, **plain, top=top, values=shown, metrics=metrics, finds_rate=finds_rate)


def without_auto_rate(optimizer: Any) -> tuple[Any, bool]:
    """An optimizer's plain values without `lr: auto`, and whether they had it.

    So any optimizer can have it, a plugin's too: its own schema need only know numbers. One that has no
    `lr` refuses it like any other unknown setting.
    """
    if not isinstance(optimizer, Mapping) or optimizer.get("lr") != AUTO:
        return optimizer, False
    name, rest = optimizer.get("name"), {k: v for k, v in optimizer.items() if k != "lr"}
    with contextlib.suppress(ConfigError):  # an unknown name is told by whoever parses the rest
        field = registry.optimizers.entry(str(name)).config.model_fields.get("lr")
        if field is None:
            return optimizer, False
        if field.is_required():
            return {**rest, "lr": 1e-3}, True
    return rest, True


def _entry(kind: str, values: Mapping[str, Any]) -> EntryConfig:
    group = _group(kind, values)
    rate = group.get("lr") if kind == "optimizer" else None
    if isinstance(rate, str) and rate != AUTO and (meant := did_you_mean(rate, [AUTO])):
        raise ConfigError(f"optimizer.lr={rate!r}: should be a number above 0, or auto.{meant}")
    config = registry.REGISTRIES[kind].parse(group)
    if kind == "data" and not isinstance(config, DataConfig):
        raise ConfigError(
            f"data.name={config.name}: its configuration {type(config).__name__} must derive from "
            "bigmodel.data.base.DataConfig, which defines batch_size, val_fraction and so on."
        )
    return config


def _group(kind: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    group = values.get(kind)
    if not isinstance(group, Mapping):
        raise ConfigError(
            f"{kind}: expected settings, got {redaction.redact(kind, group)!r}."
            f" Choose with {kind}=<name>."
        )
    return group
