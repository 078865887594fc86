"""How sure a run's predictions are: from what its folder holds, or else from its validation set."""

from __future__ import annotations

from bigmodel.cli.commands.eval import own_dataset
from bigmodel.cli.commands.loaded_run import LoadedRun, Notify
from bigmodel.errors import DIVERGED, ConfigError, DataError, UndefinedError, counted
from bigmodel.metrics import defined
from bigmodel.metrics.calibration import Calibration
from bigmodel.metrics.conformal import highest_level, least_samples
from bigmodel.reporting.predictions import Sureness
from bigmodel.spec import KINDS, Classes, Flags, Multitask, Values
from bigmodel.training.calibration import chosen_samples, read_calibration
from bigmodel.training.outputs import model_outputs

COMMAND = {"interval": "--interval", "set": "--set", "calibrated": "--calibrated"}
"""What the command line calls each kind of sureness."""


_ENOUGH = 30
"""Validation samples; with fewer, a temperature is mostly chance."""


class CalibrationSource:
    """Where the calibration of a run comes from; it is read or computed once, when it is needed.

    Args:
        loaded: the run.
        options: what the user calls each kind of sureness, as `COMMAND` has it.
    """

    def __init__(self, loaded: LoadedRun, options: dict[str, str] = COMMAND) -> None:
        self._loaded, self._options = loaded, options
        self._found: Calibration | None = None

    def sureness(
        self,
        notify: Notify,
        *,
        interval: float | None = None,
        prediction_set: float | None = None,
        calibrated: bool = False,
    ) -> Sureness | None:
        """What is asked for; None if nothing is.

        Args:
            notify: receives notes for the user.
            interval: of values: how often their intervals hold the truth.
            prediction_set: of classes: how often their sets do.
            calibrated: whether probabilities are.

        Raises:
            ConfigError: the target has no such thing, or there are too few validation samples.
            DataError: nothing is stored, and the run's data cannot be read.
            UndefinedError: the model gives NaN or infinity for validation samples.
        """
        wanted = {"interval": interval, "set": prediction_set, "calibrated": calibrated or None}
        for name, value in wanted.items():
            if value is not None:
                self._check_target(name)
        if all(value is None for value in wanted.values()):
            return None
        level, name = (interval, "interval") if prediction_set is None else (prediction_set, "set")
        if level is not None and not (isinstance(level, int | float) and 0 < level < 1):
            raise ConfigError(
                f"{self._options[name]}={level!r}: must be a share between 0 and 1, such as 0.9."
            )
        if self._found is None:
            asked = next(name for name, value in wanted.items() if value is not None)
            self._found = self._read(self._options[asked], notify)
        if level is not None:
            self._check_level(self._options[name], level, self._found.samples)
        if calibrated and self._found.samples < _ENOUGH:
            notify(
                f"Warning: {self._options['calibrated']}: learnt from only"
                f" {counted(self._found.samples, 'validation sample')}, which tells little."
            )
        return Sureness(self._found, calibrated, level)

    def _check_target(self, name: str) -> None:
        target, options = self._loaded.preprocessing.spec.target, self._options
        suits = {"interval": Values, "set": Classes, "calibrated": Classes | Flags}[name]
        if isinstance(target, suits):
            return
        if isinstance(target, Multitask):
            have, advice = "none of these", "Train a model for one of them."
        elif isinstance(target, Values):
            have, instead = "no probabilities" if name == "calibrated" else "no sets", "interval"
            advice = f"For values: {options[instead]}."
        elif isinstance(target, Classes):
            have, advice = "no intervals", f"For classes: {options['set']}."
        else:
            have = "no intervals" if name == "interval" else "no sets"
            advice = f"For labels: {options['calibrated']}."
        raise ConfigError(
            f"{options[name]}: {self._loaded.name} predicts {KINDS[type(target)]}, which have {have}."
            f" {advice}"
        )

    def _check_level(self, option: str, level: float, samples: int) -> None:
        needed = least_samples(level)
        if samples < needed:
            most = int(highest_level(samples) * 100) / 100
            raise ConfigError(
                f"{option} {level:g}: needs at least {needed:,} validation samples, and the run has"
                f" {samples:,}. Ask for at most {most:g}, or train with a larger validation set"
                " (data.val_fraction)."
            )

    def _read(self, option: str, notify: Notify) -> Calibration:
        loaded = self._loaded
        if not loaded.data_setting("validation", True):
            raise ConfigError(
                f"{option}: it is learnt from samples that were not trained on, and this run has none"
                " (data.validation=false). Train with data.validation=true."
            )
        stored = read_calibration(loaded.run_path.folder, loaded.step, loaded.preprocessing.spec.target)
        return self._computed(option, notify) if stored is None else stored

    def _computed(self, option: str, notify: Notify) -> Calibration:
        """From the run's own validation set: the run is older, unfinished, or its step is another."""
        loaded = self._loaded
        why = (
            f"{option}: {loaded.run_path.folder} has no calibration for its weights of step"
            f" {loaded.step:,}, and its validation set cannot be used for one"
        )

        def changed(change: str) -> None:
            raise DataError(f"the data is not what the run was trained on: {change}.")

        try:
            dataset = own_dataset(loaded, notify, changed)[1]
        except (ConfigError, DataError) as error:
            raise type(error)(f"{why}: {error}") from error
        if dataset.val is None:
            raise ConfigError(f"{why}: there is none.")
        target = loaded.preprocessing.spec.target
        part = chosen_samples(dataset.val, target)
        notify(f"Calibrating on {counted(len(part), 'validation sample')}, as the run holds none.")
        outputs = model_outputs(loaded.model, part, loaded.preprocessing, loaded.runtime)
        if not defined(outputs, target).all():
            raise UndefinedError(f"{why}: the model gives NaN or infinity for it. {DIVERGED}")
        return Calibration.of(outputs, part.take(slice(0, len(part)))[1].cpu(), target)
