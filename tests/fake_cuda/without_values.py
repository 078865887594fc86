"""The tests of `tests/gpu` without assertions about values: their calls, devices and dtypes remain."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType
from typing import Any

FOLDER = "tests.gpu."
BEYOND = {
    "test_a_compiled_model_trains_alike_and_is_saved_by_its_plain_names": "torch's compiler",
    "test_kernels_stand_in_the_phase_that_launched_them": "torch's profiler",
}
"""Tests of tools that need a real device, and why."""


class _Unasserted(ast.NodeTransformer):
    """`assert x` becomes `x`, which is still evaluated."""

    def visit_Assert(self, node: ast.Assert) -> ast.Expr:
        return ast.copy_location(ast.Expr(node.test), node)


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = _Unasserted().visit(ast.parse(self.get_data(path), path))
        return compile(tree, path, "exec")


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith(FOLDER):
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is not None and found.origin is not None:
            found.loader = _Loader(name, found.origin)
        return found


def pytest_configure() -> None:
    import torch

    sys.meta_path.insert(0, _Finder())  # before pytest's own, which rewrites assertions
    torch.testing.assert_close = lambda *_, **__: None


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Keeps one test of each function: one call is enough to see that it can be called."""
    first = {
        (item.path, item.originalname): item
        for item in reversed(items)
        if item.originalname not in BEYOND
    }
    items[:] = [item for item in items if item is first.get((item.path, item.originalname))]
