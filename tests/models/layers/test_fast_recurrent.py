"""Recurrent layers with a backward pass of their own, against torch's kernels."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from bigmodel.models.layers import fast_linear
from bigmodel.models.layers.fast_recurrent import MODES, is_quicker, layer
from bigmodel.models.layers.recurrent import Recurrent

TORCH = {"GRU": nn.GRU, "RNN_TANH": nn.RNN}
both = pytest.mark.parametrize("reverse", [False, True])
each = pytest.mark.parametrize("mode", sorted(MODES))


def given(mode: str, dtype: torch.dtype = torch.float64, size: int = 4) -> list[Tensor]:
    """Inputs of 5 steps, a first state, and weights, all of which learn."""
    weights = TORCH[mode](3, size).to(dtype).parameters()
    tensors = [torch.randn(5, 2, 3), torch.randn(2, size), *weights]
    return [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]


def ours(mode: str, reverse: bool, tensors: list[Tensor]) -> Tensor:
    return layer(mode, tensors[0], tensors[1], tensors[2:], reverse)


def theirs(mode: str, reverse: bool, tensors: list[Tensor]) -> Tensor:
    inputs, hidden, *weights = tensors
    kernel = torch.gru if mode == "GRU" else torch.rnn_tanh
    options = (weights, True, 1, 0.0, True, False, False)
    inputs = inputs.flip(0) if reverse else inputs
    outputs: Tensor = kernel(inputs, hidden.unsqueeze(0), *options)[0]
    return outputs.flip(0) if reverse else outputs


@each
@both
def test_gradients_are_exact(mode: str, reverse: bool) -> None:
    tensors = given(mode)
    assert torch.autograd.gradcheck(lambda *t: ours(mode, reverse, list(t)), tensors)


@each
@both
@pytest.mark.parametrize("onednn", [False, True])
def test_all_is_as_with_torch(
    mode: str, reverse: bool, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if onednn and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("needs torch with oneDNN")
    monkeypatch.setattr(fast_linear, "mkl_is_slow", lambda: onednn)
    monkeypatch.setattr(fast_linear, "WORTHWHILE", 1)
    tensors = given(mode, torch.float32, size=20)
    outputs, expected = ours(mode, reverse, tensors), theirs(mode, reverse, tensors)
    torch.testing.assert_close(outputs, expected, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(ours(mode, reverse, tensors), outputs)
    upstream = torch.randn_like(outputs)
    for mine, other in zip(
        torch.autograd.grad(outputs, tensors, upstream),
        torch.autograd.grad(expected, tensors, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@each
@both
def test_what_needs_no_gradient_gets_none(mode: str, reverse: bool) -> None:
    tensors = given(mode)
    expected = torch.autograd.grad(ours(mode, reverse, tensors).sum(), tensors[3])[0]
    for place, tensor in enumerate(tensors):
        tensor.requires_grad_(place == 3)
    ours(mode, reverse, tensors).sum().backward()
    torch.testing.assert_close(tensors[3].grad, expected)
    assert all(tensor.grad is None for place, tensor in enumerate(tensors) if place != 3)


@each
@both
def test_a_traced_graph_writes_nothing_over(mode: str, reverse: bool) -> None:
    def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = ours(mode, reverse, list(tensors))
        return torch.autograd.grad(outputs.square().sum(), tensors)

    tensors = given(mode)
    graph = make_fx(gradients, tracing_mode="fake")(*tensors)
    names = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert names
    assert not [name for name in names if name.endswith((".out", ".grad_input")) or "copy_" in name]
    for traced, plain in zip(graph(*tensors), gradients(*tensors), strict=True):
        torch.testing.assert_close(traced, plain)


@each
def test_gradients_of_gradients_are_refused_in_words(mode: str) -> None:
    tensors = given(mode)
    with pytest.raises(RuntimeError, match=r"create_graph=True.*model\.fused=false"):
        torch.autograd.grad(ours(mode, False, tensors).sum(), tensors[0], create_graph=True)


def test_taken_on_a_cpu_in_full_precision_only() -> None:
    inputs = torch.randn(5, 2, 3)
    assert is_quicker("GRU", inputs)
    assert is_quicker("RNN_TANH", inputs.double())
    assert not is_quicker("LSTM", inputs)
    assert not is_quicker("GRU", inputs.bfloat16())
    assert not is_quicker("GRU", inputs.to("meta"))
    assert not is_quicker("GRU", inputs[:0])
    with FakeTensorMode():  # as in a step that is traced to be compiled
        assert is_quicker("GRU", torch.randn(5, 2, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_quicker("GRU", inputs)


@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_a_run_goes_on_from_the_state_it_ended_with(cell: str) -> None:
    model = Recurrent(cell, 3, 4, num_layers=2)
    inputs = torch.randn(2, 6, 3)
    outputs, state = model.run(inputs)
    first, between = model.run(inputs[:, :4])
    second, end = model.run(inputs[:, 4:], between)
    torch.testing.assert_close(torch.cat([first, second], 1), outputs)
    torch.testing.assert_close(end, state)
