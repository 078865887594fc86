"""Preprocessing: how stored samples become model inputs. Every checkpoint keeps it."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from bigmodel import spec as specs
from bigmodel.data import reader as readers
from bigmodel.data.reader import Reader
from bigmodel.spec import DataSpec, Image


@dataclass(frozen=True)
class Scaling:
    """Scales stored inputs to model inputs.

    Attributes:
        scale, shift: broadcast over a batch of inputs: `model input = stored * scale + shift`.
    """

    scale: Tensor
    shift: Tensor

    def __call__(self, stored: Tensor) -> Tensor:
        """Stored inputs, on the device of `scale`, as float32 model inputs."""
        return torch.addcmul(self.shift, stored.to(torch.float32), self.scale)


@dataclass(frozen=True)
class Preprocessing:
    """How stored samples become model inputs: what a checkpoint keeps of the data.

    Attributes:
        spec: what the data looks like.
        mean, std: statistics of the training set that map stored inputs to model inputs,
            `(inputs - mean) / std`, broadcast over a batch; None: they are stored ready. Bytes
            (uint8 images) are scaled to 0 to 1 first.
        bytes: inputs are stored as bytes, and scaled to 0 to 1.
        reader: reads new files as samples; None: the source cannot read any.
    """

    spec: DataSpec
    mean: Tensor | None = None
    std: Tensor | None = None
    bytes: bool = False
    reader: Reader | None = None

    def scaling(self, device: torch.device | str = "cpu") -> Scaling | None:
        """The scaling of stored inputs to model inputs, on `device`; None: they are ready."""
        unit = 255.0 if self.bytes else 1.0
        if self.mean is None or self.std is None:
            if unit == 1.0:
                return None
            return Scaling(torch.tensor(1 / unit, device=device), torch.tensor(0.0, device=device))
        scale, shift = 1 / (unit * self.std.double()), -self.mean.double() / self.std.double()
        return Scaling(scale.float().to(device), shift.float().to(device))

    def denormalize(self, inputs: Tensor) -> Tensor:
        """Model inputs, (batch, *spec.input.shape), unscaled to show them; images from 0 to 1.

        Features and sequences that were standardised when they were read stay so.
        """
        if self.mean is not None and self.std is not None:
            inputs = inputs * self.std.to(inputs.device) + self.mean.to(inputs.device)
        return inputs.clamp(0, 1) if isinstance(self.spec.input, Image) else inputs

    def to_facts(self) -> dict[str, Any]:
        """Plain values for `exact_json`."""
        return {
            "spec": _plain(self.spec),
            "mean": _numbers(self.mean),
            "std": _numbers(self.std),
            "bytes": self.bytes,
            "reader": None if self.reader is None else readers.to_plain(self.reader),
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_facts`.

        Raises:
            DataError: the reader is a plugin's that is not loaded.
            KeyError, TypeError, ValueError: the facts are damaged.
        """
        reader = None if facts["reader"] is None else readers.from_plain(facts["reader"])
        mean, std = _tensor(facts["mean"]), _tensor(facts["std"])
        return cls(_spec_of(facts["spec"]), mean, std, facts["bytes"], reader)


def _plain(value: Any) -> Any:
    """A spec, and those in it, as dicts with the class name as `kind`."""
    if is_dataclass(value):
        named = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__, **named}
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _spec_of(plain: Any) -> Any:
    if isinstance(plain, dict) and "kind" in plain:
        named = {key: _spec_of(value) for key, value in plain.items() if key != "kind"}
        return getattr(specs, plain["kind"])(**named)
    return tuple(map(_spec_of, plain)) if isinstance(plain, tuple) else plain


def _numbers(statistic: Tensor | None) -> dict[str, Any] | None:
    if statistic is None:
        return None
    return {"shape": list(statistic.shape), "values": statistic.double().flatten().tolist()}


def _tensor(plain: dict[str, Any] | None) -> Tensor | None:
    return None if plain is None else torch.tensor(plain["values"]).view(plain["shape"])
