"""Small real data sets that come with scikit-learn: read offline, learnt in seconds."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigmodel.data.assemble import assemble
from bigmodel.data.base import BatchSize, Dataset, ImageConfig, RealConfig
from bigmodel.data.parts import Part
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Features, Image, Target, Values


class DigitsConfig(ImageConfig):
    """1,797 handwritten digits, 8×8 pixels, by 43 people (Alpaydin and Kaynak, UCI, 1998)."""


class TableConfig(RealConfig):
    """A small table: smaller batches, or an epoch would be only a step or two."""

    batch_size: BatchSize = 16


@data.register("digits", DigitsConfig)
def digits(config: DigitsConfig) -> Dataset:
    """Handwritten digits: images 1×8×8, from 0 to 1, of ten classes."""
    rows = torch.from_numpy(_digits())
    images = rows[:, :-1].reshape(-1, 1, 8, 8) / 16  # 16 shades there
    spec = DataSpec("digits", Image(1, 8, 8), Classes(_names(range(10)), counts=()))
    samples = Part(images, rows[:, -1].to(torch.int64))
    return assemble(config, spec, samples, normalize=config.normalize, as_read=True)


@data.register("iris", TableConfig)
def iris(config: TableConfig) -> Dataset:
    """150 irises: four lengths in cm, three species (Fisher, 1936)."""
    return _classification(config)


@data.register("wine", TableConfig)
def wine(config: TableConfig) -> Dataset:
    """178 wines: 13 chemical figures, three growers (Forina, 1988)."""
    return _classification(config)


@data.register("breast_cancer", TableConfig)
def breast_cancer(config: TableConfig) -> Dataset:
    """569 tumours: 30 figures of cell nuclei, malignant or benign (Wolberg et al., 1995)."""
    return _classification(config)


@data.register("diabetes", TableConfig)
def diabetes(config: TableConfig) -> Dataset:
    """442 patients: ten figures, how far the disease went in a year (Efron et al., 2004)."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)  # their scaling uses statistics of all samples
    target = Values(("disease progression",), mean=(), std=())
    return _table(config, bunch, target, torch.from_numpy(bunch.target)[:, None])


def _digits() -> np.ndarray[Any, Any]:
    """The rows of scikit-learn's file: 64 pixels, 0 to 16, and the digit, as float64.

    Read without importing scikit-learn, which takes longer than training a model on them; if a version
    of it stores them in another way, it reads them itself.
    """
    package = importlib.util.find_spec("sklearn")  # without importing it
    try:
        assert package is not None
        assert package.origin is not None
        file = Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz"
        content = gzip.decompress(file.read_bytes()).decode()
        rows = np.array(content.replace("\n", ",").rstrip(",").split(","), np.float64).reshape(-1, 65)
    except (OSError, EOFError, ValueError, AssertionError):
        from sklearn.datasets import load_digits

        bunch = load_digits()
        rows = np.column_stack([bunch.data, bunch.target])
    return rows


def _classification(config: TableConfig) -> Dataset:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{config.name}")()
    target = Classes(_names(bunch.target_names), counts=())
    return _table(config, bunch, target, torch.from_numpy(bunch.target).to(torch.int64))


def _table(config: TableConfig, bunch: Any, target: Target, targets: Tensor) -> Dataset:
    inputs = Features(bunch.data.shape[1], _names(bunch.feature_names))
    spec = DataSpec(config.name, inputs, target)
    samples = Part(torch.from_numpy(bunch.data), targets)
    return assemble(config, spec, samples, normalize=config.normalize, as_read=True)


def _names(names: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in names)
