"""The same attributions as captum's, where that is installed."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.data.parts import Part
from bigmodel.explain.baselines import baseline_of
from bigmodel.explain.integrated_gradients import integrated_gradients
from bigmodel.explain.occlusion import occlusion
from bigmodel.explain.subject import Options, Subject, scores
from tests.explain.subjects import learnt


@pytest.fixture(scope="module")
def captum() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("captum.attr")


def forward(subject: Subject) -> Any:
    def score(inputs: Tensor, explained: Tensor) -> Tensor:
        return scores(subject.model(inputs), explained, subject.target)

    return score


@pytest.mark.parametrize("model", ["fnn", "cnn", "rnn", "transformer"])
def test_integrated_gradients_are_those_of_many_steps(captum: Any, model: str) -> None:
    subject = learnt(model, "picture").first(8)
    theirs = captum.IntegratedGradients(forward(subject)).attribute(
        subject.inputs(),
        baselines=baseline_of(subject.preprocessing).inputs,
        additional_forward_args=(subject.explained,),
        n_steps=500,
        internal_batch_size=512,
    )
    ours = integrated_gradients(subject, Options()).values
    size = theirs.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
    assert ((ours - theirs).abs() / size).max() < 0.02


def test_categories_are_those_of_its_layers(captum: Any) -> None:
    subject = learnt("transformer", "table").first(6)
    categories = subject.inputs().clone()
    categories[:, [0, 1, 3, 5]] = 0.0  # their layer moves categories alone, so numbers must not move
    subject = replace(subject, part=Part(categories, subject.part.take(slice(0, 6))[1]))
    layer = subject.model.embedding.lookup  # type: ignore[union-attr]
    theirs = captum.LayerIntegratedGradients(forward(subject), layer).attribute(
        subject.inputs(),
        baselines=baseline_of(subject.preprocessing).inputs,
        additional_forward_args=(subject.explained,),
        n_steps=500,
        internal_batch_size=512,
    )
    ours = integrated_gradients(subject, Options()).values
    assert theirs.shape[:2] == (6, 2)
    sums = theirs.sum(-1)
    assert ((ours[:, [2, 4]] - sums).abs() / sums.abs().max()).max() < 0.01
    assert (ours[:, [0, 1, 3, 5]] == 0).all()


def test_occlusion_of_a_pixel_is_theirs(captum: Any) -> None:
    subject = learnt("cnn", "picture").first(5)
    theirs = captum.Occlusion(forward(subject)).attribute(
        subject.inputs(),
        sliding_window_shapes=(1, 1, 1),
        baselines=0,
        additional_forward_args=(subject.explained,),
    )
    ours = occlusion(subject, Options(patch=1)).values
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-4)
