"""What every data source returns: parts, a spec, and how stored samples become model inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar, get_args, overload

import torch
from pydantic import Field, PrivateAttr, ValidationInfo, field_validator
from torch import Tensor

from bigmodel.data.augment import AugmentConfig
from bigmodel.data.digest import SourceDigest
from bigmodel.data.former_names import former_name
from bigmodel.data.parts import Part, SplitData
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.reader import Reader
from bigmodel.errors import DataError
from bigmodel.registry import EntryConfig
from bigmodel.spec import DataSpec, Input

PartName = Literal["train", "val", "test"]
PART_ORDER: tuple[PartName, ...] = get_args(PartName)
SET_NAMES = {"train": "training", "val": "validation", "test": "test"}
"""What messages call the parts: `the validation set`."""

BatchSize = Annotated[int, Field(ge=1, description="samples in a batch")]
ValFraction = Annotated[
    float, Field(gt=0, lt=1, description="share of the training set held out for validation, 0 to 1")
]
ReaderT = TypeVar("ReaderT", bound=Reader)
T = TypeVar("T")


class Batch(NamedTuple):
    """Samples ready for a model.

    Attributes:
        inputs: (batch, *spec.input.shape), float32, or int64 for tokens.
        targets: (batch,) int64 for classes; (batch, count) float32 for flags and values; (batch, length)
            int64 for next tokens.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return self.targets.shape[0]

    def rows(self, chosen: slice) -> Batch:
        """Some of its samples."""
        return Batch(self.inputs[chosen], self.targets[chosen])


class Block(Sequence[Batch]):
    """Batches that lie one after another in memory. A part of it is a block, too, and costs nothing.

    Args:
        inputs, targets: of all samples, in order.
        size: samples in a batch; the last one may be smaller.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, size: int, batches: range | None = None) -> None:
        self._inputs, self._targets, self._size = inputs, targets, size
        self._batches = range(-(-len(targets) // size)) if batches is None else batches

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> Block: ...
    def __getitem__(self, index: int | slice) -> Batch | Block:
        chosen = self._batches[index]
        if isinstance(chosen, range):
            return Block(self._inputs, self._targets, self._size, chosen)
        return self._rows(chosen, chosen + 1)

    @property
    def joined(self) -> Batch:
        """All its batches as one."""
        return self._rows(self._batches.start, self._batches.stop)

    @property
    def samples(self) -> int:
        """Samples of all its batches."""
        end = min(self._batches.stop * self._size, len(self._targets))
        return end - self._batches.start * self._size

    def _rows(self, first: int, stop: int) -> Batch:
        rows = slice(first * self._size, stop * self._size)
        return Batch(self._inputs[rows], self._targets[rows])


class DataConfig(EntryConfig):
    """Settings of all data sources."""

    batch_size: BatchSize = 64
    val_fraction: ValFraction = 0.2
    split_seed: int = Field(0, ge=0, description="seed of the split into training and validation")
    folds: int | None = Field(
        None,
        ge=2,
        description="cut the training set into so many folds, instead of val_fraction; null: no folds",
    )
    val_fold: int | None = Field(
        None,
        ge=0,
        description="the fold held out for validation, from 0; null: no folds",
        validate_default=True,
    )
    validation: bool = Field(
        True, description="have a validation set; false: its samples are trained on too"
    )
    drop_last: bool = Field(False, description="drop an epoch's last batch if it is smaller")
    on_device: bool | None = Field(
        None, description="keep all data in the device's memory; null: if it fits"
    )
    workers: int = Field(0, ge=0, description="threads that prepare training batches ahead; 0: none")
    timeout: float = Field(
        10.0, gt=0, description="seconds to wait for a thread's batch before the run fails"
    )

    _learnt: Preprocessing | None = PrivateAttr(default=None)
    _pretrained: tuple[Any, ...] = PrivateAttr(default=())

    def resuming(self, learnt: Preprocessing | None) -> Self:
        """A copy for a resumed run, with the statistics and vocabularies that it has learnt: computed
        again on another processor, they would differ in their last bits."""
        resumed = self.model_copy()
        resumed._learnt = learnt
        return resumed

    def learnt(self, inputs: Input) -> Preprocessing | None:
        """A resumed run's preprocessing; None for a new run, or if its inputs differ."""
        learnt = self._learnt
        return learnt if learnt is not None and learnt.spec.input == inputs else None

    def learnt_reader(self, kind: type[ReaderT]) -> ReaderT | None:
        """A resumed run's reader; None for a new run."""
        reader = None if self._learnt is None else self._learnt.reader
        return reader if isinstance(reader, kind) else None

    def starting_from(self, *inputs: Any) -> Self:
        """A copy for a model that is not trained from nothing, with what it expects of its inputs, such
        as the vocabulary of its tokens."""
        copy = self.model_copy()
        copy._pretrained = inputs
        return copy

    def pretrained(self, kind: type[T]) -> T | None:
        """What of that kind the model expects of its inputs; None: the data decides."""
        return next((one for one in self._pretrained if isinstance(one, kind)), None)

    @property
    def token_bound(self) -> int | None:
        """The most tokens of a batch, if the source has `batch_tokens`."""
        return getattr(self, "batch_tokens", None)

    @field_validator("val_fraction", mode="before")
    @classmethod
    def _above_zero(cls, fraction: Any) -> Any:
        if isinstance(fraction, int | float) and fraction == 0:
            raise ValueError("to train on all samples, set data.validation=false")
        return fraction

    @field_validator("val_fold")
    @classmethod
    def _one_of_the_folds(cls, fold: int | None, info: ValidationInfo) -> int | None:
        if "folds" not in info.data:  # its own error is shown
            return fold
        folds = info.data["folds"]
        if (fold is None) != (folds is None):
            raise ValueError("data.folds and data.val_fold go together. Set both, or neither")
        if fold is not None and fold >= folds:
            raise ValueError(f"data.folds={folds} are counted from 0 to {folds - 1}")
        return fold

    @field_validator("validation")
    @classmethod
    def _no_fold_is_held_out(cls, validation: bool, info: ValidationInfo) -> bool:
        if not validation and info.data.get("folds") is not None:
            raise ValueError(
                f"data.folds={info.data['folds']} hold a fold out for validation. Leave one of them out"
            )
        return validation

    @property
    def cross_validation(self) -> tuple[int, int] | None:
        """The number of folds and the one held out; None: the split is by `val_fraction`."""
        return None if self.folds is None or self.val_fold is None else (self.folds, self.val_fold)

    @field_validator("workers")
    @classmethod
    def _not_on_device(cls, workers: int, info: ValidationInfo) -> int:
        if workers > 0 and info.data.get("on_device"):
            raise ValueError(
                "with data.on_device=true the device gathers the batches itself. Set data.workers=0 or"
                " data.on_device=null"
            )
        return workers


