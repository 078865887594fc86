import inspect

import pytest

from bigmodel import errors
from bigmodel.errors import BigModelError, ConfigError, DeviceError, SpecError, did_you_mean


def test_whatever_a_user_can_cause_is_caught_by_one_name() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    found = [kind for kind in kinds if kind.__module__ == errors.__name__]
    assert len(found) >= 7
    assert all(issubclass(kind, BigModelError) for kind in found)
    assert not issubclass(BigModelError, ValueError | RuntimeError)  # torch's own are no user's mistake


@pytest.mark.parametrize("kind", [SpecError, DeviceError])
def test_parts_that_do_not_fit_are_a_mistake_in_the_configuration(kind: type[Exception]) -> None:
    assert issubclass(kind, ConfigError)


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("transfomer", ["fnn", "transformer", "trainer"], "transformer"),
        ("epoch", ["model.depth", "trainer.epochs"], None),  # near no whole key, and no last part
        ("epochs", ["model.depth", "trainer.epochs"], "trainer.epochs"),
        ("model.lr", ["optimizer.lr", "seed"], "optimizer.lr"),
        ("dropout", ["model.dropout", "model.embed.dropout"], "model.dropout"),
        ("", ["fnn"], None),
        ("fnn", [], None),
    ],
)
def test_the_nearest_choice_is_named(name: str, choices: list[str], expected: str | None) -> None:
    assert did_you_mean(name, choices) == (f" Did you mean '{expected}'?" if expected else "")


def test_choices_need_not_be_words() -> None:
    assert did_you_mean("100", [10, 1000, 7]) == " Did you mean '1000'?"
