"""Recurrent networks: plain (Elman), LSTM and GRU."""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bigmodel.models.base import Model
from bigmodel.models.layers import cannot_read
from bigmodel.registry import EntryConfig, models
from bigmodel.spec import DataSpec, Features, Image, Sequence, Tokens

MODES = {"rnn": "RNN_TANH", "lstm": "LSTM", "gru": "GRU"}


class RNNConfig(EntryConfig):
    """What can be chosen about the recurrent network."""

    cell: Literal["rnn", "lstm", "gru"] = Field(
        default="gru", description="what a step does: rnn (plain, tanh), lstm or gru"
    )
    hidden_size: int = Field(
        default=128, ge=1, description="size of the hidden state, in each direction"
    )
    num_layers: int = Field(default=1, ge=1, description="recurrent layers on top of each other")
    bidirectional: bool = Field(
        default=False, description="read in both directions, and give both states to the next layer"
    )
    readout: Literal["last", "mean"] = Field(
        default="last",
        description="what the head sees: the state after the last step, or the mean of all",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of each layer's outputs dropped in training, 0 to 1"
    )
    embedding_dim: int = Field(default=64, ge=1, description="size of a token's vector, for text only")
    fused: bool = Field(
        default=True, description="torch's own fused kernels; false: the same, step by step in Python"
    )


