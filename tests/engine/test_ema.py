import torch
from torch import nn

from bigmodel.engine.ema import EMA


def test_follows_the_formula_with_warm_up() -> None:
    model = nn.Linear(2, 1)
    ema = EMA(model, decay=0.5)
    expected = model.weight.detach().clone()
    for update in range(1, 30):
        with torch.no_grad():
            model.weight += torch.randn_like(model.weight)
        ema.update()
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(ema.weights["weight"], expected)


def test_buffers_come_along() -> None:
    model = nn.BatchNorm1d(3)
    ema = EMA(model, decay=0.9)
    for _ in range(3):
        model(torch.randn(8, 3) + 5)
        ema.update()
    assert ema.weights["num_batches_tracked"] == 3
    assert (ema.weights["running_mean"] > 0).all()


def test_its_tensors_are_its_own() -> None:
    model = nn.Linear(2, 1)
    ema = EMA(model, decay=0.9)
    before = ema.weights["weight"].clone()
    with torch.no_grad():
        model.weight += 1
    assert torch.equal(ema.weights["weight"], before)


def test_frozen_weights_have_no_average() -> None:
    model = nn.BatchNorm1d(3)
    model.weight.requires_grad_(False)
    ema = EMA(model, decay=0.9)
    assert ema.weights.keys() == {"bias", "running_mean", "running_var", "num_batches_tracked"}


def test_goes_on_where_it_was() -> None:
    model = nn.Linear(2, 1)
    first, second = EMA(model, decay=0.9), EMA(model, decay=0.9)
    first.update()
    second.load({name: value.clone() for name, value in first.weights.items()}, first.updates)
    with torch.no_grad():
        model.weight += 1
    first.update()
    second.update()
    assert torch.equal(first.weights["weight"], second.weights["weight"])
