"""What a person calls the positions that attention looks at."""

from __future__ import annotations

from torch import nn

from bigmodel.models.layers.embeddings import PatchEmbedding, grid_of
from bigmodel.spec import DataSpec, Features, Image


def position_labels(model: nn.Module, spec: DataSpec) -> tuple[str, ...]:
    """Labels of the positions of inputs that are no texts: of the patches of an image their row and
    column, of the inputs of a table their names, of a sequence the steps; all from 0."""
    kind = spec.input
    if isinstance(kind, Image):
        rows, columns = grid_of(kind, patch_side(model))
        return tuple(f"{row},{column}" for row in range(rows) for column in range(columns))
    if isinstance(kind, Features) and kind.names:
        return kind.names
    return tuple(str(step) for step in range(kind.shape[0]))


def has_class_token(model: nn.Module) -> bool:
    """Whether a learnt vector comes before the positions of the input."""
    return getattr(model, "class_token", None) is not None


def patch_side(model: nn.Module) -> int:
    """The side of a model's patches in pixels; 1 if it reads pixels."""
    sides = [module.patch_size for module in model.modules() if isinstance(module, PatchEmbedding)]
    return sides[0] if sides else 1
