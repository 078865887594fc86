"""What every data source gives: tensors in parts, a spec, and the way from storage to model inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field
from torch import Tensor

from bigmodel.registry import EntryConfig
from bigmodel.spec import DataSpec


class Batch(NamedTuple):
    """Samples ready for a model.

    Attributes:
        inputs: (batch, *spec.input.shape), float32, or int64 for tokens.
        targets: (batch,) int64 for classes; (batch, count) float32 for flags and values.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return self.targets.shape[0]


class DataConfig(EntryConfig):
    """What all data sources have in common."""

    batch_size: int = Field(default=64, ge=1, description="samples in a batch")
    val_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="share of the training part held out for validation, 0 to 1"
    )
    split_seed: int = Field(
        default=0, ge=0, description="seed of the split into training and validation"
    )
    drop_last: bool = Field(
        default=False, description="leave out an epoch's last batch where it is smaller"
    )
    on_device: bool | None = Field(
        default=None, description="keep all data in the device's memory; null: where it fits"
    )


@dataclass
class Part:
    """One part of the data, training, validation or test, as it is stored.

    Attributes:
        inputs: (samples, *spec.input.shape); images may be uint8.
        targets: as in `Batch`.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return self.targets.shape[0]


@dataclass
class Dataset:
    """A data source, read and split.

    Attributes:
        spec: what the data looks like.
        train, val: what is learnt from, and what is held out to judge by.
        test: an official test part, read once at the end; None where the source has none.
        mean, std: statistics of the training part that map stored inputs to model inputs,
            `(inputs - mean) / std`, broadcast over a batch; None where they are stored ready.
    """

    spec: DataSpec
    train: Part
    val: Part
    test: Part | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
