"""A run that is interrupted while its step is being compiled can be resumed, and no module that lies in
the current folder is run."""

import json
import re
import signal
from pathlib import Path

from tests.engine.steps import needs_compiler
from tests.faults import trials
from tests.faults.test_current_folder import BIN, names_in, set_traps, started

COMPILED = (
    "device=cpu",
    "device.threads=1",
    "device.engine=compiled",
    "model.hidden_sizes=[16]",
    "trainer.epochs=2",
    "trainer.limit.train=12",
    "trainer.record_every_steps=1",
)


@needs_compiler
def test_ctrl_c_while_compiling_and_resuming(tmp_path: Path) -> None:
    cache = {"BIGMODEL_CACHE": str(tmp_path / "cache")}
    cwd = tmp_path / "stopped"
    cwd.mkdir()
    first = trials.launch(cwd, *COMPILED, hold="compiling", environment=cache)
    first.wait_until_held()
    assert "Compiling the step" in first.log
    first.send(signal.SIGINT)  # while it is still held
    assert first.wait() == 130, first.log
    assert "Traceback" not in first.log
    folder = trials.run_folder(cwd)
    assert folder is not None
    assert json.loads((folder / "summary.json").read_text())["status"] == "stopped"
    assert trials.last_saved_step(cwd) == 1, "the only completed step"
    assert not any(path.is_file() for path in (tmp_path / "cache" / "steps").rglob("*")), (
        "nothing unfinished is left"
    )

    data, temporary = tmp_path / "data", tmp_path / "temporary"
    fired = set_traps(data)
    temporary.mkdir()
    log = started(data, BIN / "bigmodel-train", f"resume={folder}", **cache, TMPDIR=str(temporary))
    assert re.search(r"A step takes .* \(compiled\)", log)
    assert any(path.suffix == ".so" for path in (tmp_path / "cache").rglob("*"))
    assert names_in(fired) == []
    assert names_in(temporary) == [], "under a name that others may have taken before"

    whole = tmp_path / "whole"
    whole.mkdir()
    uninterrupted = trials.launch(whole, *COMPILED, environment=cache)
    assert uninterrupted.wait() == 0, uninterrupted.log
    assert "Compiling the step" not in uninterrupted.log, "it was compiled before"
    other = trials.run_folder(whole)
    assert other is not None
    assert trials.differences(cwd, trials.digest(other)) == []
