"""The quick linear layer against torch's own."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from bigmodel.models.layers import fast_linear as module
from bigmodel.models.layers import openblas
from bigmodel.models.layers.fast_linear import WORTHWHILE, Linear, linear, multiplied
from bigmodel.runtime import torch_internals

needs_onednn = pytest.mark.skipif(
    not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="needs torch with oneDNN",
)
SHAPE = (2, 96, 72)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As OpenBLAS is used."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["OpenBLAS", "oneDNN"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "oneDNN":
        monkeypatch.setattr(openblas, "is_there", lambda: False)
    elif not openblas.is_there():
        pytest.skip("numpy has no OpenBLAS here")
    return str(request.param)


def inputs_of(bias: bool) -> list[Tensor]:
    shapes = [SHAPE, (80, 72), *([(80,)] if bias else [])]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


@pytest.mark.usefixtures("library")
@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("spread", [True, False])
def test_outputs_and_gradients_are_those_of_torch(bias: bool, spread: bool) -> None:
    given = inputs_of(bias)
    upstream = torch.randn(1, 1, 80).expand(2, 96, 80) if spread else torch.randn(2, 96, 80)
    outputs, expected = multiplied(*given), F.linear(*given)
    assert torch.allclose(outputs, expected, atol=1e-4)
    for mine, theirs in zip(
        torch.autograd.grad(outputs, given, upstream),
        torch.autograd.grad(expected, given, upstream),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, atol=1e-3)


@pytest.mark.usefixtures("library")
@needs_onednn
def test_gradients_have_gradients() -> None:
    given = inputs_of(True)
    found = []
    for kind in (multiplied, F.linear):
        first = torch.autograd.grad(kind(*given).square().mean(), given, create_graph=True)
        found.append(torch.autograd.grad(sum(part.square().sum() for part in first), given))
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)


@needs_onednn
def test_only_large_float32_products_on_the_cpu_go_another_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Tensor] = []
    monkeypatch.setattr(module, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(
        module, "multiplied", lambda x, w, b=None: (calls.append(x), multiplied(x, w, b))[1]
    )
    layer = Linear(128, 128)
    large, small = torch.randn(WORTHWHILE // 128**2, 128), torch.randn(8, 128)
    assert torch.allclose(layer(large), F.linear(large, layer.weight, layer.bias), atol=1e-4)
    assert len(calls) == 1
    layer(small)
    layer(small[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(large).dtype == torch.bfloat16
    torch.func.vmap(layer)(large.unsqueeze(1).expand(-1, 8, -1))
    linear(large.double(), layer.weight.double())
    linear(large.to("meta"), layer.weight.to("meta"))
    torch.compiler.reset()
    torch.compile(layer, backend="eager", fullgraph=True)(large)
    assert len(calls) == 1


@needs_onednn
def test_a_step_to_be_compiled_keeps_the_faster_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "mkl_is_slow", lambda: True)
    inputs, weight = torch.randn(WORTHWHILE // 128**2, 128), torch.randn(128, 128)
    graph = make_fx(lambda *pair: linear(*pair), tracing_mode="fake")(inputs, weight)
    assert any("_linear_pointwise" in str(node.target) for node in graph.graph.nodes)


def test_names_and_start_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours = Linear(5, 3)
    torch.manual_seed(0)
    theirs = torch.nn.Linear(5, 3)
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in theirs.state_dict().items())


@pytest.mark.usefixtures("library")
def test_several_gradients_at_once(monkeypatch):
    """A whole Jacobian in one backward pass, which torch does by batching the gradients."""
    monkeypatch.setattr(module, "mkl_is_slow", lambda: hasattr(torch.ops.mkldnn, "_linear_pointwise"))
    monkeypatch.setattr(module, "WORTHWHILE", 1)
    layer, inputs = module.Linear(5, 4), torch.randn(3, 5, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(layer, inputs, vectorize=True)
    expected = torch.autograd.functional.jacobian(
        lambda x: F.linear(x, layer.weight, layer.bias), inputs
    )
    torch.testing.assert_close(jacobian, expected)


@needs_onednn
@pytest.mark.parametrize("shape", [(96, 40, 24), (96, 24, 40)])
def test_outer_products_are_exact_for_parts_of_wider_matrices(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(module, "WORTHWHILE", 1)
    monkeypatch.setattr(openblas, "is_there", lambda: False)
    seen: list[Tensor] = []
    kernel = torch.ops.mkldnn._linear_pointwise

    def spy(x: Tensor, w: Tensor, *rest: Any) -> Any:
        seen.append(w)
        return kernel(x, w, *rest)

    monkeypatch.setattr(torch_internals, "onednn_linear", lambda: spy)
    rows, a, b = shape
    first, second = torch.randn(rows, 2 * a)[:, :a], torch.randn(rows, 2 * b)[:, b:]
    torch.testing.assert_close(module.outer(first, second), first.t() @ second, atol=1e-4, rtol=1e-4)
    # oneDNN takes a thousand times as long for a matrix with gaps
    assert seen
    assert all(w.is_contiguous() or w.t().is_contiguous() for w in seen)
