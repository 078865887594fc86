"""`device.compile`: torch.compile of a model, block by block where it is a stack of blocks."""

from __future__ import annotations

import torch
from torch import nn

from bigmodel.engine import cache
from bigmodel.model_parts import repeated_blocks
from bigmodel.runtime import caches
from bigmodel.runtime.torch_internals import MissingPartError


def compile_model(model: nn.Module, device: torch.device) -> list[str]:
    """Has torch compile a model at its first call, and keep the code between runs.

    A stack of blocks of one type is compiled as one block that is called several times, so that a deep
    model takes no longer to compile than a shallow one. The rest stays eager.

    Returns:
        Messages for the user: why it is not compiled, or the code not kept.
    """
    from bigmodel.engine.compiler import missing_compiler

    if device.type == "cpu" and (reason := missing_compiler()):
        return [f"Steps stay eager: {reason}."]
    try:
        cache.use_private_folders()
    except MissingPartError as error:
        return [f"Steps stay eager: {error}."]
    for region in repeated_blocks(model) or [model]:
        region.compile()
    return caches.refusals()
