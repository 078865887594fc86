"""Recurrent networks over sequences, text, and images row by row; they can write text."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.models.base import DecodingCache, Writer
from bigmodel.models.checks import cannot_read, check_writing, refuse_packed, refuse_pairs
from bigmodel.models.layers.embeddings import token_vectors
from bigmodel.models.layers.padding import last_position, masked_mean, pad_token, text_lengths
from bigmodel.models.layers.recurrent import Recurrent, State
from bigmodel.registry import EntryConfig, models
from bigmodel.runtime.device import to_device
from bigmodel.spec import DataSpec, Features, Image, NextTokens, Sequence, Tokens


class RNNConfig(EntryConfig):
    """Options of the recurrent network."""

    cell: Literal["rnn", "lstm", "gru"] = Field("gru", description="rnn (plain, tanh), lstm or gru")
    hidden_size: int = Field(128, ge=1, description="size of the hidden state, in each direction")
    num_layers: int = Field(1, ge=1, description="recurrent layers on top of each other")
    bidirectional: bool = Field(False, description="read in both directions and pass on both states")
    readout: Literal["last", "mean"] = Field(
        "last", description="what the head sees: the state after the last step, or the mean of all"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of each layer's outputs dropped, 0 to 1")
    embedding_dim: int = Field(64, ge=1, description="size of a token's vector, for text only")
    fused: bool = Field(True, description="torch's fused kernels; false: the same steps in Python")


@models.register("rnn", RNNConfig)
class RNN(Writer):
    """A hidden state carried along the steps, h_t = f(W_hh h_{t-1} + W_xh x_t + b), and a head over it.

    Reads sequences, embedded tokens, and images row by row, from the top. "Last" means the last step
    read: in the backward direction that is the first of the sequence. Padding is not read. If the target
    is the next token, the head reads the state after every step, and the model can write.

    The initial state is made for each batch, and each sample has one output, so that outputs and targets
    have the same shape. (The article's listing fixes h₀ to a batch of one, by a global, and compares
    outputs of shape (1, 1, 1) with targets of shape (1, 1).)

    Shapes: (batch, *spec.input.shape) → features (batch, hidden_size × directions)
    → (batch, output_size); in writing (batch, length) → features (batch, length, hidden_size)
    → (batch, length, vocab_size).

    Raises:
        SpecError: the data holds features or pairs of texts, or asks a bidirectional network for the
            next token.
    """

    def __init__(self, config: RNNConfig, spec: DataSpec) -> None:
        super().__init__()
        refuse_pairs("rnn", spec)
        refuse_packed("rnn", spec)
        self.embedding: nn.Embedding | None = None
        self.by_rows = isinstance(spec.input, Image)
        match spec.input:
            case Image(channels=channels, width=columns):
                width = channels * columns
            case Sequence(features=width):
                pass
            case Tokens(vocab_size=vocab_size):
                width = config.embedding_dim
                make = nn.Embedding if isinstance(spec.target, NextTokens) else token_vectors
                self.embedding = make(vocab_size, width)
            case Features():
                raise cannot_read(
                    "rnn",
                    spec,
                    "A recurrent network reads steps, and features have no order: use model=fnn.",
                )
        self.writes = check_writing("rnn", spec)
        if self.writes and config.bidirectional:
            raise SpecError(
                f"model.bidirectional=true: a network that reads data={spec.name} backwards has seen"
                " the next token already. Use model.bidirectional=false."
            )
        self.pad = pad_token(spec.input)
        shape = (width, config.hidden_size, config.num_layers, config.bidirectional)
        self.recurrent = Recurrent(config.cell, *shape, config.dropout, config.fused)
        self.readout, self.dropout = config.readout, config.dropout
        self.head = nn.Linear(config.hidden_size * (1 + config.bidirectional), spec.target.output_size)

    def features(self, inputs: Tensor) -> Tensor:
        lengths = None
        if self.pad is not None and not self.writes:
            lengths = text_lengths(inputs, self.pad)
        x = inputs if self.embedding is None else self.embedding(inputs)
        if self.by_rows:
            x = x.transpose(1, 2).flatten(2)  # (batch, rows, channels × columns)
        x = self.recurrent(x, lengths)
        if not self.writes:
            x = self._read_out(x, lengths)
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def _read_out(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """(batch, steps, width) → (batch, width)."""
        if self.readout == "mean":
            return masked_mean(x, lengths)
        if self.recurrent.bidirectional:
            size = self.recurrent.hidden_size
            return torch.cat([last_position(x[..., :size], lengths), x[:, 0, size:]], dim=1)
        return last_position(x, lengths)

    def prefill(self, inputs: Tensor, lengths: list[int], max_length: int) -> tuple[Tensor, RNNCache]:
        """See `Writer.prefill`; however long a text becomes, its state stays as large."""
        del max_length
        assert self.embedding is not None
        is_uniform = min(lengths) == max(lengths)
        ends = None if is_uniform else to_device(torch.tensor(lengths), inputs.device)
        x, state = self.recurrent.run(self.embedding(inputs[:, : max(lengths)]), None, ends)
        logits: Tensor = self.head(last_position(x, ends))
        return logits, RNNCache(state)

    def decode(self, tokens: Tensor, cache: RNNCache) -> Tensor:
        """See `Writer.decode`."""
        assert self.embedding is not None
        x, cache.state = self.recurrent.run(self.embedding(tokens.unsqueeze(1)), cache.state)
        logits: Tensor = self.head(x[:, -1])
        return logits


class RNNCache(DecodingCache):
    """The state after the last token of each text."""

    def __init__(self, state: State) -> None:
        self.state = state

    def select(self, rows: list[int]) -> RNNCache:
        index = to_device(torch.tensor(rows), self.state[0].device)
        return RNNCache(tuple(part[:, index] for part in self.state))
