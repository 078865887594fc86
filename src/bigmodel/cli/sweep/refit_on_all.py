"""`sweep.refit_on=all`: the best settings on training and validation data together.

Nothing can choose a checkpoint then: the run takes as long as the sweep's runs took to theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from bigmodel.cli.launch.resume_config import flatten
from bigmodel.cli.sweep.resume import key_of, replaced
from bigmodel.errors import ConfigError, counted, hydra_value
from bigmodel.sweeps.jobs import FOLD
from bigmodel.sweeps.leaderboard import JobResult
from bigmodel.sweeps.refit import Length, Winner, length_to_best

_WITHOUT_VALIDATION: Mapping[str, Any] = {
    "data.validation": False,
    "data.folds": None,
    FOLD: None,
    "trainer.checkpoint.monitor": "auto",
    "trainer.early_stopping.monitor": "auto",
    "trainer.early_stopping.patience": None,
    "trainer.max_steps": None,
}
"""What a run sets that trains on all data: nothing can choose a checkpoint, or end it early."""


def with_all_data(
    folder: Path, winner: Winner, settings: Sequence[str], typed: Sequence[str]
) -> tuple[list[str], str]:
    """The settings to train with on all data, and how long that is, in words.

    Args:
        folder: the sweep's.
        winner: its best settings.
        settings: the words that set them.
        typed: words that take their place.

    Raises:
        ConfigError: the jobs do not tell how long it took to their best checkpoints.
    """
    before = _config(winner.job)
    differing = {k: v for k, v in _WITHOUT_VALIDATION.items() if before is None or before.get(k) != v}
    if FOLD in winner.repeats:  # they are left out already
        differing = {key: value for key, value in differing.items() if key not in (FOLD, "data.folds")}
    # A plus, since a user's own YAML need not name all settings of its data.
    words = replaced(settings, [f"++{key}={hydra_value(value)}" for key, value in differing.items()])
    data = ", on training and validation data together"
    if {"trainer.epochs", "trainer.max_steps"} & {key_of(word) for word in typed}:
        return words, data
    length = length_to_best(winner)
    if length is None:
        raise ConfigError(
            f"sweep.refit_on=all: {folder} does not tell at which step its best jobs were at their best."
            " Say how long to train, such as trainer.epochs=10."
        )
    if length.epochs is None:
        word, shown = f"trainer.max_steps={length.steps}", counted(length.steps, "step")
    else:
        word, shown = f"trainer.epochs={length.epochs}", counted(length.epochs, "epoch")
    return replaced(words, [word]), f"{data}, for {shown}, {_reason(length)}"


def _config(job: JobResult) -> dict[str, Any] | None:
    """The settings of a job by dotted key; None if they cannot be read."""
    try:
        config: Any = OmegaConf.load(Path(job.folder) / ".hydra" / "config.yaml")
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return None
    values: Any = OmegaConf.to_container(config)
    return flatten(values) if isinstance(values, dict) else None


def _reason(length: Length) -> str:
    if len(length.each) == 1:
        return "after which it was at its best"
    each = sorted(length.each)
    few = ", ".join(f"{epochs:.3g}" for epochs in each)
    shown = few if len(each) < 7 else f"{each[0]:.3g} to {each[-1]:.3g}"
    return f"the median of those after which its runs were at their best ({shown})"
