"""Data that several runs read only once: the first prepares and stores it, the others map it.

Stored data is a pickle, which can run code: the folder has to belong to the user alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import torch

from bigmodel.build.dataset import read_dataset
from bigmodel.config import RunConfig
from bigmodel.data.base import Dataset
from bigmodel.data.parts import Windows
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.runtime.file_lock import locked

_SPARE = 4
"""How many times a dataset's size has to be free on the disk before it is stored."""


class SharedData:
    """Reads datasets for runs in several processes.

    Args:
        folder: private to the user; the caller deletes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, config: RunConfig, learnt: Preprocessing | None = None) -> Dataset:
        """The data of a run, as `read_dataset` gives it; mapped if a run with the same settings has read
        it already.

        Args:
            config: of the run.
            learnt: of a run that is resumed, which reads the data by itself.

        Raises:
            ConfigError, DataError: as `read_dataset` has it.
        """
        if learnt is not None:
            return read_dataset(config, learnt)
        path = self._folder / f"{_key(config)}.pt"
        with locked(path.with_suffix(".lock")):
            if path.is_file():
                # Mapped pages are shared by all processes, and copied by one that writes to them.
                stored: Dataset = torch.load(path, mmap=True, weights_only=False)
                return stored
            dataset = read_dataset(config)
            self._store(dataset, path)
            return dataset

    def _store(self, dataset: Dataset, path: Path) -> None:
        """Stores data, unless it cannot be, or the disk is short: then each run reads it by itself. So
        it does a text whose tokens are mapped from a file already."""
        if any(isinstance(part, Windows) and part.mapped for part in dataset.parts.values()):
            return
        temporary = path.with_suffix(".tmp")
        size = sum(part.nbytes for part in dataset.parts.values())
        with contextlib.suppress(Exception):  # data of a plugin may not be pickled
            if shutil.disk_usage(self._folder).free > _SPARE * size:
                torch.save(dataset, temporary)
                temporary.rename(path)
        temporary.unlink(missing_ok=True)


def _key(config: RunConfig) -> str:
    """What the data depends on, as a file name."""
    settings = {
        "data": config.values["data"],
        "pretrained": config.fine_tuning.pretrained,
        "limit": config.values["trainer"].get("limit"),
        "plugins": config.top.plugins,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:32]
