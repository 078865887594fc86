"""Recurrent layers, plain (Elman), LSTM and GRU: with torch's fused kernels, or step by step."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.models.layers import fast_recurrent

MODES = {"rnn": "RNN_TANH", "lstm": "LSTM", "gru": "GRU"}

State = tuple[Tensor, ...]
"""The hidden state, and an LSTM's memory: (layers × directions, batch, hidden_size) each."""


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

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Outputs at each step: (batch, steps, hidden_size × directions).

        Args:
            lengths: how many steps of each sample are real, (batch,); None: all. Up to there outputs do
                not depend on what follows; beyond, they mean nothing.
        """
        if lengths is None or not self.bidirectional:  # forward in time, what follows is not seen
            return self.run(inputs)[0]
        if self.fused:
            return self._both_ways(inputs, lengths)
        return self.run(inputs, lengths=lengths)[0]

    def run(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Outputs at each step, and the state after the last one, or after as many as `lengths` says.

        Args:
            state: what an earlier run ended with; None: zeros.
        """
        if state is None:
            directions = 1 + self.bidirectional
            hidden = inputs.new_zeros(self.num_layers * directions, inputs.shape[0], self.hidden_size)
            state = (hidden, hidden) if self.mode == "LSTM" else (hidden,)
        if self.fused and lengths is None:
            # by name: torch's own list of them does not change where others are put in their place
            weights = [getattr(self, name) for name in self._flat_weights_names]
            return self._kernel(inputs, state, weights)
        return self._stepwise(inputs, state, lengths)

    def _kernel(self, inputs: Tensor, state: State, weights: list[Tensor]) -> tuple[Tensor, State]:
        """Torch's kernel over as many layers and directions as there are weights and states for."""
        layers, directions = self.num_layers, 1 + self.bidirectional
        if len(weights) < len(self._flat_weights):
            layers, directions = 1, 1
        if fast_recurrent.is_quicker(self.mode, inputs):
            return self._by_hand(inputs, state[0], weights, layers, directions)
        if layers == 1 or not (self.dropout and self.training):
            return self._torchs(inputs, state, weights, layers, directions, batch_first=True)
        # cuDNN's own dropout has a random state that no checkpoint holds, in memory that a CUDA graph
        # would go on reading after it was freed: torch's stands between calls of one layer each.
        x, ends = inputs.transpose(0, 1), []
        for layer in range(layers):
            x = F.dropout(x, self.dropout) if layer else x
            rows = slice(layer * directions, (layer + 1) * directions)
            own = weights[4 * rows.start : 4 * rows.stop]
            x, end = self._torchs(x, tuple(part[rows] for part in state), own, 1, directions)
            ends.append(end)
        return x.transpose(0, 1), tuple(torch.cat(part) for part in zip(*ends, strict=True))

    def _torchs(
        self,
        inputs: Tensor,
        state: State,
        weights: list[Tensor],
        layers: int,
        directions: int,
        batch_first: bool = False,
    ) -> tuple[Tensor, State]:
        """One call of the kernel, without dropout."""
        if inputs.is_cuda:
            dtype = _kernel_dtype(inputs)
            inputs, weights = inputs.to(dtype), [weight.to(dtype) for weight in weights]
            state = tuple(part.to(dtype) for part in state)
        kernel: Callable[..., Any] = getattr(torch, self.mode.lower())
        before = state if self.mode == "LSTM" else state[0]
        with _as_asked(inputs):
            outputs, *after = kernel(
                inputs, before, weights, True, layers, 0.0, self.training, directions == 2, batch_first
            )
        return outputs, tuple(after)

    def _by_hand(
        self, inputs: Tensor, hidden: Tensor, weights: list[Tensor], layers: int, directions: int
    ) -> tuple[Tensor, State]:
        """The same as `_kernel` with layers of our own."""
        x = inputs.transpose(0, 1).contiguous()
        ends = []
        for layer in range(layers):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for reverse in range(directions):
                scan = layer * directions + reverse
                own = weights[4 * scan : 4 * scan + 4]
                output = fast_recurrent.layer(self.mode, x, hidden[scan], own, bool(reverse))
                outputs.append(output)
                ends.append(output[0 if reverse else -1])
            x = outputs[0] if directions == 1 else torch.cat(outputs, dim=-1)
        return x.transpose(0, 1), (torch.stack(ends),)

    def _both_ways(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Both directions with fused kernels, the backward one from each sample's last real step.

        Each sample is turned around within its own length, and then read forwards, so that nothing waits
        for the lengths, as packing would.
        """
        steps = torch.arange(inputs.shape[1], device=inputs.device)
        ends = lengths.unsqueeze(1)
        turned = torch.where(steps < ends, ends - 1 - steps, steps).unsqueeze(-1)
        hidden = inputs.new_zeros(1, inputs.shape[0], self.hidden_size)
        state = (hidden, hidden) if self.mode == "LSTM" else (hidden,)
        x = inputs
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            forward, backward = (self._weights(f"l{layer}{suffix}") for suffix in ("", "_reverse"))
            there = self._kernel(x, state, forward)[0]
            reversed_x = x.gather(1, turned.expand(x.shape))
            back = self._kernel(reversed_x, state, backward)[0]
            x = torch.cat([there, back.gather(1, turned.expand(back.shape))], dim=-1)
        return x

    def _weights(self, suffix: str) -> list[Tensor]:
        """Those of one layer in one direction, in torch's order."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [cast(Tensor, getattr(self, f"{name}_{suffix}")) for name in names]

    def _stepwise(self, inputs: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        x = inputs
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        states = iter(zip(*state, strict=True))
        ends: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for suffix in suffixes:
                output, end = self._scan(x, f"l{layer}{suffix}", next(states), bool(suffix), lengths)
                outputs.append(output)
                ends.append(end)
            x = torch.cat(outputs, dim=-1)
        return x, tuple(torch.stack(part) for part in zip(*ends, strict=True))

    def _scan(
        self, x: Tensor, suffix: str, state: State, backward: bool, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        """One layer in one direction over all steps: (batch, steps, width) → (batch, steps, hidden)."""
        weight_ih, weight_hh, bias_ih, bias_hh = self._weights(suffix)
        projected = F.linear(x, weight_ih, bias_ih).unbind(1)  # the inputs' part, for all steps at once
        places = range(x.shape[1])
        outputs = []
        for place in reversed(places) if backward else places:
            new = self._step(projected[place], F.linear(state[0], weight_hh, bias_hh), state)
            if lengths is not None:  # past its end a sample's state stays as it is
                real = (place < lengths).unsqueeze(1)
                new = tuple(torch.where(real, mine, old) for mine, old in zip(new, state, strict=True))
            state = new
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if backward else outputs, dim=1), state

    def _step(self, projected: Tensor, recalled: Tensor, state: State) -> State:
        if self.mode == "GRU":
            return (gru_step(projected, recalled, state[0]),)
        if self.mode == "LSTM":
            return lstm_step(projected + recalled, state[1])
        return (torch.tanh(projected + recalled),)


def _kernel_dtype(inputs: Tensor) -> torch.dtype:
    """What cuDNN is to compute in: fp16 where that was asked for, whose gradients are scaled. It has no
    bf16 everywhere: fp32 stands for it, which takes the same units where TF32 is allowed."""
    if not torch.is_autocast_enabled("cuda"):
        return inputs.dtype
    half = torch.get_autocast_dtype("cuda") is torch.float16
    return torch.float16 if half else torch.float32


@contextlib.contextmanager
def _as_asked(inputs: Tensor) -> Iterator[None]:
    """Within it cuDNN computes in the dtype of its arguments: mixed precision would have it compute in
    fp16, whatever was asked for, and without that format's scaling of gradients overflow."""
    if not inputs.is_cuda:
        yield
        return
    with warnings.catch_warnings(), torch.autocast("cuda", enabled=False):
        # it would like the weights of all layers in one piece of memory, and says so each time
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous")
        yield


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
