"""Two GPUs train what one trains."""

from pathlib import Path

import pytest
import torch

from tests.distributed.rank_runs import records, train, train_on, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]

CASES = {
    name: {"device": {"name": "cuda", "precision": "fp32", "tf32": False, "engine": "eager"}} | changes
    for name, changes in {
        "plain": {},
        "rows that ranks do not divide": {"data.batch_size": 11},
        "clipped": {"trainer.clip_norm": 0.1, "trainer.accumulate": 2},
    }.items()
}


def test_records_and_weights_are_those_of_one_gpu(tmp_path: Path) -> None:
    train(CASES, tmp_path / "1")
    train_on(2, CASES, tmp_path / "2")
    for name in CASES:
        expected, actual = records(tmp_path / "1" / name), records(tmp_path / "2" / name)
        assert [r["train/loss"] for r in actual] == pytest.approx([r["train/loss"] for r in expected])
        for key, value in weights(tmp_path / "1" / name).items():
            torch.testing.assert_close(weights(tmp_path / "2" / name)[key], value, rtol=1e-4, atol=1e-5)
