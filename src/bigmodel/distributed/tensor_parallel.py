"""Layers that several ranks compute together, each with a share of the columns (Megatron-LM; Shoeybi et
al. 2019, arXiv:1909.08053).

A module says how with two attributes. `tensor_plan` maps names of its layers to

* `colwise`: each rank computes a share of the outputs;
* `rowwise`: each rank has a share of the inputs, and the outputs are sums over the ranks;
* `partial`: a layer between those two, whose weights all ranks have; their gradients are added up.

`split_over(ranks)` has the module compute its share; it raises ValueError if that is not possible.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from bigmodel.errors import ConfigError

STYLES = {"colwise": ColwiseParallel, "rowwise": RowwiseParallel}


def split_layers(
    model: nn.Module, mesh: DeviceMesh, indices: Mapping[str, list[Tensor]]
) -> tuple[set[str], set[str]]:
    """Splits a model's layers over the ranks of a mesh of one dimension, in place.

    Args:
        indices: for each weight by name, which rows, columns, … of it this rank holds; changed in place.

    Returns:
        Names of the weights that are split, and of those whose gradients have to be added up.

    Raises:
        ConfigError: the model has no such layers, or they cannot be split over so many ranks.
    """
    split: set[str] = set()
    partial: set[str] = set()
    key = f"device.parallel.tensor={mesh.size()}"
    for path, module in list(model.named_modules()):
        plan: dict[str, str] = getattr(module, "tensor_plan", {})
        if not plan:
            continue
        try:
            module.split_over(mesh.size())
        except ValueError as error:
            raise ConfigError(
                f"{key}: {error}. Use another number, or device.parallel.shard."
            ) from error
        for name, style in plan.items():
            layer = getattr(module, name)
            if layer is None:
                continue
            names = {f"{path}.{name}.{each}": each for each, _ in layer.named_parameters()}
            if style == "partial":
                partial |= set(names)
                continue
            if style == "colwise":
                _interleave(layer, mesh.size(), [indices[full] for full in names])
            parallelize_module(layer, mesh, STYLES[style]())
            dimension = 0 if style == "colwise" else 1
            for full in names:
                if dimension < len(indices[full]):
                    chunks = indices[full][dimension].chunk(mesh.size())
                    indices[full][dimension] = chunks[mesh.get_local_rank()]
                    split.add(full)
    if not split:
        raise ConfigError(
            f"{key}: the model has no layers that ranks can compute together; a transformer has. Use"
            " device.parallel.shard, or leave it out."
        )
    return split, partial


def _interleave(layer: nn.Module, ranks: int, indices: list[list[Tensor]]) -> None:
    """Orders the rows of a stacked layer (query, key and value in one) by the rank that computes them.
    An equal chunk of the rows then holds a share of each."""
    stacked: list[int] | None = getattr(layer, "stacked", None)
    if stacked is None:
        return
    chunks = [rows.chunk(ranks) for rows in torch.split(torch.arange(sum(stacked)), stacked)]
    order = torch.cat([chunk[rank] for rank in range(ranks) for chunk in chunks])
    for parameter, index in zip(layer.parameters(), indices, strict=True):
        parameter.data = parameter.data[order.to(parameter.device)]
        index[0] = index[0][order]
    vars(layer)["stacked"] = [rows // ranks for rows in stacked]
