"""The ways that `scripts/bench_tuning.py` measures, with a model that takes milliseconds."""

from pathlib import Path

import pytest
import torch
from bench_tuning import WAYS, measure, parse_arguments

from bigmodel.build.new_run import build_run
from bigmodel.training.loop import fit
from tests.small_runs import config

TOKENS = {"data.input": "tokens", "data.shape": [6], "data.vocab_size": 300}
MODEL = {"name": "transformer", "dim": 64, "depth": 5, "num_heads": 2, "token_types": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    fit(build_run(config(TOKENS | {"model": MODEL, "trainer.epochs": 1}), folder))
    return folder


def test_bytes_are_those_of_what_is_trained(base: Path) -> None:
    words = [str(base), "--batch-size", "4", "--length", "6", "--vocab-size", "300", "--steps", "2"]
    threads = torch.get_num_threads()
    try:
        found = {way: measure(parse_arguments(words), way) for way in WAYS}
    finally:
        torch.set_num_threads(threads)
    for measured in found.values():
        assert measured.gradients == 4 * measured.trained
        assert 2 * measured.gradients < measured.optimizer < 2.1 * measured.gradients + 1000
    whole = found["everything"]
    assert whole.weights == whole.gradients
    assert found["the last blocks"].gradients < whole.gradients / 2
    assert found["LoRA"].gradients < whole.gradients / 5
    assert found["LoRA, int8"].weights < found["LoRA, bf16"].weights < found["LoRA"].weights