class RealConfig(DataConfig):
    """Settings of data sources whose inputs are real numbers."""

    normalize: bool = Field(
        True, description="standardise inputs with mean and deviation of the training set"
    )


class ImageConfig(RealConfig):
    """Settings of image sources. `make_batches` augments images of any source that has them."""

    augment: AugmentConfig = Field(
        AugmentConfig(), description="random changes to training images, new in each epoch"
    )


@former_name("told", "header_rows")
@dataclass
class Dataset:
    """A data source, read and split.

    Attributes:
        spec: what the data looks like.
        train, val: the training set, and what is held out for validation; None: nothing is.
        test: an official test set, evaluated once at the end; None: there is none.
        mean, std: see `Preprocessing`.
        reader: reads new files as samples like these; None: the source reads no files.
        header_rows: label and text of the header's rows about the user's data.
        left_out: how many samples were left out, by reason, for the header and the summary.
        read: digest of what the source has read; None: the values are compared. See `fingerprint`.
        val_rows: where each validation sample is among those that were read, from 0, (val samples,)
            int64: its row in a table. None: the source splits its data itself, and knows no folds.
        val_files: the names of the validation samples if they are files; else empty.
    """

    spec: DataSpec
    train: SplitData
    val: SplitData | None = None
    test: SplitData | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    reader: Reader | None = None
    header_rows: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    read: SourceDigest | None = None
    val_rows: Tensor | None = None
    val_files: Sequence[str] = ()

    @property
    def parts(self) -> dict[PartName, SplitData]:
        """All parts, by name."""
        parts: dict[PartName, SplitData | None]
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def part(self, name: PartName) -> SplitData:
        """The part of that name.

        Raises:
            DataError: there is none.
        """
        parts = self.parts
        if name not in parts:
            others = " and ".join(SET_NAMES[other] for other in parts)
            raise DataError(f"data '{self.spec.name}' has no {SET_NAMES[name]} set, only {others}.")
        return parts[name]

    @property
    def preprocessing(self) -> Preprocessing:
        """How stored samples become model inputs."""
        stored = isinstance(self.train, Part) and self.train.inputs.dtype == torch.uint8
        return Preprocessing(self.spec, self.mean, self.std, stored, self.reader)

    prepared = preprocessing  # former name, which plugins may use
