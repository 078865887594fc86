"""What every data source gives: tensors in parts, a spec, and the way from storage to model inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from bigmodel.data.augment import AugmentConfig
from bigmodel.errors import DataError
from bigmodel.registry import EntryConfig
from bigmodel.spec import DataSpec, Image

PartName = Literal["train", "val", "test"]


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
    workers: int = Field(
        default=0, ge=0, description="processes that prepare training batches; 0: none, best in memory"
    )
    timeout: float = Field(
        default=10.0, gt=0, description="seconds to wait for a batch of a worker before the run fails"
    )

    @field_validator("workers")
    @classmethod
    def _not_on_device(cls, workers: int, info: ValidationInfo) -> int:
        if workers > 0 and info.data.get("on_device"):
            raise ValueError(
                "with data.on_device=true the device prepares the batches itself. Say data.workers=0,"
                " or data.on_device=null"
            )
        return workers


class RealConfig(DataConfig):
    """What data sources have in common whose inputs are real numbers."""

    normalize: bool = Field(
        default=True,
        description="standardise inputs with mean and deviation of the training part",
    )


class ImageConfig(RealConfig):
    """What sources of images have in common; `Batches` augments for any source configured by one."""

    augment: AugmentConfig = Field(
        default=AugmentConfig(), description="random changes to training images, new in each epoch"
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

    def select(self, index: Tensor) -> Part:
        """The samples at `index`, (count,) int64, in that order."""
        return Part(self.inputs.index_select(0, index), self.targets.index_select(0, index))


@dataclass(frozen=True)
class Scaling:
    """The one multiplication and addition between stored inputs and model inputs.

    Attributes:
        scale, shift: broadcast over a batch of inputs: `model input = stored * scale + shift`.
    """

    scale: Tensor
    shift: Tensor

    def __call__(self, stored: Tensor) -> Tensor:
        """Stored inputs, on the device of `scale`, as float32 model inputs."""
        return torch.addcmul(self.shift, stored.to(torch.float32), self.scale)


@dataclass
class Dataset:
    """A data source, read and split.

    Attributes:
        spec: what the data looks like.
        train, val: what is learnt from, and what is held out to judge by.
        test: an official test part, read once at the end; None where the source has none.
        mean, std: statistics of the training part that map stored inputs to model inputs,
            `(inputs - mean) / std`, broadcast over a batch; None where they are stored ready.
            Bytes (uint8 images) count as 0 to 1 here: 255 is 1.
    """

    spec: DataSpec
    train: Part
    val: Part
    test: Part | None = None
    mean: Tensor | None = None
    std: Tensor | None = None

    def part(self, name: PartName) -> Part:
        """The part of that name.

        Raises:
            DataError: there is no test part.
        """
        part = {"train": self.train, "val": self.val, "test": self.test}[name]
        if part is None:
            raise DataError(f"data '{self.spec.name}' has no part '{name}': only train and val.")
        return part

    def scaling(self, device: torch.device | str = "cpu") -> Scaling | None:
        """The way from stored inputs to model inputs, on `device`; None where they are ready."""
        unit = 255.0 if self.train.inputs.dtype == torch.uint8 else 1.0
        if self.mean is None or self.std is None:
            if unit == 1.0:
                return None
            return Scaling(torch.tensor(1 / unit, device=device), torch.tensor(0.0, device=device))
        scale, shift = 1 / (unit * self.std.double()), -self.mean.double() / self.std.double()
        return Scaling(scale.float().to(device), shift.float().to(device))

    def model_inputs(self, stored: Tensor) -> Tensor:
        """Inputs in the stored scale, (batch, *spec.input.shape), as a model expects them."""
        scaling = self.scaling(stored.device)
        return stored if scaling is None else scaling(stored)

    def denormalize(self, inputs: Tensor) -> Tensor:
        """Model inputs, (batch, *spec.input.shape), undone to show them: images from 0 to 1.

        Features and sequences that were standardised once, when they were read, stay so.
        """
        if self.mean is not None and self.std is not None:
            inputs = inputs * self.std.to(inputs.device) + self.mean.to(inputs.device)
        return inputs.clamp(0, 1) if isinstance(self.spec.input, Image) else inputs
