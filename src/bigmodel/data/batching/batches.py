"""The batches of an epoch, in an order that (seed, epoch) alone decides.

Samples are gathered, augmented and scaled a block of many batches at a time, on the device, and
handed out as slices of the block: what is left to do for each batch is next to nothing. What a
sample looks like depends neither on its block nor on its batch, so that any epoch can be taken up
at any batch. Texts of different lengths come in batches of similar lengths instead.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bigmodel.data.augment import AugmentConfig, augment, check_augment
from bigmodel.data.base import Batch, DataConfig, Dataset, ImageConfig, PartName
from bigmodel.data.batching.prefetch import Prefetcher, Read, Samples
from bigmodel.data.counter_rng import generator_of, key_of
from bigmodel.data.parts import Chosen, GatherOptions, SplitData
from bigmodel.data.preprocessing import Scaling
from bigmodel.errors import ConfigError
from bigmodel.runtime.device import to_device
from bigmodel.spec import Image

_BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 64 << 20}  # fits a cache; keeps a GPU busy
_BLOCKS_PER_THREAD = 4  # at least, in an epoch with enough batches, so that no thread is idle for long
_ORDER, _AUGMENT, _WINDOWS, _BUCKETS = 1, 2, 3, 4  # keep the uses of (seed, epoch) apart


@dataclass(kw_only=True)
class Batches(ABC):
    """One part of a data source as batches on a device; see `make_batches`.

    Attributes:
        part: the samples as they are stored, in the device's memory or on the host.
        batch_size: samples in one batch, or in one micro-batch of a group.
        group: how many batches of `batch_size` come as one, for gradient accumulation.
        seed: with the epoch, decides the order and the augmentation.
        shuffle: a new order each epoch.
        drop_last: leave out a last batch that is smaller.
        prefetcher: gathers them, for its device.
        steps_per_epoch: (grouped) batches in one epoch.
    """

    part: SplitData
    batch_size: int
    group: int = 1
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = False
    prefetcher: Prefetcher = field(default_factory=Prefetcher)
    steps_per_epoch: int = field(init=False)

    def __len__(self) -> int:
        """Samples in the part."""
        return len(self.part)

    @property
    def grouped(self) -> int:
        """The most samples in one batch of a group together."""
        return self.batch_size * self.group

    @abstractmethod
    def reads(self, epoch: int, start: int) -> Iterator[Read]:
        """What gathers each block of an epoch, from batch `start` on. Any thread may call one."""

    def blocks(
        self, epoch: int, start: int = 0, between: Callable[[], None] = lambda: None
    ) -> Generator[list[Batch], None, None]:
        """The batches of an epoch from batch `start` on, as many together as one block holds.

        They are those of the whole epoch from there, bit for bit, with any number of threads. All
        batches of a list have the same shape, except the last. The list is the caller's.

        Threads end with the iterator: close it where it may be left early (`contextlib.closing`).

        Args:
            epoch: its number.
            start: how many (grouped) batches to leave out because they were seen before.
            between: called now and then while threads are waited for; what it raises ends the epoch.

        Raises:
            DataError: a thread gave nothing in time.
            Exception: whatever reading the samples raised.
        """
        size = self.grouped
        with closing(self.prefetcher.gather(self.reads(epoch, start), between)) as gathered:
            for inputs, targets in gathered:
                yield list(map(Batch, torch.split(inputs, size), torch.split(targets, size)))

    def epoch(
        self, epoch: int, start: int = 0, between: Callable[[], None] = lambda: None
    ) -> Generator[Batch, None, None]:
        """The same batches, one by one; see `blocks`."""
        with closing(self.blocks(epoch, start, between)) as blocks:
            for block in blocks:
                yield from block


@dataclass(kw_only=True)
class FixedBatches(Batches):
    """Batches with a fixed number of samples.

    Attributes:
        augmentation: random changes to images; None: none.
        scaling: from stored inputs to model inputs; None where they are ready.
    """

    augmentation: AugmentConfig | None = None
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        full, rest = divmod(len(self.part), self.grouped)
        self.steps_per_epoch = full if self.drop_last or rest == 0 else full + 1
        self._block = self._block_batches() * self.grouped
        self._stop = min(self.steps_per_epoch * self.grouped, len(self.part))

    def _block_batches(self) -> int:
        stored = self.part.take(slice(0, 1))[0]
        sample_bytes = stored.numel() * max(4, stored.element_size())
        block_bytes = _BLOCK_BYTES.get(self.prefetcher.device.type, _BLOCK_BYTES["cuda"])
        count = block_bytes // (sample_bytes * self.grouped)
        if threads := self.prefetcher.threads:
            count = min(count, math.ceil(self.steps_per_epoch / (_BLOCKS_PER_THREAD * threads)))
        return max(1, count)

    def reads(self, epoch: int, start: int) -> Iterator[Read]:
        """See `Batches.reads`."""
        order = self.order(epoch)
        for first in range(start * self.grouped, self._stop, self._block):
            yield partial(self._read, epoch, order, first, min(first + self._block, self._stop))

    def order(self, epoch: int) -> Tensor | None:
        """An epoch's order, (samples,) int64, where the part is stored; None: the stored one."""
        if not self.shuffle:
            return None
        # Drawn on the CPU, so that it is the same for every device.
        drawn = torch.randperm(len(self.part), generator=generator_of(self.seed, epoch, _ORDER))
        return to_device(drawn, self.part.device)

    def _read(self, epoch: int, order: Tensor | None, first: int, stop: int) -> Samples:
        chosen = slice(first, stop) if order is None else order[first:stop]
        options = GatherOptions(key_of(self.seed, epoch, _WINDOWS) if self.shuffle else 0)
        device = self.prefetcher.device
        inputs, targets = _gathered(self.part, chosen, device, options)
        if self.augmentation is not None:
            index = torch.arange(first, stop) if isinstance(chosen, slice) else chosen
            key = key_of(self.seed, epoch, _AUGMENT)
            inputs = augment(inputs, self.augmentation, to_device(index, device), key)
        if self.scaling is not None:
            inputs = self.scaling(inputs)
        return inputs, targets


