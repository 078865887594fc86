"""Transformers: attention and feed-forward blocks with residual paths, over any kind of input."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.models.base import Writer
from bigmodel.models.checks import check_writing
from bigmodel.models.layers import packing, padding
from bigmodel.models.layers.blocks import Block, make_norm
from bigmodel.models.layers.embeddings import embed, grid_of
from bigmodel.models.layers.fast_linear import Linear, linear
from bigmodel.models.layers.kv_cache import KVCache
from bigmodel.models.layers.positions import Positions, Rotary
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.registry import models
from bigmodel.runtime.device import to_device
from bigmodel.spec import DataSpec, Features, NextTokens, PackedTokens, TokenPair, Tokens

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
        self._embedding = (embedding,)  # in a tuple, torch does not register it as a part

    @property
    def weight(self) -> Tensor:
        """The embedding's own: (vocab_size, dim)."""
        return self._embedding[0].weight

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight)


class TransformerBase(Writer):
    """What both transformers share: embedding and positions, cached decoding, and starting weights.

    With xavier, tied embeddings start at a deviation of dim^-0.5, so that logits start small, and are
    multiplied by √dim where they are looked up, as in Vaswani et al. 2017, section 3.4.

    Raises:
        SpecError: the model cannot read or write what the spec says, or `tied_embeddings` is set and no
            token is asked for.
    """

    final_norm: nn.Module | None

    def __init__(self, config: TransformerConfig, spec: DataSpec) -> None:
        super().__init__()
        self.writes = check_writing("transformer", spec)
        _check_tied(config, spec)
        grid = grid_of(spec.input, config.patch_size)
        if isinstance(spec.input, TokenPair):
            self.embedding: nn.Module = nn.Embedding(spec.input.vocab_size, config.dim)
        else:
            self.embedding = embed(spec, config.dim, config.patch_size, "transformer")
        self.positions: Positions | None = None
        self.rotary: Rotary | None = None
        if not isinstance(spec.input, Features):  # these have a vector of their own already
            if config.position == "rotary":
                self.rotary = _make_rotary(config, grid, spec)
            else:
                before = int(config.class_token)
                self.positions = Positions(config.position, grid, config.dim, before)
        self.token_types = nn.Embedding(config.token_types, config.dim) if config.token_types else None
        self.embedding_norm = make_norm(config) if config.embedding_norm else None
        self.class_token: nn.Parameter | None = None
        self.dropout = config.dropout if self.writes else 0.0
        self.scale = 1.0
        if config.tied_embeddings and config.initialisation == "xavier":
            self.scale = math.sqrt(config.dim)

    @property
    def decoder_blocks(self) -> Iterable[Block]:
        """The blocks that see the text being written."""
        raise NotImplementedError

    def decode(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """See `Writer.decode`."""
        cache.advance()
        return self._next_logits(tokens.unsqueeze(1), cache, None)

    def _next_logits(self, tokens: Tensor, cache: KVCache, lengths: Tensor | None) -> Tensor:
        """Logits after the last of `tokens`, or after as many as `lengths` says: (batch, vocab_size)."""
        x = self.embed(tokens, cache.positions)
        for block, layer in zip(self.decoder_blocks, cache.layers, strict=True):
            x = block(x, None, layer, layer.source, cache.source_mask)
        return self.unembed(padding.last_position(x, lengths))

    def embed(self, inputs: Tensor, positions: Tensor | None = None) -> Tensor:
        """Vectors of the inputs, with their positions: the first ones, or (batch, positions) numbers."""
        x: Tensor = self.embedding(inputs)
        if self.scale != 1.0:
            x = x * self.scale
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), 1, -1).to(x.dtype), x], dim=1)
        if self.positions is not None:
            x = self.positions(x, positions)
        if self.token_types is not None:
            x = x + self.token_types.weight[0]
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def unembed(self, x: Tensor) -> Tensor:
        """Outputs from vectors of the residual path: (…, dim) → (…, output_size)."""
        outputs: Tensor = self.head(self._final_normed(x))
        return outputs

    def _final_normed(self, x: Tensor) -> Tensor:
        return x if self.final_norm is None else cast(Tensor, self.final_norm(x))

    def _add_head(self, config: TransformerConfig, spec: DataSpec, *stacks: nn.ModuleList) -> None:
        """Adds the head, and sets the starting weights.

        Args:
            stacks: the blocks of the encoder and of the decoder.
        """
        if config.tied_embeddings:
            assert isinstance(self.embedding, nn.Embedding)
            self.head = TiedHead(self.embedding)
            if config.initialisation == "xavier":
                nn.init.normal_(self.embedding.weight, std=config.dim**-0.5)
        else:
            self.head = Linear(config.dim, spec.target.output_size, bias=config.bias)
        if config.initialisation == "gpt2":
            _initialise_as_gpt2(self, stacks)
        if config.zero_init_outputs:
            for layer in (self.head, *(layer for stack in stacks for layer in _residual_outputs(stack))):
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)


