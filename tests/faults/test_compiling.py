"""A run whose step is being compiled, in a process of its own, is interrupted, and goes on."""

import json
import re
import signal
from pathlib import Path

from tests.engine.steps import needs_compiler
from tests.faults import trials

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
def test_ctrl_c_while_compiling_and_going_on(tmp_path: Path) -> None:
    cache = {"BIGMODEL_CACHE": str(tmp_path / "cache")}
    cwd = tmp_path / "stopped"
    cwd.mkdir()
    first = trials.launch(cwd, *COMPILED, hold="compiling", environment=cache)
    first.wait_until_held()
    assert "Compiling the step" in first.log
    first.send(signal.SIGINT)  # and nobody lets it go
    assert first.wait() == 130, first.log
    assert "Traceback" not in first.log
    folder = trials.run_folder(cwd)
    assert folder is not None
    assert json.loads((folder / "summary.json").read_text())["status"] == "stopped"
    assert trials.last_saved_step(cwd) == 1, "the only step that was done"
    assert not any(path.is_file() for path in (tmp_path / "cache" / "steps").rglob("*")), "half done"

    again = trials.launch(cwd, f"resume={folder}", environment=cache)
    assert again.wait() == 0, again.log
    assert re.search(r"A step takes .* \(compiled\)", again.log)

    whole = tmp_path / "whole"
    whole.mkdir()
    undisturbed = trials.launch(whole, *COMPILED, environment=cache)
    assert undisturbed.wait() == 0, undisturbed.log
    assert "Compiling the step" not in undisturbed.log, "it is there from before"
    other = trials.run_folder(whole)
    assert other is not None
    assert trials.differences(cwd, trials.digest(other)) == []