@dataclass(kw_only=True)
class BucketedBatches(Batches):
    """Batches of texts of about the same length, so that little is spent on padding.

    Samples are sorted by length, at random among equals, and cut into batches; these come in a random
    order. The cuts depend on the lengths alone: every epoch has as many batches, of the same sizes.
    Without `shuffle` samples come as they are stored or, with `max_tokens`, from the shortest to the
    longest.

    Attributes:
        max_tokens: the most tokens in a batch, padding included; None: no bound. A sample that is longer
            has a batch of its own. With a bound, `drop_last` has no effect.
    """

    max_tokens: int | None = None

    def __post_init__(self) -> None:
        assert self.part.lengths is not None
        self._lengths = self.part.lengths.cpu()
        self._bounds = self._cuts(self._lengths.sort().values.tolist())
        self.steps_per_epoch = len(self._bounds) - 1

    def reads(self, epoch: int, start: int) -> Iterator[Read]:
        """See `Batches.reads`."""
        order = self._order(epoch)
        stored = to_device(order, self.part.device)  # once an epoch: its batches are slices of it
        numbers = torch.arange(self.steps_per_epoch)
        if self.shuffle:
            numbers = torch.randperm(len(numbers), generator=generator_of(self.seed, epoch, _BUCKETS))
        for number in numbers.tolist()[start:]:
            yield partial(self._read, order, stored, self._bounds[number], self._bounds[number + 1])

    def _read(self, order: Tensor, stored: Tensor, first: int, stop: int) -> Samples:
        # Looked up on the host: where the part is on a device, its own lengths would be waited for.
        widest = GatherOptions(width=int(self._lengths[order[first:stop]].max()))
        return _gathered(self.part, stored[first:stop], self.prefetcher.device, widest)

    def _order(self, epoch: int) -> Tensor:
        """All samples in the order in which they are cut into batches: (samples,) int64."""
        if not self.shuffle:
            stored = torch.arange(len(self._lengths))
            return stored if self.max_tokens is None else self._lengths.argsort(stable=True)
        drawn = torch.randperm(len(self._lengths), generator=generator_of(self.seed, epoch, _ORDER))
        return drawn[self._lengths[drawn].argsort(stable=True)]

    def _cuts(self, lengths: list[int]) -> list[int]:
        """Where batches begin among samples sorted by length, and where the last one ends."""
        bounds = [0]
        for place, length in enumerate(lengths):
            count = place - bounds[-1]
            full = self.max_tokens is not None and (count + 1) * length > self.max_tokens
            if count and (count == self.grouped or full):
                bounds.append(place)
        rest = len(lengths) - bounds[-1]
        if self.max_tokens is not None or not self.drop_last or rest == self.grouped:
            bounds.append(len(lengths))
        return bounds


