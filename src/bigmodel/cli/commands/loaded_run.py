"""A trained run as an object, loaded from a checkpoint alone: its data is not needed."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bigmodel import registry
from bigmodel.build.pretrained.adapting import load_adapted
from bigmodel.checkpointing import checkpoint
from bigmodel.checkpointing.serialization import TensorGroups
from bigmodel.cli.commands.run_paths import RunPath, resolve_run
from bigmodel.cli.launch.run_folder import kept_table
from bigmodel.cli.messages import note
from bigmodel.config import RunConfig, TopConfig, parse
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.reader import Reader
from bigmodel.errors import (
    DIVERGED,
    BigModelError,
    CheckpointError,
    ConfigError,
    DamagedError,
    DataError,
    DeviceError,
    SpecError,
    UndefinedError,
    first_difference,
    first_line,
)
from bigmodel.losses import Loss
from bigmodel.losses.adapted import build_loss
from bigmodel.models.base import Model
from bigmodel.models.fine_tuning import FineTuningConfig
from bigmodel.redaction import remember_referenced
from bigmodel.registry import EntryConfig, load_plugins, validate
from bigmodel.runtime.device import DeviceConfig, Runtime, measure_kernels, prepare
from bigmodel.spec import DataSpec, Multitask, TokenPair, Tokens

Notify = Callable[[str], None]
Facts = dict[str, Any]

_HARMLESS = {"oc.env", "oc.decode"}
"""Interpolations that are always resolved: they only read the environment."""


@dataclass(frozen=True)
class LoadedRun:
    """A run with its model, ready to use.

    Attributes:
        run_path: its folder.
        step: the optimizer step after which its weights were saved.
        model: in evaluation mode, on the runtime's device, with the weights to predict with.
        preprocessing: the preprocessing between stored samples and the model.
        settings: the run's settings as plain values.
        fingerprint: of the training data; None if the checkpoint has none.
        runtime: the device, and how to compute on it.
        cuts: decision thresholds that were found with these weights, as `metrics.threshold` has them;
            None: probabilities above 0.5.
    """

    run_path: RunPath
    step: int
    model: Model
    preprocessing: Preprocessing
    settings: dict[str, Any]
    fingerprint: dict[str, Any] | None
    runtime: Runtime
    cuts: list[float] | None = None

    @property
    def name(self) -> str:
        """A title such as `cnn on digits`."""
        return f"{self.settings['model']['name']} on {self.preprocessing.spec.name}"

    @property
    def reader(self) -> Reader:
        """The reader for new files.

        Raises:
            DataError: the run's data source has no reader.
        """
        if self.preprocessing.reader is None:
            raise DataError(
                f"{self.run_path.folder}: data={self.preprocessing.spec.name} has no reader, so new"
                " files cannot be read as its samples."
            )
        return self.preprocessing.reader

    def loss(self) -> Loss:
        """The run's loss, on the device."""
        config = registry.losses.parse(resolve_environment(self.settings["loss"]))
        return build_loss(config, self.preprocessing.spec).to(self.runtime.device)

    def config(self) -> RunConfig:
        """The run's whole configuration, checked.

        Raises:
            ConfigError: an environment variable is no longer set, or another version made the run.
        """
        return parse(resolve_environment(self.settings))

    def model_config(self) -> EntryConfig:
        """The model's options.

        Raises:
            ConfigError: see `config`.
        """
        return _model_config(self.settings)

    def data_setting(self, name: str, otherwise: Any) -> Any:
        """One of the run's data settings."""
        return self.settings["data"].get(name, otherwise)


