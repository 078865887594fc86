"""A data source's fingerprint: tells whether a run goes on with the data that it began with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bigmodel.data.base import Dataset


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """What a data source holds, in a few words that JSON can keep.

    Returns:
        `sha256`: of the stored bytes, types and shapes of each part's inputs and targets, and of the
        statistics that inputs are scaled by. `sizes`: samples in each part, by name.
    """
    digest = hashlib.sha256()
    sizes: dict[str, int] = {}
    for name, part in dataset.parts.items():
        sizes[name] = len(part)
        for what, tensor in part.tensors().items():
            _add(digest, f"{name} {what}", tensor)
    for what, statistic in (("mean", dataset.mean), ("std", dataset.std)):
        if statistic is not None:
            _add(digest, what, statistic)
    return {"sha256": digest.hexdigest(), "sizes": sizes}


def describe_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """How `new` data differs from `old`, each as `fingerprint` gave it, in one sentence without a full
    stop; None where they are equal."""
    before, now = old["sizes"], new["sizes"]
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        return ", ".join(_resized(name, before.get(name), now.get(name)) for name in changed)
    if old["sha256"] != new["sha256"]:
        return "as many samples in each part, but other content"
    return None


def _resized(part: str, before: int | None, now: int | None) -> str:
    if before is None:
        return f"{part} is new, with {now:,} samples"
    if now is None:
        return f"{part} is gone, had {before:,} samples"
    return f"{part} has {now:,} samples, was {before:,}"


def _add(digest: Any, name: str, tensor: Tensor) -> None:
    """Hashes a tensor where it lies; name, type and shape go first, so that nothing runs together."""
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
