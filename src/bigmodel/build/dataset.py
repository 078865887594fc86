"""Reads and checks the data of a run, and limits it if `trainer.limit` says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bigmodel import registry
from bigmodel.build import custom_parts
from bigmodel.config import RunConfig
from bigmodel.data.assemble import without_validation
from bigmodel.data.base import Dataset
from bigmodel.data.checks import check
from bigmodel.data.counter_rng import key_of, shuffled
from bigmodel.data.parts import Labelled, SplitData
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.errors import DataError
from bigmodel.runtime import progress_messages
from bigmodel.spec import Classes

UNSURE = (
    "the number of samples matches; whether they are the same samples is unknown, because the "
    "checkpoint was written by an earlier version or on another processor"
)


def read_dataset(config: RunConfig, learnt: Preprocessing | None = None) -> Dataset:
    """The data, read and checked; fewer samples, drawn once, if `trainer.limit` says so.

    Args:
        config: of the run.
        learnt: statistics and vocabularies from an earlier part of the run; they are not computed again
            if the data still fits them.

    Raises:
        ConfigError, DataError: the data is missing, or no model can learn from it.
    """
    with progress_messages.report_progress("Reading the data"):
        try:
            built = registry.data.build(config.data.resuming(learnt))
        except DataError:
            if learnt is None:
                raise
            built = registry.data.build(config.data)  # it has changed: show its own error
        dataset = custom_parts.check_dataset(built, config.data)
        check(dataset)
    if not config.data.validation and dataset.val is not None:
        dataset = without_validation(dataset)
    chosen = {name: _limit(part, name, config) for name, part in dataset.parts.items()}
    parts = {
        name: part if (index := chosen[name]) is None else part.select(index)
        for name, part in dataset.parts.items()
    }
    rows = [
        ("Limited", f"{name} limited to {len(parts[name]):,} of {len(whole):,} (trainer.limit.{name})")
        for name, whole in dataset.parts.items()
        if parts[name] is not whole
    ]
    train, target = parts["train"], dataset.spec.target
    if isinstance(target, Classes) and isinstance(train, Labelled):
        counts = torch.bincount(train.targets, minlength=target.count).tolist()
        target = replace(target, counts=tuple(counts))
    sizes = dataset.spec.sizes | {name: len(part) for name, part in parts.items()}
    return replace(
        dataset,
        train=train,
        val=parts.get("val"),
        test=parts.get("test"),
        spec=replace(dataset.spec, sizes=sizes, target=target),
        header_rows=[*_fold_row(config), *dataset.header_rows, *rows],
        **_held_out(dataset, chosen.get("val")),
    )


def _fold_row(config: RunConfig) -> list[tuple[str, str]]:
    if config.data.cross_validation is None:
        return []
    folds, fold = config.data.cross_validation
    return [("Fold", f"{fold} of {folds}, counted from 0, is held out for validation")]


def _held_out(dataset: Dataset, index: Tensor | None) -> dict[str, Any]:
    """Where the validation samples come from, without those that the limit leaves out."""
    rows, files = dataset.val_rows, dataset.val_files
    if index is None:
        return {}
    return {
        "val_rows": None if rows is None else rows[index],
        "val_files": [files[place] for place in index.tolist()] if files else (),
    }


def _limit(part: SplitData, name: str, config: RunConfig) -> Tensor | None:
    """As many samples as `trainer.limit` allows batches of; None: all."""
    batches = getattr(config.trainer.limit, name)
    size, tokens = config.data.batch_size, config.data.token_bound
    if tokens is not None and part.lengths is not None:  # about as many samples as fit in a batch
        size = min(size, max(1, round(tokens / float(part.lengths.double().mean()))))
    if batches is None or batches * size >= len(part):
        return None
    seed = config.data.split_seed
    order = shuffled(len(part), torch.Generator().manual_seed(seed), key_of(seed))
    return order[: batches * size]
