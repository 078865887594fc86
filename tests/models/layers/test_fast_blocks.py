"""Attention and feed-forward with gradients of their own against the modules they stand in for."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bigmodel.models.layers import fast_blocks
from bigmodel.models.layers.blocks import FeedForward, SelfAttention

PARTS: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: SelfAttention(32, 4, 4, causal=True),
    "attention without biases": lambda: SelfAttention(32, 4, 4, causal=True, bias=False),
    "gelu": lambda: FeedForward(32, 128, "gelu"),
    "gelu_tanh": lambda: FeedForward(32, 64, "gelu_tanh", bias=False),
}
FUSED = {"_CausalAttentionBackward", "_FeedForwardBackward"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So that OpenBLAS is used where it is faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def is_fused(outputs: Tensor) -> bool:
    return outputs.grad_fn is not None and outputs.grad_fn.name() in FUSED


def both_ways(
    find: Callable[[nn.Module], tuple[Tensor, ...]], part: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compares what `find` makes of a part with what it makes of it by torch's operations."""
    found = find(part)
    monkeypatch.setattr(fast_blocks, "can_fuse", lambda *_: False)
    with sdpa_kernel(SDPBackend.MATH):  # the other kernel has no derivative of second order
        expected = find(part)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PARTS)
def test_outputs_and_gradients_are_those_of_the_modules(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, upstream = torch.randn(50, 24, 32, requires_grad=True), torch.randn(50, 24, 32)

    def find(part: nn.Module) -> tuple[Tensor, ...]:
        outputs = part(inputs)
        return outputs, *torch.autograd.grad(outputs, [inputs, *part.parameters()], upstream)

    part = PARTS[name]()
    assert is_fused(part(inputs))
    both_ways(find, part, monkeypatch)


@pytest.mark.parametrize("name", PARTS)
def test_gradients_have_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = torch.randn(3, 7, 32, requires_grad=True)

    def find(part: nn.Module) -> tuple[Tensor, ...]:
        tensors = [inputs, *part.parameters()]
        first = torch.autograd.grad(part(inputs).square().mean(), tensors, create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in first), tensors)

    both_ways(find, PARTS[name](), monkeypatch)


@pytest.mark.parametrize("name", PARTS)
def test_several_gradients_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = torch.randn(1, 3, 32)

    def find(part: nn.Module) -> tuple[Tensor, ...]:
        return (torch.autograd.functional.jacobian(lambda x: part(x).sum(-1), inputs, vectorize=True),)

    both_ways(find, PARTS[name](), monkeypatch)


@pytest.mark.parametrize("name", PARTS)
def test_what_is_frozen_gets_no_gradient(name: str) -> None:
    part, inputs = PARTS[name](), torch.randn(2, 5, 32)
    parameters = list(part.parameters())
    for kept in parameters:
        for parameter in parameters:
            parameter.grad = None
            parameter.requires_grad_(parameter is kept)
        outputs = part(inputs)
        assert is_fused(outputs)
        outputs.sum().backward()
        assert [p.grad is not None for p in parameters] == [p is kept for p in parameters]


@pytest.mark.parametrize("name", PARTS)
def test_a_layer_that_someone_listens_to_is_called(name: str) -> None:
    part, called = PARTS[name](), []
    for layer in part.children():
        layer.register_forward_hook(lambda *_: called.append(1))
    part(torch.randn(2, 5, 32))
    assert len(called) == 2


@pytest.mark.parametrize("name", PARTS)
def test_other_work_is_left_to_the_modules(name: str) -> None:
    part, inputs = PARTS[name](), torch.randn(2, 5, 32)
    with torch.no_grad():
        assert part(inputs).grad_fn is None
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_fused(part(inputs))
    assert not is_fused(part.double()(inputs.double()))
    part.float().dropout = 0.1
    assert not is_fused(part(inputs))
    assert is_fused(part.eval()(inputs))


def test_only_usual_attention_is_fused() -> None:
    inputs = torch.randn(1, 8, 32)
    assert not is_fused(SelfAttention(32, 4, 4)(inputs))
    assert not is_fused(SelfAttention(32, 4, 2, causal=True)(inputs))
    assert not is_fused(SelfAttention(32, 4, 4, causal=True, qk_norm=True)(inputs))
    long = torch.randn(1, fast_blocks.MOST_POSITIONS + 1, 32)
    assert not is_fused(SelfAttention(32, 4, 4, causal=True)(long))
    assert not is_fused(FeedForward(32, 64, "swiglu")(inputs))
