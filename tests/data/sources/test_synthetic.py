"""Made-up data: every kind, repeatable, and with something in it to learn."""

import pytest
import torch
import torch.nn.functional as F

from bigmodel.data.checks import check
from bigmodel.data.sources import synthetic
from bigmodel.errors import ConfigError
from bigmodel.registry import data
from tests.small_runs import model_inputs

SHAPES = {"features": [10], "image": [3, 12, 12], "sequence": [5, 10], "tokens": [12]}
OUTPUTS = {"classes": 4, "values": 1, "flags": 3}


def built(**values):
    return data.build(data.parse({"name": "synthetic", **values}))


@pytest.mark.parametrize("target", OUTPUTS)
@pytest.mark.parametrize("kind", SHAPES)
def test_a_linear_probe_does_far_better_than_chance(kind, target):
    dataset = built(input=kind, shape=SHAPES[kind], target=target, outputs=OUTPUTS[target])
    check(dataset)
    assert dataset.spec.sizes == {"train": 800, "val": 200}
    assert dataset.spec.target.output_size == OUTPUTS[target]

    truth = dataset.val.targets
    outputs = _probe(dataset, kind, target)
    match target:
        case "classes":
            commonest = torch.bincount(truth).max() / len(truth)
            assert (outputs.argmax(1) == truth).float().mean() > commonest + 0.3
        case "flags":
            assert ((outputs > 0.5) == (truth > 0.5)).float().mean() > 0.8
        case _:
            residual = ((outputs - truth) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()
            assert 1 - residual > 0.6


def _probe(dataset, kind, target):
    """Ridge regression of (one-hot) targets on inputs, pooled for images, counted for tokens."""

    def features(part):
        match kind:
            case "tokens":
                inputs = F.one_hot(part.inputs, 10).float().sum(1)
            case "image":
                inputs = F.adaptive_avg_pool2d(model_inputs(dataset.preprocessing, part.inputs), 4)
            case _:
                inputs = part.inputs
        flat = inputs.flatten(1)
        return torch.cat([flat, torch.ones(len(flat), 1)], dim=1).double()

    inputs, wanted = features(dataset.train), dataset.train.targets
    wanted = F.one_hot(wanted).double() if target == "classes" else wanted.double()
    gram = inputs.T @ inputs + torch.eye(inputs.shape[1])
    return features(dataset.val) @ torch.linalg.solve(gram, inputs.T @ wanted)


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ({"shape": [10]}, (10,)),
        ({"input": "image", "shape": [32, 32, 32], "target": "classes", "outputs": 10}, (32, 32, 32)),
        ({"input": "sequence", "shape": [1, 10]}, (1, 10)),
        ({"input": "image", "shape": [3, 32, 32], "target": "classes", "outputs": 10}, (3, 32, 32)),
        ({"input": "tokens", "shape": [20], "vocab_size": 10}, (20,)),
    ],
    ids=["fnn", "cnn", "rnn", "attention", "transformer"],
)
def test_the_sizes_of_the_five_listings(values, shape):
    dataset = built(samples=50, **values)
    check(dataset)
    assert dataset.spec.input.shape == shape
    assert dataset.train.inputs.shape == (40, *shape)


@pytest.mark.parametrize("kind", SHAPES)
def test_the_seed_alone_decides(kind):
    def drawn(seed):
        return built(input=kind, shape=SHAPES[kind], samples=20, seed=seed).train

    before = torch.get_rng_state()
    first, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.inputs, other.inputs)


def test_noise_bounds_what_can_be_learnt():
    quiet = built(noise=0.0, samples=3000)
    noisy = built(noise=1.0, samples=3000)
    signal = quiet.train.targets.flatten()
    correlation = torch.corrcoef(torch.stack([signal, noisy.train.targets.flatten()]))[0, 1]
    assert correlation.item() == pytest.approx(0.5**0.5, abs=0.03)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("samples", [30, 60])
def test_no_class_is_left_without_a_sample(kind, samples):
    dataset = built(input=kind, shape=SHAPES[kind], target="classes", outputs=30, samples=samples)
    check(dataset)
    counts = torch.bincount(torch.cat([dataset.train.targets, dataset.val.targets]))
    assert len(counts) == 30
    assert counts.min() >= 1


def test_a_class_that_nobody_scores_highest_gets_its_nearest():
    scores = torch.tensor([[5.0, 1, 0], [5, 2, 0], [5, 3, 4], [0, 5, 0]])
    assert synthetic._labels(scores).tolist() == [0, 0, 2, 1]
    assert synthetic._labels(torch.eye(3)).tolist() == [0, 1, 2]


def test_images_are_bytes_with_contrast():
    images = built(input="image", shape=[3, 16, 16], target="classes", outputs=5).train.inputs
    assert images.dtype == torch.uint8
    assert 15 < images.float().std() < 60
    assert ((images == 0) | (images == 255)).float().mean() < 0.02


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"input": "image"},
            r"data\.shape=\[10\]: .*input=image needs shape=\[channels, height, width\]",
        ),
        ({"shape": [3, 4]}, r"input=features needs shape=\[count\]"),
        ({"target": "classes"}, r"data\.outputs=1: target=classes needs 2 outputs or more"),
        (
            {"target": "classes", "outputs": 30, "samples": 29},
            r"data\.samples=29: target=classes needs a sample of each of its 30 classes or more",
        ),
        ({"shape": [0]}, r"data\.shape\.0=0"),
        ({"noise": float("nan")}, r"data\.noise=nan"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        data.parse({"name": "synthetic", **values})
