"""Processes that prepare batches make what training would have made itself."""

import pytest
import torch

from bigmodel.data.assemble import assemble
from bigmodel.data.augment import AugmentConfig
from bigmodel.data.base import DataConfig, ImageConfig
from bigmodel.data.batching.batches import Batches
from bigmodel.data.parts import Part
from bigmodel.errors import ConfigError
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Features, Image, Tokens

SAMPLES = 200  # 160 to train
AUGMENT = AugmentConfig(shift=2, flip=0.5, erase=0.5)
CLASSES = Classes(("a", "b"), ())


def batches_of(workers=2, *, part="train", augment=AUGMENT, group=1, device="cpu", **values):
    config = ImageConfig(
        name="made", **{"batch_size": 7, "workers": workers, "augment": augment, **values}
    )
    images = torch.arange(SAMPLES * 36).remainder(251).to(torch.uint8).view(SAMPLES, 1, 6, 6)
    samples = Part(images, torch.arange(SAMPLES) % 2)
    dataset = assemble(config, DataSpec("made", Image(1, 6, 6), CLASSES), samples)
    return Batches(dataset, part, config, device, seed=3, group=group)


@pytest.mark.parametrize("augment", [AugmentConfig(), AUGMENT], ids=["plain", "augmented"])
@pytest.mark.parametrize("group", [1, 3])
def test_the_batches_are_the_same_to_the_bit_from_any_start(augment, group):
    alone, helped = (batches_of(n, augment=augment, group=group) for n in (0, 2))
    state = torch.get_rng_state()
    for epoch, start in ((0, 0), (1, 0), (1, 1), (5, 4), (5, alone.steps_per_epoch)):
        expected, got = list(alone.epoch(epoch, start)), list(helped.epoch(epoch, start))
        assert len(got) == len(expected) == alone.steps_per_epoch - start
        for ours, theirs in zip(got, expected, strict=True):
            assert torch.equal(ours.inputs, theirs.inputs)
            assert torch.equal(ours.targets, theirs.targets)
    assert torch.equal(torch.get_rng_state(), state), "torch's global generator is left alone"


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (Features(3), torch.arange(60.0).view(20, 3)),
        (Tokens(3, 60), torch.arange(60).view(20, 3)),
        (Image(1, 1, 3), torch.arange(60.0).view(20, 1, 1, 3)),
    ],
    ids=["features", "tokens", "float images"],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_any_kind_of_input(kind, inputs, normalize):
    def read(workers):
        config = DataConfig(name="made", batch_size=3, workers=workers)
        samples = Part(inputs, torch.arange(20) % 2)
        dataset = assemble(config, DataSpec("made", kind, CLASSES), samples, normalize=normalize)
        return list(Batches(dataset, "train", config).epoch(0))

    for got, expected in zip(read(3), read(0), strict=True):
        assert got.inputs.dtype == expected.inputs.dtype
        assert torch.equal(got.inputs, expected.inputs)
        assert torch.equal(got.targets, expected.targets)


@pytest.mark.gpu
@pytest.mark.parametrize("on_device", [False, None])
def test_batches_for_a_gpu(on_device):
    helped = batches_of(device="cuda", on_device=on_device)
    for got, expected in zip(helped.epoch(1, 2), batches_of(0).epoch(1, 2), strict=True):
        assert got.inputs.is_cuda
        assert got.targets.is_cuda
        assert torch.equal(got.inputs.cpu(), expected.inputs)
        assert torch.equal(got.targets.cpu(), expected.targets)


def test_data_on_the_device_has_no_need_of_them():
    words = r"data\.workers=2: .*data\.on_device=true .* Say data\.workers=0, or data\.on_device=null"
    with pytest.raises(ConfigError, match=words):
        data.parse({"name": "digits", "workers": 2, "on_device": True})


@pytest.mark.parametrize(("key", "value"), [("workers", -1), ("timeout", 0)])
def test_ranges(key, value):
    with pytest.raises(ConfigError, match=rf"data\.{key}={value}"):
        data.parse({"name": "digits", key: value})
