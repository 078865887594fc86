"""How a state is saved: plain names, tensors by name, and facts that JSON can hold.

This module converts between those and live objects, and upgrades older schemas; it knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

TensorGroups = dict[str, Mapping[str, Tensor]]
"""Tensors by group, such as `model` or `optimizer`, and name."""

WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
}
"""Classes of torch that wrap a module, and the name under which they hold it."""


def plain_names(model: nn.Module) -> dict[str, str]:
    """Maps each name of the model's state dict to the name without what compiling or wrapping added."""
    return {name: ".".join(_plain(model, name.split("."))) for name in model.state_dict()}


def _plain(module: nn.Module | None, path: list[str]) -> list[str]:
    if not path:
        return []
    first, rest = path[0], path[1:]
    inner = getattr(module, first, None)
    inner = inner if isinstance(inner, nn.Module) else None
    dropped = module is not None and WRAPPERS.get(type(module).__name__) == first
    return [*([] if dropped else [first]), *_plain(inner, rest)]


def upgrade(
    schema: int, groups: TensorGroups, facts: dict[str, Any]
) -> tuple[TensorGroups, dict[str, Any]]:
    """Converts a state saved with an earlier schema to the current one.

    Schema 1 lost tuples to plain JSON, and had no micro-batches, gradient norm, fingerprint of the data
    or NumPy random state.

    Raises:
        KeyError, TypeError: the state is not of that schema.
    """
    if schema == 1:
        facts["progress"]["attended"] = facts["progress"]["step"]
        version, numbers, gauss = facts.pop("python_random")
        facts["random"] = {"python": (version, tuple(numbers), gauss), "numpy": None}
        facts |= {"micro_batch": None, "grad_norm": None, "data": None}
        for group in facts["optimizer"]["param_groups"]:
            lists = [key for key, v in group.items() if isinstance(v, list) and key != "params"]
            group |= {key: tuple(group[key]) for key in lists}  # such as betas
    return groups, facts


def flatten_optimizer(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Splits an optimizer's state dict into tensors, named `<parameter>.<slot>`, and plain values."""
    tensors: dict[str, Tensor] = {}
    values: list[list[Any]] = []
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{slot}"] = value
            else:
                values.append([index, slot, value])
    groups = []
    for number, group in enumerate(state["param_groups"]):
        plain = {key: value for key, value in group.items() if not isinstance(value, Tensor)}
        tensors |= {f"group{number}.{k}": v for k, v in group.items() if isinstance(v, Tensor)}
        groups.append(plain)
    return tensors, {"state": values, "param_groups": groups}


def unflatten_optimizer(tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> dict[str, Any]:
    """The state dict that `flatten_optimizer` split."""
    state: dict[int, dict[str, Any]] = {}
    groups = [dict(group) for group in facts["param_groups"]]
    for name, value in tensors.items():
        owner, slot = name.split(".", 1)
        if owner.startswith("group"):
            groups[int(owner.removeprefix("group"))][slot] = value
        else:
            state.setdefault(int(owner), {})[slot] = value
    for index, slot, value in facts["state"]:
        state.setdefault(index, {})[slot] = value
    return {"state": state, "param_groups": groups}
