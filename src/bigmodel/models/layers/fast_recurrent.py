"""GRU and plain recurrent layers that are quick on a CPU: a whole layer is one node of the graph.

Torch's kernels for them are made of small ones there, which autograd follows one by one: a step of a GRU
leaves some thirty nodes, and the weights' gradients are added up step by step. Here the backward pass is
written out. Whatever does not depend on the step before is done for all steps at once: the inputs' part,
the derivatives of the gates, and each weight's gradient, which is one product.

Steps write into memory that is there already, side by side. A graph that is being traced wants every
value made once and never written over: there each step gives a tensor of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bigmodel.models.layers.fast_linear import is_plain, outer, product, worthwhile

MODES = {"GRU", "RNN_TANH"}
"""What is to be had here. An LSTM's kernel in torch is oneDNN's, which is as quick as this would be."""

Adder = Callable[[Tensor, Tensor, Any], Tensor]


def is_quicker(mode: str, inputs: Tensor) -> bool:
    """Whether `layer` can take the place of torch's kernel."""
    return mode in MODES and inputs.numel() > 0 and is_plain(inputs, torch.float32, torch.float64)


def layer(mode: str, inputs: Tensor, hidden: Tensor, weights: list[Tensor], reverse: bool) -> Tensor:
    """One layer in one direction, over all steps.

    Args:
        mode: one of `MODES`.
        inputs: (steps, batch, features), on the CPU.
        hidden: the state before the first step read, (batch, hidden).
        weights: one layer's in one direction, in torch's order and form; see `Recurrent`.
        reverse: read from the last step to the first.

    Returns:
        The state after each step, where that step stands in the inputs: (steps, batch, hidden).

    Raises:
        RuntimeError: in the backward pass, where its gradients are to be differentiated again.
    """
    kind = _GRU if mode == "GRU" else _Plain
    if torch.is_grad_enabled() and any(t.requires_grad for t in (inputs, hidden, *weights)):
        outputs: Tensor = kind.apply(reverse, inputs, hidden, *weights)  # type: ignore[no-untyped-call]
        return outputs
    return _later(kind.scan(reverse, inputs, hidden, weights)[0], reverse)


