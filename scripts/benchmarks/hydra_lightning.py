"""What the default run of ours does, as a script of Hydra and Lightning, with reports and saves.

    python hydra_lightning.py epochs=10

It notes when the first optimizer step is done, how many there were, and the best validation accuracy, in
the file that BENCH_NOTES names.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint, RichModelSummary, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(L.LightningDataModule):
    """1,797 pictures of 8×8, standardised by the training set."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__()
        self.config = config

    def setup(self, stage: str) -> None:
        del stage
        x, y = load_digits(return_X_y=True)
        x, x_val, y, y_val = train_test_split(
            x, y, test_size=self.config.val_fraction, stratify=y, random_state=self.config.seed
        )
        mean, std = x.mean(), x.std()
        self.train = TensorDataset(torch.tensor((x - mean) / std).float(), torch.tensor(y))
        self.val = TensorDataset(torch.tensor((x_val - mean) / std).float(), torch.tensor(y_val))

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, self.config.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, len(self.val))


class Classifier(L.LightningModule):
    """The network, its loss and figures."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        width = 64
        for size in config.hidden_sizes:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.model = nn.Sequential(*layers, nn.Linear(width, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:  # noqa: ARG002
        return self._judged(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:  # noqa: ARG002
        self._judged(batch, "val")

    def _judged(self, batch: tuple[Tensor, Tensor], part: str) -> Tensor:
        outputs = self.model(batch[0])
        loss = F.cross_entropy(outputs, batch[1])
        accuracy = (outputs.argmax(1) == batch[1]).float().mean()
        self.log_dict(
            {f"{part}/loss": loss, f"{part}/accuracy": accuracy},
            on_step=False,
            on_epoch=True,
            prog_bar=True,
        )
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.config.lr, int(self.trainer.estimated_stepping_batches)
        )
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class FirstStep(L.Callback):
    """Notes when the first step is done."""

    at = 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        self.at = self.at or time.time()


@hydra.main(version_base="1.3", config_path=".", config_name="hydra_lightning")
def main(config: DictConfig) -> None:
    L.seed_everything(config.seed, verbose=False)
    first = FirstStep()
    best = ModelCheckpoint(monitor="val/accuracy", mode="max", save_last=True)
    trainer = L.Trainer(
        max_epochs=config.epochs,
        accelerator="auto",
        devices=1,
        logger=TensorBoardLogger("."),
        log_every_n_steps=10,
        callbacks=[best, RichProgressBar(), RichModelSummary(), first],
    )
    trainer.fit(Classifier(config), Digits(config))
    if notes := os.environ.get("BENCH_NOTES"):
        score = float(best.best_model_score or 0)
        found = {"first_step_at": first.at, "score": score, "steps": trainer.global_step}
        Path(notes).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
