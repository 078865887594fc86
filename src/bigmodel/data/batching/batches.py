"""The batches of an epoch, in an order that (seed, epoch) alone decides.

Samples are gathered, augmented and scaled a block of many batches at a time, on the device, and
handed out as slices of the block: what is left to do for each batch is next to nothing. What a
sample looks like depends neither on its block nor on its batch, so that any epoch can be taken up
at any batch. Texts of different lengths come in batches of like lengths instead; see `buckets`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bigmodel.data.augment import check_augment
from bigmodel.data.base import Batch, DataConfig, Dataset, ImageConfig, PartName
from bigmodel.data.batching.blocks import Blocks, page_locked
from bigmodel.data.batching.buckets import Buckets
from bigmodel.data.batching.workers import read_ahead
from bigmodel.data.parts import Stored
from bigmodel.errors import ConfigError
from bigmodel.spec import Image

_BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 64 << 20}  # a cache's worth; many kernels' worth
_SHARE = 4  # blocks of an epoch for each worker, where there are batches enough: none waits long


class Batches:
    """One part of a data source as batches on a device.

    Args:
        dataset: the data.
        part: which part of it.
        config: batch size, drop_last, on_device and, for images, augmentation.
        device: where the batches are wanted.
        seed: with the epoch, decides the order and the augmentation.
        shuffle: a new order each epoch; None: for the training part. Without, samples come in the
            order they are stored in (but see `Buckets`) and `drop_last` does not count.
        augment: change images as `config.augment` says; None: for the training part.
        group: how many batches of `batch_size` come as one, for gradient accumulation. The last of
            an epoch may be smaller, unless `drop_last`.
        batch_size: instead of the config's; evaluation may take larger ones.

    Attributes:
        part: the samples, as stored.
        batch_size: samples in one batch, or one micro-batch of a group.
        steps_per_epoch: (grouped) batches in one epoch.

    Raises:
        ConfigError: the part is smaller than one batch with `drop_last`, images are smaller than
            the augmentation's shift, or the data does not fit the device with `on_device: true`.
        DataError: the source has no such part.
    """

    def __init__(
        self,
        dataset: Dataset,
        part: PartName,
        config: DataConfig,
        device: torch.device | str = "cpu",
        *,
        seed: int = 0,
        shuffle: bool | None = None,
        augment: bool | None = None,
        group: int = 1,
        batch_size: int | None = None,
    ) -> None:
        self.part = dataset.part(part)
        self.batch_size = batch_size or config.batch_size
        self._grouped = self.batch_size * group
        self._device = torch.device(device)
        self._workers = config.workers if part == "train" else 0
        self._timeout = config.timeout
        shuffle = part == "train" if shuffle is None else shuffle

        drop_last = config.drop_last and shuffle
        making = torch.device("cpu") if self._workers else self._device
        kept = self.part
        if _resident(kept, config.on_device, making):
            kept = kept.to(making)
        self._buckets: Buckets | None = None
        if kept.lengths is not None:
            self._buckets = _buckets(kept, config, making, seed, shuffle, self._grouped, group)
            self.steps_per_epoch = len(self._buckets)
        else:
            full, rest = divmod(len(kept), self._grouped)
            self.steps_per_epoch = full if drop_last or rest == 0 else full + 1
        if self.steps_per_epoch == 0:
            raise ConfigError(_nothing_left(self.batch_size, group, len(self.part)))
        if self._buckets is not None:
            return

        augmentation = None
        if isinstance(config, ImageConfig) and isinstance(dataset.spec.input, Image):
            check_augment(config.augment, dataset.spec.input)
            if config.augment.active and (part == "train" if augment is None else augment):
                augmentation = config.augment
        self._blocks = Blocks(
            kept,
            device=making,
            scaling=dataset.prepared.scaling(making),
            augment=augmentation,
            seed=seed,
            shuffle=shuffle,
            size=self._block_batches(making) * self._grouped,
            stop=min(self.steps_per_epoch * self._grouped, len(self.part)),
        )

    def _block_batches(self, making: torch.device) -> int:
        """How many batches make a block, on the device where they are made."""
        stored = self.part.take(slice(0, 1))[0]
        sample_bytes = stored.numel() * max(4, stored.element_size())
        most = _BLOCK_BYTES.get(making.type, _BLOCK_BYTES["cuda"]) // (sample_bytes * self._grouped)
        if self._workers:
            most = min(most, math.ceil(self.steps_per_epoch / (_SHARE * self._workers)))
        return max(1, most)

    def __len__(self) -> int:
        """Samples in the part."""
        return len(self.part)

    def epoch(
        self, epoch: int, start: int = 0, between: Callable[[], None] = lambda: None
    ) -> Iterator[Batch]:
        """The batches of an epoch from batch `start` on: just what a whole epoch gives from there.

        Args:
            epoch: its number.
            start: how many (grouped) batches to leave out because they were seen before.
            between: called now and then while workers are waited for; what it raises ends the epoch.

        Raises:
            DataError: a worker was killed, or gave nothing in time.
        """
        for block in self.blocks(epoch, start, between):
            yield from block

    def blocks(
        self, epoch: int, start: int = 0, between: Callable[[], None] = lambda: None
    ) -> Iterator[list[Batch]]:
        """The same batches, as many together as lie ready; those are alike in shape, but for the last.

        Whoever gets them may take them out of the list. For arguments and errors see `epoch`.
        """
        if self._buckets is not None:
            yield from ([Batch(*made)] for made in self._buckets.epoch(epoch, start))
            return
        for inputs, targets in self._made(epoch, start * self._grouped, between):
            size = self._grouped
            yield list(map(Batch, torch.split(inputs, size), torch.split(targets, size)))

    def _made(
        self, epoch: int, first: int, between: Callable[[], None]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The blocks of an epoch from sample `first` on, on the device."""
        if self._workers == 0:
            yield from (self._blocks.read(epoch, begin) for begin in self._blocks.starts(first))
            return
        ahead = read_ahead(self._blocks, epoch, first, self._workers, self._timeout, between)
        for block in ahead:
            inputs, targets = (_own_copy(stored, self._device) for stored in block)
            yield inputs, targets