class Transformer(TransformerBase):
    """A transformer over the positions of any input (Vaswani et al. 2017, arXiv:1706.03762).

    An image is read as patches (Dosovitskiy et al. 2020, arXiv:2010.11929), a sequence step by step,
    tokens embedded, plain features as a position each, without an order. With `causal`, no position sees
    a later one. If the target is the next token (Radford et al. 2019, GPT-2), it is always causal,
    has features at every position, and can write; then texts may be packed (`PackedTokens`).

    The number of heads has to divide `dim`, real numbers are mapped linearly and only tokens looked up,
    and each part adds its input back. (The article's listing splits 5 dimensions over 8 heads, looks
    real numbers up in an embedding, and adds attention's weights where its input should be.)

    Shapes: (batch, *spec.input.shape) → features (batch, dim) → (batch, output_size); in writing
    (batch, length) → features (batch, length, dim) → (batch, length, vocab_size).
    """

    def __init__(self, config: TransformerConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.causal = config.causal or self.writes
        self.pad = padding.pad_token(spec.input)
        self.packed = isinstance(spec.input, PackedTokens)
        self.packing_kernel = packing.kernel() if self.packed else None
        self.blocks = nn.ModuleList(Block(config, self.rotary, self.causal) for _ in range(config.depth))
        self.final_norm = make_norm(config) if config.norm_first else None
        self.readout = config.effective_readout
        if config.class_token:
            _check_class_token(config, self.writes)
            self.class_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, config.dim)))
        pools = self.readout == "pooled" and not self.writes
        self.pooler = Linear(config.dim, config.dim) if pools else None
        self._add_head(config, spec, self.blocks)

    def features(self, inputs: Tensor) -> Tensor:
        lengths = mask = packed = None
        if self.pad is not None and not self.writes:
            lengths = padding.text_lengths(inputs, self.pad) + (self.class_token is not None)
        if self.packed and inputs.ndim == 3:
            inputs, positions = inputs.unbind(1)
            packed = packing.Packing(positions, self.packing_kernel)
        x = self.embed(inputs, None if packed is None else packed.positions)
        if lengths is not None and not self.causal:  # else no real position sees padding, which is last
            mask = padding.length_mask(lengths, x.shape[1])[:, None, None]
        for block in self.blocks:
            x = block(x, mask) if packed is None else block(x, packing=packed)
        if self.writes:
            return self._final_normed(x)
        if self.readout == "last":
            return self._final_normed(padding.last_position(x, lengths))
        if self.readout in ("first", "pooled"):
            first = self._final_normed(x[:, 0])
            return first if self.pooler is None else torch.tanh(self.pooler(first))
        return padding.masked_mean(self._final_normed(x), lengths)

    @property
    def decoder_blocks(self) -> Iterable[Block]:
        return cast(Iterable[Block], self.blocks)

    def prefill(self, inputs: Tensor, lengths: list[int], max_length: int) -> tuple[Tensor, KVCache]:
        """See `Writer.prefill`; `max_length` is at most the spec's length."""
        cache = KVCache(len(self.blocks), lengths, max_length, inputs.device)
        return self._next_logits(inputs, cache, to_device(torch.tensor(lengths), inputs.device)), cache


