"""Out-of-fold predictions of a sweep in one file."""

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from bigmodel.cli.launch.run_folder import OUT_OF_FOLD
from bigmodel.cli.sweep.out_of_fold import write
from bigmodel.sweeps.jobs import FOLD
from bigmodel.sweeps.leaderboard import JobResult
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command

command = conftest.command


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / OUT_OF_FOLD).open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_sample_once_for_each_setting_also_without_checkpoints_and_resumed(
    command: Command, tmp_path: Path
) -> None:
    quick = ("device=cpu", "device.engine=eager", "trainer.tensorboard=false", "trainer.epochs=1")
    words = ("data=own", "optimizer.lr=0.1,0.01", "sweep.folds=2", "sweep.keep=0", "sweep.jobs=2")
    words += ("--config-dir=conf", "hydra.sweep.dir=mine")
    (tmp_path / "conf" / "data").mkdir(parents=True)
    own_data = "# mine, without most settings\nname: iris\n"
    (tmp_path / "conf" / "data" / "own.yaml").write_text(own_data)
    result = command("-m", *quick, *words)
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines()[-1] == f"Out-of-fold predictions (300 rows): mine/{OUT_OF_FOLD}"
    found = rows(tmp_path / "mine")
    assert list(found[0])[:6] == ["optimizer.lr", "row", "fold", "target", "prediction", "probability"]
    assert [(row["optimizer.lr"], int(row["row"])) for row in found] == [
        (rate, row) for rate in ("0.1", "0.01") for row in range(150)
    ]
    with (tmp_path / "mine" / "leaderboard.csv").open(newline="") as file:
        for job in csv.DictReader(file):
            own = [
                row["prediction"] == row["target"]
                for row in found
                if (row["optimizer.lr"], row["fold"]) == (job["optimizer.lr"], job[FOLD])
            ]
            assert sum(own) / len(own) == pytest.approx(float(job["val/accuracy"]))

    (tmp_path / "mine" / OUT_OF_FOLD).unlink()
    shutil.rmtree(tmp_path / "mine" / "2")
    again = command("-m", "sweep.resume=mine")
    assert (again.status, again.err) == (0, "")
    assert rows(tmp_path / "mine") == found


def result(number: int, status: str = "finished", **changed: str) -> JobResult:
    own = {key.replace("__", "."): value for key, value in changed.items()}
    return JobResult(str(number), own, status, folder=str(number))


def predicted(number: int, *lines: Mapping[str, object]) -> None:
    Path(str(number)).mkdir(exist_ok=True)
    with (Path(str(number)) / OUT_OF_FOLD).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_columns_of_all_and_what_is_missing() -> None:
    predicted(0, {"row": 2, "target": "a, b"}, {"row": 10, "target": 'c"\n'})
    predicted(1, {"row": 3, "prediction": "d"})
    jobs = [
        result(0, data__val_fold="0", model="fnn"),
        result(1, data__val_fold="1", model="fnn"),
        result(2, "failed", data__val_fold="0", model="cnn"),
        result(3, data__val_fold="1", model="cnn"),  # by a version that wrote none
    ]
    said = f"Out-of-fold predictions (3 rows, without 2 folds that left none): {OUT_OF_FOLD}"
    assert write(Path(), jobs) == [said]
    assert rows(Path()) == [
        {"model": "fnn", "row": "2", "target": "a, b", "prediction": ""},
        {"model": "fnn", "row": "3", "target": "", "prediction": "d"},
        {"model": "fnn", "row": "10", "target": 'c"\n', "prediction": ""},
    ]


def test_nothing_before_the_end_without_folds_or_of_texts() -> None:
    predicted(0, {"row": 2, "target": 1})
    waiting = [result(0, data__val_fold="0"), result(1, "stopped", data__val_fold="1")]
    assert write(Path(), waiting) == []
    assert write(Path(), [result(0, seed="1"), result(1, seed="2")]) == []
    assert not Path(OUT_OF_FOLD).exists()
    texts = [result(3, data__val_fold="0"), result(4, data__val_fold="1")]
    assert write(Path(), texts)[0].startswith("No out-of-fold predictions")
