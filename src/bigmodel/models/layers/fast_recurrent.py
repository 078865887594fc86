"""GRU and plain recurrent layers that are fast on a CPU: a whole layer is one node of the graph.

On a CPU torch builds these layers from small kernels, which autograd follows one by one: a step of a GRU
leaves some thirty nodes, and the weights' gradients are added up step by step. Here the backward pass is
written out. Everything that does not depend on the step before is computed for all steps at once: the
inputs' part, the derivatives of the gates, and each weight's gradient, which is one product.

Each step writes its outputs into one block of memory for all steps. A graph that is being traced must
not overwrite values, so that there each step returns tensors of its own, which are stacked at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bigmodel.models.layers.fast_linear import is_plain, outer, product, worthwhile
from bigmodel.runtime import torch_internals

MODES = {"GRU", "RNN_TANH"}
"""The layers that there are here. Torch's LSTM is oneDNN's, which is as fast as this would be."""

_sigmoid_backward: Any = torch.ops.aten.sigmoid_backward
_tanh_backward: Any = torch.ops.aten.tanh_backward

Adder = Callable[[Tensor, Tensor, Any], Tensor]
Outputs = list[Any]
"""For each step the tensor to write its output into, or None in a traced graph; then the output."""


def is_quicker(mode: str, inputs: Tensor) -> bool:
    """Whether `layer` can replace torch's kernel."""
    return mode in MODES and inputs.numel() > 0 and is_plain(inputs, torch.float32, torch.float64)


def layer(mode: str, inputs: Tensor, hidden: Tensor, weights: list[Tensor], reverse: bool) -> Tensor:
    """One layer in one direction, over all steps.

    Args:
        mode: one of `MODES`.
        inputs: (steps, batch, features), on the CPU.
        hidden: the initial state, (batch, hidden).
        weights: one layer's in one direction, in torch's order and form; see `Recurrent`.
        reverse: read from the last step to the first.

    Returns:
        The state after each step, in the order of the inputs: (steps, batch, hidden).

    Raises:
        RuntimeError: in the backward pass, if its gradients are to be differentiated again.
    """
    kind = _GRU if mode == "GRU" else _Plain
    if torch.is_grad_enabled() and any(t.requires_grad for t in (inputs, hidden, *weights)):
        outputs: Tensor = kind.apply(reverse, inputs, hidden, *weights)  # type: ignore[no-untyped-call]
        return outputs
    return _states_after(kind.scan(reverse, inputs, hidden, weights)[0], reverse)


