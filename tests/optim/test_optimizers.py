"""Optimizers against torch's own, which parameters decay, and states that come back to the bit."""

import copy
import json
import math
from typing import Any

import pytest
import schedulefree
import torch
from torch import nn

from bigmodel.errors import ConfigError
from bigmodel.optim.optimizers import evaluation_weights, parameter_groups, training_weights
from bigmodel.optim.optimizers.muon import hidden_matrices
from bigmodel.optim.schedulers import apply
from bigmodel.registry import optimizers


class Net(nn.Module):
    """A bit of everything: embedding, positions, norms, convolution, recurrence, matrices, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, 6))
        self.embedding = nn.Embedding(9, 6)
        self.positions = nn.Parameter(torch.randn(4, 6))
        self.patch_embedding = nn.Linear(6, 6)
        self.mix = nn.Conv1d(6, 6, 3, padding=1)
        self.norm = nn.LayerNorm((4, 6))
        self.recurrent = nn.GRU(6, 5, bidirectional=True, batch_first=True)
        self.hidden = nn.Linear(10, 8)
        self.batch_norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        x = self.patch_embedding(self.embedding(tokens) + self.positions + self.class_token)
        x = self.norm(x + self.mix(x.transpose(1, 2)).transpose(1, 2))
        x = self.recurrent(x)[0].mean(1)
        return self.head(torch.relu(self.batch_norm(self.hidden(x))))


def net(seed=0):
    torch.manual_seed(seed)
    return Net()


def build(model, name, **options):
    return optimizers.build(optimizers.parse({"name": name, **options}), model)


def train(model, optimizer, steps, start=0):
    """`steps` updates on batches that depend on their number alone; returns the last loss."""
    for step in range(start, start + steps):
        draw = torch.Generator().manual_seed(step)
        tokens = torch.randint(9, (16, 4), generator=draw)
        loss = nn.functional.cross_entropy(model(tokens), tokens[:, 0] % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def weights(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


every_optimizer = pytest.mark.parametrize("name", optimizers.names())


@every_optimizer
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_parameter_is_trained_once(name, weight_decay):
    model = net()
    model.mix.bias.requires_grad_(False)
    held = [p for g in build(model, name, weight_decay=weight_decay).param_groups for p in g["params"]]
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert len(held) == len(trainable)
    assert {id(p) for p in held} == {id(p) for p in trainable}


@every_optimizer
def test_learns(name):
    model = net()
    optimizer = build(model, name, lr=0.02)
    training_weights(optimizer)
    first = train(model, optimizer, 1)
    assert train(model, optimizer, 60) < 0.7 * first


def plain(value):
    return value is None or isinstance(value, bool | int | float | str)


@every_optimizer
def test_states_hold_tensors_and_plain_values_only(name):
    model = net()
    optimizer = build(model, name, weight_decay=0.1)
    training_weights(optimizer)
    apply(optimizer, 0.5)
    train(model, optimizer, 2)
    state = optimizer.state_dict()
    for slots in state["state"].values():
        assert all(isinstance(value, torch.Tensor) or plain(value) for value in slots.values())
    for group in state["param_groups"]:
        for value in group.values():
            assert plain(value) or (isinstance(value, list | tuple) and all(map(plain, value)))
            numbers = value if isinstance(value, list | tuple) else [value]
            assert all(math.isfinite(n) for n in numbers if isinstance(n, float))  # JSON has no NaN


@every_optimizer
def test_a_saved_state_goes_on_to_the_bit(name):
    """Also where the groups went through JSON, which makes lists of tuples."""
    straight = net()
    optimizer = build(straight, name, weight_decay=0.1)
    training_weights(optimizer)
    train(straight, optimizer, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"] = json.loads(json.dumps(saved["param_groups"]))
    resumed = net(seed=1)
    resumed.load_state_dict(straight.state_dict())
    fresh = build(resumed, name, weight_decay=0.1)
    fresh.load_state_dict(saved)
    training_weights(fresh)
    assert equal(straight, resumed)
    train(straight, optimizer, 3, start=3)
    train(resumed, fresh, 3, start=3)
    assert equal(straight, resumed)


@every_optimizer
def test_another_models_state_is_refused(name):
    model = nn.Sequential(nn.Linear(3, 3))
    state = build(net(), name, weight_decay=0.1).state_dict()
    with pytest.raises(ValueError, match="group"):
        build(model, name, weight_decay=0.0).load_state_dict(state)


@every_optimizer
def test_a_state_does_not_bring_its_implementation(name):
    """One saved on a device with other kernels, or by a torch with other defaults, loads as well."""
    model = net()
    optimizer = build(model, name)
    training_weights(optimizer)
    own = [(group.get("fused"), group.get("foreach")) for group in optimizer.param_groups]
    train(model, optimizer, 2)
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group.update({key: "elsewhere" for key in ("fused", "foreach") if key in group})
    fresh = build(model, name)
    fresh.load_state_dict(state)
    assert [(group.get("fused"), group.get("foreach")) for group in fresh.param_groups] == own
    train(model, fresh, 1)


REFERENCES = {
    "sgd": (
        {"lr": 0.1, "momentum": 0.8, "nesterov": True},
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True, weight_decay=0.1),
    ),
    "adam": (
        {"lr": 0.01, "betas": [0.8, 0.95], "amsgrad": True},
        lambda p: torch.optim.Adam(p, 0.01, betas=(0.8, 0.95), amsgrad=True, weight_decay=0.1),
    ),
    "adamw": (
        {"lr": 0.01, "betas": [0.8, 0.95]},
        lambda p: torch.optim.AdamW(p, 0.01, betas=(0.8, 0.95), weight_decay=0.1),
    ),
    "nadam": (
        {"lr": 0.01, "momentum_decay": 0.01},
        lambda p: torch.optim.NAdam(
            p, 0.01, momentum_decay=0.01, weight_decay=0.1, decoupled_weight_decay=True
        ),
    ),
    "radam": (
        {"lr": 0.01, "decoupled_weight_decay": False},
        lambda p: torch.optim.RAdam(p, 0.01, weight_decay=0.1),
    ),
    "rmsprop": (
        {"lr": 0.001, "alpha": 0.9, "momentum": 0.5, "centered": True},
        lambda p: torch.optim.RMSprop(p, 1e-3, alpha=0.9, momentum=0.5, centered=True, weight_decay=0.1),
    ),
    "adagrad": (
        {"lr": 0.05, "lr_decay": 0.01, "initial_accumulator_value": 0.1},
        lambda p: torch.optim.Adagrad(
            p, 0.05, lr_decay=0.01, initial_accumulator_value=0.1, weight_decay=0.1
        ),
    ),
    "schedule_free_adamw": (
        {"lr": 0.01, "betas": [0.95, 0.99]},
        lambda p: schedulefree.AdamWScheduleFree(
            p, 0.01, betas=(0.95, 0.99), weight_decay=0.1, foreach=False
        ),
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_updates_are_the_packages_own(name):
    """On a model where all is decayed, and that is one tensor after another there."""
    options, reference = REFERENCES[name]
    ours, theirs = nn.Linear(6, 4, bias=False).double(), nn.Linear(6, 4, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    mine, other = build(ours, name, weight_decay=0.1, **options), reference(theirs.parameters())
    for optimizer in (mine, other):
        training_weights(optimizer)
    for step in range(8):
        inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(step)).double()
        for model, optimizer in ((ours, mine), (theirs, other)):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-9, atol=1e-12)


def names_in(model, parameters):
    chosen = {id(p) for p in parameters}
    return {name for name, p in model.named_parameters() if id(p) in chosen}


def test_only_matrices_and_kernels_decay():
    model = net()
    decayed, spared = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert names_in(model, decayed["params"]) == {
        "patch_embedding.weight",
        "mix.weight",
        "recurrent.weight_ih_l0",
        "recurrent.weight_hh_l0",
        "recurrent.weight_ih_l0_reverse",
        "recurrent.weight_hh_l0_reverse",
        "hidden.weight",
        "head.weight",
    }


def test_groups_without_parameters_are_dropped():
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1
    assert len(parameter_groups(nn.LayerNorm(3), 0.1)) == 1
    assert len(parameter_groups(nn.Linear(2, 2), 0.0)) == 1


def test_shared_parameters_count_once():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    model[1].weight = model[0].weight
    groups = parameter_groups(model, 0.1)
    assert [len(group["params"]) for group in groups] == [2]  # the table, which is spared, and the bias
    assert groups[0]["weight_decay"] == 0.0


def test_a_model_without_anything_to_train_is_refused():
    with pytest.raises(ConfigError, match="no trainable parameter"):
        parameter_groups(nn.Flatten(), 0.1)


def test_weight_decay_reaches_the_decayed_only():
    model = net()
    before = dict(zip(dict(model.named_parameters()), weights(model), strict=True))
    optimizer = build(model, "adamw", lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed = names_in(model, parameter_groups(model, 0.5)[0]["params"])
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (0.95 if name in decayed else 1.0))


def test_muon_takes_hidden_matrices():
    model = net()
    assert names_in(model, hidden_matrices(model)) == {
        "patch_embedding.weight",
        "recurrent.weight_ih_l0",
        "recurrent.weight_hh_l0",
        "recurrent.weight_ih_l0_reverse",
        "recurrent.weight_hh_l0_reverse",
        "hidden.weight",
    }


class Body(nn.Module):
    def __init__(self, **parts) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.head = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"layers": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))}, {"layers.1.weight"}),
        (
            {"cell": nn.LSTM(3, 3, bidirectional=True)},
            {"cell.weight_hh_l0", "cell.weight_hh_l0_reverse"},
        ),
        (
            {
                "cls_token": nn.Parameter(torch.zeros(1, 3)),
                "patch": nn.Linear(3, 3),
                "next": nn.Linear(3, 3),
            },
            {"next.weight"},
        ),
        ({"convolution": nn.Conv2d(3, 3, 3), "hidden": nn.Linear(3, 3)}, {"hidden.weight"}),
        ({"embedding": nn.Embedding(3, 3), "hidden": nn.Linear(3, 3)}, {"hidden.weight"}),
        (
            {"attention": nn.MultiheadAttention(3, 1)},
            {"attention.out_proj.weight"},  # its first matrix reads the inputs here
        ),
        ({"only": nn.Linear(3, 3)}, set()),
        ({}, set()),
    ],
)
def test_muon_leaves_out_the_first_layer_and_the_head(parts, expected):
    model = Body(**parts)
    assert names_in(model, hidden_matrices(model)) == expected


def test_muon_is_torchs_muon_beside_adamw():
    ours, theirs = net(), net()
    joined = build(ours, "muon", lr=0.02, adamw_lr=0.003, weight_decay=0.1, momentum=0.9)
    hidden = hidden_matrices(theirs)
    muon = torch.optim.Muon(
        hidden, lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    taken = {id(p) for p in hidden}
    rest = [
        {**group, "params": [p for p in group["params"] if id(p) not in taken]}
        for group in parameter_groups(theirs, 0.1)
    ]
    adamw = torch.optim.AdamW(rest, lr=0.003, fused=True)
    train(ours, joined, 4)
    for step in range(4):
        tokens = torch.randint(9, (16, 4), generator=torch.Generator().manual_seed(step))
        theirs.zero_grad()
        nn.functional.cross_entropy(theirs(tokens), tokens[:, 0] % 3).backward()
        muon.step()
        adamw.step()
    assert equal(ours, theirs)


def test_muon_without_hidden_matrices_is_adamw():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Flatten())
    second = copy.deepcopy(first)
    for model, name in ((first, "muon"), (second, "adamw")):
        optimizer = build(model, name, lr=0.01, weight_decay=0.1)
        for step in range(3):
            optimizer.zero_grad()
            inputs = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(step))
            model(inputs).square().sum().backward()
            optimizer.step()
    assert equal(first, second)


def test_muons_two_learning_rates_follow_one_schedule():
    optimizer = build(net(), "muon", lr=0.02, adamw_lr=0.003, weight_decay=0.1)
    for factor in (0.5, 0.1):
        apply(optimizer, factor)
        rates = {group["lr"] for group in optimizer.param_groups}
        assert rates == {0.02 * factor, 0.003 * factor}
    before = weights(model := net())
    frozen = build(model, "muon", weight_decay=0.1)
    apply(frozen, 0.0)
    train(model, frozen, 1)
    after = [p.detach() for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_muons_rates_reach_the_update_after_loading():
    """Loading makes new groups: the parts have to work on those."""
    model = net()
    optimizer = build(model, "muon", weight_decay=0.1)
    train(model, optimizer, 1)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    apply(optimizer, 0.0)
    before = weights(model)
    train(model, optimizer, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


def test_schedule_free_keeps_two_sets_of_weights():
    model = net()
    optimizer = build(model, "schedule_free_adamw", lr=0.05)
    training_weights(optimizer)
    train(model, optimizer, 5)
    trained = weights(model)
    evaluation_weights(optimizer)
    average = weights(model)
    assert not torch.equal(trained[0], average[0])
    with pytest.raises(Exception, match="train mode"):
        train(model, optimizer, 1)
    training_weights(optimizer)
    for before, after in zip(trained, weights(model), strict=True):
        torch.testing.assert_close(before, after)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_switching_does_nothing_where_there_is_one_set(name):
    model = net()
    optimizer = build(model, name)
    train(model, optimizer, 1)
    before = weights(model)
    evaluation_weights(optimizer)
    training_weights(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        *(
            (name, {"lr": 0.0}, "optimizer.lr=0.0: should be greater than 0")
            for name in optimizers.names()
        ),
        *((name, {"lr": math.nan}, "finite") for name in optimizers.names()),
        *((name, {"weight_decay": -0.1}, "equal to 0") for name in optimizers.names()),
        ("adamw", {"weight_decay": math.inf}, "finite"),
        ("adamw", {"betas": [0.9, 1.0]}, "optimizer.betas.1=1.0: should be less than 1"),
        ("adamw", {"betas": [0.9]}, "at least 2 items"),
        ("adamw", {"eps": 0.0}, "greater than 0"),
        ("adamw", {"learning_rate": 0.1}, "optimizer.learning_rate: no such setting"),
        ("sgd", {"momentum": 0.0, "nesterov": True}, "needs optimizer.momentum above 0"),
        ("sgd", {"momentum": 1.0}, "less than 1"),
        ("muon", {"ns_steps": 0}, "greater than or equal to 1"),
        ("muon", {"adamw_lr": 0.0}, "greater than 0"),
        ("schedule_free_adamw", {"betas": [0.0, 0.9]}, "the first must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(name, options, words):
    with pytest.raises(ConfigError, match=words):
        optimizers.parse({"name": name, **options})


def test_a_plugin_finds_the_types_of_options_where_it_always_did() -> None:
    from bigmodel.optimizers import base
    from bigmodel.schedulers.base import INTERVAL

    class OwnConfig(base.OptimizerConfig):
        betas: base.Betas
        momentum: base.Decay = 0.9

    assert OwnConfig(name="own", betas=[0.9, 0.999]).betas == [0.9, 0.999]
    assert torch.nn.Linear in base.MATRICES
    assert torch.nn.LayerNorm in base.NORMS
    assert "each optimizer step" in INTERVAL


def test_adamw_s_decay_goes_by_the_rows_of_a_table_and_the_length_of_the_run() -> None:
    config = optimizers.parse({"name": "adamw", "lr": 0.002})

    def decay(*run: Any) -> Any:
        return config.decided(*run).weight_decay

    assert decay(1000, 300) == pytest.approx(20 / 2)
    assert decay(4000, 300) == pytest.approx(20 / 8), "as many spans in a longer run"
    assert decay(10, 300) == decay(1000, 300), "no more in a shorter one"
    slow = optimizers.parse({"name": "adamw", "lr": 1e-5})
    assert slow.decided(1000, 300).weight_decay == 10, "nor at a lower rate: it would bound the weights"
    assert decay(1000, 1200) == pytest.approx(20 / 2 / 3), "more rows need less"
    assert decay(90_000, 1_000_000) == decay(1000, None) == decay() == 0.01
    given = optimizers.parse({"name": "adamw", "weight_decay": 0.3})
    assert given.decided(1000, 300).weight_decay == 0.3
    groups = optimizers.build(config, nn.Linear(3, 2)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
