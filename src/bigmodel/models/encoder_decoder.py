"""The transformer that reads one text and writes another: an encoder, and a decoder that looks at it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigmodel.models.layers.blocks import Block, make_norm
from bigmodel.models.layers.kv_cache import Cache
from bigmodel.models.layers.padding import last_within, lengths_of, within
from bigmodel.models.transformer_base import TransformerBase
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.runtime.device import sent
from bigmodel.spec import DataSpec, TokenPair


class EncoderDecoder(TransformerBase):
    """Encoder and decoder of Vaswani et al. 2017 (arXiv:1706.03762), figure 1.

    The encoder sees all of the source, the decoder what is known of the target up to each position, and
    at every layer the encoder's outputs. Both sides look tokens up in the same embedding and have the
    same positions. Padding is seen by nobody.

    Shapes: (batch, 2, length) → features (batch, length, dim), at each position of row 1
    → (batch, length, vocab_size).
    """

    def __init__(self, config: TransformerConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        assert isinstance(spec.input, TokenPair)
        self.pad = spec.input.pad
        self.encoder = nn.ModuleList(
            Block(config, self.rotary, causal=False) for _ in range(config.encoder_depth or config.depth)
        )
        self.encoder_norm = make_norm(config) if config.norm_first else None
        self.decoder = nn.ModuleList(
            Block(config, self.rotary, causal=True, reads_source=True) for _ in range(config.depth)
        )
        self.final_norm = make_norm(config) if config.norm_first else None
        self.finish(config, spec, self.encoder, self.decoder)

    def features(self, inputs: Tensor) -> Tensor:
        encoded, mask = self.encoded(inputs[:, 0])
        x = self.placed(inputs[:, 1])
        for block in self.decoder:
            assert isinstance(block, Block)
            x = block(x, None, None, block.read(encoded), mask)
        return x if self.final_norm is None else self.final_norm(x)

    def encoded(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder looks at, (batch, length, dim), and which of it is real: a mask of keys."""
        mask = within(lengths_of(source, self.pad), source.shape[1])[:, None, None]
        x = self.placed(source)
        for block in self.encoder:
            x = block(x, mask)
        return x if self.encoder_norm is None else self.encoder_norm(x), mask

    def begin(self, inputs: Tensor, lengths: list[int], room: int) -> tuple[Tensor, Cache]:
        """See `Writer.begin`; `room` is at most the spec's length."""
        cache = Cache(len(self.decoder), lengths, room, inputs.device)
        encoded, cache.source_mask = self.encoded(inputs[:, 0])
        for block, layer in zip(self.decoder, cache.layers, strict=True):
            assert isinstance(block, Block)
            layer.source = block.read(encoded)
        ends = sent(torch.tensor(lengths), inputs.device)
        return self._scored(inputs[:, 1, : cache.longest], cache, ends), cache

    def extend(self, tokens: Tensor, memory: Cache) -> Tensor:
        """See `Writer.extend`."""
        memory.grow()
        return self._scored(tokens.unsqueeze(1), memory, None)

    def _scored(self, tokens: Tensor, cache: Cache, ends: Tensor | None) -> Tensor:
        x = self.placed(tokens, cache.places)
        for block, layer in zip(self.decoder, cache.layers, strict=True):
            x = block(x, None, layer, layer.source, cache.source_mask)
        x = last_within(x, ends)
        logits: Tensor = self.head(x if self.final_norm is None else self.final_norm(x))
        return logits
