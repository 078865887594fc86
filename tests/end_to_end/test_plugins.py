"""A user's own model, chosen by name without a change to the package: the README's example, run."""

import re
import sys
from pathlib import Path

import pytest

from bigmodel import registry

from .conftest import Command

README = Path(__file__).parents[2] / "README.md"


def example_files() -> dict[str, str]:
    """The code blocks of the README's example, each under the file name in its first comment."""
    section = README.read_text().split("## Your own model")[1].split("\n## ")[0]
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", section, flags=re.DOTALL)
    return dict(blocks)


def test_the_readme_s_example_trains(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    files = example_files()
    assert set(files) == {"my_models.py", "my_configs/model/two_towers.yaml"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    arguments = ("--config-dir", "my_configs", "plugins=[my_models]", "model=two_towers", "device=cpu")
    try:
        result = command(*arguments, "trainer.epochs=3")
        assert result.status == 0, result.err
        assert "two_towers" in result.out
        assert "my_models" in result.out
        assert result.summary()["final"]["val/accuracy"] > 0.8

        forgotten = command(f"resume={result.folder}", "trainer.epochs=4")
        assert forgotten.status == 1
        assert "plugins=[my_models]" in forgotten.err
        resumed = command(f"resume={result.folder}", "plugins=[my_models]", "trainer.epochs=4")
        assert resumed.status == 0, resumed.err
    finally:
        registry.models._entries.pop("two_towers", None)
        sys.modules.pop("my_models", None)
