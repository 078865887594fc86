"""What all optimizers share: parameter groups, implementations, training and evaluation weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from bigmodel.errors import ConfigError
from bigmodel.registry import EntryConfig
from bigmodel.runtime import torch_internals

OptimizerT = TypeVar("OptimizerT", bound=Optimizer)

Decay = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[list[Decay], Field(min_length=2, max_length=2)]


class OptimizerConfig(EntryConfig):
    """Options of all optimizers."""

    lr: float = Field(
        1e-3, gt=0, description="learning rate, which the scheduler multiplies; auto: by a range test"
    )
    weight_decay: float = Field(0.0, ge=0, description="pull to 0; spares biases, norms, embeddings")


NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
MATRICES = (nn.Linear, *_RECURRENT, nn.MultiheadAttention, *torch_internals.convolution_kinds())
_LOOKED_UP = re.compile(r"position|embed|token", re.IGNORECASE)


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Each trainable parameter once, with its dotted name and the module that holds it.

    A parameter that several modules share belongs to the first of them.
    """
    seen: set[nn.Parameter] = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield f"{path}.{name}" if path else name, module, parameter


def decays(name: str, owner: nn.Module, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies to this parameter: to matrices and kernels only.

    It spares biases and everything else with one dimension, parameters of norms, and vectors that are
    looked up rather than multiplied with: embedding tables, positions, class tokens. These are known by
    their module or, outside layers such as Linear and Conv, by `position`, `embed` or `token` in their
    name.
    """
    if parameter.ndim < 2 or "bias" in name.rsplit(".", 1)[-1]:
        return False
    if isinstance(owner, (*NORMS, nn.Embedding, nn.EmbeddingBag)):
        return False
    return isinstance(owner, MATRICES) or not _LOOKED_UP.search(name)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in an optimizer's groups: those that decay, then those that do not.

    Without weight decay they are one group, which saves a kernel launch in each update.

    Raises:
        ConfigError: the model has no trainable parameter.
    """
    everything = list(trainable(model))
    if not everything:
        raise ConfigError("model: it has no trainable parameter, so there is nothing to optimize.")
    if weight_decay == 0:
        return [{"params": [p for _, _, p in everything], "weight_decay": 0.0}]
    decayed = [p for name, owner, p in everything if decays(name, owner, p)]
    spared = [p for name, owner, p in everything if not decays(name, owner, p)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def fused(model: nn.Module, *devices: str) -> dict[str, Any]:
    """`{"fused": True}` if the model lies on one of `devices`, for which torch has a fused kernel.

    A fused update is one kernel instead of a dozen. On a CPU that makes Adam twice as fast with ten
    thousand parameters and four times with a million; on CUDA it also avoids a wait for the device when
    fp16's gradient scaling skips a step. Otherwise torch chooses: foreach on CUDA, one tensor after
    another on a CPU, where foreach gains little.
    """
    used = {parameter.device.type for parameter in model.parameters()}
    return {"fused": True} if used <= set(devices) else {}


def torch_options(config: OptimizerConfig) -> dict[str, Any]:
    """The options of a config whose keys are those of torch's optimizer, without the weight decay, which
    belongs to the parameter groups."""
    options = config.model_dump(exclude={"name", "weight_decay"})
    return options | ({"betas": tuple(options["betas"])} if "betas" in options else {})


def portable(optimizer: OptimizerT) -> OptimizerT:
    """Makes the optimizer keep its own implementation when it loads a state saved on another device.

    Torch saves `fused` and `foreach` with the state, and would use them where they do not exist.
    """
    optimizer.register_load_state_dict_pre_hook(_own_implementation)
    return optimizer


def build(
    kind: Callable[..., OptimizerT], config: OptimizerConfig, model: nn.Module, *fused_on: str
) -> OptimizerT:
    """An optimizer of torch's over all trainable parameters, with the options of a config.

    Args:
        kind: the optimizer's class, whose arguments the config's keys are.
        fused_on: devices for which it has a fused kernel; see `fused`.

    Raises:
        ConfigError: the model has no trainable parameter.
    """
    groups = parameter_groups(model, config.weight_decay)
    return portable(kind(groups, **torch_options(config), **fused(model, *fused_on)))


_STATE_IN_GROUPS = {"params", "k", "train_mode", "weight_sum", "lr_max", "scheduled_lr"}
"""State that optimizers keep in their parameter groups: schedule-free's counters."""


def own_options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The options of each parameter group (learning rate, betas, …), without any state."""
    return [
        {key: value for key, value in group.items() if key not in _STATE_IN_GROUPS}
        for group in optimizer.param_groups
    ]


def _own_implementation(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
    if len(state["param_groups"]) != len(optimizer.param_groups):
        return None  # another model's state: torch raises the error
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
    kept = ("fused", "foreach")
    groups = [saved | {key: own[key] for key in kept if key in own} for saved, own in pairs]
    return state | {"param_groups": groups}


def training_weights(optimizer: Optimizer) -> None:
    """Puts the weights to train into the model, if the optimizer keeps two sets (schedule-free)."""
    switch = getattr(optimizer, "train", None)
    if switch is not None:
        switch()


def evaluation_weights(optimizer: Optimizer) -> None:
    """Puts the weights to evaluate and save into the model, if the optimizer keeps two sets."""
    switch = getattr(optimizer, "eval", None)
    if switch is not None:
        switch()
