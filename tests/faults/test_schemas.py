"""Checkpoints of every schema that was ever released keep loading, and a newer one is refused.

Each folder in `schemas/` is a run as that version left it after step 5 of 8, on 40 made-up samples. The
losses of the steps that were left are those of the same version, which went on without a stop.
"""

import json
import shutil
from pathlib import Path

import pytest

from bigmodel.checkpointing import manifest
from tests.faults import trials

SCHEMAS = Path(__file__).parent / "schemas"
LEFT = {6: 1.057610273361206, 7: 0.8962619304656982, 8: 0.7780781984329224}


def test_each_schema_has_its_run() -> None:
    assert sorted(int(path.name) for path in SCHEMAS.iterdir()) == list(range(1, manifest.SCHEMA + 1))


@pytest.mark.parametrize("schema", range(1, manifest.SCHEMA + 1))
def test_an_older_run_goes_on(tmp_path: Path, schema: int) -> None:
    run = Path(shutil.copytree(SCHEMAS / str(schema), tmp_path / "run"))
    assert manifest.verify(run / "checkpoints" / "last")[0] == schema
    attempt = trials.launch(
        tmp_path, "resume=run", "trainer.max_steps=8", "trainer.record_every_steps=1"
    )
    assert attempt.wait() == 0, attempt.log
    assert "Resuming: after step 5 of 8" in attempt.log
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {record["step"]: record["train/loss"] for record in records} == pytest.approx(LEFT, rel=1e-5)
    assert manifest.verify(run / "checkpoints" / "last")[0] == manifest.SCHEMA


def test_a_newer_one_is_refused_by_its_version(tmp_path: Path) -> None:
    run = Path(shutil.copytree(SCHEMAS / str(manifest.SCHEMA), tmp_path / "run"))
    path = run / "checkpoints" / "last" / manifest.NAME
    files = json.loads(path.read_text())["files"]
    path.write_text(manifest._text(manifest.SHARDED_SCHEMA + 1, files))
    attempt = trials.launch(tmp_path, "resume=run", "trainer.max_steps=8")
    assert attempt.wait() == 1
    newest = manifest.SHARDED_SCHEMA
    assert f"checkpoint schema {newest + 1}; this version reads up to {newest}" in attempt.log
    assert "Update bigmodel-train" in attempt.log