class _GRU(torch.autograd.Function):
    """h' = (1 − z) ⊙ n + z ⊙ h with n = tanh(W x + b + r ⊙ (U h + c)) and gates r and z.

    tanh(a) is taken as 2 σ(2a) − 1, which is several times as quick, and as exact as float32 is near 1.
    The doubling is done to the weights of n, once, and rounds nothing.
    """

    @staticmethod
    def scan(reverse: bool, inputs: Tensor, hidden: Tensor, weights: Any) -> tuple[Tensor, ...]:
        """All states, r beside z, n, and U h + c of n, doubled: (steps, batch, …) each."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        steps, size, writes = len(inputs), hidden.shape[1], _may_write()
        gates, new = slice(0, 2 * size), slice(2 * size, None)
        weight = torch.cat([weight_ih[gates], 2.0 * weight_ih[new]])
        bias = torch.cat([bias_ih[gates] + bias_hh[gates], 2.0 * bias_ih[new]])
        x = product(inputs.flatten(0, 1), weight, bias).view(*inputs.shape[:2], -1)
        x_gates, x_new = x[..., gates].unbind(0), x[..., new].unbind(0)
        # gates and n are written over the inputs' part, which is not needed after them
        both = _Rows(steps, x[..., gates] if writes else None, x_gates)
        news = _Rows(steps, x[..., new] if writes else None, x_new)
        resets = _Rows(steps, x[..., :size] if writes else None)
        updates = _Rows(steps, x[..., size : 2 * size] if writes else None)
        recalled = _Rows(steps, inputs.new_empty(steps, *hidden.shape) if writes else None)
        states, places = _begun(hidden, steps, reverse)
        add_gates, add_new = _adder(hidden, weight_hh[gates]), _adder(hidden, 2.0 * weight_hh[new])
        constant, minus_one, h = 2.0 * bias_hh[new], inputs.new_full((), -1.0), hidden
        for step, _, after in places:
            rz = both[step] = add_gates(x_gates[step], h, both[step]).sigmoid_()
            u = recalled[step] = add_new(constant, h, recalled[step])
            if not writes:
                resets[step], updates[step] = rz[:, :size], rz[:, size:]
            n = torch.addcmul(x_new[step], resets[step], u, out=news[step]).sigmoid_()
            n = news[step] = torch.add(minus_one, n, alpha=2.0, out=news[step])
            h = states[after] = torch.lerp(n, h, updates[step], out=states[after])
        return states.whole(), both.whole(), news.whole(), recalled.whole()

    @staticmethod
    def forward(ctx: Any, reverse: bool, inputs: Tensor, hidden: Tensor, *weights: Tensor) -> Tensor:
        states, *others = _GRU.scan(reverse, inputs, hidden, weights)
        ctx.reverse = reverse
        ctx.save_for_backward(inputs, *weights[:2], states, *others)
        return _later(states, reverse)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        _check_once()
        inputs, weight_ih, weight_hh, states, both, news, recalled = ctx.saved_tensors
        steps, batch, size = news.shape
        r, z, earlier = both[..., :size], both[..., size:], _earlier(states, ctx.reverse)
        # what the gradient of h' is multiplied by to give those of r's and z's sums, and of U h + c
        room = inputs.new_empty(steps, batch, 3, size) if _may_write() else None
        parts = _Rows(3, None if room is None else room.movedim(2, 0))
        sigmoid = torch.ops.aten.sigmoid_backward
        to_new = torch.ops.aten.tanh_backward(1.0 - z, news)
        parts[0] = _through(sigmoid, (to_new * recalled).mul_(0.5), r, parts[0])  # it was doubled
        parts[1] = _through(sigmoid, earlier - news, z, parts[1])
        parts[2] = torch.mul(to_new, r, out=parts[2])
        factors, kept = parts.whole().movedim(0, 2).unbind(0), z.unbind(0)
        sums, arriving = _Rows(steps, room, factors), _arriving(upstream, ctx.reverse)
        to_states = _Rows(steps + 1, torch.empty_like(states) if _may_write() else None)
        add, places = _adder(both[0], weight_hh.t()), _places(steps, ctx.reverse)
        dh = to_states.put(places[-1][2], upstream[places[-1][0]])
        for step, before, _ in reversed(places):
            to_sums = sums[step] = torch.mul(factors[step], dh.unsqueeze(1), out=sums[step])
            base = torch.addcmul(arriving[before], dh, kept[step], out=to_states[before])
            dh = to_states[before] = add(base, to_sums.flatten(1), to_states[before])
        through = sums.whole()
        of_hidden = _of_weights(ctx.needs_input_grad[4::2], earlier, through.flatten(2))
        of_n = _later(to_states.whole(), ctx.reverse) * to_new
        if room is None:
            through = torch.cat([through[:, :, :2], of_n.unsqueeze(2)], dim=2)
        else:
            through[:, :, 2] = of_n  # in place of what U h + c was given
        return None, *_gradients(ctx, inputs, weight_ih, through.flatten(2), dh, of_hidden)


class _Plain(torch.autograd.Function):
    """h' = tanh(W x + b + U h + c), with tanh as in `_GRU`."""

    @staticmethod
    def scan(reverse: bool, inputs: Tensor, hidden: Tensor, weights: Any) -> tuple[Tensor, ...]:
        """All states."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        x = product(inputs.flatten(0, 1), 2.0 * weight_ih, 2.0 * (bias_ih + bias_hh))
        x_rows = x.view(*inputs.shape[:2], -1).unbind(0)
        states, places = _begun(hidden, len(inputs), reverse)
        add, minus_one = _adder(hidden, 2.0 * weight_hh), inputs.new_full((), -1.0)
        h = hidden
        for step, _, after in places:
            doubled = add(x_rows[step], h, states[after]).sigmoid_()
            h = states[after] = torch.add(minus_one, doubled, alpha=2.0, out=states[after])
        return (states.whole(),)

    @staticmethod
    def forward(ctx: Any, reverse: bool, inputs: Tensor, hidden: Tensor, *weights: Tensor) -> Tensor:
        (states,) = _Plain.scan(reverse, inputs, hidden, weights)
        ctx.reverse = reverse
        ctx.save_for_backward(inputs, *weights[:2], states)
        return _later(states, reverse)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        _check_once()
        inputs, weight_ih, weight_hh, states = ctx.saved_tensors
        places, arriving = _places(len(inputs), ctx.reverse), _arriving(upstream, ctx.reverse)
        sums = _Rows(len(inputs), torch.empty_like(states[1:]) if _may_write() else None)
        add, after_each = _adder(states[0], weight_hh.t()), states.unbind(0)
        dh, tanh = upstream[places[-1][0]], torch.ops.aten.tanh_backward
        for step, before, after in reversed(places):
            to_sum = sums[step] = _through(tanh, dh, after_each[after], sums[step])
            dh = add(arriving[before], to_sum, None)
        rows = sums.whole()
        of_hidden = _of_weights(ctx.needs_input_grad[4::2], _earlier(states, ctx.reverse), rows)
        return None, *_gradients(ctx, inputs, weight_ih, rows, dh, of_hidden)


class _Rows(list[Any]):
    """For each step where it may write what it gives, None for new memory; then what it gave.

    Args:
        room: (count, …), memory for all of them; None: there is none.
        rows: those of `room`, where they are at hand.
    """

    def __init__(self, count: int, room: Tensor | None, rows: Sequence[Tensor] = ()) -> None:
        super().__init__([None] * count if room is None else rows or room.unbind(0))
        self._room = room

    def put(self, place: int, given: Tensor) -> Tensor:
        """Keeps what was made elsewhere."""
        self[place] = given if self._room is None else self[place].copy_(given)
        kept: Tensor = self[place]
        return kept

    def whole(self) -> Tensor:
        """What all of them gave: (count, …)."""
        return torch.stack(self) if self._room is None else self._room


def _check_once() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "create_graph=True: the gradients of these recurrent layers cannot be differentiated again."
            " Say model.fused=false, or Recurrent(..., fused=False): those can be."
        )


def _may_write() -> bool:
    """Whether memory may be written over; not where a graph is traced."""
    return torch._C._len_torch_dispatch_stack() == 0


def _places(steps: int, reverse: bool) -> list[tuple[int, int, int]]:
    """Each step in the order of reading, and where the states before and after it stand: of steps + 1
    states, the one before all steps comes first, or last where the layer reads in reverse."""
    if reverse:
        return [(step, step + 1, step) for step in reversed(range(steps))]
    return [(step, step, step + 1) for step in range(steps)]


def _begun(hidden: Tensor, steps: int, reverse: bool) -> tuple[_Rows, list[tuple[int, int, int]]]:
    """Room for all states with the first one in its place; and `_places`."""
    room = hidden.new_empty(steps + 1, *hidden.shape) if _may_write() else None
    states, places = _Rows(steps + 1, room), _places(steps, reverse)
    states.put(places[0][1], hidden)
    return states, places


def _earlier(states: Tensor, reverse: bool) -> Tensor:
    """The states before each step."""
    return states[1:] if reverse else states[:-1]


def _later(states: Tensor, reverse: bool) -> Tensor:
    """The states after each step."""
    return states[:-1] if reverse else states[1:]


def _arriving(upstream: Tensor, reverse: bool) -> list[Tensor]:
    """The gradients of all states that come from above: of the first one, none."""
    rows, none = upstream.unbind(0), torch.zeros_like(upstream[0])
    return [*rows, none] if reverse else [none, *rows]


def _adder(like: Tensor, weight: Tensor) -> Adder:
    """base + x Wᵀ, by the quicker of two ways for `x` of as many rows as `like`: f(base, x, out)."""
    if worthwhile(len(like), weight):
        return lambda base, x, out: torch.add(base, product(x, weight), out=out)
    turned = weight.t()
    return lambda base, x, out: torch.addmm(base, x, turned, out=out)


def _through(kernel: Any, gradient: Tensor, output: Tensor, out: Tensor | None) -> Tensor:
    """The gradient before an activation, by torch's kernel for it."""
    given: Tensor = (
        kernel(gradient, output) if out is None else kernel.grad_input(gradient, output, grad_input=out)
    )
    return given


def _of_weights(needs: Any, inputs: Tensor, to_sums: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of W and b of sums W x + b, from those of the sums: (steps, batch, …) both."""
    rows = to_sums.flatten(0, 1)
    to_weight = outer(rows, inputs.flatten(0, 1)) if needs[0] else None
    return to_weight, rows.sum(0) if needs[1] else None


def _gradients(
    ctx: Any, inputs: Tensor, weight_ih: Tensor, to_sums: Tensor, to_hidden: Tensor, of_hidden: Any
) -> tuple[Tensor | None, ...]:
    """All gradients in the order of the arguments; `to_sums` are those of W x + b."""
    to_inputs = None
    if ctx.needs_input_grad[1]:
        to_inputs = product(to_sums.flatten(0, 1), weight_ih.t()).view(*inputs.shape[:2], -1)
    to_ih, to_bias_ih = _of_weights(ctx.needs_input_grad[3::2], inputs, to_sums)
    to_hh, to_bias_hh = of_hidden
    return to_inputs, to_hidden, to_ih, to_hh, to_bias_ih, to_bias_hh
