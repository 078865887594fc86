"""Matrix products of torch's tensors by the OpenBLAS that numpy brings along.

OpenBLAS chooses its kernels by what a processor can do, not by who made it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy
from torch import Tensor

_ROW_MAJOR, _AS_IS, _TRANSPOSED = 101, 111, 112  # of cblas.h
_INT, _LONG, _FLOAT, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
_ARGUMENTS = (
    *(_INT, _INT, _INT, _LONG, _LONG, _LONG),
    *(_FLOAT, _POINTER, _LONG, _POINTER, _LONG, _FLOAT, _POINTER, _LONG),
)


def is_there() -> bool:
    """Whether numpy has an OpenBLAS that can be called, as it has where it came as a wheel."""
    return _library() is not None


def multiplied(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b on one thread: float32 on the CPU, (rows, inputs), (outputs, inputs) and (outputs,).

    Only if `is_there`. Nothing is recorded for a gradient.
    """
    rows, rows_are, rows_apart = _laid_out(rows)
    weight, weight_is, weight_apart = _laid_out(weight)
    (count, inner), width = rows.shape, weight.shape[0]
    outputs = rows.new_empty(count, width)
    if bias is not None:
        outputs.copy_(bias)
    library = _library()
    assert library is not None
    threads = library.scipy_openblas_get_num_threads64_()
    if threads != 1:
        library.scipy_openblas_set_num_threads64_(1)
    library.scipy_cblas_sgemm64_(
        *(_ROW_MAJOR, rows_are, _TRANSPOSED if weight_is == _AS_IS else _AS_IS, count, width, inner),
        *(1.0, rows.data_ptr(), rows_apart, weight.data_ptr(), weight_apart),
        *(0.0 if bias is None else 1.0, outputs.data_ptr(), width),
    )
    if threads != 1:  # numpy's own products have as many as before
        library.scipy_openblas_set_num_threads64_(threads)
    return outputs


def _laid_out(matrix: Tensor) -> tuple[Tensor, int, int]:
    """A matrix as BLAS can read it, whether it lies there as it is or transposed, and the distance of
    its rows, or columns."""
    (rows, columns), (down, right) = matrix.shape, matrix.stride()
    if right == 1 and down >= columns:
        return matrix, _AS_IS, down
    if down == 1 and right >= rows:
        return matrix, _TRANSPOSED, right
    return matrix.contiguous(), _AS_IS, columns


@cache
def _library() -> ctypes.CDLL | None:
    """The library that numpy has loaded, if its functions have the names that are known here."""
    folder = Path(numpy.__file__).parent.with_name("numpy.libs")
    for path in folder.glob("libscipy_openblas64_*.so*"):
        library = ctypes.CDLL(str(path))
        names = ("openblas_get_num_threads", "openblas_set_num_threads", "cblas_sgemm")
        if all(hasattr(library, f"scipy_{name}64_") for name in names):
            library.scipy_cblas_sgemm64_.argtypes = _ARGUMENTS
            library.scipy_cblas_sgemm64_.restype = None
            return library
    return None
