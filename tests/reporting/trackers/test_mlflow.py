"""MLflow's own client: what it keeps of a run, and servers that do not answer."""

import base64
import os
import shlex
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bigmodel.reporting.trackers import mlflow
from tests.reporting.trackers.conftest import SilentServer, TrackedRun, named, until

pytest.importorskip("mlflow", reason="needs mlflow-skinny")
Make = Callable[..., TrackedRun]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which MLflow keeps runs, a file for each figure."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    return tmp_path / "store"


def history(run: Path, name: str) -> list[tuple[int, float]]:
    """Step and value of each point of a figure."""
    lines = [line.split() for line in (run / "metrics" / name).read_text().splitlines()]
    return [(int(step), float(value)) for _, value, step in lines]


def test_a_run_with_its_settings_figures_and_end(store: Path, tracked: Make) -> None:
    run = tracked("mlflow")
    run.start(**named())
    run.record(1, 2)
    run.end("stopped")
    [kept] = [path.parent for path in store.glob("*/*/meta.yaml")]
    assert "status: 5" in (kept / "meta.yaml").read_text()  # killed
    resumed = named()
    resumed["config"]["seed"] = 7
    run = tracked("mlflow")
    run.start(after=46, **resumed)
    run.record(3)
    run.end()
    assert run.warnings() == []
    assert [path.parent for path in store.glob("*/*/meta.yaml")] == [kept]
    text = (kept / "meta.yaml").read_text()
    assert "run_name: the base line\n" in text
    assert "status: 3\n" in text  # finished
    assert history(kept, "val/loss") == [(23, 0.0987), (46, 0.0987), (69, 0.0987)]
    assert history(kept, "test/accuracy") == [(690, 0.9611)] * 2
    assert history(kept, "best/val/accuracy")[-1] == (690, 0.9833)
    parameters = {path.name: path.read_text() for path in (kept / "params").iterdir()}
    assert parameters["model"] == "fnn"
    assert parameters["optimizer.betas"] == "[0.9, 0.999]"
    assert parameters["seed"] == "0"
    tags = {path.name: path.read_text() for path in (kept / "tags").iterdir()}
    assert {name: tags[name] for name in ("tags", "mlflow.note.content", "status", "resumed.seed")} == {
        "tags": "paper, small",
        "mlflow.note.content": "to beat",
        "status": "finished",
        "resumed.seed": "7",
    }
    assert "bigmodel" in (kept.parent / "meta.yaml").read_text()


def test_nobody_listens(
    tracked: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = tracked("mlflow")
    run.start()
    run.record(1)
    run.end()
    [told] = run.warnings()[-1:]
    assert told.startswith("mlflow: 1 record of the run was not sent: MlflowException: ")
    assert "Connection refused" in told
    assert len(told) < 500
    assert capfd.readouterr() == ("", "")


def test_a_server_that_never_answers_ends_with_the_run(
    tracked: Make, monkeypatch: pytest.MonkeyPatch, silent: SilentServer
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent.url)
    run = tracked("mlflow", wait=0.3)
    run.start()
    until(lambda: silent.connections)
    run.record(1, 2)
    run.end()
    [told] = run.warnings()
    assert told.startswith("mlflow: 2 records of the run were not sent: It did not answer in time. ")


def test_a_password_in_a_url_is_used_and_shown_nowhere(
    tracked: Make, monkeypatch: pytest.MonkeyPatch, silent: SilentServer
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent.url.replace("//", "//me:p%40ss-word@"))
    run = tracked("mlflow", wait=0.3)
    run.start()
    until(lambda: silent.connections)
    head = silent.connections[0].recv(10000).decode()
    assert f"Authorization: Basic {base64.b64encode(b'me:p@ss-word').decode()}" in head
    run.end()
    kept = "".join(path.read_text() for path in (run.folder / "trackers").iterdir())
    assert "ss-word" not in kept + str(run.said)


def test_the_library_is_given_a_url_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URI", "USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")  # so that it is as before after the test
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    mlflow.take_out_user()
    assert "MLFLOW_TRACKING_USERNAME" not in os.environ
    os.environ["MLFLOW_TRACKING_URI"] = "https://me:p%40ss-word@host:5000/path"
    mlflow.take_out_user()
    assert os.environ["MLFLOW_TRACKING_URI"] == "https://host:5000/path"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "p@ss-word"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    command = os.environ.get("BIGMODEL_MLFLOW")
    if command is None:
        pytest.skip("BIGMODEL_MLFLOW does not name the command of a whole MLflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["server", "--port", str(port), "--backend-store-uri", "sqlite:///runs.db", "--workers", "1"]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*shlex.split(command), *words], cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, 9)
    process.wait()


@pytest.mark.slow
def test_a_server_that_comes_late_is_told_everything(
    tracked: Make, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    run = tracked("mlflow")
    run.start(**named())  # the server takes seconds to listen
    run.record(1, 2, 3)

    def listens() -> bool:
        try:
            return bool(urllib.request.urlopen(f"{server}/health").status == 200)
        except OSError:
            return False

    until(listens)
    run.end()
    assert not [told for told in run.warnings() if "not sent" in told]
    url = run.said[-1][1].rpartition("/")[2]
    found = urllib.request.urlopen(f"{server}/api/2.0/mlflow/runs/get?run_id={url}").read().decode()
    assert '"run_name": "the base line"' in found
    assert '"status": "FINISHED"' in found