def load_run(
    run: str,
    weights: str,
    device: str,
    plugins: Sequence[str],
    notify: Notify,
    base: str | None = None,
) -> LoadedRun:
    """Loads the run at a path. Its data is not needed.

    Args:
        run: its folder, or a checkpoint in it.
        weights: `best` or `last`.
        device: as `device.name` has it.
        plugins: modules that the user allows to run, as typed.
        notify: receives warnings for the user.
        base: where the weights are that a run with `model.lora` was started from; None: where they were.

    Raises:
        CheckpointError: the path is no run, has no complete checkpoint, or was made by another version.
        ConfigError: the run needs a plugin that was not named, or uses an unknown option.
    """
    run_path = resolve_run(run)
    groups, facts = _load_checkpoint(run_path, weights, notify)
    settings = _settings(run_path, facts)
    if (table := kept_table(run_path.folder, settings["data"].get("path"))) is not None:
        settings["data"]["path"] = str(table)
    _load_named_plugins(run_path, settings, _plugin_names(plugins))
    with suppress(ConfigError):  # brings in its reader; the source itself may be gone
        registry.data.entry(settings["data"]["name"])
    try:
        preprocessing = Preprocessing.from_facts(facts["prepared"])
        model = _model(settings, preprocessing)
        runtime = _runtime(settings, device, notify)
        texts = isinstance(preprocessing.spec.input, Tokens | TokenPair)  # each batch of its own width
        measure_kernels(not texts)
        step, cuts = int(facts["progress"]["step"]), facts["progress"].get("cuts")
    except BigModelError as error:
        raise type(error)(f"{run_path.folder}: this run cannot be used here: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{run_path.folder}: its checkpoint cannot be interpreted"
            f" ({type(error).__name__}: {first_line(error)}). Was it made by"
            " another version?"
        ) from error
    _load_weights(model, groups, facts, settings, preprocessing, run_path, base)
    model.to(runtime.device).eval()
    return LoadedRun(run_path, step, model, preprocessing, settings, facts.get("data"), runtime, cuts)


def loading(
    arguments: Namespace, device: str | None = None
) -> tuple[str, str, list[str], Notify, str | None]:
    """What a command was told about loading, as `load_run` takes it."""
    chosen = arguments.device if device is None else device
    return arguments.weights, chosen, arguments.plugins, note, arguments.base


def resolve_environment(values: Any) -> Any:
    """Replaces references to environment variables in nested plain values, if the variables are set.

    Files never hold a secret itself, only a reference to a variable. If that is not set, the reference
    stays: most commands do not need the secret.
    """
    if isinstance(values, Mapping):
        return {str(key): resolve_environment(value) for key, value in values.items()}
    if isinstance(values, list):
        return [resolve_environment(value) for value in values]
    if not isinstance(values, str) or "${" not in values:
        return values
    if set(re.findall(r"\$\{\s*([^:}\s]*)", values)) - _HARMLESS:
        return values
    from omegaconf import OmegaConf  # slow to import and rarely needed
    from omegaconf.errors import OmegaConfBaseException

    remember_referenced(values)
    try:
        plain = OmegaConf.to_container(OmegaConf.create({"value": values}), resolve=True)
    except OmegaConfBaseException:
        return values
    assert isinstance(plain, dict)
    return plain["value"]


def _load_checkpoint(run_path: RunPath, weights: str, notify: Notify) -> tuple[TensorGroups, Facts]:
    if run_path.checkpoint is not None:
        return checkpoint.load(run_path.checkpoint)
    if weights == "best":
        if any(best.is_dir() for best in checkpoint.best_candidates(run_path.checkpoints)):
            try:
                return checkpoint.load_best(run_path.checkpoints)
            except DamagedError as error:
                raise DamagedError(
                    f"{error} --weights last takes the newest weights instead."
                ) from error
        notify("The run has no best checkpoint. The newest weights are used.")
    try:
        newest = checkpoint.load_newest(run_path.checkpoints)
    except DamagedError:
        raise
    except CheckpointError as error:
        if checkpoint.resume_candidates(run_path.checkpoints):
            raise
        raise CheckpointError(
            f"{run_path.folder}: the run has no checkpoint: it ended before its first save."
        ) from error
    if newest.warning is not None:
        notify(newest.warning.replace("Resuming from", "Using"))
    return newest.groups, newest.facts


