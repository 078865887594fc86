"""The batches of an epoch, in an order that (seed, epoch) alone decides.

Samples are gathered, augmented and scaled a block of many batches at a time, on the device, and
handed out as slices of the block: what is left to do for each batch is next to nothing. What a
sample looks like depends neither on its block nor on its batch, so that any epoch can be taken up
at any batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bigmodel.data.augment import augment as augmented
from bigmodel.data.augment import check_augment
from bigmodel.data.base import Batch, DataConfig, Dataset, ImageConfig, PartName
from bigmodel.data.draws import generator_of, key_of
from bigmodel.errors import ConfigError
from bigmodel.spec import Image

_BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 64 << 20}  # a cache's worth; many kernels' worth
_ORDER, _AUGMENT = 1, 2  # keeps the two uses of (seed, epoch) apart


class Batches:
    """One part of a data source as batches on a device.

    Args:
        dataset: the data.
        part: which part of it.
        config: batch size, drop_last, on_device and, for images, augmentation.
        device: where the batches are wanted.
        seed: with the epoch, decides the order and the augmentation.
        shuffle: a new order each epoch; None: for the training part. Without, samples come in the
            order they are stored in and `drop_last` does not count.
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
        self._seed = seed
        self._shuffle = part == "train" if shuffle is None else shuffle

        full, rest = divmod(len(self.part), self._grouped)
        drop_last = config.drop_last and self._shuffle
        steps = full if drop_last or rest == 0 else full + 1
        if steps == 0:
            raise ConfigError(_nothing_left(self.batch_size, group, len(self.part)))
        self.steps_per_epoch = steps

        self._augment = None
        if isinstance(config, ImageConfig) and isinstance(dataset.spec.input, Image):
            check_augment(config.augment, dataset.spec.input)
            if config.augment.active and (part == "train" if augment is None else augment):
                self._augment = config.augment
        self._scaling = dataset.scaling(self._device)
        self._inputs, self._targets = self.part.inputs, self.part.targets
        self._resident = _resident(self._inputs, self._targets, config.on_device, self._device)
        if self._resident:
            self._inputs = self._inputs.to(self._device)
            self._targets = self._targets.to(self._device)
        sample_bytes = self._inputs[0].numel() * max(4, self._inputs.element_size())
        per_block = _BLOCK_BYTES.get(self._device.type, _BLOCK_BYTES["cuda"]) // (
            sample_bytes * self._grouped
        )
        self._block = max(1, per_block) * self._grouped

    def __len__(self) -> int:
        """Samples in the part."""
        return len(self.part)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from batch `start` on: just what a whole epoch gives from there.

        Args:
            epoch: its number.
            start: how many (grouped) batches to leave out because they were seen before.
        """
        order = self._order(epoch) if self._shuffle else None
        key = key_of(self._seed, epoch, _AUGMENT)
        stop = min(self.steps_per_epoch * self._grouped, len(self.part))
        for first in range(start * self._grouped, stop, self._block):
            inputs, targets = self._read(order, first, min(first + self._block, stop), key)
            size = self._grouped
            yield from map(Batch, torch.split(inputs, size), torch.split(targets, size))

    def _order(self, epoch: int) -> Tensor:
        """The epoch's order: drawn on the CPU, so that it is the same for every device."""
        generator = generator_of(self._seed, epoch, _ORDER)
        order = torch.randperm(len(self.part), generator=generator)
        return order.to(self._inputs.device)

    def _read(self, order: Tensor | None, first: int, stop: int, key: int) -> tuple[Tensor, Tensor]:
        """A block of samples on the device, ready for a model."""
        chosen = slice(first, stop) if order is None else order[first:stop]
        inputs, targets = self._taken(self._inputs, chosen), self._taken(self._targets, chosen)
        if self._augment is not None:
            index = torch.arange(first, stop) if isinstance(chosen, slice) else chosen
            inputs = augmented(inputs, self._augment, index.to(self._device), key)
        if self._scaling is not None:
            inputs = self._scaling(inputs)
        return inputs, targets

    def _taken(self, stored: Tensor, chosen: slice | Tensor) -> Tensor:
        """Samples of one tensor on the device, copied there without waiting if they are elsewhere."""
        if self._resident:
            return stored[chosen] if isinstance(chosen, slice) else stored.index_select(0, chosen)
        count = chosen.stop - chosen.start if isinstance(chosen, slice) else len(chosen)
        # Torch reuses page-locked memory only when the copy out of it is done.
        pinned = torch.empty(
            (count, *stored.shape[1:]), dtype=stored.dtype, pin_memory=self._device.type == "cuda"
        )
        if isinstance(chosen, slice):
            pinned.copy_(stored[chosen])
        else:
            torch.index_select(stored, 0, chosen, out=pinned)
        return pinned.to(self._device, non_blocking=True)


def _resident(inputs: Tensor, targets: Tensor, wanted: bool | None, device: torch.device) -> bool:
    """Whether to keep a part on the device: as wanted, else where half of what is free holds it."""
    if device.type != "cuda":
        return wanted is not False or device.type == "cpu"
    if wanted is False:
        return False
    needed = inputs.nbytes + targets.nbytes
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
