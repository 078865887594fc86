"""The batches of an epoch, in an order that depends on (seed, epoch) alone.

Samples are gathered, augmented and scaled in blocks of many batches, on the device; batches are slices
of a block, so each one costs next to nothing. A sample depends neither on its block nor on its batch, so
that an epoch can be resumed at any batch. Texts of different lengths come in batches of similar lengths.
"""

from __future__ import annotations

import itertools
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
from bigmodel.data.base import Batch, Block, DataConfig, Dataset, ImageConfig, PartName
from bigmodel.data.batching.prefetch import Prefetcher, Read, Samples
from bigmodel.data.counter_rng import Permutation, generator_of, key_of, shuffled
from bigmodel.data.parts import Chosen, GatherOptions, SplitData, Windows
from bigmodel.data.preprocessing import Scaling
from bigmodel.errors import ConfigError
from bigmodel.runtime.device import to_device
from bigmodel.spec import Image

_BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 64 << 20}  # fits a cache; keeps a GPU busy
_BLOCKS_PER_THREAD = 4  # at least, in an epoch with enough batches, so that no thread is idle for long
_ORDER, _AUGMENT, _WINDOWS, _BUCKETS = 1, 2, 3, 4  # separate random streams of (seed, epoch)


@dataclass(kw_only=True)
class Batches(ABC):
    """One part of a data source as batches on a device; see `make_batches`.

    Attributes:
        part: the stored samples, on the device or on the host.
        batch_size: samples in a batch, or in a micro-batch of a group.
        group: number of batches of `batch_size` that come as one, for gradient accumulation.
        seed: with the epoch, determines order and augmentation.
        shuffle: a new order each epoch.
        drop_last: leave out a last batch that is smaller.
        prefetcher: gathers the batches, for its device.
        steps_per_epoch: (grouped) batches in an epoch.
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
        """The most samples in a (grouped) batch."""
        return self.batch_size * self.group

    @abstractmethod
    def reads(self, epoch: int, start: int) -> Iterator[Read]:
        """Functions that each gather a block of an epoch, from batch `start` on, in any thread."""

    def largest(self) -> Batch:
        """The batch that takes the most memory."""
        with closing(self.epoch(0)) as batches:
            return next(batches)

    def _gather(self, chosen: Chosen, options: GatherOptions) -> Samples:
        """Inputs and targets of some samples, on the prefetcher's device."""
        device = self.prefetcher.device
        if self.part.device.type == device.type:
            return self.part.take(chosen, options)
        inputs, targets = self.part.take(chosen, replace(options, pinned=device.type == "cuda"))
        return to_device(inputs, device), to_device(targets, device)

    def blocks(
        self, epoch: int, start: int = 0, between: Callable[[], None] = lambda: None
    ) -> Generator[Block, None, None]:
        """The batches of an epoch from batch `start` on, in blocks.

        They equal those of the whole epoch, bit for bit, with any number of threads.

        Threads end with the iterator: close it if it may be left early (`contextlib.closing`).

        Args:
            epoch: its number.
            start: number of (grouped) batches to skip.
            between: called now and then while waiting for threads; what it raises ends the epoch.

        Raises:
            DataError: a thread has timed out.
            Exception: whatever reading the samples raised.
        """
        size = self.grouped
        with closing(self.prefetcher.gather(self.reads(epoch, start), between)) as gathered:
            for inputs, targets in gathered:
                yield Block(inputs, targets, size)

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
        scaling: from stored inputs to model inputs; None: they are ready.
    """

    augmentation: AugmentConfig | None = None
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        last = len(self.part) % self.grouped
        self._stop = len(self.part) - (last if self.drop_last else 0)
        self.steps_per_epoch = math.ceil(self._stop / self.grouped)
        self._block = self._block_batches() * self.grouped

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

    def order(self, epoch: int) -> Tensor | Permutation | None:
        """An epoch's order, (samples,) int64, on the part's device; None: as stored. That of very many
        samples is computed block by block."""
        if not self.shuffle:
            return None
        # Drawn on the CPU, so that it is the same on every device.
        numbers = (self.seed, epoch, _ORDER)
        drawn = shuffled(len(self.part), generator_of(*numbers), key_of(*numbers))
        return to_device(drawn, self.part.device) if isinstance(drawn, Tensor) else drawn

    def _read(self, epoch: int, order: Tensor | Permutation | None, first: int, stop: int) -> Samples:
        chosen: Chosen = slice(first, stop)
        if order is not None:
            chosen = to_device(order[first:stop], self.part.device)
        options = GatherOptions(key_of(self.seed, epoch, _WINDOWS) if self.shuffle else 0)
        inputs, targets = self._gather(chosen, options)
        if self.augmentation is not None:
            index = torch.arange(first, stop) if isinstance(chosen, slice) else chosen
            index = to_device(index, self.prefetcher.device)
            inputs = augment(inputs, self.augmentation, index, key_of(self.seed, epoch, _AUGMENT))
        if self.scaling is not None:
            inputs = self.scaling(inputs)
        return inputs, targets


@dataclass(kw_only=True)
class BucketedBatches(Batches):
    """Batches of texts of similar length, to reduce padding.

    Samples are sorted by length, at random among equals, and cut into batches, which come in a random
    order. The cuts depend on the lengths alone: every epoch has as many batches, of the same sizes.
    Without `shuffle` samples come as they are stored or, with `max_tokens`, from the shortest to the
    longest.

    Attributes:
        max_tokens: the most tokens in a batch, padding included; None: no limit. A longer sample gets a
            batch of its own. With a limit, `drop_last` has no effect.
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

    def largest(self) -> Batch:
        """See `Batches.largest`."""
        lengths = self._lengths.sort().values
        bounds = list(itertools.pairwise(self._bounds))
        first, stop = max(bounds, key=lambda ends: (ends[1] - ends[0]) * int(lengths[ends[1] - 1]))
        order = self._lengths.argsort(stable=True)
        return Batch(*self._read(order, to_device(order, self.part.device), first, stop))

    def _read(self, order: Tensor, stored: Tensor, first: int, stop: int) -> Samples:
        # From the lengths on the host: those on a device would make it wait.
        width = int(self._lengths[order[first:stop]].max())
        return self._gather(stored[first:stop], GatherOptions(width=width))

    def _order(self, epoch: int) -> Tensor:
        """All samples in the order in which they are cut into batches: (samples,) int64."""
        if not self.shuffle:
            stored = torch.arange(len(self._lengths))
            return stored if self.max_tokens is None else self._lengths.argsort(stable=True)
        drawn = torch.randperm(len(self._lengths), generator=generator_of(self.seed, epoch, _ORDER))
        return drawn[self._lengths[drawn].argsort(stable=True)]

    def _cuts(self, lengths: list[int]) -> list[int]:
        """The first of each batch's samples, sorted by length; then the end of the last batch."""
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
        name: of the part. Only the training set is gathered by threads (`config.workers`).
        config: batch size, drop_last, on_device, workers and, for images, augmentation.
        seed: with the epoch, determines order and augmentation.
        shuffle: a new order each epoch; None: for the training set. Otherwise samples come as they are
            stored (but see `BucketedBatches`), and `drop_last` is ignored.
        augment: augment images as in `config.augment`; None: for the training set.
        group: number of batches of `batch_size` that come as one, for gradient accumulation. The last
            of an epoch may be smaller, unless `drop_last`.
        batch_size: instead of the config's; evaluation may use larger ones.

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


def _resident(part: SplitData, wanted: bool | None, device: torch.device) -> bool:
    """Whether to keep a part on the device: as wanted, else if it fits into half of the free memory."""
    if wanted is False or device.type == "cpu":
        return False
    if device.type != "cuda":  # where the free memory is not known
        return not (isinstance(part, Windows) and part.mapped)
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
