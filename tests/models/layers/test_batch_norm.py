"""Batch normalisation against torch's, and with a single sample."""

import pytest
import torch
from torch import nn

from bigmodel.models.layers.batch_norm import BatchNorm
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
