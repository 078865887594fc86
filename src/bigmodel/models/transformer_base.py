"""What transformers share that read, write or translate: both ends, and how weights start."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.models.base import Writer
from bigmodel.models.layers.basic import check_writing
from bigmodel.models.layers.blocks import Block
from bigmodel.models.layers.embeddings import embed, grid_of
from bigmodel.models.layers.fast_linear import Linear, linear
from bigmodel.models.layers.positions import Positions, Rotary
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import DataSpec, Features, NextTokens, TokenPair, Tokens

GPT2_STD = 0.02


class TiedHead(nn.Module):
    """Scores each token by its own embedding: logits = x Eᵀ (Press and Wolf 2016, arXiv:1608.05859).

    The matrix stays the embedding's, so that it is counted, saved and averaged once.

    Shapes: (…, dim) → (…, vocab_size).
    """

    bias = None
    is_linear = True  # a loss may multiply by `weight` itself

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self._embedding = (embedding,)  # in a tuple, torch takes it for no part of this one

    @property
    def weight(self) -> Tensor:
        """The embedding's own: (vocab_size, dim)."""
        return self._embedding[0].weight

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight)


class TransformerBase(Writer):
    """Embedding and positions before a transformer's blocks, and the head after them.

    With xavier, tied embeddings start at a deviation of dim^-0.5, so that logits start small, and are
    multiplied by √dim where they are looked up, as in Vaswani et al. 2017, section 3.4.

    Raises:
        SpecError: the model cannot read or write what the spec says, or `tied_embeddings` where no token
            is asked for.
    """

    def __init__(self, config: TransformerConfig, spec: DataSpec) -> None:
        super().__init__()
        self.writes = check_writing("transformer", spec)
        self._check_tied(config, spec)
        grid = grid_of(spec.input, config.patch_size)
        if isinstance(spec.input, TokenPair):
            self.embedding: nn.Module = nn.Embedding(spec.input.vocab_size, config.dim)
        else:
            self.embedding = embed(spec, config.dim, config.patch_size, "transformer")
        self.positions: Positions | None = None
        self.rotary: Rotary | None = None
        if not isinstance(spec.input, Features):  # these have a vector of their own already
            if config.position == "rotary":
                self.rotary = _rotary(config, grid, spec)
            else:
                self.positions = Positions(config.position, grid, config.dim)
        self.dropout = config.dropout if self.writes else 0.0
        self.scale = 1.0
        if config.tied_embeddings and config.initialisation == "xavier":
            self.scale = math.sqrt(config.dim)

    def placed(self, inputs: Tensor, places: Tensor | None = None) -> Tensor:
        """The inputs' vectors with their positions: the first ones, or `places`, (batch, positions)."""
        x: Tensor = self.embedding(inputs)
        if self.scale != 1.0:
            x = x * self.scale
        if self.positions is not None:
            x = self.positions(x, places)
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def finish(self, config: TransformerConfig, spec: DataSpec, *stacks: nn.ModuleList) -> None:
        """Puts on the head, and gives all weights their start.

        Args:
            stacks: blocks that follow one another, of the encoder and of the decoder.
        """
        if config.tied_embeddings:
            assert isinstance(self.embedding, nn.Embedding)
            self.head = TiedHead(self.embedding)
            if config.initialisation == "xavier":
                nn.init.normal_(self.embedding.weight, std=config.dim**-0.5)
        else:
            self.head = Linear(config.dim, spec.target.output_size, bias=config.bias)
        if config.initialisation == "gpt2":
            start_as_gpt2(self, *stacks)
        if config.zero_init_outputs:
            for layer in (self.head, *(layer for stack in stacks for layer in _outputs(stack))):
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)

    @staticmethod
    def _check_tied(config: TransformerConfig, spec: DataSpec) -> None:
        if not config.tied_embeddings:
            return
        match spec.input, spec.target:
            case (Tokens() | TokenPair()) as text, NextTokens() as target:
                if text.vocab_size == target.vocab_size:
                    return
        raise SpecError(
            "model.tied_embeddings=true needs tokens to read and the next of them as the target, but"
            f" data={spec.name} holds {spec.input} → {spec.target}. Use model.tied_embeddings=false."
        )


def start_as_gpt2(model: TransformerBase, *stacks: nn.ModuleList) -> None:
    """Weights as GPT-2 starts them (Radford et al. 2019): deviation 0.02, biases 0.

    What n blocks add to the residual path starts smaller, by 1/√(2n), so that the sum does not grow with
    depth.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=GPT2_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, Positions) and isinstance(module.weight, nn.Parameter):
            nn.init.normal_(module.weight, std=GPT2_STD)
    for stack in stacks:
        for layer in _outputs(stack):
            nn.init.normal_(layer.weight, std=GPT2_STD / math.sqrt(2 * len(stack)))


def _outputs(stack: nn.ModuleList) -> list[nn.Linear]:
    return [layer for block in stack if isinstance(block, Block) for layer in block.outputs()]


def _rotary(config: TransformerConfig, grid: tuple[int, ...], spec: DataSpec) -> Rotary:
    head_dim = config.dim // config.num_heads
    if head_dim % (2 * len(grid)):
        step = 2 * len(grid) * config.num_heads
        raise SpecError(
            f"model.position=rotary turns pairs of channels for each axis of {spec.input}, and"
            f" model.dim={config.dim} gives each of {config.num_heads} heads {head_dim}:"
            f" choose a multiple of {step}, such as model.dim={step * math.ceil(config.dim / step)}."
        )
    return Rotary(grid, head_dim)
