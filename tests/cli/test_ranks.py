"""What processes that train one run together tell each other before they do."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bigmodel.cli.ranks import Task


@pytest.mark.parametrize("resumed", [None, Path("runs/ä")])
def test_a_task_arrives_as_it_was_sent(resumed: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpolations, too: what the environment says is not sent."""
    values = {
        "model": {"name": "fnn", "sizes": [8, 8]},
        "lr": 1e-3,
        "none": None,
        "secret": "${oc.env:X}",
    }
    sent = Task(OmegaConf.create(values), Path("runs/new"), resumed, may_change=True)
    monkeypatch.setenv("X", "hidden")
    text = sent.to_text()
    assert "hidden" not in text
    received = Task.from_text(text)
    assert received == sent
    assert received.config.secret == "hidden"
