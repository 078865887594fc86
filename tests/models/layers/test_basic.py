"""Activations, starting weights and norms, against independent formulas."""

import contextlib

import pytest
import torch
from torch import nn

from bigmodel.models.layers.basic import (
    ACTIVATIONS,
    BatchNorm,
    check_divides,
    evaluating,
    initialise,
)
from tests.models.cases import INPUTS, build, samples, spec


@pytest.mark.parametrize(
    ("number", "whole", "advice"),
    [(5, 64, "4 or 8"), (3, 64, "2 or 4"), (100, 64, "64"), (6, 7, "1 or 7"), (4, 30, "3 or 5")],
)
def test_advice_names_the_nearest_divisors(number: int, whole: int, advice: str) -> None:
    with pytest.raises(ValueError, match=f"does not divide dim={whole}; try {advice}$"):
        check_divides(number, "dim", whole)
    assert check_divides(1, "dim", whole) == 1


@pytest.mark.parametrize(
    ("activation", "std"),
    [("relu", (2 / 300) ** 0.5), ("sigmoid", (2 / 500) ** 0.5), ("tanh", 5 / 3 * (2 / 500) ** 0.5)],
)
def test_initial_weights_have_the_deviation_of_the_papers(activation: str, std: float) -> None:
    layer = nn.Linear(300, 200)
    initialise(layer, activation)
    assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
    assert not layer.bias.any()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_initial_weights_keep_the_scale_through_many_layers(activation: str) -> None:
    x = torch.randn(256, 200)
    for _ in range(8):
        layer = nn.Linear(200, 200)
        initialise(layer, activation)
        x = ACTIVATIONS[activation](layer(x))
    assert 0.05 < x.std().item() < 5 or activation == "sigmoid"
    assert x.isfinite().all()


def test_batch_norm_is_that_of_torch_in_any_number_of_dimensions() -> None:
    shapes = [(4, 3), (4, 3, 5), (4, 3, 5, 2)]
    for kind, shape in zip([nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d], shapes, strict=True):
        ours, reference = BatchNorm(3), kind(3)
        for _ in range(2):
            x = torch.randn(shape) * 3 + 1
            assert torch.equal(ours(x), reference(x))
        assert torch.equal(ours.running_var, reference.running_var)
        assert torch.equal(ours.eval()(x), reference.eval()(x))


def test_a_lone_sample_is_normalised_with_the_running_statistics() -> None:
    norm = BatchNorm(3)
    for _ in range(5):
        norm(torch.randn(20, 3) * 4 + 2)
    before, x = norm.running_mean.clone(), torch.randn(1, 3)
    expected = (x - before) / (norm.running_var + norm.eps).sqrt()
    assert torch.allclose(norm(x), expected, atol=1e-6)
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize(
    ("name", "options"), [("fnn", {"norm": "batch"}), ("cnn", {"channels": [2, 4, 6, 8]})]
)
def test_a_batch_of_one_trains(name: str, options: dict[str, object]) -> None:
    model = build(name, spec("image"), **options)
    model(samples(INPUTS["image"], 1)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_evaluating_gives_each_module_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    before = [module.training for module in model.modules()]
    with contextlib.suppress(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        {}["an error inside"]
    assert [module.training for module in model.modules()] == before == [True, True, False, False]
