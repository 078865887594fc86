"""A run that goes on from any step ends as the one that was never stopped, to the bit."""

from pathlib import Path

import pytest

from tests.faults.every_step import VARIANTS, checkpoints_of, differing


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_first_a_middle_and_a_last_step(tmp_path: Path, variant: str) -> None:
    """The first, one in the middle, the last of the first epoch, the one after it and the last but one;
    of a schedule, which follows from the number of the step, those around the end of an epoch. All of
    them are `scripts/prove_reliability.py`'s."""
    kept = checkpoints_of(tmp_path, VARIANTS[variant])
    per_epoch = len(kept) // 2
    chosen = {per_epoch - 1, per_epoch}
    if "scheduler.interval" not in VARIANTS[variant]:
        chosen |= {0, per_epoch // 2, -2 % len(kept)}
    assert differing(tmp_path, VARIANTS[variant], [kept[index] for index in sorted(chosen)]) == []


@pytest.mark.parametrize("variant", ["accumulation"])
def test_the_middle_of_an_accumulation(tmp_path: Path, variant: str) -> None:
    changes = VARIANTS[variant] | {"trainer.accumulate": 3}
    plain = checkpoints_of(tmp_path / "plain", changes)
    kept = checkpoints_of(tmp_path / "pieces", changes, pieces=True)
    assert len(kept) > 2 * len(plain)
    begun = [path for path in kept if (path / "accumulation.safetensors").exists()]
    assert len(begun) >= 12
    assert differing(tmp_path / "plain", changes, begun[::3]) == []
