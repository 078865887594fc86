"""The same work by Lightning's `Trainer`, bare of logger, bar, checkpoints and summary."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.plain import loader, ready, round_as
from benchmarks.plain_models import build, criterion, optimizer_of
from benchmarks.works import Work, checked


class Module(L.LightningModule):
    """A network with its loss; losses are kept as tensors, which nobody waits for."""

    def __init__(self, work: Work, model: nn.Module) -> None:
        super().__init__()
        self.work, self.model = work, model
        self.losses: list[Tensor] = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        del index
        loss = criterion(self.work, self.model(batch[0]), batch[1])
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        del index
        criterion(self.work, self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_of(self.work, self.model)


class Marks(L.Callback):
    """Reads the clock where ours does: at marks within an epoch, and after its evaluation."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.marks: list[tuple[int, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step % self.work.mark_every == 0 and not trainer.is_last_batch:
            self._mark(step)

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._mark(trainer.global_step)

    def _mark(self, step: int) -> None:
        if self.work.device == "cuda":
            torch.cuda.synchronize()
        if self.marks and self.marks[-1][0] == step:  # once more, after the evaluation
            self.marks.pop()
        self.marks.append((step, time.perf_counter()))


def run(
    work: Work,
    folder: Path,
    *,
    check: bool = False,
    workers: int = 0,
    on_end: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One whole run, or the first steps on the batches that ours began with."""
    warnings.filterwarnings("ignore", module="lightning")
    round_as(check)
    work = checked(work) if check else work
    start = torch.load(folder / "start.pt", weights_only=True)
    module, marks = Module(work, build(work, start["weights"])), Marks(work)
    if check:
        batches: Any = DataLoader(start["batches"], batch_size=None)
    else:
        batches = loader(work, start, workers)
    val = ready(start, "val")
    trainer = L.Trainer(
        accelerator="gpu" if work.device == "cuda" else "cpu",
        devices=1,
        max_steps=work.steps,
        precision="32-true" if work.precision == "fp32" else "bf16-mixed",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0 if check else None,
        callbacks=[marks],
    )
    trainer.fit(module, batches, DataLoader(TensorDataset(*val), batch_size=len(val[0])))
    on_end()
    losses = torch.stack(module.losses).tolist()
    return {"losses": losses, "marks": marks.marks}