class EncoderDecoder(TransformerBase):
    """Encoder and decoder of Vaswani et al. 2017 (arXiv:1706.03762), figure 1.

    The encoder sees the whole source, the decoder what is known of the target up to each position and,
    in every block, the encoder's outputs. Both look tokens up in the same embedding and have the same
    positions. Nothing sees padding.

    Shapes: (batch, 2, length) → features (batch, length, dim), at each position of row 1
    → (batch, length, vocab_size).
    """

    def __init__(self, config: TransformerConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        assert isinstance(spec.input, TokenPair)
        self.pad = spec.input.pad
        depth = config.encoder_depth or config.depth
        self.encoder = nn.ModuleList(Block(config, self.rotary, causal=False) for _ in range(depth))
        self.encoder_norm = make_norm(config) if config.norm_first else None
        self.decoder = nn.ModuleList(
            Block(config, self.rotary, causal=True, reads_source=True) for _ in range(config.depth)
        )
        self.final_norm = make_norm(config) if config.norm_first else None
        self._add_head(config, spec, self.encoder, self.decoder)

    def features(self, inputs: Tensor) -> Tensor:
        encoded, mask = self._encode(inputs[:, 0])
        x = self.embed(inputs[:, 1])
        for block in self.decoder_blocks:
            x = block(x, None, None, block.read(encoded), mask)
        return self._final_normed(x)

    @property
    def decoder_blocks(self) -> Iterable[Block]:
        return cast(Iterable[Block], self.decoder)

    def prefill(self, inputs: Tensor, lengths: list[int], max_length: int) -> tuple[Tensor, KVCache]:
        """See `Writer.prefill`; `max_length` is at most the spec's length."""
        cache = KVCache(len(self.decoder), lengths, max_length, inputs.device)
        encoded, cache.source_mask = self._encode(inputs[:, 0])
        for block, layer in zip(self.decoder_blocks, cache.layers, strict=True):
            layer.source = block.read(encoded)
        ends = to_device(torch.tensor(lengths), inputs.device)
        return self._next_logits(inputs[:, 1, : cache.longest], cache, ends), cache

    def _encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's outputs, (batch, length, dim), and a mask that is True at real positions."""
        lengths = padding.text_lengths(source, self.pad)
        mask = padding.length_mask(lengths, source.shape[1])[:, None, None]
        x = self.embed(source)
        for block in self.encoder:
            x = block(x, mask)
        return x if self.encoder_norm is None else self.encoder_norm(x), mask


@models.register("transformer", TransformerConfig)
def transformer(config: TransformerConfig, spec: DataSpec) -> TransformerBase:
    """An encoder–decoder if the data holds pairs of texts, else one stack of blocks."""
    if isinstance(spec.input, TokenPair):
        return EncoderDecoder(config, spec)
    return Transformer(config, spec)


def _initialise_as_gpt2(model: TransformerBase, stacks: Iterable[nn.ModuleList]) -> None:
    """Sets weights as GPT-2 does (Radford et al. 2019): deviation 0.02, biases 0.

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
        for layer in _residual_outputs(stack):
            nn.init.normal_(layer.weight, std=GPT2_STD / math.sqrt(2 * len(stack)))


def _residual_outputs(stack: nn.ModuleList) -> list[nn.Linear]:
    """The layers whose outputs are added to the residual path."""
    return [layer for block in stack if isinstance(block, Block) for layer in block.outputs()]


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


def _check_class_token(config: TransformerConfig, writes: bool) -> None:
    if writes or config.causal:
        raise SpecError(
            "model.class_token=true: in a causal model the first position sees no other. Use"
            " model.class_token=false."
        )
    if config.position != "learned":
        raise SpecError(
            "model.class_token=true needs a learnt vector for its position, not model.position="
            f"{config.position}. Use model.position=learned, or model.class_token=false."
        )


def _make_rotary(config: TransformerConfig, grid: tuple[int, ...], spec: DataSpec) -> Rotary:
    head_dim = config.head_width
    if len(grid) > 1 and config.rotary_scaling.kind != "none":
        raise SpecError(
            f"model.rotary_scaling.kind={config.rotary_scaling.kind} is for positions along a line, and"
            f" data={spec.name} holds {spec.input}. Use model.rotary_scaling.kind=none."
        )
    if head_dim % (2 * len(grid)):
        step = 2 * len(grid) * config.num_heads
        raise SpecError(
            f"model.position=rotary turns pairs of channels for each axis of {spec.input}, and"
            f" model.dim={config.dim} gives each of {config.num_heads} heads {head_dim}:"
            f" choose a multiple of {step}, such as model.dim={step * math.ceil(config.dim / step)}."
        )
    return Rotary(grid, head_dim, config.rotary_base, config.rotary_scaling)
