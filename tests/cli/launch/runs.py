"""Runs as they would have been left, for the tests of going on with them."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

VALUES: dict[str, Any] = {
    "model": {"name": "fnn", "hidden_sizes": [8], "dropout": 0.0},
    "data": {"name": "digits"},
    "loss": {"name": "auto"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "scheduler": {"name": "constant"},
    "device": {"name": "auto"},
    "trainer": {
        "epochs": 30,
        "accumulate": 1,
        "ema": None,
        "clip_norm": None,
        "limit": {"train": None, "val": None},
    },
    "seed": 0,
    "plugins": [],
    "output_dir": "outputs",
    "resume": None,
}

NOTHING_NEW: Any = Namespace()
"""A checked configuration without any setting: none has been added since."""


def run_folder(
    folder: Path, values: dict[str, Any], status: str | None, checkpoint: str = "last"
) -> Path:
    """Lays out a run as it would have been left."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(values)))
    if checkpoint:
        (folder / "checkpoints" / checkpoint).mkdir(parents=True)
    if status is not None:
        (folder / "summary.json").write_text(json.dumps({"status": status}))
    return folder


def composed(**keys: Any) -> DictConfig:
    return OmegaConf.create(changed(**keys))


def changed(**keys: Any) -> dict[str, Any]:
    """The values of the run with changes by dotted key, `__` for the dot."""
    config = OmegaConf.create(VALUES)
    for key, value in keys.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