def _settings(run_path: RunPath, facts: Facts) -> dict[str, Any]:
    settings = facts.get("settings")
    if facts.get("prepared") is None or settings is None:
        raise CheckpointError(
            f"{run_path.folder}: this run was made by an earlier version and lacks what is needed to use"
            " it on new data. Resume it for one more epoch, which adds that, or train again."
        )
    groups = ("model", "data", "loss")
    if not isinstance(settings, dict) or not all(isinstance(settings.get(g), dict) for g in groups):
        raise CheckpointError(f"{run_path.folder}: its checkpoint holds no run settings.")
    return settings


def _plugin_names(typed: Sequence[str]) -> list[str]:
    """`--plugins a,b --plugins c`, also in brackets as in Hydra."""
    return [name for text in typed for name in re.split(r"[\s,\[\]]+", text) if name]


def _load_named_plugins(run_path: RunPath, settings: dict[str, Any], typed: list[str]) -> None:
    """Runs a plugin's code only if the user has named it."""
    needed = settings.get("plugins") or []
    missing = [str(name) for name in needed if name not in typed]
    if missing:
        options = " ".join(f"--plugins {name}" for name in missing)
        raise ConfigError(
            f"{run_path.folder}: the run was made with plugins, whose code runs only when you name them:"
            f" add {options}"
        )
    load_plugins(typed)


def _model(settings: dict[str, Any], preprocessing: Preprocessing) -> Model:
    model: Model = registry.models.build(_model_config(settings), preprocessing.spec)
    return model


def _model_config(settings: dict[str, Any]) -> EntryConfig:
    return registry.models.parse(resolve_environment(settings["model"]))


def _runtime(settings: dict[str, Any], device: str, notify: Notify) -> Runtime:
    """The requested device, with the run's precision if it supports that."""
    theirs = resolve_environment(settings.get("device") or {})
    # The number of threads suited another machine, and compiling takes longer than most commands.
    kept = {key: value for key, value in theirs.items() if key in ("precision", "tf32", "deterministic")}
    config = validate(DeviceConfig, {**kept, "name": device}, "device")
    seed = validate(TopConfig, {"seed": settings.get("seed", 0)}, "").seed
    try:
        return prepare(config, seed)
    except DeviceError as error:
        if "precision" not in str(error):
            raise DeviceError(str(error).replace("device=", "--device ")) from error
    notify(f"This device cannot compute in {config.precision}, as the run did: figures may differ.")
    return prepare(config.model_copy(update={"precision": "auto"}), seed)


def _load_weights(
    model: Model,
    groups: TensorGroups,
    facts: Facts,
    settings: dict[str, Any],
    preprocessing: Preprocessing,
    run_path: RunPath,
    base: str | None,
) -> None:
    weights: Mapping[str, Tensor] | None = groups.get("averaged", groups.get("model"))
    if weights is None:
        raise DamagedError(f"{run_path.folder}: the checkpoint is damaged: it has no model.safetensors.")
    values = resolve_environment(settings["model"])
    tuning = registry.models.parse_shared(values)
    assert isinstance(tuning, FineTuningConfig)
    try:
        load_adapted(model, weights, facts, _model_config(settings), tuning, preprocessing.spec, base)
    except BigModelError as error:
        raise type(error)(f"{run_path.folder}: {error}") from error
    except RuntimeError as error:
        first = first_difference(error)
        raise CheckpointError(
            f"{run_path.folder}: the weights do not fit the model of its settings: {first} Was it"
            " made by another version, or with another plugin?"
        ) from error


def check_single_target(spec: DataSpec) -> None:
    """Raises SpecError if a run predicts several targets at once, which no format knows."""
    if isinstance(spec.target, Multitask):
        raise SpecError(
            f"A run that predicts several targets at once ({spec.target}) cannot be exported. Predict"
            " with the run itself: bigmodel predict."
        )


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raises UndefinedError if weights are NaN or infinite, which no export may hand on."""
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise UndefinedError(f"The model's weights are NaN or infinite: it is not exported. {DIVERGED}")
