"""A small house of configurations, laid out and commented as the real one."""

from pathlib import Path
from textwrap import dedent

import pytest

SHIPPED = {
    "train.yaml": """\
        # Training: one choice from each group.
        defaults:
          - model: fnn
          - optimizer: sgd
          - _self_
          - experiment: null
          - override hydra/job_logging: none
          - override hydra/hydra_logging: none

        seed: 0  # seed of everything random
        plugins: []  # modules of yours
        early:  # when to end
          patience: 3  # epochs without improvement, 1 or more

        hydra:
          run:
            dir: out/run
          sweep:
            dir: out/sweep
        """,
    "model/fnn.yaml": """\
        # Layers that see everything
        name: fnn  # which registered entry this configures
        hidden_sizes: [128, 64]  # width of each layer
        dropout: 0.0  # share of activations dropped
        """,
    "model/cnn.yaml": """\
        # Convolutions, for images
        name: cnn  # which registered entry this configures
        channels: [32]  # channels of each stage; "same" is no choice
        dropout: 0.0  # share of activations dropped
        """,
    "optimizer/sgd.yaml": """\
        # Stochastic gradient descent
        name: sgd  # which registered entry this configures
        lr: 0.1  # step size
        momentum: 0.9  # share of the last step kept
        """,
    "optimizer/adam.yaml": """\
        # Adam
        name: adam  # which registered entry this configures
        lr: 0.001  # step size
        betas: [0.9, 0.999]  # decay of both means
        """,
    "experiment/tiny_cnn.yaml": """\
        # @package _global_
        # A convolution on thumbnails
        defaults:
          - override /model: cnn

        seed: 7
        """,
}


def write(folder: Path, files: dict[str, str]) -> Path:
    """Writes files of the given relative paths and texts, and returns the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return folder


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write(tmp_path / "configs", SHIPPED)


@pytest.fixture
def own(tmp_path: Path):
    """Writes files into a folder of the user's own, for `--config-dir`."""

    def add(files: dict[str, str]) -> Path:
        return write(tmp_path / "own", files)

    return add
