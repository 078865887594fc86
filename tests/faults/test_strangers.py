"""A run's folder, a configuration or a checkpoint from a stranger is data: nothing in it is run."""

import ast
import pickle
import shutil
from pathlib import Path

import pytest
import yaml

import bigmodel
from bigmodel.sweeps.jobs import Job
from bigmodel.sweeps.manifest import Manifest
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command

command = conftest.command
QUICK = ("debug=fast", "device=cpu", "trainer.tensorboard=false")
SOURCES = sorted(Path(bigmodel.__file__).parent.rglob("*.py"))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("fired"),)  # type: ignore[return-value]


@pytest.fixture
def run(command: Command) -> Path:
    folder = command(*QUICK).folder
    assert folder is not None
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"name": "fnn", "_target_": "os.system"}},
        {"hydra": {"callbacks": {"x": {"_target_": "torch.load", "f": "evil.pt"}}}},
        {
            "hydra": {
                "job_logging": {
                    "version": 1,
                    "handlers": {
                        "x": {"class": "logging.FileHandler", "mode": "w", "filename": "precious"}
                    },
                    "root": {"handlers": ["x"]},
                }
            }
        },
        {"hydra": {"launcher": {"_target_": "subprocess.Popen"}}},
        {"plugins": ["evil"]},
        {"seed": "${oc.create:{_target_:os.system}}"},
    ],
    ids=["model", "callback", "file handler", "launcher", "plugin", "resolver"],
)
def test_a_run_s_folder(command: Command, tmp_path: Path, run: Path, change: dict[str, object]) -> None:
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('fired').touch()\n")
    (tmp_path / "precious").write_text("content")
    path = run / ".hydra" / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    result = command(f"resume={run}", "trainer.epochs=2")
    assert result.status == 1
    assert not (tmp_path / "fired").exists()
    assert (tmp_path / "precious").read_text() == "content"


def test_hydra_s_own_file_of_a_run_is_not_read(command: Command, run: Path) -> None:
    (run / ".hydra" / "hydra.yaml").write_text("hydra: {callbacks: {x: {_target_: os.abort}}}\n")
    result = command(f"resume={run}", "trainer.epochs=2")
    assert result.status == 0, result.err


def test_pickles_in_a_checkpoint_are_nobody_s_business(
    command: Command, tmp_path: Path, run: Path
) -> None:
    evil = pickle.dumps(Evil())
    for name in ("optimizer.pt", "state.pkl", "model.bin"):
        (run / "checkpoints" / "last" / name).write_bytes(evil)
    assert command(f"resume={run}", "trainer.epochs=2").status == 0
    (run / "checkpoints" / "last" / "model.safetensors").write_bytes(evil)
    shutil.rmtree(run / "checkpoints" / "previous")
    shutil.rmtree(run / "checkpoints" / "best")
    result = command(f"resume={run}", "trainer.epochs=3")
    assert (result.status, "damaged" in result.err) == (1, True)
    assert not (tmp_path / "fired").exists()


def test_a_whole_checkpoint_of_another_make_is_refused_in_words(command: Command, run: Path) -> None:
    from bigmodel.checkpointing import checkpoint

    groups, facts = checkpoint.load(run / "checkpoints" / "last")
    for wrong in (facts | {"progress": {"stage": 1}}, {"progress": {"step": 1}, "data": None}):
        shutil.rmtree(run / "checkpoints")
        (run / "checkpoints").mkdir()
        checkpoint.save(run / "checkpoints" / "last", groups, wrong)
        result = command(f"resume={run}", "trainer.epochs=2")
        assert result.status == 1
        assert "the saved state does not belong to this kind of run" in result.err


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_is_unpickled(path: Path) -> None:
    """`torch.load` without `weights_only=True`, NumPy's without `allow_pickle=False`, or another way to
    read a pickle from a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        safe = said.get("weights_only") == "True" or said.get("allow_pickle") == "False"
        loads = {"torch.load", "np.load", "numpy.load", "pickle.load", "pickle.loads", "joblib.load"}
        # What the sweep itself has written, into a private folder, and what it keeps in memory.
        ours = path.stem in {"shared_data", "sweep_loader"}
        assert name not in loads or safe or ours
        assert name not in {"eval", "exec", "yaml.load", "yaml.unsafe_load"}


@pytest.mark.parametrize("name", [".lock", "train.log", "metrics.jsonl", "checkpoints", "tensorboard"])
def test_links_in_a_run_s_folder_lead_nowhere(
    command: Command, tmp_path: Path, run: Path, name: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("content")
    place = run / name
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    place.symlink_to(victim)
    result = command(f"resume={run}", "trainer.epochs=2")
    assert result.status == 1
    assert "is a link to" in result.err
    assert victim.read_text() == "content"


SWEEP = ("-m", *QUICK, "seed=1", "hydra.sweep.dir=theirs/mine")


@pytest.fixture
def swept(tmp_path: Path) -> Manifest:
    """A sweep of one job that has not begun, in somebody else's folder."""
    folder = tmp_path / "theirs" / "mine"
    folder.mkdir(parents=True)
    return Manifest.create(folder, SWEEP, [Job(0, (*QUICK, "seed=1"))])


def test_a_sweep_s_folder(
    command: Command, tmp_path: Path, swept: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs" / "evil.py").write_text("from pathlib import Path\nPath('fired').touch()\n")
    monkeypatch.chdir(tmp_path / "theirs")
    Manifest.create(swept.folder, [*SWEEP, "plugins=[evil]"], swept.jobs)
    monkeypatch.chdir(tmp_path)
    result = command("-m", "sweep.resume=theirs/mine")
    assert (result.status, result.out) == (1, "")
    place = f"and the files in {tmp_path}/theirs, where the sweep was started, add: 'plugins=[evil]'"
    assert place in result.err
    assert not list(tmp_path.rglob("fired"))


@pytest.mark.parametrize("name", ["multirun.yaml", "logs", "0", "slurm/submitted.jsonl", "logs/0.log"])
def test_links_in_a_sweep_s_folder_lead_nowhere(
    command: Command, tmp_path: Path, swept: Manifest, name: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (swept.folder / name).parent.mkdir(exist_ok=True)
    (swept.folder / name).symlink_to(victim)
    result = command("-m", "sweep.resume=theirs/mine")
    assert result.status == 1
    assert f"{name}: is a link to {victim}; a sweep's files must be in its folder" in result.err
    assert not list(victim.iterdir())


@pytest.mark.parametrize("inside", [False, True])
def test_a_job_goes_on_in_no_folder_but_its_sweep_s(
    command: Command, tmp_path: Path, run: Path, swept: Manifest, inside: bool
) -> None:
    """The record of a stranger's sweep may say that a run of yours is a job that has begun."""
    words, folder = [*SWEEP, "hydra.sweep.subdir=../../mine${seed}"], tmp_path / "mine1"
    run.rename(folder)
    summary = (folder / "summary.json").read_text()
    (folder / "summary.json").write_text(summary.replace('"finished"', '"stopped"'))
    if inside:
        words, place = list(SWEEP), swept.folder / "0"
        place.mkdir()
        (place / "checkpoints").symlink_to(folder / "checkpoints")
    manifest = Manifest.create(swept.folder, words, swept.jobs)
    manifest.started(swept.jobs[0], place if inside else folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = command("-m", "sweep.resume=theirs/mine")
    assert result.status == 1
    said = "0/checkpoints: is a link to" if inside else "mine1: is not in the folder of its sweep"
    assert said in result.out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
