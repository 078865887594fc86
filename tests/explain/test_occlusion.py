"""Occlusion: against the definition."""

import torch

from bigmodel.explain.baselines import baseline_of
from bigmodel.explain.occlusion import occlusion
from bigmodel.explain.subject import Options
from bigmodel.spec import Classes, Flags, Image, Sequence
from tests.explain.subjects import KINDS, learnt, linear


def test_of_a_linear_model_it_is_the_weight_times_the_distance_from_the_baseline() -> None:
    subject, network = linear(Flags(("p", "q")))
    found = occlusion(subject, Options())
    weights = network.weight.detach()[found.explained]
    torch.testing.assert_close(found.values, weights * subject.inputs())


def test_a_column_is_replaced_as_a_whole() -> None:
    subject = learnt("fnn", "table")
    found = occlusion(subject, Options())
    inputs, start = subject.inputs().clone(), baseline_of(subject.preprocessing).inputs
    inputs[:, 2] = start[0, 2]
    lost = found.scores - subject.scores_of(inputs, torch.arange(len(inputs)))
    torch.testing.assert_close(found.values[:, 2].double(), lost)


def test_a_place_has_the_mean_of_the_patches_over_it() -> None:
    subject = learnt("cnn", "picture").first(3)
    assert isinstance(KINDS["picture"], Image)
    found = occlusion(subject, Options(patch=8)).values
    whole = subject.scores_of(subject.inputs(), torch.arange(3))
    bare = subject.scores_of(torch.zeros(3, 1, 8, 8), torch.arange(3))
    torch.testing.assert_close(found[:, 0], (whole - bare)[:, None, None].expand(3, 8, 8).float())
    by_pixel = occlusion(subject, Options(patch=1)).values
    inputs = subject.inputs().clone()
    inputs[:, :, 4, 5] = 0
    torch.testing.assert_close(
        by_pixel[:, 0, 4, 5].double(), whole - subject.scores_of(inputs, torch.arange(3))
    )


def test_few_features_of_a_sequence_are_replaced_one_by_one() -> None:
    subject = learnt("rnn", "sequence").first(4)
    assert isinstance(KINDS["sequence"], Sequence)
    found = occlusion(subject, Options())
    assert found.values.shape == (4, 10, 3)
    strongest = found.values.flatten(1).argmax(1)
    assert (strongest % 3 == 1).all()  # the bump is in the second feature
    assert isinstance(subject.target, Classes)
    assert (strongest // 3 == 2 + 2 * found.explained).all()
