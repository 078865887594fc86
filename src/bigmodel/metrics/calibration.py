"""What is learnt from held-out samples to say how sure predictions are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bigmodel.metrics.conformal import class_scores, value_scores
from bigmodel.metrics.temperature import fit_temperatures
from bigmodel.spec import Classes, Flags, Target, Values


@dataclass(frozen=True)
class Calibration:
    """How far a model, with certain weights, was off on samples that it was not trained on.

    Attributes:
        samples: how many.
        temperatures: of classes or labels, as `metrics.temperature` has them; None of values.
        scores: as `metrics.conformal` has them, (samples, count) float32; (samples, 0) of labels.
        predicted: of values, standardised, (samples, count) float32; else (samples, 0).
    """

    samples: int
    temperatures: list[float] | None
    scores: Tensor
    predicted: Tensor

    @classmethod
    def of(cls, outputs: Tensor, targets: Tensor, target: Target) -> Calibration:
        """Learns from samples.

        Args:
            outputs, targets: of all samples, defined, as `WholeMetric.compute` has it.
        """
        none = outputs.new_zeros(len(outputs), 0).float()
        if isinstance(target, Values):
            return cls(len(outputs), None, value_scores(outputs, targets).float(), outputs.float())
        scores = class_scores(outputs, targets).float() if isinstance(target, Classes) else none
        return cls(len(outputs), fit_temperatures(outputs, targets, target), scores, none)

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name."""
        temperatures = torch.tensor(self.temperatures or [], dtype=torch.float64)
        return {"temperatures": temperatures, "scores": self.scores, "predicted": self.predicted}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], target: Target) -> Calibration:
        """What `tensors` gave.

        Raises:
            KeyError: one is missing.
            ValueError: they are of another target.
        """
        scores, predicted, heat = (tensors[n] for n in ("scores", "predicted", "temperatures"))
        samples, count = len(scores), target.output_size
        columns, values, temperatures = {
            Classes: (1, 0, 1),
            Flags: (0, 0, count),
            Values: (count, count, 0),
        }[type(target)]
        shapes = [(samples, columns), (samples, values), (temperatures,)]
        if [scores.shape, predicted.shape, heat.shape] != shapes:
            raise ValueError(f"its numbers are not those of {target}")
        return cls(samples, heat.tolist() or None, scores, predicted)
