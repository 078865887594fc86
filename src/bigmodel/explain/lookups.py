"""Gradients through categories and tokens: vectors are looked up by index, which has no gradient.

The vectors are moved instead, from those of the baseline to those of the input, wherever the model looks
them up. Source: layer integrated gradients, as in captum.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.models.layers.embeddings import Lookup
from bigmodel.spec import Features

KINDS = (nn.Embedding, Lookup)
"""Modules that look vectors up by index: (batch, …) integers → (batch, …, dim)."""


class Lookups:
    """What a model looks up, call by call, in the order of the calls.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if isinstance(module, KINDS)]

    def found(self, model: nn.Module, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The indices and the vectors of each call for a batch: (batch, …) and (batch, …, dim)."""
        indices: list[Tensor] = []
        vectors: list[Tensor] = []

        def record(module: nn.Module, given: Any, found: Tensor) -> None:  # noqa: ARG001
            indices.append(given[0])
            vectors.append(found.detach())

        with torch.no_grad(), self._hooked(record):
            model(inputs)
        return indices, vectors

    def origins(self, model: nn.Module, kind: Features, device: torch.device) -> list[Tensor]:
        """Which inputs each vector comes from, call by call: (vectors, inputs); rows add up to 1.

        It is tried out: each category is changed alone, and what is looked up differs where it matters.
        """
        columns = [column for column, size in enumerate(kind.categories) if size > 1]
        probes = torch.zeros(1 + len(columns), kind.count, device=device)
        probes[torch.arange(1, len(probes)), columns] = 1.0
        found = []
        for call in self.found(model, probes)[0]:
            changed = (call[1:] != call[:1]).flatten(1).T.float()  # (vectors, categories)
            origin = changed.new_zeros(len(changed), kind.count)
            origin[:, columns] = changed / changed.sum(1, keepdim=True).clamp(min=1)
            found.append(origin)
        return found

    @contextmanager
    def replaced(self, vectors: list[Tensor | None]) -> Iterator[None]:
        """Gives `vectors`, call by call, instead of what is looked up; None: what is looked up."""
        calls = iter(vectors)

        def give(module: nn.Module, given: Any, found: Tensor) -> Tensor | None:  # noqa: ARG001
            return next(calls)

        with self._hooked(give):
            yield

    @contextmanager
    def _hooked(self, hook: Any) -> Iterator[None]:
        handles = [module.register_forward_hook(hook) for module in self._modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
