"""A data source's fingerprint: shows whether a run is resumed with the same data.

It is the same on any processor: a digest of what the source has read, or else of the values, integers
exactly, real numbers by sums that are compared with a tolerance for rounding. Hashing rounded numbers
would not work: some are always at the border between two roundings.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bigmodel.data.base import Dataset
from bigmodel.data.digest import Pieces, add_pieces
from bigmodel.data.parts import SplitData, Windows
from bigmodel.errors import counted
from bigmodel.spec import Input, Tokens

_COLUMNS = 64  # sums of a tensor at most; if it has more columns, several share one
_ROWS = 4096  # rows summed at once, so that a large part is never all in float64
_ROUNDING = 2.0**-13
"""Tolerance of sums, relative to random errors as large as the numbers themselves: a thousand times the
rounding error of float32, because a computation has many of them."""

_NEGLIGIBLE = 2.0**-20
"""Relative to the largest column, what counts as 0."""

_OTHER = "as many samples in each set, but other content"


@dataclass(frozen=True)
class Compared:
    """Whether data is what a run was trained on.

    Attributes:
        change: how it differs, in one sentence without a full stop; None: there is no known difference.
        unsure: a difference cannot be excluded.
    """

    change: str | None = None
    unsure: bool = False


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """The fingerprint of a data source, as JSON values.

    Returns:
        `sizes`: samples in each part, by name. `read`: the digest of what the source has read, if it has
        one; else `exact`: the SHA-256 of all stored whole numbers, and of the shapes of all real ones;
        `sums`: of those, and of the statistics that inputs are scaled by, by name: see `_sums`.
    """
    sizes = {name: len(part) for name, part in dataset.parts.items()}
    if dataset.read is not None:
        return {"sizes": sizes, "read": dataset.read.digest}
    return {"sizes": sizes, **_values(dataset)}


def describe_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """How the fingerprint `new` differs from `old`, in one sentence without a full stop; None: they are
    equal."""
    before, now = old["sizes"], new["sizes"]
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        return ", ".join(_resized(name, before.get(name), now.get(name)) for name in changed)
    exact = all(old.get(key) == new.get(key) for key in ("read", "exact"))
    return None if exact and _near(old.get("sums", {}), new.get("sums", {})) else _OTHER


def compare(
    old: Mapping[str, Any],
    dataset: Dataset,
    learnt: Mapping[str, Any] | None,
    read_again: Callable[[], Dataset],
) -> Compared:
    """Compares a data source with the one that a run was trained on.

    Earlier versions hashed all stored values, also computed ones. If these differ although they follow
    exactly from what was read, the data has changed; else the run's preprocessing is compared.

    Args:
        old: the run's fingerprint, of this version or an earlier one.
        dataset: the source, read with the run's preprocessing.
        learnt: that preprocessing, from `Preprocessing.to_facts`; None: the checkpoint has none.
        read_again: reads the source without it.
    """
    new = fingerprint(dataset)
    if "exact" in old and dataset.read is not None and isinstance(dataset.train, Windows):
        new = {"sizes": new["sizes"], **_values(dataset)}  # as texts were compared before
    resized = describe_change({"sizes": old["sizes"]}, {"sizes": new["sizes"]})
    if resized is not None or old.keys() == new.keys():
        return Compared(resized or describe_change(old, new))
    if old.get("sha256") == _former_digest(dataset):
        return Compared()
    if learnt is None:
        return Compared(unsure=True)
    changed = "sha256" in old and _is_exact(dataset)
    if changed or not _equal(learnt, read_again().preprocessing.to_facts()):
        return Compared(_OTHER)
    return Compared(unsure=True)


def _values(dataset: Dataset) -> dict[str, Any]:
    """`exact` and `sums` of all stored values; see `fingerprint`."""
    digest, sums = hashlib.sha256(), {}
    for name, values in _stored(dataset):
        if isinstance(values, Tensor) and values.is_floating_point():
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            sums[name] = _sums(values)
        else:
            add_pieces(digest, name, values)
    return {"exact": digest.hexdigest(), "sums": sums}


def _resized(part: str, before: int | None, now: int | None) -> str:
    if before is None:
        return f"{part} is new ({counted(now or 0, 'sample')})"
    if now is None:
        return f"{part} is missing (had {counted(before, 'sample')})"
    return f"{part} has {counted(now, 'sample')} instead of {before:,}"


def _stored(dataset: Dataset) -> list[tuple[str, Tensor | Pieces]]:
    """All tensors of a data source, by name; those of a long text in pieces."""
    named: list[tuple[str, Tensor | Pieces]] = []
    parts: Mapping[Any, SplitData] = dataset.parts
    for name, part in parts.items():
        tensors: Mapping[str, Tensor | Pieces] = part.tensors()
        if isinstance(part, Windows):
            tensors = _pieces_of(part, dataset.spec.input)
        named += [(f"{name} {what}", values) for what, values in tensors.items()]
    statistics = (("mean", dataset.mean), ("std", dataset.std))
    return [*named, *((what, t) for what, t in statistics if t is not None)]


def _pieces_of(part: Windows, tokens: Input) -> dict[str, Pieces]:
    """A text's values in the types that they have always been compared in: before there was a cache on
    disk, tokens were of signed types, and all starts were stored."""
    dtype = part.stream.dtype
    if dtype in (torch.uint16, torch.uint32):
        small = isinstance(tokens, Tokens) and tokens.vocab_size <= 1 << 15
        dtype = torch.int16 if small else torch.int32
    return {
        "stream": Pieces(part.stream, dtype, len(part.stream)),
        "starts": Pieces(part.starts, torch.int64, len(part.starts)),
    }


def _former_digest(dataset: Dataset) -> str:
    """The fingerprint of earlier versions: the SHA-256 of all stored values."""
    digest = hashlib.sha256()
    for name, values in _stored(dataset):
        add_pieces(digest, name, values)
    return digest.hexdigest()


def _is_exact(dataset: Dataset) -> bool:
    """Whether the stored values are the same on any processor, given the statistics."""
    if dataset.read is not None:
        return dataset.read.exact
    stored = (values for _, values in _stored(dataset))
    return not any(isinstance(values, Tensor) and values.is_floating_point() for values in stored)


def _sums(tensor: Tensor) -> dict[str, Any]:
    """Sums that distinguish tensors of real numbers, except for rounding.

    Each row and each column has a fixed random weight from -1 to 1. `sums` are the weighted sums of each
    column, or of each group of columns. `sizes` are the deviations that such sums would have if all
    signs were random: the root of the sum of squares.
    """
    rows = tensor.detach().cpu()
    rows = rows.flatten(1) if rows.ndim > 1 else rows.reshape(-1, 1)
    count, columns = rows.shape
    down, across = _weights(count, 0), _weights(columns, 1)
    total, squares = torch.zeros(2, columns, dtype=torch.float64)
    for piece, weights in zip(torch.split(rows, _ROWS), torch.split(down, _ROWS), strict=True):
        numbers = piece.double()
        total += weights @ numbers
        squares += numbers.square().sum(0)
    group = torch.arange(columns) % _COLUMNS
    groups = min(columns, _COLUMNS)
    sums = torch.zeros(groups, dtype=torch.float64).index_add_(0, group, total * across)
    sizes = torch.zeros(groups, dtype=torch.float64).index_add_(0, group, squares).sqrt()
    finest = max(_ROUNDING, 4 * torch.finfo(tensor.dtype).eps)
    return {"sums": sums.tolist(), "sizes": sizes.tolist(), "within": finest}


def _weights(count: int, purpose: int) -> Tensor:
    """(count,) float64, from whole numbers, which are drawn the same on any processor."""
    fixed = torch.Generator().manual_seed(purpose)
    return torch.randint(-(1 << 20), 1 << 20, (count,), generator=fixed).double() / (1 << 20)


def _near(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the sums of tensors, from `_sums`, are equal except for rounding."""
    if old.keys() != new.keys():
        return False
    for name, before in old.items():
        now = new[name]
        for kind in ("sums", "sizes"):
            pairs = zip(before[kind], now[kind], now["sizes"], strict=True)
            least = _NEGLIGIBLE * max(now["sizes"])  # a standardised constant may be 0, or nearly
            within = now["within"]
            if any(not abs(one - other) <= within * max(size, least) for one, other, size in pairs):
                return False
    return True


def _equal(old: Any, new: Any) -> bool:
    """Whether two values are equal: words and counts exactly, real numbers except for rounding."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(_equal(old[key], new[key]) for key in old)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) == len(new) and all(map(_equal, old, new))
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=_ROUNDING, abs_tol=1e-6)
    return bool(old == new)
