"""Reports are the same wherever the tests are called from: programs are where PATH leads."""

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
