"""Recurrent layers, plain (Elman), LSTM and GRU: with fused kernels, or step by step."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.models.layers import fast_recurrent
from bigmodel.runtime import torch_internals

MODES = {"rnn": "RNN_TANH", "lstm": "LSTM", "gru": "GRU"}

State = tuple[Tensor, ...]
"""The hidden state and, of an LSTM, the cell state: (layers × directions, batch, hidden_size) each."""

Scanned = tuple[Tensor, State]
"""The outputs at each step, and the state after the last one."""

Scan = Callable[[Tensor, list[Tensor], State, bool], Scanned]
"""Reads one layer in one direction: inputs, weights, state (batch, hidden_size), whether in reverse."""


class Recurrent(nn.RNNBase):
    """Recurrent layers, with parameters laid out and named as those of torch.nn.RNN, LSTM and GRU.

    `weight_ih_l0` (gates × hidden, input), `weight_hh_l0` (gates × hidden, hidden), `bias_ih_l0`,
    `bias_hh_l0`, then `_reverse` for the backward direction and `l1` for the next layer, with the gates
    in torch's order: input, forget, cell, output for lstm; reset, update, new for gru. The initial state
    is made for each batch, never of a fixed size.

    Args:
        cell: `rnn`, `lstm` or `gru`.
        dropout: share of the outputs of each layer but the last one dropped in training.
        fused: use fused kernels, which are faster on CPU and GPU; False: the equations step by step,
            which can be read, and differentiated twice on any device.

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
        between = dropout if num_layers > 1 else 0.0  # torch warns if there is no layer above
        sizes = (input_size, hidden_size, num_layers)
        options = {"batch_first": True, "bidirectional": bidirectional}
        super().__init__(MODES[cell], *sizes, dropout=between, **options)
        self.fused = fused

    def reset_parameters(self) -> None:
        """Sets starting weights as the literature recommends.

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
            lengths: how many steps of each sample are real, (batch,); None: all. Outputs at real steps
                do not depend on padding; outputs at padding mean nothing.
        """
        if lengths is None or not self.bidirectional:  # read forwards, padding is seen last
            return self.run(inputs)[0]
        if not self.fused:
            return self.run(inputs, lengths=lengths)[0]
        return self._layer_by_layer(inputs, self._zeros(inputs), self._turned_scan(inputs, lengths))[0]

    def run(self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None) -> Scanned:
        """Outputs at each step, and the state after the last one, or after as many as `lengths` says.

        Args:
            state: the end of an earlier run; None: zeros.
        """
        state = self._zeros(inputs) if state is None else state
        if not self.fused or lengths is not None:
            return self._layer_by_layer(inputs, state, partial(self._scan, lengths=lengths))
        if fast_recurrent.is_quicker(self.mode, inputs):
            x = inputs.transpose(0, 1).contiguous()
            x, state = self._layer_by_layer(x, state, self._fast_scan)
            return x.transpose(0, 1), state
        return self._run_torch_kernel(inputs, state)

    def _zeros(self, inputs: Tensor) -> State:
        count = self.num_layers * (1 + self.bidirectional)
        hidden = inputs.new_zeros(count, inputs.shape[0], self.hidden_size)
        return (hidden, hidden) if self.mode == "LSTM" else (hidden,)

    def _weights(self, first: int, count: int = 1) -> list[Tensor]:
        """Those of so many scans, in torch's order: a scan is one layer in one direction."""
        # By name, since torch's own list keeps the old tensors when others take their place.
        names = torch_internals.recurrent_names(self)[4 * first : 4 * (first + count)]
        return [getattr(self, name) for name in names]

    def _layer_by_layer(self, x: Tensor, state: State, scan: Scan) -> Scanned:
        """All layers, with dropout between them; `scan` reads one of them in one direction."""
        directions, ends = 1 + self.bidirectional, list[State]()
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for index in range(layer * directions, (layer + 1) * directions):
                begin = tuple(part[index] for part in state)
                output, end = scan(x, self._weights(index), begin, index % directions == 1)
                outputs.append(output)
                ends.append(end)
            x = outputs[0] if directions == 1 else torch.cat(outputs, dim=-1)
        return x, tuple(torch.stack(part) for part in zip(*ends, strict=True))

    def _run_torch_kernel(self, inputs: Tensor, state: State) -> Scanned:
        layers, directions = self.num_layers, 1 + self.bidirectional
        if layers == 1 or not (self.dropout and self.training):
            weights = self._weights(0, layers * directions)
            return self._kernel(inputs, state, weights, layers, directions)
        # cuDNN's own dropout has a random state that no checkpoint holds, in memory that a CUDA graph
        # would go on reading after it was freed: torch's dropout stands between calls of one layer each.
        x, ends = inputs, []
        for layer in range(layers):
            x = F.dropout(x, self.dropout) if layer else x
            first = layer * directions
            begin = tuple(part[first : first + directions] for part in state)
            x, end = self._kernel(x, begin, self._weights(first, directions), 1, directions)
            ends.append(end)
        return x, tuple(torch.cat(part) for part in zip(*ends, strict=True))

    def _kernel(
        self, inputs: Tensor, state: State, weights: list[Tensor], layers: int, directions: int
    ) -> Scanned:
        """One call of torch's kernel, without dropout."""
        given, dtype = inputs.dtype, inputs.dtype
        if inputs.is_cuda:
            dtype = given = _kernel_dtype(inputs)
        elif self.mode == "LSTM" and given in (torch.bfloat16, torch.float16):
            dtype = torch.float32  # many processors have no kernel for less
        if dtype is not inputs.dtype or inputs.is_cuda:
            inputs, weights = inputs.to(dtype), [weight.to(dtype) for weight in weights]
            state = tuple(part.to(dtype) for part in state)
        kernel: Callable[..., Any] = getattr(torch, self.mode.lower())
        begin = state if self.mode == "LSTM" else state[0]
        with _without_autocast(inputs, self.mode):
            outputs, *end = kernel(
                inputs, begin, weights, True, layers, 0.0, self.training, directions == 2, True
            )
        return outputs.to(given), tuple(part.to(given) for part in end)

    def _fast_scan(self, x: Tensor, weights: list[Tensor], state: State, reverse: bool) -> Scanned:
        """One layer in one direction by `fast_recurrent`: (steps, batch, …)."""
        outputs = fast_recurrent.layer(self.mode, x, state[0], weights, reverse)
        return outputs, (outputs[0 if reverse else -1],)

    def _turned_scan(self, inputs: Tensor, lengths: Tensor) -> Scan:
        """A scan by fused kernels that reads backwards from each sample's last real step.

        Each sample is turned around within its own length and read forwards, so that nothing waits for
        the lengths, as packing would.
        """
        steps = torch.arange(inputs.shape[1], device=inputs.device)
        ends = lengths.unsqueeze(1)
        turned = torch.where(steps < ends, ends - 1 - steps, steps).unsqueeze(-1)

        def scan(x: Tensor, weights: list[Tensor], state: State, reverse: bool) -> Scanned:
            x = x.gather(1, turned.expand(x.shape)) if reverse else x
            if fast_recurrent.is_quicker(self.mode, x):
                outputs, end = self._fast_scan(x.transpose(0, 1).contiguous(), weights, state, False)
                outputs = outputs.transpose(0, 1)
            else:
                begin = tuple(part.unsqueeze(0) for part in state)
                outputs, end = self._kernel(x, begin, weights, 1, 1)
            return outputs.gather(1, turned.expand(outputs.shape)) if reverse else outputs, end

        return scan

    def _scan(
        self, x: Tensor, weights: list[Tensor], state: State, reverse: bool, lengths: Tensor | None
    ) -> Scanned:
        """One layer in one direction, step by step: (batch, steps, width) → (batch, steps, hidden)."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        projected = F.linear(x, weight_ih, bias_ih).unbind(1)  # the inputs' part, for all steps at once
        outputs: list[Tensor] = []
        for step in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
            new = self._step(projected[step], F.linear(state[0], weight_hh, bias_hh), state)
            if lengths is not None:  # beyond its end a sample's state stays as it is
                is_real = (step < lengths).unsqueeze(1)
                new = tuple(torch.where(is_real, *pair) for pair in zip(new, state, strict=True))
            state = new
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if reverse else outputs, dim=1), state

    def _step(self, projected: Tensor, recurrent: Tensor, state: State) -> State:
        if self.mode == "GRU":
            return (gru_step(projected, recurrent, state[0]),)
        if self.mode == "LSTM":
            return lstm_step(projected + recurrent, state[1])
        return (torch.tanh(projected + recurrent),)


def _kernel_dtype(inputs: Tensor) -> torch.dtype:
    """The dtype for cuDNN: fp16 if that was asked for. Not every cuDNN has bf16: fp32 replaces it, which
    runs on the same units if TF32 is allowed."""
    if not torch.is_autocast_enabled("cuda"):
        return inputs.dtype
    half = torch.get_autocast_dtype("cuda") is torch.float16
    return torch.float16 if half else torch.float32


@contextlib.contextmanager
def _without_autocast(inputs: Tensor, mode: str) -> Iterator[None]:
    """cuDNN computes in the dtype of its arguments. With autocast it would compute in fp16, whatever
    precision was asked for, and overflow without that format's gradient scaling."""
    if not inputs.is_cuda:
        # Torch's LSTM is oneDNN's, which has bf16 on some processors only.
        with torch.autocast("cpu", enabled=False) if mode == "LSTM" else contextlib.nullcontext():
            yield
        return
    with warnings.catch_warnings(), torch.autocast("cuda", enabled=False):
        # cuDNN wants the weights of all layers in one block of memory, and warns at each call
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous")
        yield


def gru_step(projected: Tensor, recurrent: Tensor, hidden: Tensor) -> Tensor:
    """One step of Cho et al. 2014 (arXiv:1406.1078), with the reset gate after the product as in torch.

    h' = (1 − z) ⊙ n + z ⊙ h, with n = tanh(W x + b + r ⊙ (U h + c)) and gates r and z.

    Args:
        projected: W x + b for gates r, z, n: (batch, 3 × hidden).
        recurrent: U h + c for the same.
        hidden: h, (batch, hidden).
    """
    size = hidden.shape[1]
    gates = torch.sigmoid(projected[:, : 2 * size] + recurrent[:, : 2 * size])
    reset, update = gates.chunk(2, dim=1)
    new = torch.tanh(projected[:, 2 * size :] + reset * recurrent[:, 2 * size :])
    return new + update * (hidden - new)


def lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000.

    c' = f ⊙ c + i ⊙ g and h' = o ⊙ tanh(c').

    Args:
        gates: i, f, g, o before their activation: (batch, 4 × hidden).
        cell: c, (batch, hidden).

    Returns:
        h' and c'.
    """
    enter, forget, content, leave = gates.chunk(4, dim=1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(content)
    return torch.sigmoid(leave) * torch.tanh(cell), cell
