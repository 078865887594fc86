import pytest
import torch
from torch import nn

from bigmodel.errors import ConfigError, SpecError
from bigmodel.optim.optimizers import own_options
from bigmodel.optim.rates import rate_factors, scale_rates
from bigmodel.optim.rates_config import RatesConfig
from bigmodel.optim.schedulers import apply
from bigmodel.registry import optimizers
from tests.test_model_parts import Stack

DECAY = RatesConfig(layer_decay=0.5)


def rates_by_name(optimizer, model):
    names = {p: name for name, p in model.named_parameters()}
    return {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def built(name, model, config, **options):
    optimizer = optimizers.build(optimizers.parse({"name": name, "lr": 0.8} | options), model)
    scale_rates(optimizer, model, config)
    return optimizer


def test_layer_decay_halves_the_rate_from_block_to_block():
    model = Stack()
    rates = rates_by_name(built("sgd", model, DECAY), model)
    assert rates["head.weight"] == rates["final_norm.bias"] == 0.8
    assert [rates[f"blocks.{n}.linear.weight"] for n in (2, 1, 0)] == [0.4, 0.2, 0.1]
    assert rates["embedding.weight"] == rates["token"] == 0.05


def test_rates_by_part_are_factors_too():
    model = Stack()
    config = RatesConfig(layer_decay=0.5, rates={"embedding*": 2.0, "embedding_norm": 4.0, "head": 10.0})
    factors = {name: rate_factors(model, config)[p] for name, p in model.named_parameters()}
    assert factors["embedding.weight"] == 2 * 0.5**4
    assert factors["embedding_norm.bias"] == 4 * 0.5**4  # the last pattern counts
    assert factors["head.bias"] == 10
    assert factors["blocks.2.norm.bias"] == 0.5


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer_trains_with_them(name):
    """As with one rate for all, with weights and gradients scaled for it; here: nothing is lost."""
    torch.manual_seed(0)
    model = Stack()
    optimizer = built(name, model, RatesConfig(layer_decay=0.5, rates={"head": 3.0}))
    rates = rates_by_name(optimizer, model)
    assert rates.keys() == dict(model.named_parameters()).keys()
    assert rates["head.weight"] == pytest.approx(2.4)
    assert rates["blocks.0.linear.weight"] == pytest.approx(0.1)
    getattr(optimizer, "train", lambda: None)()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    apply(optimizer, 0.5)
    assert rates_by_name(optimizer, model)["head.weight"] == pytest.approx(1.2)
    optimizer.step()
    moved = {name: (p - before[name]).norm() for name, p in model.named_parameters()}
    assert all(distance > 0 for distance in moved.values())
    state = optimizer.state_dict()
    again = built(name, model, RatesConfig(layer_decay=0.5, rates={"head": 3.0}))
    again.load_state_dict(state)
    assert own_options(again) == own_options(optimizer)


def test_an_update_is_that_of_the_rate_of_its_group():
    """Adam's first update of a weight is its rate."""
    model = Stack()
    optimizer = built("adam", model, DECAY)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    rates = rates_by_name(optimizer, model)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, rates[name]))


def test_muon_keeps_its_own_groups_apart():
    """Its matrices, with and without decay, and Adam's weights."""
    model = Stack()
    plain, scaled = built("muon", model, RatesConfig()), built("muon", model, DECAY)
    hidden = set(plain.param_groups[0]["params"])
    assert hidden == {p for group in scaled.param_groups if "ns_steps" in group for p in group["params"]}
    assert len(scaled.param_groups) > len(plain.param_groups)


def test_the_first_group_has_the_rate_of_the_settings():
    model = Stack()
    assert built("adamw", model, DECAY).param_groups[0]["lr"] == 0.8
    fast = RatesConfig(layer_decay=0.5, rates={"head": 10.0})
    assert built("adamw", model, fast).param_groups[0]["lr"] == 0.8


def test_without_factors_groups_stay():
    model = Stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    groups = list(optimizer.param_groups)
    scale_rates(optimizer, model, RatesConfig())
    assert optimizer.param_groups == groups


def test_frozen_weights_have_no_group():
    model = Stack()
    model.embedding.weight.requires_grad_(False)
    assert "embedding.weight" not in rates_by_name(built("sgd", model, DECAY), model)


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ConfigError, match=r"layer_decay=0.5: this model is no stack of equal blocks"):
        rate_factors(nn.Linear(2, 2), DECAY)
    with pytest.raises(ConfigError, match=r"optimizer.rates: 'hed' is no part .* Did you mean 'head'"):
        rate_factors(Stack(), RatesConfig(rates={"hed": 2.0}))
    optimizer = torch.optim.SGD(Stack().parameters(), lr=1.0)
    del optimizer.param_groups[0]["lr"]
    with pytest.raises(SpecError, match="need param_groups with an 'lr'"):
        scale_rates(optimizer, Stack(), DECAY)


def test_an_optimizer_that_wraps_another_shares_its_groups_still():
    """As sharpness-aware ones do, which are users' own."""
    model = Stack()
    inner = torch.optim.SGD(model.parameters(), lr=1.0)
    outer = torch.optim.SGD(model.parameters(), lr=1.0)
    outer.param_groups = inner.param_groups
    scale_rates(outer, model, DECAY)
    assert outer.param_groups is inner.param_groups
    assert {group["lr"] for group in inner.param_groups} == {1, 0.5, 0.25, 0.125, 0.0625}
