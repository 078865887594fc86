"""Learning rates that differ between the parts of a model."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from bigmodel.errors import ConfigError, SpecError
from bigmodel.model_parts import layer_numbers, selected
from bigmodel.optim.rates_config import RatesConfig

Groups = list[dict[str, Any]]


def rate_factors(model: nn.Module, config: RatesConfig) -> dict[nn.Parameter, float]:
    """The factor of each parameter's learning rate.

    With a `layer_decay` of d, the rate of block i of n is multiplied by d^(n + 1 - i), that of
    embeddings by d^(n + 1) (BEiT, Bao et al. 2021, arXiv:2106.08254). `rates` are multiplied with that.

    Raises:
        ConfigError: the model has no stack of blocks for `layer_decay`, or no part of a name.
    """
    parameters = dict(model.named_parameters())
    factors = dict.fromkeys(parameters, 1.0)
    if config.layer_decay != 1:
        numbers = layer_numbers(model)
        if not numbers:
            raise ConfigError(
                f"optimizer.layer_decay={config.layer_decay:g}: this model is no stack of equal blocks."
                " Use optimizer.rates, which names parts, or leave it out."
            )
        top = max(numbers.values())
        factors = {name: config.layer_decay ** (top - number) for name, number in numbers.items()}
    own: dict[str, float] = {}
    for pattern, names in selected(model, config.rates, "optimizer.rates").items():
        own |= dict.fromkeys(names, config.rates[pattern])
    return {parameters[name]: factor * own.get(name, 1.0) for name, factor in factors.items()}


def scale_rates(optimizer: Optimizer, model: nn.Module, config: RatesConfig) -> None:
    """Splits an optimizer's parameter groups into those of one learning rate each.

    Schedules multiply the rate of each group. Those with the optimizer's own rate come first, since
    reports show the rate of the first.

    Args:
        optimizer: any, before its first update.

    Raises:
        ConfigError: see `rate_factors`.
        SpecError: the optimizer, which is a user's own, has groups without a learning rate.
    """
    if config == RatesConfig():
        return
    from bigmodel.optim.optimizers.muon import Joined  # only what a run uses is imported

    factors = rate_factors(model, config)

    def split(groups: Groups) -> Groups:
        parts = [part for group in groups for part in _split(group, factors)]
        return [group for _, group in sorted(parts, key=lambda part: part[0] != 1)]

    if isinstance(optimizer, Joined):
        optimizer.regroup(split)
    else:
        optimizer.param_groups[:] = split(optimizer.param_groups)


def _split(
    group: dict[str, Any], factors: dict[nn.Parameter, float]
) -> list[tuple[float, dict[str, Any]]]:
    """A group as several of one factor each, with the factors."""
    if "lr" not in group:
        raise SpecError(
            "optimizer.layer_decay and optimizer.rates need param_groups with an 'lr', which this"
            " optimizer has not. Leave them out."
        )
    by_factor: dict[float, list[nn.Parameter]] = {}
    for parameter in group["params"]:
        by_factor.setdefault(factors.get(parameter, 1.0), []).append(parameter)
    return [
        (factor, group | {"params": parameters, "lr": group["lr"] * factor})
        for factor, parameters in by_factor.items()
    ]
