"""Augmentation of whole batches against a slow reference, one image and one pixel at a time."""

import math

import pytest
import torch

from bigmodel.data.augment import AugmentConfig, augment, check_augment
from bigmodel.data.counter_rng import key_of, uniforms
from bigmodel.errors import ConfigError
from bigmodel.spec import Image

KEY = key_of(1, 2)
CONFIGS = {
    "shift": AugmentConfig(shift=3),
    "flip": AugmentConfig(flip=0.5),
    "erase": AugmentConfig(erase=0.7, erase_area=0.6),
    "all": AugmentConfig(shift=2, flip=0.5, erase=0.5),
    "always": AugmentConfig(shift=1, flip=1.0, erase=1.0, erase_area=1.0),
}


def stretch(length, share, place):
    """First pixel and length of an erased stretch, in float32 as the real thing."""
    size = min(max(torch.round(share * length), torch.tensor(1.0)), torch.tensor(float(length)))
    first = min(torch.floor(place * (length - size + 1)), length - size)
    return int(first), int(size)


def slow_augment(image, config, draws):
    channels, height, width = image.shape
    down, right = (min(int(draw * (2 * config.shift + 1)), 2 * config.shift) for draw in draws[1:3])
    flip = draws[0] < config.flip
    result = torch.zeros_like(image)
    for channel in range(channels):
        for y in range(height):
            for x in range(width):
                from_y, from_x = y + down - config.shift, x + right - config.shift
                if 0 <= from_y < height and 0 <= from_x < width:
                    result[channel, y, x] = image[
                        channel, from_y, width - 1 - from_x if flip else from_x
                    ]
    if draws[3] < config.erase:
        area = 0.02 + draws[4] * (config.erase_area - 0.02)
        aspect = torch.exp((2 * draws[5] - 1) * math.log(3.3))
        top, rows = stretch(height, (area * aspect).sqrt(), draws[6])
        left, columns = stretch(width, (area / aspect).sqrt(), draws[7])
        result[:, top : top + rows, left : left + columns] = 0
    return result


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 10)])
def test_equals_a_slow_reference(config, dtype, shape):
    images = torch.randint(1, 256, (24, *shape)).to(dtype)
    before = images.clone()
    index = torch.randperm(1000)[:24]
    draws = uniforms(KEY, index, 8)
    expected = torch.stack([slow_augment(i, config, d) for i, d in zip(images, draws, strict=True)])
    got = augment(images, config, index, KEY)
    assert got.dtype == dtype
    assert torch.equal(got, expected)
    assert torch.equal(images, before), "the stored images must stay as they are"


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_is_the_same_however_samples_are_grouped(config):
    images = torch.randint(1, 256, (30, 1, 9, 9), dtype=torch.uint8)
    index = torch.arange(30)
    whole = augment(images, config, index, KEY)
    order = torch.randperm(30)
    pieces = [augment(images[part], config, index[part], KEY) for part in order.split([7, 1, 22])]
    assert torch.equal(torch.cat(pieces), whole[order])


def test_every_shift_and_both_flips_happen_evenly():
    images = torch.zeros(9000, 1, 5, 6, dtype=torch.uint8)
    images[:, 0, 2, 2] = 1
    moved = augment(images, AugmentConfig(shift=1, flip=0.25), torch.arange(9000), KEY)
    counts = moved.sum(0)[0].float() / 9000
    expected = torch.zeros(5, 6)
    expected[1:4, 1:4] += 0.75 / 9
    expected[1:4, 2:5] += 0.25 / 9  # mirrored, the pixel starts in column 3
    torch.testing.assert_close(counts, expected, atol=0.012, rtol=0)


def test_erases_as_often_and_as_much_as_asked():
    images = torch.ones(4000, 1, 32, 32)
    erased = augment(images, AugmentConfig(erase=0.3, erase_area=0.4), torch.arange(4000), KEY)
    gone = 1 - erased.mean((1, 2, 3))
    assert (gone > 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert gone.max() < 0.43  # sides are rounded to pixels
    assert gone[gone > 0].mean().item() == pytest.approx((0.02 + 0.4) / 2, abs=0.02)


def test_one_option_leaves_the_draws_of_another_alone():
    images = torch.randint(1, 256, (20, 1, 8, 8), dtype=torch.uint8)
    flipped = augment(images, AugmentConfig(flip=0.5), torch.arange(20), KEY)
    erased = augment(images, AugmentConfig(flip=0.5, erase=1.0), torch.arange(20), KEY)
    kept = erased != 0
    assert torch.equal(erased[kept], flipped[kept])


def test_off_by_default():
    assert not AugmentConfig().active
    assert all(config.active for config in CONFIGS.values())


def test_a_shift_as_large_as_the_image_is_refused():
    check_augment(AugmentConfig(shift=7), Image(1, 8, 12))
    with pytest.raises(ConfigError, match=r"data\.augment\.shift=8: must be smaller .* 8×12 pixels"):
        check_augment(AugmentConfig(shift=8), Image(1, 8, 12))
