"""The measurement of packing: every way trains, on tokens that are asked for."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch
from bench_packing import WAYS, at_random, main

from bigmodel.data.packing import Documents
from bigmodel.spec import IGNORED


def test_batches_at_random_hold_each_document_once_an_epoch() -> None:
    starts = torch.arange(0, 60, 6)
    part = Documents(torch.arange(70), starts, torch.tensor([2, 5] * 5), 0)
    batches = list(itertools.islice(at_random(part, 4), 3))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(int(row) for batch in batches for row in batch.inputs[:, 0]) == starts.tolist()
    asked = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
    assert asked == 35
    assert next(at_random(part, 4, 9)).inputs.shape == (4, 9)


def test_each_way_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lines.txt").write_text("".join(f"{'word ' * (n % 5)}{n}\n" for n in range(60)))
    size = ["--dim", "16", "--depth", "1", "--context", "32", "--vocab-size", "300", "--windows", "2"]
    main([str(tmp_path / "lines.txt"), *size, "--rounds", "1", "--seconds", "0.01"])
    _, *lines = capsys.readouterr().out.splitlines()
    for way, line in zip(WAYS, lines, strict=True):
        assert re.match(rf"{way} +[\d,]+ tokens/s; packing is [\d.]+ times as fast", line)
