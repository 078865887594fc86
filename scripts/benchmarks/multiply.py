"""How fast a device multiplies matrices, as a measure for all else."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def matrix_rate(device: str, tiny: bool = False, repeats: int = 15) -> float:
    """Floating point operations a second of (n, n) × (n, n): on a GPU in bf16, n = 8,192; on a CPU in
    fp32, n = 1,024, by the fastest of the libraries at hand. The median."""
    size = 256 if tiny else 8192 if device == "cuda" else 1024
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    products: list[Callable[[], object]] = [lambda: a @ b]
    if device == "cpu":
        rows, columns = a.numpy(), b.numpy()
        products.append(lambda: rows @ columns)
        if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            products.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))

    def seconds(product: Callable[[], object]) -> float:
        began = time.perf_counter()
        for _ in range(10):
            product()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / 10

    def median(product: Callable[[], object]) -> float:
        for _ in range(3):
            seconds(product)
        return statistics.median(seconds(product) for _ in range(repeats))

    return 2 * size**3 / min(map(median, products))
