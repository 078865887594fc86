"""Products by numpy's OpenBLAS against torch's."""

import ctypes
from collections.abc import Callable

import numpy
import pytest
import torch
from torch import Tensor

from bigmodel.models.layers import openblas

needs_openblas = pytest.mark.skipif(not openblas.is_there(), reason="numpy has no OpenBLAS here")

LAYOUTS: dict[str, Callable[[int, int], Tensor]] = {
    "plain": lambda a, b: torch.randn(a, b),
    "transposed": lambda a, b: torch.randn(b, a).t(),
    "part": lambda a, b: torch.randn(a, 2 * b + 3)[:, 3 : b + 3],
    "part of a transposed": lambda a, b: torch.randn(b, 2 * a)[:, a:].t(),
    "every other": lambda a, b: torch.randn(2 * a, 2 * b)[::2, ::2],
    "one row again and again": lambda a, b: torch.randn(1, b).expand(a, b),
    "one column again and again": lambda a, b: torch.randn(a, 1).expand(a, b),
}


@needs_openblas
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 4, 1), (3, 1, 2)])
def test_any_layout_is_multiplied(
    shape: tuple[int, int, int], left: str, right: str, bias: bool
) -> None:
    count, inner, width = shape
    rows, weight = LAYOUTS[left](count, inner), LAYOUTS[right](width, inner)
    added = torch.randn(width) if bias else None
    found = openblas.multiplied(rows, weight, added)
    assert found.is_contiguous()
    torch.testing.assert_close(found, torch.nn.functional.linear(rows, weight, added))


@needs_openblas
def test_what_lay_in_the_memory_before_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "new_empty", lambda self, *size: self.new_full(size, torch.nan))
    rows, weight = torch.randn(40, 30), torch.randn(20, 30)
    torch.testing.assert_close(openblas.multiplied(rows, weight), rows @ weight.t())


@needs_openblas
def test_numpy_keeps_its_threads() -> None:
    library = openblas._library()
    assert isinstance(library, ctypes.CDLL)
    before = library.scipy_openblas_get_num_threads64_()
    library.scipy_openblas_set_num_threads64_(2)
    try:
        openblas.multiplied(torch.randn(8, 8), torch.randn(8, 8))
        assert library.scipy_openblas_get_num_threads64_() == 2
    finally:
        library.scipy_openblas_set_num_threads64_(before)


def test_a_numpy_without_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(numpy, "__file__", f"{tmp_path}/numpy/__init__.py")
    openblas._library.cache_clear()
    try:
        assert not openblas.is_there()
    finally:
        openblas._library.cache_clear()
