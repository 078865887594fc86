"""Reads new samples from arrays, for every source without a file format of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bigmodel.data.arrays.files import Arrays, arrays_in_memory, open_arrays
from bigmodel.data.normalize import standardise
from bigmodel.data.parts import Part
from bigmodel.data.reader import NewSamples, Reader, reads
from bigmodel.data.targets import TargetEncoder
from bigmodel.errors import DataError, join_names
from bigmodel.spec import DataSpec, Features, Image, Tokens
from bigmodel.spec import Sequence as Steps

_AXES = {
    "features": "samples, features",
    "sequence": "samples, steps, features",
    "image": "samples, channels, height, width",
    "tokens": "samples, length",
}

NOT_FINITE = "samples that are not finite"
"""Why samples of arrays are left out."""


@reads("arrays")
class ArraysReader(Reader):
    """Reads `inputs` and `targets` out of .npz or safetensors files.

    Attributes:
        inputs, targets: names of the arrays.
        input: kind of the inputs; `other` if arrays cannot hold them.
        shape: of one input.
        bytes: images are whole numbers from 0 to 255, not real numbers.
        categories: of features; see `spec.Features`.
        vocab_size, pad: of tokens.
        target_encoder: of the target.
        indexed: whole numbers are indices of classes, not their names.
        mean, std: that features and sequences are standardised by, for each index of the last axis;
            None: they are not, or are images.
    """

    inputs: str = "inputs"
    targets: str = "targets"
    input: Literal["features", "sequence", "image", "tokens", "other"] = "other"
    shape: list[int] = Field([])
    bytes: bool = False
    categories: list[int] = Field([])
    vocab_size: int = 0
    pad: int | None = None
    target_encoder: TargetEncoder = TargetEncoder()
    indexed: bool = True
    mean: list[float] | None = None
    std: list[float] | None = None

    @property
    def statistics(self) -> tuple[Tensor, Tensor] | None:
        """`mean` and `std`, float64."""
        if self.mean is None or self.std is None:
            return None
        return torch.tensor(self.mean, dtype=torch.float64), torch.tensor(self.std, dtype=torch.float64)

    @classmethod
    def of(
        cls, spec: DataSpec, statistics: tuple[Tensor, Tensor] | None, dtype: torch.dtype
    ) -> ArraysReader:
        """The reader of a source with this spec.

        Args:
            spec: of the source, with the statistics of its target.
            statistics: mean and deviation that features and sequences were standardised by.
            dtype: of the stored inputs.
        """
        mean, std = (None, None) if statistics is None else (s.tolist() for s in statistics)
        reader = cls(target_encoder=TargetEncoder.of(spec.target), mean=mean, std=std)
        match spec.input:
            case Features(categories=categories):
                kind: dict[str, Any] = {"input": "features", "categories": list(categories)}
            case Steps():
                kind = {"input": "sequence"}
            case Image():
                kind = {"input": "image", "bytes": dtype == torch.uint8}
            case Tokens(vocab_size=vocab_size, pad=pad):
                kind = {"input": "tokens", "vocab_size": vocab_size, "pad": pad}
            case _:
                return reader
        return reader.model_copy(update={"shape": list(spec.input.shape), **kind})

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:
        """See `Reader.read`."""
        with open_arrays(path, "path") as arrays:
            return self._new_samples(arrays, with_targets, max_bad)

    def read_values(self, values: Sequence[Any], targets: Sequence[Any] | None = None) -> NewSamples:
        """See `Reader.read_values`: an array of all inputs, or one for each sample."""
        named = (
            {self.inputs: values} if targets is None else {self.inputs: values, self.targets: targets}
        )
        return self._new_samples(arrays_in_memory(named), targets is not None, 0)

    def _new_samples(self, arrays: Arrays, with_targets: bool, max_bad: int) -> NewSamples:
        path = arrays.path
        inputs = self._stored(arrays.read(self.inputs, "data.inputs"), f"{path}: array '{self.inputs}'")
        targets = self.target_encoder.placeholders(len(inputs))
        if with_targets:
            targets = self._targets(arrays, len(inputs))
        finite = finite_rows(inputs, targets, max_bad, str(path))
        if len(finite) == 0:
            raise DataError(f"{path}: holds no samples.")
        columns: dict[str, Sequence[Any]] = {"row": finite.tolist()}
        if not (bad := len(inputs) - len(finite)):
            return NewSamples(Part(inputs, targets), columns)
        return NewSamples(Part(inputs[finite], targets[finite]), columns, {NOT_FINITE: bad})

    def _stored(self, given: Tensor | list[str], where: str) -> Tensor:
        """Inputs as the source stores them, checked against those of training."""
        if self.input == "other":
            raise DataError(f"{where}: the run was not trained on arrays.")
        if isinstance(given, list):
            raise DataError(f"{where}: holds words, expected numbers.")
        inputs = self._shaped(given, where)
        if self.input == "tokens":
            return self._tokens(inputs, where)
        if self.input == "image":
            return as_bytes(inputs, where) if self.bytes else self._real_image(inputs, where)
        self._check_categories(inputs, where)
        return inputs.float() if self.statistics is None else standardise(inputs, *self.statistics)

    def _shaped(self, given: Tensor, where: str) -> Tensor:
        shape, target = tuple(given.shape), tuple(self.shape)
        if shape[1:] == target and len(shape) > 0:
            return given
        if shape[1:] == target[:-1] and target[-1:] == (1,) and self.input in ("features", "sequence"):
            return given[..., None]
        if self.input == "image":
            if shape[1:] == target[1:] and target[0] == 1:
                return given[:, None]
            if shape[1:] == (*target[1:], target[0]):
                return given.permute(0, 3, 1, 2)
        if self.input == "tokens" and self.pad is not None and len(shape) == 2 and shape[1] < target[0]:
            return F.pad(given, (0, target[0] - shape[1]), value=self.pad)
        raise DataError(
            f"{where}: has shape {shape}, but the model reads ({_AXES[self.input]}) ="
            f" (any, {', '.join(map(str, target))})."
        )

    def _real_image(self, inputs: Tensor, where: str) -> Tensor:
        if inputs.dtype == torch.uint8:
            raise DataError(
                f"{where}: holds bytes, but the run's images are real numbers. Provide them in the "
                "scale of the training data, such as 0 to 1."
            )
        return inputs.float()

    def _tokens(self, inputs: Tensor, where: str) -> Tensor:
        if inputs.is_floating_point():
            raise DataError(f"{where}: tokens must be whole numbers, got {inputs.dtype}.")
        wrong = (inputs < 0) | (inputs >= self.vocab_size)
        if bool(wrong.any()):
            raise DataError(
                f"{where}: token {int(inputs[wrong][0])} in row {int(wrong.nonzero()[0, 0])} (counted"
                f" from 0) is out of range: 0 to {self.vocab_size - 1} are known."
            )
        return inputs.long()

    def _check_categories(self, inputs: Tensor, where: str) -> None:
        for column, size in enumerate(self.categories):
            values = inputs[:, column]
            if size > 0 and bool(((values != values.round()) | (values < 0) | (values >= size)).any()):
                allowed = f"0 to {size - 1} are allowed"
                raise DataError(f"{where}: column {column} holds categories: {allowed}.")

    def _targets(self, arrays: Arrays, samples: int) -> Tensor:
        where = f"{arrays.path}: array '{self.targets}'"
        given = arrays.read(self.targets, "data.targets")
        if len(given) != samples:
            raise DataError(f"{where}: holds {len(given):,} targets for {samples:,} inputs.")
        kind, names = self.target_encoder.kind, self.target_encoder.names
        if kind == "none":
            raise DataError(f"{where}: targets for these inputs cannot be read from arrays.")
        if isinstance(given, list):
            if kind != "classes":
                raise DataError(f"{where}: holds words, expected numbers.")
            return self.target_encoder.indices(given, where)
        if kind == "classes":
            labels = parse_class_labels(given, len(names) if self.indexed else None, where)
            return labels if self.indexed else self.target_encoder.indices(labels.tolist(), where)
        own = given[:, None] if given.ndim == 1 else given
        if own.shape[1:] != (len(names),):
            raise DataError(
                f"{where}: has shape {tuple(given.shape)}, expected (samples, {len(names)}) for"
                f" {join_names(names)}."
            )
        if kind == "flags" and bool(((own != 0) & (own != 1)).any()):
            raise DataError(f"{where}: flags must be 0 or 1.")
        return self.target_encoder.scale(own)


def as_bytes(images: Tensor, where: str) -> Tensor:
    """Whole numbers from 0 to 255 as uint8; messages begin with `where`.

    Raises:
        DataError: they are real numbers, or out of that range.
    """
    if images.dtype == torch.uint8:
        return images
    if images.is_floating_point() or bool(((images < 0) | (images > 255)).any()):
        raise DataError(
            f"{where}: images must be whole numbers from 0 to 255, as those of the training data, got"
            f" {images.dtype} from {images.min().item():g} to {images.max().item():g}."
        )
    return images.to(torch.uint8)


def parse_class_labels(given: Tensor, classes: int | None, where: str) -> Tensor:
    """Class labels from whole numbers or one-hot rows: (samples,) int64.

    Args:
        given: (samples,), (samples, 1) or, one-hot, (samples, classes).
        classes: how many there are, if labels are their indices; None: labels may be any whole number.
        where: begins messages.

    Raises:
        DataError: another shape, fractions, or labels out of range.
    """
    labels = given
    if labels.ndim == 2:
        labels = labels[:, 0] if labels.shape[1] == 1 else _one_hot_index(labels, where)
    if labels.ndim != 1:
        raise DataError(f"{where}: labels have shape {tuple(given.shape)}, expected (samples,).")
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        wrong = labels[labels != labels.round()][0].item()
        raise DataError(f"{where}: labels of classes are whole numbers, but there is {wrong:g}.")
    labels = labels.long()
    if classes is not None and bool(((labels < 0) | (labels >= classes)).any()):
        wrong = int(labels[(labels < 0) | (labels >= classes)][0])
        raise DataError(
            f"{where}: label {wrong} is out of range: 0 to {classes - 1} are allowed for {classes}"
            " classes."
        )
    return labels


def is_one_hot(given: Tensor) -> bool:
    """Whether each row of (samples, several) holds a single 1 among zeros."""
    if given.ndim != 2 or given.shape[1] < 2:
        return False
    return bool(((given == 0) | (given == 1)).all()) and bool(((given == 1).sum(1) == 1).all())


def _one_hot_index(given: Tensor, where: str) -> Tensor:
    if not is_one_hot(given):
        raise DataError(
            f"{where}: labels have shape {tuple(given.shape)}: expected (samples,), or rows with a"
            " single 1 among zeros."
        )
    return given.to(torch.uint8).argmax(1)


def finite_rows(inputs: Tensor, targets: Tensor, max_bad: int, where: str) -> Tensor:
    """The rows whose inputs and targets are finite: (rows,) int64.

    Raises:
        DataError: more than `max_bad` are not.
    """
    finite = torch.ones(len(inputs), dtype=torch.bool)
    for numbers in (inputs, targets):
        if numbers.is_floating_point() and not bool(numbers.sum().isfinite()):
            finite &= numbers.isfinite().flatten(1).all(1)
    bad = (~finite).nonzero().flatten().tolist()
    if len(bad) > max_bad:
        raise DataError(
            f"{where}: {len(bad):,} of {len(inputs):,} samples hold NaN or infinity, in rows"
            f" {join_names(list(map(str, bad)))} (counted from 0). Mend them"
            f", or set data.max_bad={len(bad)} to skip them."
        )
    return finite.nonzero().flatten()