def make_batches(
    dataset: Dataset,
    name: PartName,
    config: DataConfig,
    device: torch.device | str = "cpu",
    *,
    seed: int = 0,
    shuffle: bool | None = None,
    augment: bool | None = None,
    group: int = 1,
    batch_size: int | None = None,
) -> Batches:
    """One part of a data source as batches: texts in buckets of similar lengths, all else in blocks.

    Args:
        dataset: the data.
        name: which part of it. Only the training part is gathered by threads (`config.workers`).
        config: batch size, drop_last, on_device, workers and, for images, augmentation.
        seed: with the epoch, decides the order and the augmentation.
        shuffle: a new order each epoch; None: for the training part. Without, samples come in the
            order they are stored in (but see `BucketedBatches`) and `drop_last` does not count.
        augment: change images as `config.augment` says; None: for the training part.
        group: how many batches of `batch_size` come as one, for gradient accumulation. The last of
            an epoch may be smaller, unless `drop_last`.
        batch_size: instead of the config's; evaluation may take larger ones.

    Raises:
        ConfigError: the part is smaller than one batch with `drop_last`, images are smaller than
            the augmentation's shift, or the data does not fit the device with `on_device: true`.
        DataError: the source has no such part.
    """
    training, device, stored = name == "train", torch.device(device), dataset.part(name)
    threads = config.workers if training else 0
    if threads == 0 and _resident(stored, config.on_device, device):
        stored = stored.to(device)
    shuffle = training if shuffle is None else shuffle
    common: dict[str, Any] = {
        "part": stored,
        "batch_size": batch_size or config.batch_size,
        "group": group,
        "seed": seed,
        "shuffle": shuffle,
        "drop_last": config.drop_last and shuffle,
        "prefetcher": Prefetcher(threads, config.timeout, device),
    }
    batches: Batches
    if stored.lengths is not None:
        tokens = config.token_bound
        batches = BucketedBatches(**common, max_tokens=None if tokens is None else tokens * group)
    else:
        augmentation = None
        if isinstance(config, ImageConfig) and isinstance(dataset.spec.input, Image):
            check_augment(config.augment, dataset.spec.input)
            if config.augment.active and (training if augment is None else augment):
                augmentation = config.augment
        scaling = dataset.preprocessing.scaling(device)
        batches = FixedBatches(**common, augmentation=augmentation, scaling=scaling)
    if batches.steps_per_epoch == 0:
        raise ConfigError(_nothing_left(batches))
    return batches


def _gathered(part: SplitData, chosen: Chosen, device: torch.device, options: GatherOptions) -> Samples:
    """Inputs and targets of some samples, on `device`."""
    if part.device.type == device.type:
        return part.take(chosen, options)
    inputs, targets = part.take(chosen, replace(options, pinned=device.type == "cuda"))
    return to_device(inputs, device), to_device(targets, device)


def _resident(part: SplitData, wanted: bool | None, device: torch.device) -> bool:
    """Whether a part is kept on the device: as wanted, else if half of what is free there holds it."""
    if device.type != "cuda":
        return wanted is not False and device.type != "cpu"
    if wanted is False:
        return False
    needed = part.nbytes
    free = torch.cuda.mem_get_info(device)[0]
    if wanted and needed > free:
        raise ConfigError(
            f"data.on_device=true: {needed / 2**30:.1f} GiB of data do not fit into the"
            f" {free / 2**30:.1f} GiB that are free on {device}. Set data.on_device=null."
        )
    return bool(wanted) or needed < free / 2


def _nothing_left(batches: Batches) -> str:
    samples, group = len(batches), batches.group
    grouped = f" times trainer.accumulate={group}" if group > 1 else ""
    return (
        f"data.batch_size={batches.batch_size}{grouped} is larger than the {samples} training samples"
        f" and data.drop_last=true leaves none; set data.batch_size={max(1, samples // group)} or less,"
        " or data.drop_last=false."
    )
