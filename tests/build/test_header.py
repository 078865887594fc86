"""What a run says of itself before it begins."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bigmodel.build.header import describe_loss
from bigmodel.spec import Classes, Values
from tests.small_runs import built


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (Classes(("a", "b"), (1, 1)), "mse"),
        (
            Values(("y",), (0.0,), (77.25,)),
            "mse, of the target in units of its standard deviation, 77.25",
        ),
        (
            Values(("y",), (0.0,), (136_812.3,)),
            "mse, of the target in units of its standard deviation, 136,812",
        ),
        (
            Values(("x", "y"), (0.0, 0.0), (1.0, 2.0)),
            "mse, of the targets, each in units of its standard deviation",
        ),
    ],
)
def test_a_loss_says_what_unit_it_is_in(target: Any, told: str) -> None:
    loss: Any = SimpleNamespace(described="mse")
    assert describe_loss(loss, target) == told


def test_a_decay_that_goes_by_the_data_is_told(tmp_path: Path) -> None:
    """Of 64 rows, in 1,000 steps."""
    settings = {"optimizer.lr": 0.01, "trainer.max_steps": 1000}
    assert "weight decay 2," in dict(built(tmp_path, settings)[0].info.rows)["Optimizer"]
    pictures = settings | {"data.input": "image", "data.shape": [1, 4, 4]}
    run = built(tmp_path, pictures)[0]
    assert "decay" not in dict(run.info.rows)["Optimizer"]
    assert run.state.optimizer.param_groups[0]["weight_decay"] == 0.01
    given = built(tmp_path, settings | {"optimizer.weight_decay": 0.3})[0]
    assert given.state.optimizer.param_groups[0]["weight_decay"] == 0.3
    for unknown in ({"optimizer.lr": "auto"}, {"trainer.limit": {"train": 2}}):
        run = built(tmp_path, unknown)[0]
        assert run.state.optimizer.param_groups[0]["weight_decay"] == 0.01
