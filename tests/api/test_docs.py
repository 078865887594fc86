"""The examples of the page on Python run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end import pages

SCRIPTS = {
    "use_a_run.py": ["[{'prediction': ", "{'loss': ", "{'prediction': [", "0.002 "],
    "search.py": ["[0.", "{'classifier__optimizer.lr': 0.1} [0 0 0]"],
}
"""Each script of the page, and how the lines begin that it prints after training."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_of_the_page_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(pages.files()[name])
    done = subprocess.run(
        [sys.executable, "-W", "error", name],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    printed = done.stdout.splitlines()
    for start in SCRIPTS[name]:
        assert any(line.startswith(start) for line in printed), (start, printed)
