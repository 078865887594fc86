"""What a run loads, and when: a start is mostly imports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = {
    # hard dependencies, and Pillow, which comes with TensorBoard
    "bigmodel", "torch", "numpy", "hydra", "omegaconf", "pydantic", "rich", "yaml", "safetensors",
    "google", "tensorboard", "PIL",
    # what rich looks for, to print its objects
    "attr",
    # plugins of Hydra's that are installed, which it looks at to list its launchers
    "hydra_plugins",
    # their own dependencies
    "_yaml", "annotated_types", "antlr4", "functorch", "packaging", "pydantic_core", "torchgen",
    "tqdm", "typing_extensions", "typing_inspection", "__mp_main__",
}  # fmt: skip
HEAVY = {
    "torch._dynamo", "torch._inductor", "torch.onnx", "torch.fx.experimental.symbolic_shapes",
    "torch.utils.tensorboard", "tensorboard.compat.tensorflow_stub", "tensorboard.backend",
    "absl", "datasets", "fsspec", "grpc", "joblib", "lightning", "matplotlib", "mpmath", "onnx",
    "onnxscript", "pandas", "pyarrow", "pytorch_lightning", "sacrebleu", "schedulefree", "scipy",
    "sklearn", "soundfile", "sympy", "tensorflow", "tokenizers", "transformers",
}  # fmt: skip
"""What takes longer to load than a small model to train, or has no business there."""

WATCHED = """
import json, sys
from pathlib import Path

before = set(sys.modules)
import bigmodel.cli.job as job
import bigmodel.cli.train as train

def watched(run):
    step = type(run.step)
    call = step.__call__

    def first(self, *args, **options):
        done = call(self, *args, **options)
        step.__call__ = call
        Path("first.json").write_text(json.dumps(sorted(set(sys.modules) - before)))
        return done

    step.__call__ = first
    return fit(run)

fit, job.fit_run = job.fit_run, watched
train.main()
Path("whole.json").write_text(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(folder: Path, *settings: str) -> tuple[set[str], set[str]]:
    """The modules there after the first step of a run, and those after the whole run."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *settings],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    first, whole = (json.loads((folder / f"{name}.json").read_text()) for name in ("first", "whole"))
    return set(first), set(whole)


def test_the_default_run_loads_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    first, whole = loaded(tmp_path, "device=cpu")
    assert {
        "torch",
        "bigmodel.engine.step",
        "bigmodel.reporting.tensorboard_events",
    } <= first  # or nothing was watched
    assert "bigmodel.reporting.pictures" in whole
    assert HEAVY & whole == set()
    packages = {name.split(".")[0] for name in whole}
    unknown = {name for name in packages - ALLOWED - sys.stdlib_module_names if is_installed(name)}
    assert unknown == set()
    entries = {"bigmodel.models.cnn", "bigmodel.data.sources.table", "bigmodel.optim.optimizers.muon"}
    assert entries & whole == set()  # only what was chosen


@pytest.mark.parametrize(
    "settings",
    [
        ["model=cnn", "optimizer=muon", "trainer.clip_norm=1", "trainer.ema=0.9"],
        ["model=transformer", "optimizer=sgd", "data=synthetic", "data.samples=200"],
    ],
    ids=" ".join,
)
def test_no_other_run_loads_the_compiler(tmp_path: Path, settings: list[str]) -> None:
    _, whole = loaded(tmp_path, *settings, "trainer.max_steps=2", "device=cpu")
    assert "bigmodel.engine.step" in whole
    assert HEAVY & whole == set()


def is_installed(name: str) -> bool:
    """Not so what extension modules leave behind, such as `_cython_3_2_4`, and data of the build."""
    return not name.startswith(("_cython_", "cython_", "_sysconfigdata"))
