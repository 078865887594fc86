"""What lies in the current folder is data: no module of it is run, by us or by what we start."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from bigmodel.runtime.caches import OF_COMPILERS
from tests.engine.steps import needs_compiler

BIN = Path(sys.executable).parent
QUICK = ("debug=fast", "device=cpu", "device.threads=1")
OPTIONAL = ("triton", "tensorflow", "pandas", "numba", "cupy", "IPython", "tabulate", "onnxruntime")
"""What libraries look for and go on without."""

FOREIGN = {*importlib.metadata.packages_distributions(), *OPTIONAL}
NAMES = {*sys.stdlib_module_names, *FOREIGN, "sitecustomize", "usercustomize"} - {"bigmodel"}


def set_traps(folder: Path, names: Iterable[str] = NAMES) -> Path:
    """Modules of these names, each of which leaves a file when it is run; gives where they are left."""
    fired = folder.parent / f"fired-in-{folder.name}"
    folder.mkdir()
    fired.mkdir()
    trap = f"open({str(fired)!r} + '/' + __name__, 'w').close()\n"
    for name in names:
        if name.isidentifier() and name != "hydra_plugins":
            (folder / f"{name}.py").write_text(trap)
    (folder / "hydra_plugins").mkdir()  # of which Hydra loads whatever it finds
    (folder / "hydra_plugins" / "trap.py").write_text(trap)
    return fired


def started(folder: Path, *command: object, **environment: str) -> str:
    """What a command prints, which has to end well."""
    ours = {"PYTHONSAFEPATH", *OF_COMPILERS}  # what runs in this very process may have set
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_traps_do_fire(tmp_path: Path) -> None:
    fired = set_traps(tmp_path / "data", ["ctypes", "torch"])
    started(tmp_path / "data", sys.executable, "-c", "import ctypes, torch")
    assert names_in(fired) == ["ctypes", "torch"]


def test_training_and_every_verb(tmp_path: Path) -> None:
    data = tmp_path / "data"
    fired = set_traps(data)
    rows = [f"{number % 7},{number % 3},{'ab'[number % 2]}" for number in range(60)]
    (data / "mine.csv").write_text("\n".join(["x,z,y", *rows]) + "\n")
    (data / "new.csv").write_text("x,z\n1,2\n")
    of_table = ("data=table", "data.path=mine.csv", "data.target=y")
    started(data, BIN / "bigmodel-train", *QUICK, *of_table, "data.workers=2", "hydra.run.dir=run")
    started(data, BIN / "bigmodel", "eval", "run")
    started(data, BIN / "bigmodel", "predict", "run", "--input", "new.csv", "--output", "-")
    started(data, BIN / "bigmodel", "export", "run")
    assert (data / "run" / "model.onnx").is_file()
    assert names_in(fired) == []


def test_other_ways_to_start_it(tmp_path: Path) -> None:
    """`python -m` puts the current folder first before our first line is run, and what Python itself
    needs until then may come from there; nothing later does."""
    data = tmp_path / "data"
    fired = set_traps(data, FOREIGN)
    started(data, sys.executable, "-m", "bigmodel", *QUICK, "hydra.run.dir=run")
    started(data, sys.executable, "-m", "bigmodel.cli.train", *QUICK, "hydra.run.dir=again")
    started(data, sys.executable, "-m", "bigmodel.cli.commands.main", "eval", "run")
    started(data, BIN / "bigmodel-train", "-m", *QUICK, "optimizer.lr=0.1,0.2")
    started(data, BIN / "bigmodel-train", "--help")
    started(data, BIN / "bigmodel-train", "--cfg", "job")
    assert names_in(fired) == []


@pytest.mark.parametrize("path", ["{0}{1}", "{1}{0}"])
def test_an_empty_entry_of_the_path(tmp_path: Path, path: str) -> None:
    """`PYTHONPATH=$PYTHONPATH:/mine` leaves one, which is the current folder to Python; what it loads
    itself as it starts, such as `_distutils_hack`, comes from there."""
    data, mine = tmp_path / "data", tmp_path / "mine"
    fired = set_traps(data, [name for name in FOREIGN if not name.startswith("_")])
    mine.mkdir()
    known = os.pathsep.join(filter(None, [str(mine), os.environ.get("PYTHONPATH")]))
    words = (*QUICK, "data.workers=2")
    told = path.format(os.pathsep, known)
    started(data, BIN / "bigmodel-train", *words, PYTHONPATH=told)
    assert names_in(fired) == []


@needs_compiler
def test_compiling_a_model(tmp_path: Path) -> None:
    """Nor is anything kept under a name in the temporary folder that others may have taken before.

    `test_compiling` holds device.engine=compiled to the same.
    """
    data, cache, temporary = tmp_path / "data", tmp_path / "cache", tmp_path / "temporary"
    fired = set_traps(data)
    temporary.mkdir()
    words = ("device=cpu", "device.threads=1", "device.compile=true", "model.hidden_sizes=[]")
    limits = ("trainer.epochs=1", "trainer.limit.train=1", "trainer.limit.val=1")  # one size of batch
    environment = {"BIGMODEL_CACHE": str(cache), "TMPDIR": str(temporary)}
    told = started(data, BIN / "bigmodel-train", *words, *limits, **environment)
    assert any(path.suffix == ".so" for path in cache.rglob("*")), told
    assert names_in(fired) == []
    assert names_in(temporary) == []


def test_reproducible_runs_load_the_compiler_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    words = (*QUICK, "device.deterministic=true")
    started(tmp_path, BIN / "bigmodel-train", *words, TMPDIR=str(tmp_path / "temporary"))
    assert names_in(tmp_path / "temporary") == []


def test_device_compile_without_a_compiler(tmp_path: Path) -> None:
    told = started(tmp_path, BIN / "bigmodel-train", *QUICK, "device.compile=true", CXX="/nonexistent")
    assert (
        "Compiling: Steps stay eager: compiling needs a C++ compiler, and /nonexistent cannot be started"
        in told
    )
    assert "Error" not in told
