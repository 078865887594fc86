"""The loop anyone would write, over tensors in memory, a `DataLoader`, or random windows of a text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.plain_models import build, criterion, optimizer_of
from benchmarks.works import Work, checked

Batches = Iterator[tuple[Tensor, Tensor]]
LossOf = Callable[[Tensor, Tensor], Tensor]


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Pictures as bytes, each scaled, and shifted and mirrored at random when it is asked for.

    Args:
        images: (samples, 1, height, width) uint8.
        scaling: factor and summand that standardise them.
        shift: largest shift, in pixels; 0: as they are, not mirrored either.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, scaling: tuple[Tensor, Tensor], shift: int
    ) -> None:
        self.images, self.labels, self.shift = images, labels, shift
        self.scale, self.offset = (float(part) for part in scaling)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if self.shift:
            height, width = image.shape[-2:]
            top, left = torch.randint(2 * self.shift + 1, (2,)).tolist()
            image = F.pad(image, (self.shift,) * 4)[:, top : top + height, left : left + width]
            if torch.rand(()) < 0.5:
                image = image.flip(-1)
        return image.float().mul_(self.scale).add_(self.offset), self.labels[index]


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """As many random windows of a text as are asked for: tokens, and the token after each."""

    def __init__(self, stream: Tensor, context: int, count: int) -> None:
        self.stream, self.context, self.count = stream, context, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        del index
        start = int(torch.randint(len(self.stream) - self.context, ()))
        window = self.stream[start : start + self.context + 1]
        return window[:-1], window[1:]


def dataset(work: Work, start: dict[str, Any]) -> Dataset[tuple[Tensor, Tensor]]:
    """The training set for a `DataLoader`."""
    if work.kind == "cnn":
        return Pictures(*start["train"], start["scaling"], shift=2)
    if "stream" in start:
        context = work.sizes["context"]
        return Windows(start["stream"].long(), context, work.steps * work.batch_size)
    return TensorDataset(*ready(start, "train"))


def loader(work: Work, start: dict[str, Any], workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Shuffled batches of the training set."""
    return DataLoader(
        dataset(work, start),
        work.batch_size,
        shuffle="stream" not in start,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=work.device == "cuda",
    )


def ready(start: dict[str, Any], part: str) -> tuple[Tensor, Tensor]:
    """A part as the network reads it."""
    inputs, targets = start[part]
    if "scaling" in start:
        scale, shift = start["scaling"]
        inputs = inputs.float() * scale + shift
    return inputs, targets


def endless(work: Work, start: dict[str, Any], workers: int) -> Batches:
    """Training batches on the device, epoch after epoch."""
    if work.kind == "cnn":
        batches = loader(work, start, workers)
        while True:
            for inputs, targets in batches:
                yield (
                    inputs.to(work.device, non_blocking=True),
                    targets.to(work.device, non_blocking=True),
                )
    if "stream" in start:
        yield from _windows(work, start["stream"].long())
    x, y = (part.to(work.device) for part in ready(start, "train"))
    while True:
        for index in torch.randperm(len(x), device=x.device).split(work.batch_size):
            yield x[index], y[index]


def _windows(work: Work, stream: Tensor) -> Batches:
    """Random windows stacked into a batch, as nanoGPT does it."""
    context = work.sizes["context"]
    while True:
        starts = torch.randint(len(stream) - context, (work.batch_size,)).tolist()
        inputs = torch.stack([stream[first : first + context] for first in starts])
        targets = torch.stack([stream[first + 1 : first + context + 1] for first in starts])
        if work.device == "cuda":
            inputs, targets = inputs.pin_memory(), targets.pin_memory()
        yield (
            inputs.to(work.device, non_blocking=True),
            targets.to(work.device, non_blocking=True),
        )


def validate(work: Work, model: nn.Module, loss_of: LossOf, val: tuple[Tensor, Tensor]) -> float:
    """The mean validation loss."""
    model.eval()
    with torch.no_grad(), mixed(work):
        loss = loss_of(*val).item()
    model.train()
    return loss


def round_as(check: bool) -> None:
    """Has a GPU multiply fp32 as ours does: exactly where losses are compared, else as TF32."""
    torch.set_float32_matmul_precision("highest" if check else "high")
    torch.backends.cudnn.allow_tf32 = not check


def mixed(work: Work) -> Any:
    """Mixed precision, where the work has it."""
    if work.precision == "fp32":
        return nullcontext()
    return torch.autocast(work.device, dtype=torch.bfloat16)


def train(
    work: Work,
    model: nn.Module,
    loss_of: LossOf,
    batches: Batches,
    val: tuple[Tensor, Tensor],
    *,
    copied: bool = False,
) -> tuple[list[float], list[tuple[int, float]]]:
    """The loop; returns the loss of each step, and (step, seconds) of each mark.

    Args:
        loss_of: gives the mean loss of inputs and targets.
        copied: whether a loss is overwritten by the next one, so that it has to be copied.
    """
    optimizer, losses, marks = optimizer_of(work, model), list[float](), []
    kept: list[Tensor] = []  # nobody waits for these until a mark
    model.train()
    for step, (inputs, targets) in zip(range(1, work.steps + 1), batches, strict=False):
        if work.linear:
            for group in optimizer.param_groups:
                group["lr"] = work.lr * (1 - (step - 1) / work.steps)
        with mixed(work):
            loss = loss_of(inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if work.kind == "fnn":  # the loss is recorded in each step: its line says so
            losses.append(loss.item())
        else:
            kept.append(loss.detach().clone() if copied else loss.detach())
        if step % work.validate_every == 0 or step == work.steps:
            validate(work, model, loss_of, val)
        if step % work.mark_every == 0 or step == work.steps:
            if kept:
                losses += torch.stack(kept).tolist()
                kept.clear()
            marks.append((step, time.perf_counter()))
    losses += [float(loss) for loss in kept]  # where there were fewer batches than steps
    return losses, marks


def compiled_loss(loss_of: LossOf, own_rnn: bool, graphs: bool) -> LossOf:
    """The loss with its network as torch compiles it, from a compiler that has kept nothing: it gives
    up on what it has seen too often, and a process does many runs.

    Args:
        own_rnn: leave recurrent layers to cuDNN.
        graphs: capture CUDA graphs too.
    """
    torch._dynamo.reset()
    torch._dynamo.config.allow_rnn = not own_rnn  # off by default: then the GRU is not compiled at all
    return torch.compile(loss_of, mode="reduce-overhead" if graphs else None)


def run(
    work: Work,
    folder: Path,
    *,
    check: bool = False,
    compiled: bool = False,
    own_rnn: bool = False,
    graphs: bool = False,
    workers: int = 0,
    on_end: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One whole run, or the first steps on the batches that ours began with; see `compiled_loss`."""
    round_as(check)
    start = torch.load(folder / "start.pt", weights_only=True)
    work = checked(work) if check else work
    model = build(work, start["weights"])
    parameters = sum(p.numel() for p in model.parameters())

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        return criterion(work, model(inputs), targets)

    mean_loss = compiled_loss(loss_of, own_rnn, graphs) if compiled else loss_of
    val = tuple(part.to(work.device) for part in ready(start, "val"))
    if check:
        batches = iter([(x.to(work.device), y.to(work.device)) for x, y in start["batches"]])
    else:
        batches = endless(work, start, workers)
    losses, marks = train(work, model, mean_loss, batches, (val[0], val[1]), copied=graphs)
    on_end()
    return {"losses": losses, "marks": marks, "parameters": parameters}
