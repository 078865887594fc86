"""Metrics of the user's own, written as people write them: used rightly, or refused in one message."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel import registry
from bigmodel.errors import BigModelError
from bigmodel.metrics.base import SumMetric, WholeMetric
from bigmodel.registry import EntryConfig
from bigmodel.spec import Classes, Flags, NextTokens, Values
from bigmodel.training.loop import fit
from tests.small_runs import built

EVERY = (Classes, Flags, Values, NextTokens)
Own = Callable[[Any], dict[str, Any]]


@pytest.fixture
def own() -> Iterator[Own]:
    """Registers a metric as a plugin does, and gives the setting that chooses it."""

    def register(factory: Any) -> dict[str, Any]:
        registry.metrics.register("my_own", EntryConfig)(factory)
        return {"metrics": ["my_own"]}

    yield register
    registry.metrics._entries.pop("my_own", None)


class Hits(SumMetric):
    accepts = EVERY
    directions = {"hit_rate": "max"}  # noqa: RUF012

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        right = outputs.argmax(-1) == targets
        return torch.stack([right.sum(), torch.ones_like(right).sum()])

    def compute(self, sums: Tensor) -> Any:
        return sums[0] / sums[1]


class Spread(WholeMetric):
    accepts = EVERY
    directions = {"spread": "min", "worst": "min"}  # noqa: RUF012

    def compute(self, outputs: Tensor, targets: Tensor) -> Any:
        right = outputs.gather(1, targets[:, None])
        return {"spread": -right.mean(), "worst": -right.min()}


@pytest.mark.parametrize(("metric", "name"), [(Hits, "hit_rate"), (Spread, "worst")])
def test_one_that_keeps_the_contract_is_recorded(
    tmp_path: Path, own: Own, metric: Any, name: str
) -> None:
    run, recorder = built(tmp_path, own(metric))
    assert not any(label == "Warning" for label, _ in run.info.rows)
    fit(run)
    values = [record[f"val/{name}"] for record in recorder.records]
    assert all(map(math.isfinite, values))
    if name == "hit_rate":
        assert values == pytest.approx([record["val/accuracy"] for record in recorder.records])


class Failing(Hits):
    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs @ targets.float()


class Averaging(Hits):
    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(-1) == targets).double().mean()[None].repeat(2)


class Number(Hits):
    def sums(self, outputs: Tensor, targets: Tensor) -> Any:
        return (outputs.argmax(-1) == targets).sum().item()

    def compute(self, sums: Any) -> Any:
        return sums


class EachSample(Hits):
    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.argmax(-1) == targets

    def compute(self, sums: Tensor) -> Any:
        return sums.double().mean()


class OtherName(Hits):
    def compute(self, sums: Tensor) -> Any:
        return {"accuracy_of_mine": sums[0] / sums[1]}


class Several(Hits):
    def compute(self, sums: Tensor) -> Any:
        return sums


class Undefined(Hits):
    def compute(self, sums: Tensor) -> Any:
        return sums[0] / (sums[1] - sums[0]) if sums[0] < sums[1] else math.nan


class InOrder(Spread):
    def compute(self, outputs: Tensor, targets: Tensor) -> Any:
        right = outputs.gather(1, targets[:, None])
        return {"spread": (right[1:] - right[:-1]).abs().mean(), "worst": 0.0}


class InPlace(Spread):
    def compute(self, outputs: Tensor, targets: Tensor) -> Any:
        return {"spread": outputs.sub_(targets[:, None]).mean(), "worst": 0.0}


class NoWay(Hits):
    directions = {"hit_rate": "up"}  # noqa: RUF012


class NoFigure(Hits):
    directions = {}  # noqa: RUF012


class Taken(Hits):
    directions = {"accuracy": "max"}  # noqa: RUF012


class OfValues(Hits):
    accepts = (Values,)


class Plain:
    def __init__(self, config: Any, target: Any) -> None: ...


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (Failing, "metrics=[my_own]: it fails: RuntimeError"),
        (Averaging, "is not the sum of what it returns of two parts of it"),
        (Number, "sums returned a int. It returns a tensor"),
        (EachSample, "the shape of what sums returns depends on the batch ((24,), (8,), (16,))"),
        (OtherName, "It returns a number for each name in `directions`, by name: hit_rate."),
        (Several, "compute returned a Tensor"),
        (Undefined, "hit_rate is NaN for a perfect prediction"),
        (InOrder, "of the same in another order"),
        (InPlace, "it changes its outputs or targets in place"),
        (NoWay, "directions={'hit_rate': 'up'} should hold"),
        (NoFigure, "directions={} should hold"),
        (Taken, "its figure 'accuracy' is that of every evaluation, too"),
        (OfValues, "needs real values, and the target is 3 classes"),
        (Plain, "it is a Plain. A metric derives from SumMetric or WholeMetric"),
    ],
)
def test_one_that_breaks_the_contract_is_refused(
    tmp_path: Path, own: Own, metric: Any, said: str
) -> None:
    with pytest.raises(BigModelError) as error:
        built(tmp_path, own(metric))
    assert said in str(error.value)
    assert "metrics=[my_own]" in str(error.value)


def test_one_that_prefers_chance_is_warned_of(tmp_path: Path, own: Own) -> None:
    class Backwards(Hits):
        directions = {"hit_rate": "min"}  # noqa: RUF012

    run, _ = built(tmp_path, own(Backwards))
    (warning,) = [text for label, text in run.info.rows if label == "Warning"]
    assert "hit_rate is 1 for a perfect prediction" in warning
    assert "says that lower is better" in warning


@pytest.mark.parametrize("target", ["values", "flags"])
def test_it_is_tried_on_its_own_kind_of_target(tmp_path: Path, own: Own, target: str) -> None:
    class Near(SumMetric):
        accepts = (Values, Flags)
        directions = {"near": "max"}  # noqa: RUF012

        def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
            near = (
                (outputs - targets).abs() < 0.5
                if target == "values"
                else (outputs > 0) == targets.bool()
            )
            return torch.stack([near.sum(), torch.ones_like(near).sum()])

        def compute(self, sums: Tensor) -> Any:
            return float(sums[0] / sums[1])

    run, _ = built(tmp_path, own(Near) | {"data.target": target, "data.outputs": 2})
    assert "near" in run.chosen_metrics.directions
