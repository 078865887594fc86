"""What a search may set and optimize, and what cannot be searched."""

from __future__ import annotations

from typing import Any

import pytest

from bigmodel.errors import ConfigError, MissingPackageError
from bigmodel.sweeps.config import SearchConfig
from bigmodel.sweeps.search_space import Choices, Objective, Range, Space, check, objectives

pytest.importorskip("optuna")

LR, MODEL = Range(1e-4, 1.0, log=True), Choices(("fnn", "cnn"))
SPACE: Space = {"optimizer.lr": LR, "size": Range(4, 64), "model": MODEL}


@pytest.mark.parametrize(
    ("settings", "space", "message"),
    [
        ({}, {}, "there is nothing to search"),
        ({"sampler": "grid"}, {"optimizer.lr": LR}, "optimizer.lr is an interval"),
        ({"sampler": "cmaes"}, {"optimizer.lr": LR, "model": MODEL}, r"here: optimizer\.lr\)"),
        ({"pruner": "median", "metrics": ["val/loss", "seconds"]}, SPACE, "Use sweep.pruner=none"),
        ({"pruner": "median", "metrics": ["seconds"]}, SPACE, "not by seconds"),
        ({"seeds": 3}, SPACE, "sweep.seeds=3: is for a sweep over lists"),
    ],
)
def test_a_search_that_cannot_be_done_is_refused(settings: Any, space: Space, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(SearchConfig(**settings), space)


def test_a_missing_package_is_named_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'bigmodel-train\[sweeps\]'"):
        check(SearchConfig(), SPACE)


def test_metrics_and_their_directions() -> None:
    modes = {"val/loss": "min", "val/accuracy": "max"}
    assert objectives(SearchConfig(), "val/accuracy", modes) == [Objective("val/accuracy", "max")]
    several = objectives(SearchConfig(metrics=["val/loss", "seconds"]), "val/accuracy", modes)
    assert several == [Objective("val/loss", "min"), Objective("seconds", "min")]
    with pytest.raises(ConfigError, match=r"no such metric\. Did you mean 'val/accuracy'"):
        objectives(SearchConfig(metrics=["val/acuracy"]), "val/accuracy", modes)
