"""Evaluation mode for a while."""

import contextlib

from torch import nn

from bigmodel.models.base import eval_mode


def test_eval_mode_restores_the_mode_of_each_module() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    before = [module.training for module in model.modules()]
    with contextlib.suppress(KeyError), eval_mode(model):
        assert not any(module.training for module in model.modules())
        {}["an error inside"]
    assert [module.training for module in model.modules()] == before == [True, True, False, False]
