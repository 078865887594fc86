"""Small real data sets that come with scikit-learn: read offline, learnt in seconds."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from bigmodel.data.assemble import assemble
from bigmodel.data.base import Dataset, ImageConfig, RealConfig
from bigmodel.data.parts import Part
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Features, Image, Values


class DigitsConfig(ImageConfig):
    """1,797 handwritten digits, 8×8 pixels, by 43 people (Alpaydin and Kaynak, UCI, 1998)."""


class TableConfig(RealConfig):
    """A small table: smaller batches, or an epoch would be only a step or two."""

    batch_size: int = Field(16, ge=1, description="samples in a batch")


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
    from sklearn.datasets import load_iris

    return _classification(config, load_iris())


@data.register("wine", TableConfig)
def wine(config: TableConfig) -> Dataset:
    """178 wines: 13 chemical figures, three growers (Forina, 1988)."""
    from sklearn.datasets import load_wine

    return _classification(config, load_wine())


@data.register("breast_cancer", TableConfig)
def breast_cancer(config: TableConfig) -> Dataset:
    """569 tumours: 30 figures of cell nuclei, malignant or benign (Wolberg et al., 1995)."""
    from sklearn.datasets import load_breast_cancer

    return _classification(config, load_breast_cancer())


@data.register("diabetes", TableConfig)
def diabetes(config: TableConfig) -> Dataset:
    """442 patients: ten figures, how far the disease went in a year (Efron et al., 2004)."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)  # scaled there means: with figures of all samples
    spec = DataSpec(
        "diabetes",
        Features(found.data.shape[1], _names(found.feature_names)),
        Values(("disease progression",), mean=(), std=()),
    )
    samples = Part(torch.from_numpy(found.data), torch.from_numpy(found.target)[:, None])
    return assemble(config, spec, samples, normalize=config.normalize, as_read=True)


def _digits() -> np.ndarray[Any, Any]:
    """The rows of scikit-learn's file: 64 pixels, 0 to 16, and the digit, as float64.

    Read without scikit-learn, which takes longer to import than the model here to learn; by itself where
    a version of it keeps them otherwise.
    """
    package = importlib.util.find_spec("sklearn")  # finds it, and does not import it
    try:
        assert package is not None
        assert package.origin is not None
        file = Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz"
        content = gzip.decompress(file.read_bytes()).decode()
        rows = np.array(content.replace("\n", ",").rstrip(",").split(","), np.float64).reshape(-1, 65)
    except (OSError, EOFError, ValueError, AssertionError):
        from sklearn.datasets import load_digits

        found = load_digits()
        rows = np.column_stack([found.data, found.target])
    return rows


def _classification(config: TableConfig, found: Any) -> Dataset:
    """A table of features with one class for each row."""
    spec = DataSpec(
        config.name,
        Features(found.data.shape[1], _names(found.feature_names)),
        Classes(_names(found.target_names), counts=()),
    )
    samples = Part(torch.from_numpy(found.data), torch.from_numpy(found.target).to(torch.int64))
    return assemble(config, spec, samples, normalize=config.normalize, as_read=True)


def _names(names: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in names)
