"""What a run says of itself before it begins."""

from types import SimpleNamespace
from typing import Any

import pytest

from bigmodel.build.header import describe_loss
from bigmodel.spec import Classes, Values


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
