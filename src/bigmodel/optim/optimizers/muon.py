"""Muon for hidden matrices and AdamW for the rest, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from bigmodel.optim.optimizers.base import (
    MATRICES,
    Betas,
    OptimizerConfig,
    decays,
    fused,
    parameter_groups,
    portable,
    trainable,
)
from bigmodel.optim.optimizers.light import light
from bigmodel.optim.optimizers.newton_schulz import Muon
from bigmodel.optim.optimizers.quick_adam import quick
from bigmodel.registry import optimizers


class MuonConfig(OptimizerConfig):
    lr: float = Field(
        2e-3, gt=0, description="learning rate, which the scheduler multiplies; auto: by a range test"
    )
    weight_decay: float = Field(0.01, ge=0, description="pull to 0; spares biases, norms, embeddings")
    momentum: float = Field(0.95, ge=0, lt=1, description="share of the mean of gradients kept, 0 to 1")
    nesterov: bool = Field(True, description="look ahead along the momentum")
    ns_steps: int = Field(
        5, ge=1, lt=100, description="Newton-Schulz iterations that orthogonalise an update"
    )
    adjust_lr: Literal["match_rms_adamw", "original"] = Field(
        "match_rms_adamw",
        description="match_rms_adamw: updates as large as AdamW's; original: by the matrix's shape",
    )
    adamw_lr: float | None = Field(None, gt=0, description="learning rate of other weights; null: lr")
    betas: Betas = Field(
        [0.9, 0.999],
        description="decay of AdamW's running averages of gradient and its square, 0 to 1",
    )
    eps: float = Field(1e-8, gt=0, description="added to AdamW's divisor, so that it is never 0")


@optimizers.register("muon", MuonConfig)
def muon(config: MuonConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024) for hidden matrices: momentum orthogonalised by Newton-Schulz steps.

    AdamW updates everything else. With match_rms_adamw (Liu et al. 2025, arXiv:2502.16982) one learning
    rate and weight decay suit both. Layers stored as one matrix are orthogonalised one by one if
    their module says how many `stacked` rows each has, as attention's queries, keys and values do; the
    gates of an LSTM together. A model without a hidden matrix is trained by AdamW alone.
    """
    hidden = hidden_matrices(model)
    parts: list[torch.optim.Optimizer] = []
    if hidden:
        options = config.model_dump(include={"lr", "weight_decay", "momentum", "nesterov", "ns_steps"})
        rows = _stacked_rows(model)
        parts.append(light(Muon)(hidden, rows, adjust_lr_fn=config.adjust_lr, **options))
    others = _without(parameter_groups(model, config.weight_decay), hidden)
    if others:
        adamw = quick(torch.optim.AdamW)
        lr = config.lr if config.adamw_lr is None else config.adamw_lr
        options = {"lr": lr, "betas": tuple(config.betas), "eps": config.eps}
        parts.append(adamw(others, **options, **fused(model, "cpu", "cuda")))
    return portable(light(Joined)(parts))


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices between a model's first layer and its head, in the order of definition.

    They are the two-dimensional weights of Linear, recurrent and attention layers, without those of the
    head and of the first layer. The first layer is the one that holds the model's first weight: an
    embedding, a convolution, a projection of the inputs, or the recurrent matrices that read them.
    Parameters of other modules (positions, tokens, score vectors) do not count as matrices.
    """
    body = [entry for entry in trainable(model) if entry[0].split(".", 1)[0] != "head"]
    first, reader = next(
        ((name, owner) for name, owner, p in body if p.ndim > 1 and not _reads_no_input(name, owner)),
        ("", None),
    )
    return [
        parameter
        for name, owner, parameter in body
        if parameter.ndim == 2
        and isinstance(owner, MATRICES)
        and decays(name, owner, parameter)
        and name != first
        and not (owner is reader and name == f"{first}_reverse")  # a bidirectional layer reads twice
    ]


def _stacked_rows(model: nn.Module) -> dict[nn.Parameter, list[int]]:
    """The rows of each layer in weights that hold several layers."""
    rows: dict[nn.Parameter, list[int]] = {}
    for module in model.modules():
        stacked = getattr(module, "stacked", None)
        if isinstance(module, nn.Linear) and isinstance(stacked, list):
            rows[module.get_parameter("weight")] = stacked
    return rows


def _reads_no_input(name: str, owner: nn.Module) -> bool:
    """Whether a parameter stands for a position or a token, and so reads no inputs."""
    raw = not isinstance(owner, (*MATRICES, nn.Embedding))
    return "position" in name or (raw and "token" in name)


def _without(groups: list[dict[str, Any]], taken: list[nn.Parameter]) -> list[dict[str, Any]]:
    rest = [group | {"params": [p for p in group["params"] if p not in set(taken)]} for group in groups]
    return [group for group in rest if group["params"]]


class Joined(torch.optim.Optimizer):
    """Several optimizers as one, with all parameter groups and one state.

    Args:
        parts: optimizers over different parameters of one model.
    """

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self._parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share_state()
        # Loading creates new groups and a new state.
        self.register_load_state_dict_post_hook(lambda _: self._share_state())

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Does each part's update."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def regroup(self, split: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        """Replaces the groups of each part by what `split` makes of them."""
        for part in self._parts:
            part.param_groups = split(part.param_groups)
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def _share_state(self) -> None:
        """Makes the parts work on this optimizer's groups and state."""
        start = 0
        for part in self._parts:
            end = start + len(part.param_groups)
            part.param_groups = self.param_groups[start:end]
            part.state = self.state
            start = end
