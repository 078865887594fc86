"""Torch's optimizers without its compiler do the same, and with it too."""

import subprocess
import sys

import pytest
import torch

from bigmodel.optim.optimizers.light import kind_of, light

COMPARED = """
import copy, sys, warnings
import torch
from torch import nn

from bigmodel.optim import optimizers as package
from bigmodel.optim.optimizers import adaptive, muon, schedule_free, sgd, training_weights
from bigmodel.registry import optimizers

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))

def steps(network, optimizer, count):
    training_weights(optimizer)
    for number in range(count):
        optimizer.zero_grad()
        inputs = torch.linspace(-1, 1, 20).reshape(5, 4) + number
        network(inputs).square().sum().backward()
        optimizer.step()

def trained(name, before=None):
    network = model()
    optimizer = optimizers.build(optimizers.parse({"name": name}), network)
    steps(network, optimizer, 3)
    state = copy.deepcopy(optimizer.state_dict())
    optimizer = optimizers.build(optimizers.parse({"name": name}), network)
    optimizer.load_state_dict(state)
    steps(network, optimizer, 3)
    return network, optimizer

def same(one, other):
    for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True):
        assert torch.equal(a, b), (a - b).abs().max()
    mine, plain = one[1].state_dict(), other[1].state_dict()
    assert mine["param_groups"] == plain["param_groups"]
    assert mine["state"].keys() == plain["state"].keys()
    for key, values in mine["state"].items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(plain["state"][key][name])), name

ours = {name: trained(name) for name in optimizers.names()}
assert len(ours) >= 9
assert "torch._dynamo" not in sys.modules
for module in (adaptive, muon, schedule_free, sgd):
    module.light = lambda kind: kind
torchs = {name: trained(name) for name in ours}
assert "torch._dynamo" in sys.modules  # or there was nothing to compare with
for name in ours:
    same(ours[name], torchs[name])
    for network, optimizer in (ours[name], torchs[name]):
        compiled = torch.compile(network, backend="eager", dynamic=False)
        torch.compiler.reset()
        steps(compiled, optimizer, 2)
    same(ours[name], torchs[name])
print("compared", len(ours))
"""


def test_the_same_numbers_before_and_after_the_compiler_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPARED], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("compared ")


@pytest.mark.parametrize("before", [False, True], ids=["first", "after another"])
def test_hooks_are_called_once(before: bool) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    if before:  # torch has put its hooks into the class then
        torch.optim.SGD([weight], lr=0.1)
    optimizer = light(torch.optim.SGD)([weight], lr=0.1)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    weight.grad = torch.ones(3)
    optimizer.step()
    assert calls == ["before", "after"]
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.9))
    assert type(optimizer).__name__ == "SGD"
    assert isinstance(optimizer, torch.optim.SGD)
    assert kind_of(optimizer) is torch.optim.SGD
    assert kind_of(torch.optim.SGD([weight], lr=0.1)) is torch.optim.SGD


def test_a_closure_has_gradients() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = light(torch.optim.SGD)([weight], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.9))


def test_what_looks_otherwise_is_left_alone() -> None:
    class Own(torch.optim.Optimizer):
        def __init__(self) -> None:
            pass

        def add_param_group(self, group: object) -> None:
            """No wrapper, as all that follows."""

        def zero_grad(self, set_to_none: bool = True) -> None:
            pass

        def state_dict(self) -> dict:
            return {}

        def load_state_dict(self, state: dict) -> None:
            pass

        def step(self, closure: object = None) -> None:
            pass

    assert light(Own) is Own
