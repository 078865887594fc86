"""What a run says of a package that is not installed, and what goes without any but the hard ones."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from bigmodel import errors
from bigmodel.cli.commands import main as commands
from bigmodel.data import libraries
from bigmodel.data.libraries import LazyModule
from tests.end_to_end.conftest import Command

TRACKERS = ("mlflow", "wandb", "trackio")
"""Extras that `all` leaves out."""

SHORT = ("device=cpu", "trainer.tensorboard=false", "trainer.epochs=1")


def hide(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a module as if it were not installed, also where it was loaded lazily before."""
    for name in [module, *(name for name in sys.modules if name.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    for lazy in vars(libraries).values():
        if isinstance(lazy, LazyModule) and lazy._module_name.partition(".")[0] == module:
            for name in vars(lazy).keys() - {"_module_name"}:
                monkeypatch.delattr(lazy, name)


def a_table(folder: Path) -> list[str]:
    (folder / "rows.csv").write_text("a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
    return ["data=table", "data.path=rows.csv", "data.target=b"]


def pictures(folder: Path) -> list[str]:
    for name in ("cat", "dog"):
        (folder / "in" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (4, 4)).save(folder / "in" / name / f"{number}.png")
    return ["data=images", "data.path=in"]


def sounds(folder: Path) -> list[str]:
    for name in ("low", "high"):
        (folder / "in" / name).mkdir(parents=True)
        for number in range(6):
            soundfile.write(folder / "in" / name / f"{number}.wav", np.zeros(800), 8000)
    return ["data=audio", "data.path=in"]


def a_text(folder: Path) -> list[str]:
    (folder / "text.txt").write_text("to be or not to be " * 50)
    return ["data=text", "data.path=text.txt", "data.unit=bpe", "model=transformer"]


def pairs(folder: Path) -> list[str]:
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("".join(f"one two {number}\n" for number in range(40)))
    return ["data=pairs", "data.source=a.txt", "data.target=b.txt", "model=transformer"]


@pytest.mark.parametrize(
    ("module", "settings", "needs"),
    [
        ("pyarrow", a_table, "data=table needs pyarrow, {}[tables]"),
        ("PIL", pictures, "data=images needs pillow, {}[images]"),
        ("soundfile", sounds, "data=audio needs soundfile, {}[audio]"),
        ("tokenizers", a_text, "data=text needs tokenizers, {}[text]"),
        ("sacrebleu", pairs, "data.bleu_pairs=1000 needs sacrebleu, {}[text]"),
        ("schedulefree", lambda _: ["optimizer=schedule_free_adamw"],
         "optimizer=schedule_free_adamw needs schedulefree, {}[optim]"),
        ("regex", lambda _: ["data=images", "data.path=in", "data.label_pattern='(a)'"],
         "data.label_pattern needs regex, {}[text]"),
        ("mlflow", lambda _: ["logger=[mlflow]"], "logger=[mlflow] needs mlflow-skinny, {}[mlflow]"),
        ("wandb", lambda _: ["logger=[wandb]"], "logger=[wandb] needs wandb, {}[wandb]"),
        ("trackio", lambda _: ["logger=[trackio]"], "logger=[trackio] needs trackio, {}[trackio]"),
    ],
    ids=["tables", "images", "audio", "text", "bleu", "optim", "patterns", *TRACKERS],
)  # fmt: skip
def test_a_missing_package_is_named_with_what_to_type(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    settings: Callable[[Path], list[str]],
    needs: str,
) -> None:
    typed = settings(tmp_path)
    hide(module, monkeypatch)
    run = command(*SHORT, *typed)
    assert run.status == 1
    told = needs.format("which is not installed: pip install 'bigmodel-train") + "'"
    assert run.err == f"bigmodel-train: {told}\n"


@pytest.mark.parametrize(
    ("module", "verb", "extra"),
    [
        ("onnx", "export", "export"),
        ("onnxscript", "export", "export"),
        ("pyarrow", "predict", "tables"),
    ],
)
def test_a_verb_names_what_it_needs(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: str,
    verb: str,
    extra: str,
) -> None:
    run = command(*SHORT, "data=iris")
    assert run.folder is not None
    np.savez(tmp_path / "new.npz", inputs=np.zeros((2, 4), np.float32))
    hide(module, monkeypatch)
    more = ["--input", "new.npz"] if verb == "predict" else []
    monkeypatch.setattr(sys, "argv", ["bigmodel", verb, str(run.folder), *more])
    with pytest.raises(SystemExit):
        commands.main()
    told = f"{verb} needs {module}, which is not installed: pip install 'bigmodel-train[{extra}]'"
    assert capsys.readouterr().err == f"bigmodel: {told}\n"


HIDDEN = """
import sys
for name in {modules}:
    sys.modules[name] = None
"""


def without_extras(folder: Path, code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    hidden = HIDDEN.format(modules=sorted(set(errors.EXTRAS) - {"PIL"}))  # TensorBoard brings Pillow
    return subprocess.run(
        [sys.executable, "-c", hidden + code, *argv],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_the_default_run_and_its_evaluation_need_no_extra(tmp_path: Path) -> None:
    code = "from bigmodel.cli.train import main; main()"
    run = without_extras(tmp_path, code, "device=cpu", "hydra.run.dir=run", "trainer.epochs=2")
    assert (run.returncode, run.stderr) == (0, "")
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    code = "from bigmodel.cli.commands.main import main; main()"
    judged = without_extras(tmp_path, code, "eval", "run", "--device", "cpu")
    assert judged.returncode == 0, judged.stderr
    assert "accuracy" in judged.stdout


def test_every_name_can_be_listed_without_extras(tmp_path: Path) -> None:
    code = "\n".join(
        [
            "sys.modules['PIL'] = None",
            "from bigmodel.registry import REGISTRIES",
            "for registry in REGISTRIES.values(): print(*registry.names())",
        ]
    )
    listed = without_extras(tmp_path, code)
    assert listed.returncode == 0, listed.stderr
    assert {"images", "audio", "pairs", "table", "schedule_free_adamw"} <= set(listed.stdout.split())


def test_the_project_s_extras_are_those_that_messages_name() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for module, extra in errors.EXTRAS.items():
        package = errors.PACKAGES.get(module, module)
        assert any(requirement.startswith(f"{package}>") for requirement in extras[extra])
        assert not any(requirement.startswith(f"{package}>") for requirement in project["dependencies"])
    others = sorted(extras.keys() - {"all", *TRACKERS})
    assert extras["all"] == [f"bigmodel-train[{','.join(others)}]"]
