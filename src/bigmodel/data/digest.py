"""A digest of what a source has read: of bytes and rows, before anything is computed from them.

Computed values differ between processors in their last bits, by the order of sums and the approximation
of functions. What is read does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from bigmodel.data.parts import SplitData
from bigmodel.data.text_encoding import open_decompressed

_CHUNK = 1 << 20


@dataclass(frozen=True)
class SourceDigest:
    """What a source has read.

    Attributes:
        digest: the same on any processor.
        exact: everything stored follows from what was read and from the statistics, by arithmetic that
            rounds the same everywhere: copies, whole numbers, single operations of IEEE 754; not by
            sums, functions or draws from a normal distribution.
    """

    digest: str
    exact: bool = True


class DigestBuilder:
    """Builds a `SourceDigest`, piece by piece; each is hashed after its name or length."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def word(self, word: str) -> Self:
        """Adds a word, such as a file's digest or a text."""
        content = word.encode("utf-8", "surrogatepass")
        self._digest.update(f"word {len(content)}\n".encode() + content)
        return self

    def tensor(self, name: str, tensor: Tensor) -> Self:
        """Adds a tensor."""
        add_tensor(self._digest, name, tensor)
        return self

    def parts(self, parts: Mapping[Any, SplitData]) -> Self:
        """Adds all tensors of parts."""
        for name, part in parts.items():
            for what, tensor in part.tensors().items():
                self.tensor(f"{name} {what}", tensor)
        return self

    def files(self, paths: Iterable[Path]) -> Self:
        """Adds the bytes of files, decompressed if they are gzip.

        Raises:
            DataError: one cannot be read.
        """
        for path in paths:
            content = hashlib.sha256()
            with open_decompressed(path) as file:
                while piece := file.read(_CHUNK):
                    content.update(piece)
            self.word(content.hexdigest())
        return self

    def read(self, *, exact: bool = True) -> SourceDigest:
        """The digest of everything added; for `exact` see `SourceDigest`."""
        return SourceDigest(self._digest.hexdigest(), exact)


@dataclass(frozen=True)
class Pieces:
    """What stands for a long tensor of one dimension: slices of it can be asked for.

    Attributes:
        values: gives the slices.
        dtype: that they are converted to.
        count: how many values.
    """

    values: Any
    dtype: torch.dtype
    count: int

    def __iter__(self) -> Iterator[Tensor]:
        for first in range(0, self.count, _CHUNK):
            yield self.values[first : first + _CHUNK].to(self.dtype)


def add_pieces(digest: Any, name: str, values: Tensor | Pieces) -> None:
    """Hashes values as `add_tensor` hashes the whole tensor."""
    if isinstance(values, Tensor):
        add_tensor(digest, name, values)
        return
    digest.update(f"{name} {values.dtype} {(values.count,)}\n".encode())
    for piece in values:
        digest.update(piece.cpu().contiguous().view(torch.uint8).numpy())


def add_tensor(digest: Any, name: str, tensor: Tensor) -> None:
    """Hashes a tensor without a copy, after its name, type and shape."""
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
