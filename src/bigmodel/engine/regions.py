"""`device.compile`: torch.compile of a model, block by block where it is a row of blocks."""

from __future__ import annotations

import torch
from torch import nn

from bigmodel.engine import cache
from bigmodel.runtime import caches


def compile_model(model: nn.Module, device: torch.device) -> list[str]:
    """Has torch compile a model when it is first called; what it compiles is kept between runs.

    A row of like blocks is compiled as one block that is called many times: the code is the same for
    each, so that a deep model takes no longer to compile than a flat one. The rest stays eager.

    Returns:
        What to tell the user: why it is not compiled, or not kept.
    """
    from bigmodel.engine.compiler import lacking

    if device.type == "cpu" and (why := lacking()):
        return [f"Steps stay eager: {why}."]
    cache.keep_private()
    regions = repeated(model)
    for region in regions or [model]:
        region.compile()
    return caches.refusals()


def repeated(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model that come several times in a row, none within another."""
    found: list[nn.Module] = []
    for module in model.children():
        blocks = list(module.children()) if isinstance(module, nn.ModuleList | nn.Sequential) else []
        alike = len(blocks) > 1 and len({type(block) for block in blocks}) == 1
        if alike and any(True for _ in blocks[0].children()):
            found += blocks
        else:
            found += repeated(module)
    return found