class _GRU(torch.autograd.Function):
    """h' = (1 − z) ⊙ n + z ⊙ h with n = tanh(W x + b + r ⊙ (U h + c)) and gates r and z.

    tanh(a) is computed as 2 σ(2a) − 1, which is several times as fast, and as exact as float32 near 1.
    The doubling is done to the weights of n, once, and rounds nothing.
    """

    @staticmethod
    def scan(reverse: bool, inputs: Tensor, hidden: Tensor, weights: Any) -> tuple[Tensor, ...]:
        """All states, r beside z, n, and U h + c of n, doubled: (steps, batch, …) each."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        steps, size, in_place = len(inputs), hidden.shape[1], not torch_internals.is_traced()
        gates, new = slice(0, 2 * size), slice(2 * size, None)
        weight = torch.cat([weight_ih[gates], 2.0 * weight_ih[new]])
        bias = torch.cat([bias_ih[gates] + bias_hh[gates], 2.0 * bias_ih[new]])
        x = product(inputs.flatten(0, 1), weight, bias).view(*inputs.shape[:2], -1)
        x_gates, x_new = x[..., gates].unbind(0), x[..., new].unbind(0)
        # The outputs r, z and n overwrite the inputs' part, which is not needed after them.
        rz_outputs: Outputs = list(x_gates) if in_place else [None] * steps
        n_outputs: Outputs = list(x_new) if in_place else [None] * steps
        r_rows = x[..., :size].unbind(0) if in_place else ()
        z_rows = x[..., size : 2 * size].unbind(0) if in_place else ()
        u_block, u_outputs = _allocate(inputs, steps, *hidden.shape)
        states, state_outputs = _allocate(hidden, steps + 1, *hidden.shape)
        order = _reading_order(steps, reverse)
        _write(state_outputs, order[0][1], hidden)
        add_gates, add_new = _adder(hidden, weight_hh[gates]), _adder(hidden, 2.0 * weight_hh[new])
        constant, minus_one, h = 2.0 * bias_hh[new], inputs.new_full((), -1.0), hidden
        for step, _, after in order:
            rz = rz_outputs[step] = add_gates(x_gates[step], h, rz_outputs[step]).sigmoid_()
            # Views made for all steps at once are cheaper than slices in each step.
            r, z = (r_rows[step], z_rows[step]) if in_place else (rz[:, :size], rz[:, size:])
            u = u_outputs[step] = add_new(constant, h, u_outputs[step])
            n = torch.addcmul(x_new[step], r, u, out=n_outputs[step]).sigmoid_()
            n = n_outputs[step] = torch.add(minus_one, n, alpha=2.0, out=n_outputs[step])
            h = state_outputs[after] = torch.lerp(n, h, z, out=state_outputs[after])
        rz_block, n_block = (x[..., gates], x[..., new]) if in_place else (None, None)
        return (
            _joined(states, state_outputs),
            _joined(rz_block, rz_outputs),
            _joined(n_block, n_outputs),
            _joined(u_block, u_outputs),
        )

    @staticmethod
    def forward(ctx: Any, reverse: bool, inputs: Tensor, hidden: Tensor, *weights: Tensor) -> Tensor:
        states, *others = _GRU.scan(reverse, inputs, hidden, weights)
        ctx.reverse = reverse
        ctx.save_for_backward(inputs, *weights[:2], states, *others)
        return _states_after(states, reverse)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        _refuse_double_backward()
        inputs, weight_ih, weight_hh, states, rz, n, u = ctx.saved_tensors
        steps, batch, size = n.shape
        r, z, before_each = rz[..., :size], rz[..., size:], _states_before(states, ctx.reverse)
        # The factors that turn the gradient of h' into those of r's and z's sums, and of U h + c.
        block = None if torch_internals.is_traced() else inputs.new_empty(steps, batch, 3, size)
        outs = (None,) * 3 if block is None else block.unbind(2)
        to_n = _tanh_backward(1.0 - z, n)
        factors = [
            _backward_of(_sigmoid_backward, (to_n * u).mul_(0.5), r, outs[0]),  # u was doubled
            _backward_of(_sigmoid_backward, before_each - n, z, outs[1]),
            torch.mul(to_n, r, out=outs[2]),
        ]
        factor_rows = (torch.stack(factors, 2) if block is None else block).unbind(0)
        # The gradients of the sums overwrite their factors.
        sum_outputs: Outputs = [None] * steps if block is None else list(factor_rows)
        to_states, to_state_outputs = _allocate(states, *states.shape)
        upstream_rows, z_rows = _upstream_rows(upstream, ctx.reverse), z.unbind(0)
        add, order = _adder(rz[0], weight_hh.t()), _reading_order(steps, ctx.reverse)
        dh = _write(to_state_outputs, order[-1][2], upstream[order[-1][0]])
        for step, before, _ in reversed(order):
            to_sums = torch.mul(factor_rows[step], dh.unsqueeze(1), out=sum_outputs[step])
            sum_outputs[step] = to_sums
            base = torch.addcmul(upstream_rows[before], dh, z_rows[step], out=to_state_outputs[before])
            dh = add(base, to_sums.flatten(1), to_state_outputs[before])
            to_state_outputs[before] = dh
        sums = _joined(block, sum_outputs)
        of_hidden = _weight_gradients(ctx.needs_input_grad[4::2], before_each, sums.flatten(2))
        of_n = _states_after(_joined(to_states, to_state_outputs), ctx.reverse) * to_n
        if block is None:
            sums = torch.cat([sums[:, :, :2], of_n.unsqueeze(2)], dim=2)
        else:
            sums[:, :, 2] = of_n  # replaces the gradient of U h + c
        return None, *_all_gradients(ctx, inputs, weight_ih, sums.flatten(2), dh, of_hidden)


class _Plain(torch.autograd.Function):
    """h' = tanh(W x + b + U h + c), with tanh as in `_GRU`."""

    @staticmethod
    def scan(reverse: bool, inputs: Tensor, hidden: Tensor, weights: Any) -> tuple[Tensor, ...]:
        """All states."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        x = product(inputs.flatten(0, 1), 2.0 * weight_ih, 2.0 * (bias_ih + bias_hh))
        x_rows = x.view(*inputs.shape[:2], -1).unbind(0)
        states, outputs = _allocate(hidden, len(inputs) + 1, *hidden.shape)
        order = _reading_order(len(inputs), reverse)
        _write(outputs, order[0][1], hidden)
        add, minus_one = _adder(hidden, 2.0 * weight_hh), inputs.new_full((), -1.0)
        h = hidden
        for step, _, after in order:
            doubled = add(x_rows[step], h, outputs[after]).sigmoid_()
            h = outputs[after] = torch.add(minus_one, doubled, alpha=2.0, out=outputs[after])
        return (_joined(states, outputs),)

    @staticmethod
    def forward(ctx: Any, reverse: bool, inputs: Tensor, hidden: Tensor, *weights: Tensor) -> Tensor:
        (states,) = _Plain.scan(reverse, inputs, hidden, weights)
        ctx.reverse = reverse
        ctx.save_for_backward(inputs, *weights[:2], states)
        return _states_after(states, reverse)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        _refuse_double_backward()
        inputs, weight_ih, weight_hh, states = ctx.saved_tensors
        order = _reading_order(len(inputs), ctx.reverse)
        upstream_rows = _upstream_rows(upstream, ctx.reverse)
        block, outputs = _allocate(states, *upstream.shape)
        add, state_rows = _adder(states[0], weight_hh.t()), states.unbind(0)
        dh = upstream[order[-1][0]]
        for step, before, after in reversed(order):
            to_sum = _backward_of(_tanh_backward, dh, state_rows[after], outputs[step])
            outputs[step] = to_sum
            dh = add(upstream_rows[before], to_sum, None)
        sums, before_each = _joined(block, outputs), _states_before(states, ctx.reverse)
        of_hidden = _weight_gradients(ctx.needs_input_grad[4::2], before_each, sums)
        return None, *_all_gradients(ctx, inputs, weight_ih, sums, dh, of_hidden)


def _refuse_double_backward() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "create_graph=True: the gradients of these recurrent layers cannot be differentiated again."
            " Set model.fused=false, or Recurrent(..., fused=False): those can be."
        )


def _allocate(like: Tensor, *shape: int) -> tuple[Tensor | None, Outputs]:
    """A block of memory for the outputs of all steps, and its rows; no memory in a traced graph."""
    if torch_internals.is_traced():
        return None, [None] * shape[0]
    block = like.new_empty(shape)
    return block, list(block.unbind(0))


def _write(outputs: Outputs, place: int, value: Tensor) -> Tensor:
    """Makes `value` the output at that place."""
    written: Tensor = value if outputs[place] is None else outputs[place].copy_(value)
    outputs[place] = written
    return written


def _joined(block: Tensor | None, outputs: Outputs) -> Tensor:
    """The outputs of all steps: the block that they were written into, or a new one."""
    return torch.stack(outputs) if block is None else block


def _reading_order(steps: int, reverse: bool) -> list[tuple[int, int, int]]:
    """Each step in reading order, with the indices of the states before and after it.

    There are steps + 1 states. The initial one is the first, or the last if the layer reads in reverse.
    """
    if reverse:
        return [(step, step + 1, step) for step in reversed(range(steps))]
    return [(step, step, step + 1) for step in range(steps)]


def _states_before(states: Tensor, reverse: bool) -> Tensor:
    """The states before each step."""
    return states[1:] if reverse else states[:-1]


def _states_after(states: Tensor, reverse: bool) -> Tensor:
    """The states after each step."""
    return states[:-1] if reverse else states[1:]


def _upstream_rows(upstream: Tensor, reverse: bool) -> list[Tensor]:
    """The gradients of all states that come from the layer above: none for the initial one."""
    rows, zeros = upstream.unbind(0), torch.zeros_like(upstream[0])
    return [*rows, zeros] if reverse else [zeros, *rows]


def _adder(like: Tensor, weight: Tensor) -> Adder:
    """f(base, x, out) = base + x Wᵀ, by the faster of two ways if `x` has as many rows as `like`."""
    if worthwhile(len(like), weight):
        return lambda base, x, out: torch.add(base, product(x, weight), out=out)
    transposed = weight.t()
    return lambda base, x, out: torch.addmm(base, x, transposed, out=out)


def _backward_of(kernel: Any, gradient: Tensor, output: Tensor, out: Tensor | None) -> Tensor:
    """The gradient before an activation, by torch's kernel for it."""
    before: Tensor = (
        kernel(gradient, output) if out is None else kernel.grad_input(gradient, output, grad_input=out)
    )
    return before


def _weight_gradients(
    needs: Any, inputs: Tensor, to_sums: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of W and b from those of the sums W x + b: (steps, batch, …) both."""
    rows = to_sums.flatten(0, 1)
    to_weight = outer(rows, inputs.flatten(0, 1)) if needs[0] else None
    return to_weight, rows.sum(0) if needs[1] else None


def _all_gradients(
    ctx: Any, inputs: Tensor, weight_ih: Tensor, to_sums: Tensor, to_hidden: Tensor, of_hidden: Any
) -> tuple[Tensor | None, ...]:
    """All gradients in the order of the arguments; `to_sums` are those of W x + b."""
    to_inputs = None
    if ctx.needs_input_grad[1]:
        to_inputs = product(to_sums.flatten(0, 1), weight_ih.t()).view(*inputs.shape[:2], -1)
    to_ih, to_bias_ih = _weight_gradients(ctx.needs_input_grad[3::2], inputs, to_sums)
    to_hh, to_bias_hh = of_hidden
    return to_inputs, to_hidden, to_ih, to_hh, to_bias_ih, to_bias_hh
