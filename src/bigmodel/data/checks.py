"""Checks that a data source matches its spec, before the first step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from bigmodel.data.base import SET_NAMES, Dataset
from bigmodel.data.packing import Documents, PackedDocuments
from bigmodel.data.parts import Labelled, MultimodalPart, Part, SplitData, TextPairs, Texts, Windows
from bigmodel.errors import DataError, counted
from bigmodel.spec import (
    IGNORED,
    Classes,
    DataSpec,
    Features,
    Flags,
    Multimodal,
    Multitask,
    NextTokens,
    TokenPair,
    Tokens,
)


def check(dataset: Dataset) -> None:
    """Checks every part of a data source against its spec.

    Raises:
        DataError: an empty part, inputs or targets of another shape or type than in the spec, numbers
            that are not finite, labels, flags or tokens out of range, a class without a sample in any
            part, or wrong sizes or statistics. The message gives the part, how many, and the first row.
    """
    spec, parts = dataset.spec, dataset.parts
    where = f"data '{spec.name}'"
    for name, part in parts.items():
        check_part(part, spec, name)
        dtype = part.inputs.dtype if isinstance(part, Part) else None
        if dtype is not None and dtype.is_floating_point and dtype != torch.float32:
            wrong = f"inputs must be float32, not {dtype}: inputs.float()"
            raise DataError(f"{where}, {SET_NAMES.get(name, name)} set: {wrong}")
    if isinstance(spec.target, Classes):
        _check_every_class_occurs(parts.values(), spec.target, where)
    sizes = {name: len(part) for name, part in parts.items()}
    if spec.sizes != sizes:
        raise DataError(f"{where}: spec.sizes says {spec.sizes}, but the sets hold {sizes}.")
    for what, count in (("val_rows", dataset.val_rows), ("val_files", dataset.val_files or None)):
        held_out = 0 if dataset.val is None else len(dataset.val)
        if count is not None and len(count) != held_out:
            raise DataError(
                f"{where}: {what} has {len(count):,} entries for {counted(held_out, 'sample')} of the"
                " validation set."
            )
    for what, values in (("mean", dataset.mean), ("std", dataset.std)):
        if values is not None and not bool(values.isfinite().all()):
            raise DataError(f"{where}: its {what} is not finite: {values.flatten().tolist()}.")
    if dataset.std is not None and bool((dataset.std <= 0).any()):
        raise DataError(f"{where}: its std must be above 0, got {dataset.std.flatten().tolist()}.")


def check_part(part: SplitData, spec: DataSpec, name: str) -> None:
    """Checks one part; see `check`. Real numbers may have any floating type."""
    where = f"data '{spec.name}', {SET_NAMES.get(name, name)} set"
    if isinstance(part, Part):
        _check_dense(part, spec, where)
        return
    if len(part) == 0:
        raise DataError(f"{where}: it is empty.")
    if isinstance(part, MultimodalPart):
        _check_multimodal(part, spec, where)
        return
    assert isinstance(part, Windows | Texts | TextPairs | Documents | PackedDocuments)
    assert isinstance(spec.input, Tokens | TokenPair)
    if isinstance(part, Windows) and part.mapped:
        return  # what a vocabulary has made, and too much to read at each start
    tokens = part.stream if isinstance(part, Windows) else part.tokens
    _check_range(tokens, spec.input.vocab_size, "tokens", where)
    if isinstance(part, Texts):
        if int(part.sizes.min()) < 1:
            raise DataError(f"{where}: text {int(part.sizes.argmin())} (counted from 0) is empty.")
        _check_targets(part.targets, spec, where)


def _check_dense(part: Part, spec: DataSpec, where: str) -> None:
    for what, values in (("inputs", part.inputs), ("targets", part.targets)):
        if not isinstance(values, Tensor):
            kind = type(values).__name__
            raise DataError(f"{where}: {what} are a {kind}, not a tensor: use torch.as_tensor.")
    if part.inputs.ndim == 0 or len(part.inputs) == 0:
        raise DataError(f"{where}: it is empty.")
    inputs, targets = len(part.inputs), len(part.targets)
    if inputs != targets:
        raise DataError(f"{where}: {inputs} inputs, but {targets} targets: the numbers must be equal.")
    _check_inputs(part.inputs, spec, where)
    _check_targets(part.targets, spec, where)


def _check_multimodal(part: MultimodalPart, spec: DataSpec, where: str) -> None:
    assert isinstance(spec.input, Multimodal)
    if tuple(part.stored) != spec.input.names:
        raise DataError(f"{where}: it holds {list(part.stored)}, but the spec says {spec.input}.")
    for (name, values), kind in zip(part.stored.items(), spec.input.parts, strict=True):
        own = replace(spec, input=kind)
        _check_inputs(values.long() if isinstance(kind, Tokens) else values, own, f"{where}, {name}")
    _check_targets(part.targets, spec, where)


def _check_inputs(inputs: Tensor, spec: DataSpec, where: str) -> None:
    expected = spec.input.shape
    if tuple(inputs.shape[1:]) != expected:
        raise DataError(
            f"{where}: inputs have shape {tuple(inputs.shape)}, but the spec ({spec.input}) says"
            f" {_expected(expected)}."
        )
    if isinstance(spec.input, Tokens):
        if inputs.dtype != torch.int64:
            raise DataError(f"{where}: tokens must be int64, got {inputs.dtype}.")
        _check_range(inputs, spec.input.vocab_size, "tokens", where)
    elif inputs.dtype != torch.uint8:
        if not inputs.is_floating_point():
            raise DataError(f"{where}: inputs must be floating point or uint8, got {inputs.dtype}.")
        names = spec.input.names if isinstance(spec.input, Features) else ()
        _check_finite(inputs, "inputs", names, where)


def _check_targets(targets: Tensor, spec: DataSpec, where: str) -> None:
    target = spec.target
    if isinstance(target, NextTokens):
        asked = targets[targets != IGNORED]
        _check_range(asked, target.vocab_size, "tokens", f"{where}, targets")
        return
    expected = () if isinstance(target, Classes) else (target.count,)
    if tuple(targets.shape[1:]) != expected:
        raise DataError(
            f"{where}: targets have shape {tuple(targets.shape)}, but the spec ({target})"
            f" says {_expected(expected)}."
        )
    if isinstance(target, Classes):
        if targets.dtype != torch.int64:
            raise DataError(f"{where}: class labels must be int64, got {targets.dtype}.")
        _check_range(targets, target.count, "labels", where)
        return
    if not targets.is_floating_point():
        raise DataError(f"{where}: targets must be floating point, got {targets.dtype}.")
    _check_finite(targets, "targets", target.names, where)
    if isinstance(target, Multitask):
        for name, part, own in zip(
            target.names, target.parts, torch.split(targets, 1, dim=1), strict=True
        ):
            if isinstance(part, Classes):
                _check_range(own, part.count, "labels", f"{where}, {name}")
    if isinstance(target, Flags):
        _refuse((targets != 0) & (targets != 1), targets, "flags are neither 0 nor 1", where)


def _check_every_class_occurs(parts: Iterable[SplitData], target: Classes, where: str) -> None:
    # A class without samples is a skipped label or a superfluous name. The model would have an output
    # for it, and means over classes would be misleading.
    labelled = [part for part in parts if isinstance(part, Labelled)]
    counts = sum(torch.bincount(part.targets, minlength=target.count) for part in labelled)
    missing = torch.as_tensor(counts == 0).nonzero().flatten().tolist()
    if missing:
        named = ", ".join(f"{index} ('{target.names[index]}')" for index in missing[:_LISTED])
        more = ", …" if len(missing) > _LISTED else ""
        raise DataError(
            f"{where}: {len(missing):,} of {target.count:,} classes have no sample in any set: "
            f"{named}{more}. Labels count from 0 without gaps: renumber them, or remove unused class "
            "names from the spec."
        )


def _check_range(numbers: Tensor, count: int, what: str, where: str) -> None:
    def outside(some: Tensor) -> Tensor:
        if some.dtype in (torch.uint16, torch.uint32):  # which torch cannot compare
            some = some.long()
        return (some < 0) | (some > count - 1)  # not >= count: 256 is no byte

    # A sum over all would take eight times the memory of a text's bytes.
    if any(bool(outside(piece).any()) for piece in torch.split(numbers.flatten(), _PIECE)):
        allowed = f"0 to {count - 1} are allowed for {count} {_KINDS[what]}"
        _refuse(outside(numbers), numbers, f"{what} are out of range: {allowed}", where)


_PIECE = 1 << 20  # numbers looked at together
_LISTED = 5  # classes that a message names
_KINDS = {"labels": "classes", "tokens": "words"}


def _check_finite(numbers: Tensor, what: str, names: tuple[str, ...], where: str) -> None:
    if not bool(numbers.sum().isfinite()):  # cheap, and enough for clean data
        _refuse(~numbers.isfinite(), numbers, f"{what} are not finite", where, names)


def _refuse(wrong: Tensor, numbers: Tensor, what: str, where: str, names: tuple[str, ...] = ()) -> None:
    """Raises DataError if anything is wrong: how many there are and where the first one is."""
    count = int(wrong.sum())
    if count == 0:
        return
    place = wrong.nonzero()[0].tolist()
    column = f" ('{names[place[1]]}')" if len(place) == 2 and len(names) > place[1] else ""
    inside = f", position {place[1:]}{column}" if len(place) > 1 else ""
    raise DataError(
        f"{where}: {count:,} of {numbers.numel():,} {what}. The first is"
        f" {numbers[tuple(place)].item()} in row {place[0]} (counted from 0){inside}."
    )


def _expected(shape: tuple[int, ...]) -> str:
    return str(("samples", *shape)).replace("'", "")
