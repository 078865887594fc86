"""Batch normalisation against torch's, and with a single sample."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from bigmodel.models.layers.batch_norm import (
    BatchNorm,
    SyncBatchNorm,
    batch_norms,
    synchronise_batch_norms,
)
from tests.models.cases import INPUTS, build, samples, spec


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


class _Other(nn.BatchNorm1d):
    """With arithmetic of its own."""


def test_which_layers_can_be_synchronised() -> None:
    kinds = [BatchNorm(2), nn.BatchNorm2d(2), nn.SyncBatchNorm(2), _Other(2), nn.LayerNorm(2)]
    assert batch_norms(nn.ModuleList(kinds)) == {"0": True, "1": True, "2": True, "3": False}


def test_a_frozen_one_needs_no_statistics_of_a_batch() -> None:
    model = nn.Sequential(BatchNorm(3), BatchNorm(3))
    model[0].requires_grad_(False)
    assert batch_norms(model) == {"1": True}


def test_a_synchronised_layer_has_the_same_tensors_and_computes_the_same() -> None:
    model = nn.Sequential(nn.Linear(3, 4), BatchNorm(4), nn.Sequential(nn.BatchNorm1d(4)))
    other, x = deepcopy(model), torch.randn(6, 3)
    tensors = {name: value.data_ptr() for name, value in model.state_dict().items()}
    synchronise_batch_norms(model)
    assert [type(layer) for layer in (model[1], model[2][0])] == [SyncBatchNorm, SyncBatchNorm]
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == tensors
    for mode in (True, False):  # there are no other ranks
        assert torch.equal(model.train(mode)(x), other.train(mode)(x))
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
