"""How fast a device multiplies large bf16 matrices, as a measure for all else."""

from __future__ import annotations

import statistics
import time

import torch


def matrix_rate(device: str, tiny: bool = False, repeats: int = 30) -> float:
    """Floating point operations a second of (n, n) × (n, n) in bf16, n = 8,192: the median."""
    size = 256 if tiny else 8192
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def seconds() -> float:
        began = time.perf_counter()
        for _ in range(10):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / 10

    for _ in range(3):
        seconds()
    return 2 * size**3 / statistics.median(seconds() for _ in range(repeats))
