"""From each kind of input to vectors: one at each position, or one for the whole sample."""

from __future__ import annotations

from collections.abc import Sequence as AnySequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.models.checks import cannot_read
from bigmodel.spec import DataSpec, Features, Image, Input, PackedTokens, Sequence, TokenPair, Tokens

TOKEN_STD = 0.1
"""Standard deviation of the tokens' vectors at the start."""


class PatchEmbedding(nn.Module):
    """Cuts images into patches that do not overlap, and maps each linearly to a vector.

    The same as a convolution whose stride is its kernel size (Dosovitskiy et al. 2020,
    arXiv:2010.11929), as one matrix product. Patches of size 1 are pixels.

    Shapes: (batch, channels, height, width) → (batch, rows × columns of patches, dim), row by row.
    """

    def __init__(self, channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.project = nn.Linear(channels * patch_size**2, dim)
        _unit_scale(self.project)

    def forward(self, inputs: Tensor) -> Tensor:
        size = self.patch_size
        batch, channels, height, width = inputs.shape
        patches = inputs.reshape(batch, channels, height // size, size, width // size, size)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * size**2)
        outputs: Tensor = self.project(patches)
        return outputs


class StepEmbedding(nn.Linear):
    """Maps the features of each time step linearly: (batch, steps, features) → (batch, steps, dim)."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__(features, dim)
        _unit_scale(self)


def token_vectors(vocab_size: int, dim: int) -> nn.Embedding:
    """Vectors of tokens, for a model that judges whole texts.

    They start small, as in Kim 2014 (arXiv:1408.5882): what is learnt then soon outweighs the chance of
    the start, also for words that the training set has only a few times.
    """
    embedding = nn.Embedding(vocab_size, dim)
    nn.init.normal_(embedding.weight, std=TOKEN_STD)
    return embedding


class Lookup(nn.Module):
    """Vectors of the categories of several columns, from one table in which each has its own rows.

    One kernel serves all columns. A category that training never saw has index 0; its vector starts as
    zeros and stays so, and carries no information.

    Shapes: (batch, columns) integers of any dtype → (batch, columns, dim).

    Args:
        sizes: how many categories each column has.
        std: standard deviation of the initial vectors.
    """

    offsets: Tensor

    def __init__(self, sizes: AnySequence[int], dim: int, std: float = 1.0) -> None:
        super().__init__()
        starts = [0, *accumulate(sizes)][:-1]
        self.register_buffer("offsets", torch.tensor(starts), persistent=False)
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(sum(sizes), dim), std=std))
        with torch.no_grad():
            self.weight[starts] = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.embedding(inputs.long() + self.offsets, self.weight)


def columns_of(kind: Features) -> tuple[list[int], list[int]]:
    """The indices of columns with real values, and of those with categories."""
    sizes = kind.categories or (0,) * kind.count
    return [i for i, k in enumerate(sizes) if not k], [i for i, k in enumerate(sizes) if k]


class FeatureEmbedding(nn.Module):
    """Turns each column of a table into a vector: its value times a learnt vector, plus another one.

    The feature tokenizer of Gorishniy et al. 2021 (arXiv:2106.11959). A category is looked up instead.
    The vector that is added says which column it is, so that no position is needed.

    Shapes: (batch, count) → (batch, count, dim), in the table's order.
    """

    order: Tensor | None
    places: Tensor | None

    def __init__(self, kind: Features, dim: int) -> None:
        super().__init__()
        numbers, categorical = columns_of(kind)
        self.weight: nn.Parameter | None = None
        if numbers:
            self.weight = nn.Parameter(nn.init.normal_(torch.empty(len(numbers), dim)))
        self.bias = nn.Parameter(nn.init.normal_(torch.empty(kind.count, dim)))
        self.lookup = Lookup([kind.categories[i] for i in categorical], dim) if categorical else None
        self.num_real = len(numbers)
        # Real values come first, then categories; the vectors are put back in the table's order.
        columns = numbers + categorical
        order = None if columns == list(range(kind.count)) else torch.tensor(columns)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("places", None if order is None else order.argsort(), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs if self.order is None else inputs[:, self.order]
        parts = []
        if self.weight is not None:
            parts.append(x[:, : self.num_real].unsqueeze(-1) * self.weight)
        if self.lookup is not None:
            parts.append(self.lookup(x[:, self.num_real :]))
        vectors = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return (vectors if self.places is None else vectors[:, self.places]) + self.bias


class ColumnEmbedding(nn.Module):
    """Turns a table's row into one flat vector: its real values, then a short vector for each category.

    A column of k categories gets min(max_dim, round(1.6 · k^0.56)) numbers, the rule of thumb of
    fastai's tabular models (Howard and Gugger 2020, arXiv:2002.04688). Columns with vectors of one size
    share a table, so that there are few kernels for any number of columns.

    Shapes: (batch, count) → (batch, width).

    Attributes:
        width: size of the flat vector.
    """

    numbers: Tensor

    def __init__(self, kind: Features, max_dim: int) -> None:
        super().__init__()
        numbers, categorical = columns_of(kind)
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.int64), persistent=False)
        by_size: dict[int, list[int]] = {}
        for column in categorical:
            size = max(1, min(max_dim, round(1.6 * kind.categories[column] ** 0.56)))
            by_size.setdefault(size, []).append(column)
        self.lookups = nn.ModuleList()
        for index, (size, columns) in enumerate(by_size.items()):
            # A category's vector is about as long as a standardised value.
            sizes = [kind.categories[column] for column in columns]
            self.lookups.append(Lookup(sizes, size, std=size**-0.5))
            self.register_buffer(f"columns_{index}", torch.tensor(columns), persistent=False)
        self.width = len(numbers) + sum(size * len(columns) for size, columns in by_size.items())

    def forward(self, inputs: Tensor) -> Tensor:
        parts = [inputs[:, self.numbers]]
        for index, lookup in enumerate(self.lookups):
            categories = inputs[:, self.get_buffer(f"columns_{index}")]
            parts.append(lookup(categories).flatten(1).to(inputs.dtype))
        return torch.cat(parts, dim=1)


def embed(spec: DataSpec, dim: int, patch_size: int, model: str) -> nn.Module:
    """The module that maps the inputs of `spec`, whatever their kind, to (batch, positions, dim).

    Raises:
        SpecError: the patches do not tile the image, or the inputs are pairs of texts.
    """
    match spec.input:
        case Image(channels=channels) as image:
            _check_patches(image, patch_size, model)
            return PatchEmbedding(channels, patch_size, dim)
        case Sequence(features=features):
            return StepEmbedding(features, dim)
        case Tokens(vocab_size=vocab_size):
            return nn.Embedding(vocab_size, dim)
        case Features() as table:
            return FeatureEmbedding(table, dim)
        case _:
            raise cannot_read(model, spec, "Only model=transformer translates.")


def grid_of(kind: Input, patch_size: int) -> tuple[int, ...]:
    """The grid of the positions that `embed` returns: rows × columns of an image, else one line."""
    if isinstance(kind, Image):
        return (kind.height // patch_size, kind.width // patch_size)
    if isinstance(kind, TokenPair | PackedTokens):
        return (kind.length,)
    return kind.shape[:1]


def _check_patches(image: Image, patch_size: int, model: str) -> None:
    if image.height % patch_size == 0 and image.width % patch_size == 0:
        return
    fitting = [
        str(size)
        for size in range(1, min(image.height, image.width) + 1)
        if image.height % size == 0 and image.width % size == 0
    ]
    raise SpecError(
        f"model.patch_size={patch_size}: patches of {patch_size}×{patch_size} do not tile"
        f" {image}. With model={model} on these, choose model.patch_size={'|'.join(fitting)}."
    )


def _unit_scale(layer: nn.Linear) -> None:
    """Gives the outputs for standardised inputs unit variance, as positions and token vectors have."""
    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    nn.init.zeros_(layer.bias)
