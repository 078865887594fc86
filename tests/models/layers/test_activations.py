"""Starting weights, against independent formulas."""

import pytest
import torch
from torch import nn

from bigmodel.models.layers.activations import ACTIVATIONS, initialise


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