class Recurrent(nn.RNNBase):
    """Recurrent layers, with parameters laid out and named as those of torch.nn.RNN, LSTM and GRU.

    `weight_ih_l0` (gates × hidden, input), `weight_hh_l0` (gates × hidden, hidden), `bias_ih_l0`,
    `bias_hh_l0`, then `_reverse` for the backward direction and `l1` for the next layer, with the gates
    in torch's order: input, forget, cell, output for lstm; reset, update, new for gru. The hidden state
    is made for the batch at hand, never of a fixed size.

    Args:
        cell: `rnn`, `lstm` or `gru`.
        dropout: share of the outputs of each layer but the last one dropped in training.
        fused: torch's own kernels, the quicker ones on both CPU and GPU; False: the equations step by
            step, which can be read, and differentiated twice on any device.

    Shapes: (batch, steps, input_size) → (batch, steps, hidden_size × directions).
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        fused: bool = True,
    ) -> None:
        between = dropout if num_layers > 1 else 0.0  # torch warns where there is no layer above
        super().__init__(
            MODES[cell],
            input_size,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=between,
            bidirectional=bidirectional,
        )
        self.fused = fused

    def reset_parameters(self) -> None:
        """Starts anew, as the literature recommends.

        Input weights as in Glorot and Bengio 2010, recurrent ones orthogonal (Saxe et al. 2013,
        arXiv:1312.6120), both gate by gate; biases 0, but 1 for the LSTM's forget gate, so that it
        remembers from the start (Jozefowicz et al. 2015).
        """
        size = self.hidden_size
        for name, parameter in self.named_parameters():
            if name.startswith("weight"):
                for gate in torch.split(parameter.detach(), size):
                    (nn.init.xavier_uniform_ if "_ih_" in name else nn.init.orthogonal_)(gate)
            else:
                nn.init.zeros_(parameter)
                if self.mode == "LSTM" and "_ih_" in name:
                    nn.init.ones_(parameter.detach()[size : 2 * size])

    def forward(self, inputs: Tensor) -> Tensor:
        return self._fused(inputs) if self.fused else self._stepwise(inputs)

    def _fused(self, inputs: Tensor) -> Tensor:
        directions = 1 + self.bidirectional
        state = inputs.new_zeros(self.num_layers * directions, inputs.shape[0], self.hidden_size)
        weights = cast("list[Tensor]", self._flat_weights)
        options = (True, self.num_layers, self.dropout, self.training, self.bidirectional, True)
        if self.mode == "LSTM":
            return torch.lstm(inputs, (state, state), weights, *options)[0]
        kernel = torch.gru if self.mode == "GRU" else torch.rnn_tanh
        return kernel(inputs, state, weights, *options)[0]

    def _stepwise(self, inputs: Tensor) -> Tensor:
        x = inputs
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            outputs = [self._scan(x, f"l{layer}{suffix}", bool(suffix)) for suffix in suffixes]
            x = torch.cat(outputs, dim=-1)
        return x

    def _scan(self, x: Tensor, suffix: str, backward: bool) -> Tensor:
        """One layer in one direction over all steps: (batch, steps, width) → (batch, steps, hidden)."""
        weight_ih, weight_hh, bias_ih, bias_hh = (
            cast(Tensor, getattr(self, f"{name}_{suffix}"))
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        projected = F.linear(x, weight_ih, bias_ih).unbind(1)  # the inputs' part, for all steps at once
        hidden = x.new_zeros(x.shape[0], self.hidden_size)
        memory = hidden
        outputs = []
        for step in reversed(projected) if backward else projected:
            recalled = F.linear(hidden, weight_hh, bias_hh)
            if self.mode == "GRU":
                hidden = gru_step(step, recalled, hidden)
            elif self.mode == "LSTM":
                hidden, memory = lstm_step(step + recalled, memory)
            else:
                hidden = torch.tanh(step + recalled)
            outputs.append(hidden)
        return torch.stack(outputs[::-1] if backward else outputs, dim=1)


def gru_step(projected: Tensor, recalled: Tensor, hidden: Tensor) -> Tensor:
    """One step of Cho et al. 2014 (arXiv:1406.1078), with the reset gate after the product as in torch.

    h' = (1 − z) ⊙ n + z ⊙ h, with n = tanh(W x + b + r ⊙ (U h + c)) and gates r and z.

    Args:
        projected: W x + b for gates r, z, n: (batch, 3 × hidden).
        recalled: U h + c for the same.
        hidden: h, (batch, hidden).
    """
    size = hidden.shape[1]
    gates = torch.sigmoid(projected[:, : 2 * size] + recalled[:, : 2 * size])
    reset, update = gates.chunk(2, dim=1)
    new = torch.tanh(projected[:, 2 * size :] + reset * recalled[:, 2 * size :])
    return new + update * (hidden - new)


def lstm_step(gates: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """One step of Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000.

    c' = f ⊙ c + i ⊙ g and h' = o ⊙ tanh(c').

    Args:
        gates: i, f, g, o before their activation: (batch, 4 × hidden).
        memory: c, (batch, hidden).

    Returns:
        h' and c'.
    """
    enter, forget, content, leave = gates.chunk(4, dim=1)
    memory = torch.sigmoid(forget) * memory + torch.sigmoid(enter) * torch.tanh(content)
    return torch.sigmoid(leave) * torch.tanh(memory), memory


@models.register("rnn", RNNConfig)
class RNN(Model):
    """A hidden state carried along the steps, h_t = f(W_hh h_{t-1} + W_xh x_t + b), and a head over it.

    Reads sequences, embedded tokens, and images row by row, from the top. "Last" means the last step
    read: of the backward direction that is the first of the sequence.

    The hidden state is made for the batch at hand, and one output is read for each sample, so that
    outputs and targets have the same shape. (The article's listing fixes h₀ to a batch of one, by a
    global, and compares outputs of shape (1, 1, 1) with targets of shape (1, 1).)

    Shapes: (batch, *spec.input.shape) → features (batch, hidden_size × directions)
    → (batch, output_size).
    """

    def __init__(self, config: RNNConfig, spec: DataSpec) -> None:
        super().__init__()
        self.embedding: nn.Embedding | None = None
        self.by_rows = isinstance(spec.input, Image)
        match spec.input:
            case Image(channels=channels, width=columns):
                width = channels * columns
            case Sequence(features=width):
                pass
            case Tokens(vocab_size=vocab_size):
                width = config.embedding_dim
                self.embedding = nn.Embedding(vocab_size, width)
            case Features():
                raise cannot_read(
                    "rnn",
                    spec,
                    "A recurrent network reads steps, and features have no order: use model=fnn.",
                )
        self.recurrent = Recurrent(
            config.cell,
            width,
            config.hidden_size,
            config.num_layers,
            config.bidirectional,
            config.dropout,
            config.fused,
        )
        self.readout, self.dropout = config.readout, config.dropout
        self.head = nn.Linear(config.hidden_size * (1 + config.bidirectional), spec.target.output_size)

    def features(self, inputs: Tensor) -> Tensor:
        x = inputs if self.embedding is None else self.embedding(inputs)
        if self.by_rows:
            x = x.transpose(1, 2).flatten(2)  # (batch, rows, channels × columns)
        x = self.recurrent(x)
        if self.readout == "mean":
            x = x.mean(1)
        elif self.recurrent.bidirectional:
            size = self.recurrent.hidden_size
            x = torch.cat([x[:, -1, :size], x[:, 0, size:]], dim=1)
        else:
            x = x[:, -1]
        return F.dropout(x, self.dropout, self.training) if self.dropout else x
