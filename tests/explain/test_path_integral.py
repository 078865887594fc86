"""Integrated gradients: complete for every model and kind of data, and exact for a linear one."""

import pytest
import torch
from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.explain.path_integral import integrate
from bigmodel.explain.subject import scores
from bigmodel.registry import models
from bigmodel.spec import Features
from tests.models.cases import INPUTS, TARGETS, build, samples, spec, stir


def of_class(outputs: Tensor, chosen: Tensor) -> Tensor:
    return scores(outputs, torch.zeros_like(chosen), TARGETS["classes"])


def baselines(kind: str) -> Tensor:
    """Zeros; of categories and tokens the second, so that something is looked up."""
    start = torch.zeros(1, *INPUTS[kind].shape)
    if isinstance(INPUTS[kind], Features):
        return torch.tensor([[float(size > 0) for size in INPUTS[kind].categories or (0,) * 4]])
    return start + 1 if kind in ("tokens", "padded") else start


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", [name for name in models.names() if name != "linear"])
def test_attributions_add_up_to_the_difference_of_the_score(name: str, kind: str) -> None:
    options = {"patch_size": 1} if kind == "odd_image" and name in ("attention", "transformer") else {}
    try:
        model = build(name, spec(kind), **options).eval()
    except SpecError:
        pytest.skip("the model does not read these inputs")
    stir(model)
    inputs, start = samples(INPUTS[kind], 6), baselines(kind).to(samples(INPUTS[kind], 1).dtype)
    path = integrate(model, inputs, start, of_class)
    sums = path.values.flatten(1).sum(1) + sum(each.flatten(1).sum(1) for each in path.looked_up)
    difference = path.end - path.start
    assert (difference.abs() > 1e-4).all()
    sizes = path.values.flatten(1).abs().sum(1)
    sizes += sum(each.flatten(1).abs().sum(1) for each in path.looked_up)
    assert ((sums - difference).abs() <= 1e-3 * difference.abs() + 3e-5 * sizes).all()
    with torch.no_grad():
        everything = torch.arange(6)
        torch.testing.assert_close(path.end, of_class(model(inputs), everything).float())


def test_of_a_linear_model_they_are_weights_times_the_distance_from_the_baseline() -> None:
    linear, inputs, start = nn.Linear(4, 3), torch.randn(5, 4), torch.randn(1, 4)
    path = integrate(linear, inputs, start, of_class)
    weight = linear.weight[0] - linear.weight[1:].mean(0)
    torch.testing.assert_close(path.values, (weight * (inputs - start)).detach())


class _Kinked(nn.Module):
    """max(0, a·x − b) with a kink at a place of each sample's own."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(inputs.sum(1, keepdim=True) - 0.7137) * 100


def test_a_kink_is_resolved_where_it_is() -> None:
    inputs = torch.rand(50, 3) + 0.3
    calls = 0

    class Counted(_Kinked):
        def forward(self, inputs: Tensor) -> Tensor:
            nonlocal calls
            calls += len(inputs)
            return super().forward(inputs)

    path = integrate(Counted(), inputs, torch.zeros(1, 3), lambda outputs, _: outputs[:, 0])
    exact = torch.relu(inputs.sum(1) - 0.7137) * 100
    torch.testing.assert_close(path.values.sum(1), exact, rtol=1e-3, atol=1e-4)
    assert calls < 50 * 400  # as many equal steps would resolve it a tenth as well
