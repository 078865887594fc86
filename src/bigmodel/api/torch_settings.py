"""Torch's settings that a run needs while it computes, and that the caller keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

import torch

from bigmodel.runtime import rng


class TorchSettings(NamedTuple):
    """How torch computes in this process.

    Attributes:
        matmul: precision of fp32 matrix products.
        tf32: whether cuDNN may round to TF32.
        benchmark: whether cuDNN times its kernels.
        deterministic: whether only deterministic operations are allowed; and whether others warn.
    """

    matmul: str
    tf32: bool
    benchmark: bool
    deterministic: tuple[bool, bool]

    @classmethod
    def current(cls) -> Self:
        """Those of the process."""
        return cls(
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark,
            (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
        )

    def apply(self) -> None:
        """Makes them those of the process."""
        torch.set_float32_matmul_precision(self.matmul)
        torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cudnn.benchmark = self.benchmark
        now = TorchSettings.current().deterministic
        if now != self.deterministic:  # loads the compiler: 80 MB, a second
            torch.use_deterministic_algorithms(self.deterministic[0], warn_only=self.deterministic[1])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block they are those of the process."""
        before = TorchSettings.current()
        self.apply()
        try:
            yield
        finally:
            before.apply()


@contextmanager
def unchanged() -> Iterator[None]:
    """Whatever the block does, torch's settings, its threads and all random states are as before."""
    settings, threads = TorchSettings.current(), torch.get_num_threads()
    tensors, facts = rng.torch_states(), rng.python_states()
    try:
        yield
    finally:
        settings.apply()
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        rng.restore(tensors, facts)
