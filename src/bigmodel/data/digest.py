"""What a source has read, told by a digest: of bytes and rows, before anything is computed of them.

The last bits of what is computed differ between processors, by the order of sums and by how functions
are approximated. What is read does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
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
        digest: of it; equal on any processor.
        exact: whether all that is stored follows from it, and from the statistics, by arithmetic that is
            correctly rounded everywhere: copies, whole numbers, single operations of IEEE 754. Not so
            sums, functions, and numbers drawn from a normal distribution.
    """

    digest: str
    exact: bool = True


class DigestBuilder:
    """Adds up to a `Read`, piece by piece; a name before each, so that nothing runs together."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def word(self, word: str) -> Self:
        """Adds a word, such as a file's digest or a text."""
        content = word.encode("utf-8", "surrogatepass")
        self._digest.update(f"word {len(content)}\n".encode() + content)
        return self

    def tensor(self, name: str, tensor: Tensor) -> Self:
        """Adds a tensor of what was read."""
        add_tensor(self._digest, name, tensor)
        return self

    def parts(self, parts: Mapping[Any, SplitData]) -> Self:
        """Adds all tensors of parts whose samples are as they were read."""
        for name, part in parts.items():
            for what, tensor in part.tensors().items():
                self.tensor(f"{name} {what}", tensor)
        return self

    def files(self, paths: Iterable[Path]) -> Self:
        """Adds the bytes of files, those within where one is gzip.

        Raises:
            DataError: one cannot be read.
        """
        for path in paths:
            within = hashlib.sha256()
            with open_decompressed(path) as file:
                while piece := file.read(_CHUNK):
                    within.update(piece)
            self.word(within.hexdigest())
        return self

    def read(self, *, exact: bool = True) -> SourceDigest:
        """All of it; see `Read.exact`."""
        return SourceDigest(self._digest.hexdigest(), exact)


def add_tensor(digest: Any, name: str, tensor: Tensor) -> None:
    """Hashes a tensor where it lies; name, type and shape go first."""
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
