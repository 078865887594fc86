"""What inputs are compared with, of every kind of column."""

from pathlib import Path

import torch

import bigmodel as bm
from bigmodel.explain.baselines import baseline_of
from bigmodel.explain.groups import Columns
from tests.cli.commands.conftest import Run, made

__all__ = ["made"]


def opened(folder: Path) -> bm.TrainedRun:
    return bm.load(folder, device="cpu")


def test_of_a_table_it_is_the_mean_and_the_most_frequent_category(made: Run) -> None:
    preprocessing = opened(made("table"))._loaded.preprocessing
    baseline, columns = baseline_of(preprocessing), Columns.from_preprocessing(preprocessing)
    assert columns.names == ("city", "area", "built")
    city = columns.inputs(0)
    assert baseline.inputs[0, city].tolist() == [1.0]  # the most frequent comes first
    others = [place for place in range(baseline.inputs.shape[1]) if place != int(city)]
    assert (baseline.inputs[0, others] == 0).all()  # means, and nothing is missing
    assert baseline.words == "the mean of each number and the most frequent of each category in training"


def test_without_standardising_it_is_the_median(tmp_path: Path) -> None:
    rows = [{"a": float(n % 10) ** 2, "y": float(n)} for n in range(60)]
    run = bm.train(
        *("data.target=y", "data.normalize=false", "model=fnn", "device=cpu", "trainer.max_steps=2"),
        f"hydra.run.dir={tmp_path / 'run'}",
        frame=rows,
        progress=False,
    )
    preprocessing = run._loaded.preprocessing
    (column,) = preprocessing.reader.columns  # type: ignore[union-attr]
    assert baseline_of(preprocessing).inputs.tolist() == [[column.scale.fill]]
    assert column.scale.fill > 0


def test_columns_add_up_their_inputs(made: Run) -> None:
    columns = Columns.from_preprocessing(opened(made("table"))._loaded.preprocessing)
    values = torch.arange(float(len(columns.of)))[None]
    summed = columns.sum(values)
    assert summed.sum() == values.sum()
    for column in range(3):
        assert summed[0, column] == values[0, columns.inputs(column)].sum()
