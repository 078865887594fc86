"""The summary counts every parameter once and changes nothing."""

import pytest
import torch
from torch import Tensor, nn

from bigmodel.models.summary import Layer, summarize
from tests.models.cases import INPUTS, build, samples, spec


@pytest.mark.parametrize("name", ["attention", "cnn", "fnn", "rnn", "transformer"])
def test_counts_add_up_to_those_of_the_model(name: str) -> None:
    model = build(name, spec("image"))
    rows = summarize(model, samples(INPUTS["image"]))
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())
    assert len({row.name for row in rows}) == len(rows)
    assert rows[-1].name == "head"
    assert rows[-1].shape == "3"
    assert all(row.shape != "–" for row in rows)


def test_one_sample_is_enough() -> None:
    model = build("fnn", spec("features"))
    seen: list[int] = []
    model.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    summarize(model, samples(INPUTS["features"], 7))
    assert seen == [1]


def test_rows_of_a_small_network() -> None:
    model = build("cnn", spec("image"), channels=[4, 8], pool_after=[])
    assert summarize(model, samples(INPUTS["image"])) == [
        Layer("layers.0.conv", "Conv2d", "4×8×8", 36),
        Layer("layers.0.norm", "BatchNorm", "4×8×8", 8),
        Layer("layers.1.conv", "Conv2d", "8×8×8", 288),
        Layer("layers.1.norm", "BatchNorm", "8×8×8", 16),
        Layer("head", "Linear", "3", 27),
    ]


def test_leaves_mode_gradients_statistics_and_randomness_alone() -> None:
    model = build("cnn", spec("image"), dropout=0.5)
    model.layers[0].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    summarize(model, samples(INPUTS["image"]).detach())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    summarized = torch.get_rng_state()
    torch.set_rng_state(state)
    samples(INPUTS["image"])
    assert torch.equal(torch.get_rng_state(), summarized)


class Shared(nn.Module):
    """One weight used twice, a parameter of its own, a tuple as output, and a part never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones(4))
        self.recurrent = nn.GRU(4, 3, batch_first=True)
        self.idle = nn.Linear(2, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.recurrent(self.second(self.first(inputs)) * self.scale)[0]
        return outputs


def test_shared_own_and_idle_parts() -> None:
    rows = {row.name: row for row in summarize(Shared(), torch.randn(2, 5, 4))}
    assert rows["first"].parameters == 16
    assert rows["second"].parameters == 0
    assert rows["(model)"] == Layer("(model)", "Shared", "5×3", 4)
    assert rows["recurrent"].shape == "5×3"
    assert rows["idle"].shape == "–"


def test_hooks_go_also_when_the_model_fails() -> None:
    model = build("fnn", spec("features"))
    with pytest.raises(RuntimeError):
        summarize(model, torch.randn(2, 9))
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training
