"""Training in a notebook, with a real kernel: the page in the docs, its bar, and its stop button."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.end_to_end.pages import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client's own libraries
PAGE = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the cells of a notebook in an empty folder; gives them with their outputs."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    (tmp_path / "work").mkdir()

    def run(notebook: Any) -> list[Any]:
        place = {"metadata": {"path": str(tmp_path / "work")}}
        client = NotebookClient(notebook, timeout=200, startup_timeout=120, resources=place)
        client.execute()
        return [cell for cell in notebook.cells if cell.cell_type == "code"]

    return run


def notebook_of(*sources: str, may_fail: int | None = None) -> Any:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if may_fail is not None:
        cells[may_fail].metadata["tags"] = ["raises-exception"]
    return nbformat.v4.new_notebook(cells=cells)


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def shown(cell: Any) -> list[dict[str, str]]:
    return [output.data for output in cell.outputs if "data" in output]


def test_the_page_runs(executed: Any, tmp_path: Path) -> None:
    page = nbformat.read(PAGE, as_version=4)
    cells = executed(page)
    assert [output for cell in cells for output in cell.outputs if output.output_type == "error"] == []
    trained = next(cell for cell in cells if "bigmodel.train" in cell.source)
    assert printed(trained).splitlines()[0].startswith("Model: fnn")
    assert len(printed(trained).splitlines()) < 40
    bar, run = shown(trained)
    assert bar == {"text/plain": "", "text/html": ""}  # gone when training is over
    assert "val/auc" in run["text/html"]
    predicted = next(cell for cell in cells if "run.predict" in cell.source)
    assert "probability" in shown(predicted)[0]["text/html"]
    assert (tmp_path / "work" / "report.html").stat().st_size > 20_000
    assert "report.html" in shown(cells[-1])[0]["text/html"]


def test_its_outputs_are_not_kept() -> None:
    cells = [cell for cell in nbformat.read(PAGE, as_version=4).cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


TRAIN = """
import os
from pathlib import Path
import bigmodel

Path("pid").write_text(str(os.getpid()))
rows = [{"a": n % 7, "y": n % 5} for n in range(200)]
bigmodel.train(
    "data.target=y", "device=cpu", "device.engine=eager", "trainer.max_steps=10000000", frame=rows
)
"""


def test_the_stop_button_saves_and_the_run_goes_on(executed: Any, tmp_path: Path) -> None:
    work = tmp_path / "work"

    def press() -> None:
        deadline = time.monotonic() + 150
        while not [*work.glob("outputs/*/*/metrics.jsonl")] and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.5)  # the bar is drawn
        os.kill(int((work / "pid").read_text()), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    resume = """
folder = next(Path("outputs").glob("*/*"))
step = bigmodel.load(folder, weights="last").step
run = bigmodel.train(f"resume={folder}", f"trainer.max_steps={step + 20}")
print("steps:", bigmodel.load(run.folder, weights="last").step - step)
"""
    stopped, resumed = executed(notebook_of(TRAIN, resume, may_fail=0))
    thread.join()
    (error,) = [output for output in stopped.outputs if output.output_type == "error"]
    assert error.ename == "KeyboardInterrupt"
    assert "bigmodel.train('resume=" in error.evalue
    assert "goes on." in error.evalue
    assert printed(resumed).endswith("steps: 20\n")


def test_the_bar_is_one_output_that_is_redrawn(executed: Any) -> None:
    watch = """
import IPython.display, json
drawn = []
real = IPython.display.DisplayHandle.update
def update(handle, *args, **how):
    drawn.append(args[0]["text/plain"])
    return real(handle, *args, **how)
IPython.display.DisplayHandle.update = update
"""
    words = '"trainer.max_steps=10000000", "trainer.max_minutes=0.04"'
    short = TRAIN.replace('"trainer.max_steps=10000000"', words)
    first, second = executed(notebook_of(watch + short, "print(json.dumps(drawn[:2]))"))
    assert len(shown(first)) == 2  # the bar, and the run
    assert "epoch" in printed(second)
    assert "samples/s" in printed(second)
