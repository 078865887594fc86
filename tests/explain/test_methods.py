"""Which method there is for which run."""

import pytest

from bigmodel.errors import ConfigError
from bigmodel.explain.methods import method_named
from bigmodel.explain.names import default_method
from tests.models.cases import NEXT, TARGETS, spec


def test_a_method_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"--method integrate_gradient: no such method\. Did you mean"):
        method_named("integrate_gradient", spec("features"))


def test_a_method_for_other_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--method integrated_gradients: .* it is not for pairs of"):
        method_named("integrated_gradients", spec("pair", "next"))


def test_tables_are_summarised_by_shuffling() -> None:
    table, picture = (spec(kind).input for kind in ("categories", "image"))
    assert default_method(table, TARGETS["values"], summary=True) == "permutation"
    assert default_method(table, TARGETS["values"], summary=False) == "integrated_gradients"
    assert default_method(picture, NEXT, summary=True) == "integrated_gradients"