def _own_copy(block: Tensor, device: torch.device) -> Tensor:
    """A block on the device, out of memory that a worker will overwrite."""
    copy = page_locked(tuple(block.shape), block.dtype, device).copy_(block)
    return copy.to(device, non_blocking=True)


def _buckets(
    part: Stored,
    config: DataConfig,
    device: torch.device,
    seed: int,
    shuffle: bool,
    samples: int,
    group: int,
) -> Buckets:
    """Batches by length; where the source bounds their tokens, a group of batches may have as many more.

    Raises:
        ConfigError: workers are asked for, which write into memory of a fixed shape.
    """
    if config.workers:
        raise ConfigError(
            f"data.workers={config.workers}: texts of different lengths are made ready in training's own"
            " process, which takes next to no time. Say data.workers=0."
        )
    tokens = config.token_bound
    return Buckets(
        part,
        device,
        seed,
        shuffle,
        samples,
        None if tokens is None else tokens * group,
        keep_rest=not (config.drop_last and shuffle),
    )


def _resident(part: Stored, wanted: bool | None, device: torch.device) -> bool:
    """Whether to keep a part on the device: as wanted, else where half of what is free holds it."""
    if device.type != "cuda":
        return wanted is not False or device.type == "cpu"
    if wanted is False:
        return False
    needed = part.nbytes
    free = torch.cuda.mem_get_info(device)[0]
    if wanted and needed > free:
        raise ConfigError(
            f"data.on_device=true: {needed / 2**30:.1f} GiB of data do not fit into the"
            f" {free / 2**30:.1f} GiB that are free on {device}. Say data.on_device=null."
        )
    return bool(wanted) or needed < free / 2


def _nothing_left(batch_size: int, group: int, samples: int) -> str:
    grouped = f" times trainer.accumulate={group}" if group > 1 else ""
    return (
        f"data.batch_size={batch_size}{grouped} is larger than the {samples} training samples and"
        f" data.drop_last=true leaves none; take data.batch_size={max(1, samples // group)} or less,"
        " or data.drop_last=false."
    )
