"""Trains one more block of a model as the epochs go by."""

from __future__ import annotations

from bigmodel.models.freezing import train_mode
from bigmodel.training.run import Run


def unfreeze(run: Run, epoch: int) -> None:
    """Has the blocks trained whose turn it is in an epoch, from 0; see `Unfreezing`."""
    if run.unfreezing is None or not run.unfreezing.begin(epoch):
        return
    run.step.retrain()
    train_mode(run.step.parallel.model)
    run.engine.retrain()
    parameters = list(run.step.model.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in parameters)
    run.sinks.message(f"From epoch {epoch + 1} on, {trained:,} of {total:,} parameters are trained.")
