"""The transformer: attention and feed-forward blocks with residual paths, over any kind of input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigmodel.models.encoder_decoder import EncoderDecoder
from bigmodel.models.layers.blocks import Block, make_norm
from bigmodel.models.layers.kv_cache import Cache
from bigmodel.models.layers.padding import last_within, lengths_of, mean_within, pad_of, within
from bigmodel.models.transformer_base import TransformerBase
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.registry import models
from bigmodel.runtime.device import sent
from bigmodel.spec import DataSpec, TokenPair


class Transformer(TransformerBase):
    """A transformer over the positions of any input (Vaswani et al. 2017, arXiv:1706.03762).

    An image is read as patches (Dosovitskiy et al. 2020, arXiv:2010.11929), a sequence step by step,
    tokens embedded, plain features as a position each, without an order. With `causal`, no position sees
    a later one. Where the target is the next token (Radford et al. 2019, GPT-2), it always is causal,
    has features at every position, and can write.

    The number of heads has to divide `dim`, real numbers are mapped linearly and only tokens looked up,
    and each part adds its input back. (The article's listing splits 5 dimensions over 8 heads, looks
    real numbers up in an embedding, and adds attention's weights where its input should be.)

    Shapes: (batch, *spec.input.shape) → features (batch, dim) → (batch, output_size); in writing
    (batch, length) → features (batch, length, dim) → (batch, length, vocab_size).
    """

    def __init__(self, config: TransformerConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.causal = config.causal or self.writes
        self.pad = pad_of(spec.input)
        self.blocks = nn.ModuleList(
            Block(config, self.rotary, causal=self.causal) for _ in range(config.depth)
        )
        self.final_norm = make_norm(config) if config.norm_first else None
        self.readout = config.readout or ("last" if config.causal else "mean")
        self.finish(config, spec, self.blocks)

    def features(self, inputs: Tensor) -> Tensor:
        lengths = mask = None
        if self.pad is not None and not self.writes:
            lengths = lengths_of(inputs, self.pad)
            if not self.causal:  # padding comes last, where no real position looks
                mask = within(lengths, inputs.shape[1])[:, None, None]
        x = self.placed(inputs)
        for block in self.blocks:
            x = block(x, mask)
        if self.writes:
            return self._normed(x)
        if self.readout == "last":
            return self._normed(last_within(x, lengths))
        return mean_within(self._normed(x), lengths)

    def begin(self, inputs: Tensor, lengths: list[int], room: int) -> tuple[Tensor, Cache]:
        """See `Writer.begin`; `room` is at most the spec's length."""
        cache = Cache(len(self.blocks), lengths, room, inputs.device)
        ends = sent(torch.tensor(lengths), inputs.device)
        return self._scored(inputs, cache, ends), cache

    def extend(self, tokens: Tensor, memory: Cache) -> Tensor:
        """See `Writer.extend`."""
        memory.grow()
        return self._scored(tokens.unsqueeze(1), memory, None)

    def _scored(self, tokens: Tensor, cache: Cache, ends: Tensor | None) -> Tensor:
        """Logits after the last of `tokens`, or after as many as `ends` says: (batch, vocab_size)."""
        x = self.placed(tokens, cache.places)
        for block, layer in zip(self.blocks, cache.layers, strict=True):
            x = block(x, None, layer)
        logits: Tensor = self.head(self._normed(last_within(x, ends)))
        return logits

    def _normed(self, x: Tensor) -> Tensor:
        if self.final_norm is None:
            return x
        y: Tensor = self.final_norm(x)
        return y


@models.register("transformer", TransformerConfig)
def transformer(config: TransformerConfig, spec: DataSpec) -> TransformerBase:
    """An encoder–decoder where the data holds pairs of texts, else one stack of blocks."""
    if isinstance(spec.input, TokenPair):
        return EncoderDecoder(config, spec)
    return Transformer(config, spec)
