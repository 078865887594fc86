import pytest
import torch
from torch import nn

from bigmodel.errors import ConfigError
from bigmodel.models.freezing import Unfreezing, freeze, train_mode
from tests.test_model_parts import Stack


def model():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def test_what_is_named_has_no_gradient():
    trained = model()
    freeze(trained, ["0", "1.bias"])
    trained(torch.randn(5, 3)).sum().backward()
    assert {name for name, p in trained.named_parameters() if p.grad is not None} == {
        "1.weight",
        "3.weight",
        "3.bias",
    }


def test_nothing_named_freezes_nothing():
    whole = model()
    freeze(whole, [])
    assert all(p.requires_grad for p in whole.parameters())


def test_something_has_to_be_left():
    with pytest.raises(ConfigError) as raised:
        freeze(model(), ["0*", "1", "3"])
    named = """'model.freeze=["0*","1","3"]'"""
    assert str(raised.value) == f"{named}: nothing is left to train. Name fewer parts."


def test_a_frozen_batch_norm_keeps_its_statistics():
    trained, inputs = model(), torch.randn(64, 3) + 7
    freeze(trained, ["1"])
    train_mode(trained)
    before = trained[1].running_mean.clone()
    trained(inputs)
    assert torch.equal(trained[1].running_mean, before)
    assert trained[2].training  # dropout is as it was
    whole = model()
    train_mode(whole)
    whole(inputs)
    assert not torch.equal(whole[1].running_mean, before)


def trained_parts(whole):
    return {
        name.split(".weight")[0].split(".bias")[0]
        for name, p in whole.named_parameters()
        if p.requires_grad
    }


def test_unfreezing_goes_from_the_head_down_to_the_embeddings():
    whole = Stack(depth=2)
    freeze(whole, ["blocks.0.norm"])
    unfreezing = Unfreezing(whole, every=2)
    top = {"final_norm", "head"}
    second = {"blocks.1.linear", "blocks.1.norm"}
    for epoch, changes, trained in [
        (0, True, top),
        (1, False, top),
        (2, True, top | second),
        (3, False, top | second),
        (4, True, top | second | {"blocks.0.linear"}),
        (6, True, top | second | {"blocks.0.linear", "embedding", "embedding_norm", "token"}),
        (7, False, top | second | {"blocks.0.linear", "embedding", "embedding_norm", "token"}),
        (1, True, top),  # a run that goes back
    ]:
        assert unfreezing.begin(epoch) == changes
        assert trained_parts(whole) == trained
    assert str(unfreezing) == "one more block every 2 epochs, all from epoch 7 on"


def test_a_run_too_short_to_train_all_is_warned_of():
    unfreezing = Unfreezing(Stack(depth=2), every=2)  # four parts: the last from epoch 7 on
    assert unfreezing.warnings(7) == []
    for epochs, never in [(6, 1), (5, 1), (4, 2), (1, 3)]:
        assert f"the lowest {never} of 4 parts are never" in unfreezing.warnings(epochs)[0]
        unfreezing.begin(epochs - 1)
        assert unfreezing._trained == 4 - never


def test_only_a_stack_of_blocks_can_be_unfrozen_by_blocks():
    with pytest.raises(ConfigError, match=r"unfreeze_every=1: this model is no stack of equal"):
        Unfreezing(model(), every=1)
