"""Statistics against numpy."""

import numpy as np
import pytest
import torch

from bigmodel.data.normalize import image_statistics, value_statistics


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_image_statistics_are_per_channel(dtype):
    images = torch.randint(0, 200, (50, 3, 6, 5)).to(dtype)
    images[:, 1] = images[:, 1] // 10
    unit = 255 if dtype == torch.uint8 else 1
    mean, std = image_statistics(images)
    plain = images.numpy().astype(np.float64) / unit
    assert mean.shape == std.shape == (3, 1, 1)
    np.testing.assert_allclose(mean.flatten().numpy(), plain.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std.flatten().numpy(), plain.std((0, 2, 3)), rtol=1e-6)


def test_more_images_than_are_read_at_once():
    images = torch.randn(4100, 1, 2, 2) + 1000
    mean, std = image_statistics(images)
    plain = images.double()
    assert mean.item() == pytest.approx(plain.mean().item(), rel=1e-7)
    assert std.item() == pytest.approx(plain.std(correction=0).item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_channel_that_never_changes_has_deviation_one(dtype):
    images = torch.randint(0, 200, (10, 2, 4, 4)).to(dtype)
    images[:, 1] = 7
    _, std = image_statistics(images)
    assert std[1].item() == 1.0
    assert std[0].item() != 1.0


def test_value_statistics_are_per_column():
    values = torch.randn(20, 4, 3, dtype=torch.float64) * torch.tensor([1.0, 1e6, 1e-6])
    values[..., 2] += 0.1
    mean, std = value_statistics(values)
    plain = values.reshape(-1, 3).numpy()
    np.testing.assert_allclose(mean.numpy(), plain.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std.numpy(), plain.std(0), rtol=1e-10)


def test_a_column_that_never_changes_has_deviation_one():
    values = torch.full((7, 1), 0.1, dtype=torch.float64)
    assert value_statistics(values)[1].item() == 1.0
