"""A tracker is told of a run, and nothing that its library does reaches the run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bigmodel.reporting.base import Sinks
from bigmodel.reporting.trackers import supervisor
from bigmodel.reporting.trackers.described import lock_path, log_path, progress_path
from bigmodel.reporting.trackers.sink import Trackers
from bigmodel.reporting.trackers.supervisor import Supervisor
from bigmodel.reporting.trackers.worker import without_secrets
from bigmodel.runtime.file_lock import locked
from tests.reporting import facts
from tests.reporting.trackers.conftest import Library, TrackedRun, named, until

Make = Callable[..., TrackedRun]
LATER = "To send it, type: "


def test_a_tracker_is_told_what_a_run_is_does_and_came_to(library: Library, tracked: Make) -> None:
    run = tracked("trackio")
    run.start(**named())
    run.record(1, 2, 3)
    run.end()
    [[project, how]] = library.heard("began")
    assert (project, how["group"], how["resume"]) == ("bigmodel", None, "allow")
    assert how["name"].startswith("the base line, ")
    assert how["config"]["optimizer"] == facts.CONFIG["optimizer"]
    assert "resume" not in how["config"]["data"]
    assert {key: how["config"][key] for key in ("tags", "notes", "title", "folder")} == {
        "tags": ["paper", "small"],
        "notes": "to beat",
        "title": "fnn on digits",
        "folder": str(run.folder),
    }
    assert library.steps() == [23, 46, 69]
    first = library.heard("logged")[0][0]
    assert first == {name: value for name, value in facts.record(1).items() if name != "step"}
    last, step = library.heard("logged")[-1]
    assert step == 690
    assert (last["status"], last["test/accuracy"], last["best/val/accuracy"]) == (
        "finished",
        0.9611,
        0.9833,
    )
    assert len(library.heard("finished")) == 1
    assert [level for level, _ in run.said] == ["info"]
    assert run.said[0][1].startswith("trackio: run the base line, ")


def test_a_job_of_a_sweep_is_in_the_sweep_s_group(
    library: Library, tracked: Make, tmp_path: Path
) -> None:
    (tmp_path / "sweep.jsonl").touch()
    run = tracked("trackio")
    run.start()
    run.end("stopped")
    [[_, how]] = library.heard("began")
    assert how["group"] == "/".join(tmp_path.parts[-2:])
    assert how["name"].startswith("fnn-digits, ")
    assert library.heard("logged")[-1][0]["status"] == "stopped"


def test_jobs_of_a_named_sweep_are_told_apart(library: Library, tracked: Make) -> None:
    run = tracked("trackio")
    run.start(**named("rates"), changed={"optimizer.lr": "0.1"}, in_sweep=True)
    run.end()
    [[_, how]] = library.heard("began")
    assert how["name"].startswith("rates,lr=0.1, ")


FAULTS = {
    "raises": "raise RuntimeError('no such server')",
    "exits": "sys.exit('good bye')",
    "is gone": "os._exit(3)",
    "is killed": "os.kill(os.getpid(), 9)",
    "asks": "input('Your key: ')",
    "hangs up": "os.close(1); os.close(2); raise OSError(28, 'No space left on device')",
}
TOLD = {
    "raises": "RuntimeError: no such server.",
    "exits": "the library has exited: good bye.",
    "is gone": "its process exited with status 3.",
    "is killed": "its process was ended by SIGKILL.",
    "asks": "EOFError: EOF when reading a line.",
    "hangs up": "OSError: [Errno 28] No space left on device.",
}


@pytest.mark.skipif(os.name == "nt", reason="ends processes by signals")
@pytest.mark.parametrize("where", ["init", "log"])
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_a_library_does_the_run_goes_on_and_nothing_is_lost(
    library: Library, tracked: Make, capfd: pytest.CaptureFixture[str], fault: str, where: str
) -> None:
    library.breaks(where, FAULTS[fault])
    run = tracked("trackio")
    run.start()
    run.record(1, 2)
    until(lambda: len(library.processes()) > 1)  # it is tried again
    run.record(3)
    run.end()
    assert run.warnings() == [
        f"trackio: {TOLD[fault]} Training goes on, and trackio is tried again.",
        f"trackio: 3 records of the run were not sent: {TOLD[fault]} {LATER}"
        + run.warnings()[-1].partition(LATER)[2],
    ]
    assert run.warnings()[-1].endswith(f" track {run.folder}")
    assert capfd.readouterr() == ("", "")
    library.mend()
    later = Supervisor("trackio", run.folder, once=True)
    assert later.wait(60)
    assert later.done
    assert library.steps() == [23, 46, 69]
    assert library.heard("logged")[-1][0]["status"] == "finished"


def test_a_fault_that_passes_needs_nobody(library: Library, tracked: Make) -> None:
    library.breaks("init", FAULTS["raises"])
    run = tracked("trackio")
    run.start()
    run.record(1)
    until(lambda: not run.sink._supervisors[0].messages.empty())
    library.mend()
    run.record(2)
    run.end()
    assert library.steps() == [23, 46]
    assert len(run.warnings()) == 1


@pytest.mark.parametrize("where", ["import", "init", "log", "finish"])
def test_a_library_that_hangs_is_left_behind(library: Library, tracked: Make, where: str) -> None:
    library.breaks(where, "import threading; threading.Event().wait()")
    run = tracked("trackio", wait=0.3)
    run.start()
    run.record(1, 2)
    if where != "finish":  # which is not reached before the end
        until(lambda: library.heard(where))
    run.record(*range(3, 50))  # returns, although nobody reads
    run.end()
    [told] = run.warnings()
    count = "" if where == "finish" else "49 records of the run were"
    assert told.startswith(f"trackio: {count}")
    assert " not sent: It did not answer in time. " in told
    until(lambda: not any(map(is_there, library.processes())))
    library.mend()
    assert Supervisor("trackio", run.folder, once=True).wait(60)
    assert sorted(set(library.steps())) == [23 * epoch for epoch in range(1, 50)]


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_terminal_signals_and_exit_are_not_the_library_s(
    library: Library, tracked: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    library.breaks(
        "init",
        "import atexit, logging, signal, subprocess, threading;"
        " atexit.register(threading.Event().wait);"
        " signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " logging.basicConfig(level=0); logging.error('mine');"
        " os.write(1, b'hello'); os.write(2, b'world'); print('again', flush=True);"
        " subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])",
    )
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    run = tracked("trackio")
    run.start()
    run.record(1)
    run.end()
    assert library.steps() == [23]
    assert run.warnings() == []
    assert capfd.readouterr() == ("", "")
    assert (run.folder / "trackers" / "trackio.log").read_text().count("hello") == 1
    assert {number: signal.getsignal(number) for number in before} == before


def test_records_that_are_made_again_are_sent_again(library: Library, tracked: Make) -> None:
    run = tracked("trackio")
    run.start()
    run.record(1, 2, 3)
    until(lambda: library.steps() == [23, 46, 69])
    run.rewind(23)
    run.record(2, 3, 4)
    run.end()
    assert library.steps() == [23, 46, 69, 46, 69, 92]


def test_a_resumed_run_is_the_same_one_there(library: Library, tracked: Make) -> None:
    run = tracked("trackio")
    run.start()
    run.record(1, 2, 3)
    run.end("stopped")
    run = tracked("trackio")
    run.start(after=46)
    run.record(3, 4)
    run.end()
    (_, first), (_, second) = library.heard("began")
    assert first["name"] == second["name"]
    assert library.steps() == [23, 46, 69, 69, 92]
    ended = [metrics["status"] for metrics, _ in library.heard("logged") if "status" in metrics]
    assert ended == ["stopped", "finished"]


def test_a_resumed_run_goes_to_the_same_project(
    library: Library, tracked: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_PROJECT", "mine")
    run = tracked("trackio")
    run.start()
    run.end("stopped")
    monkeypatch.delenv("TRACKIO_PROJECT")
    run = tracked("trackio")
    run.start()
    run.end()
    assert [project for project, _ in library.heard("began")] == ["mine", "mine"]


@pytest.mark.parametrize("now", [None, "http://there:1"])
def test_another_server_than_the_run_s_is_told_and_not_asked(
    library: Library, tracked: Make, monkeypatch: pytest.MonkeyPatch, now: str | None
) -> None:
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://here:1")
    run = tracked("trackio")
    run.start()
    run.end("stopped")
    monkeypatch.delenv("TRACKIO_SERVER_URL")
    if now is not None:
        monkeypatch.setenv("TRACKIO_SERVER_URL", now)
    run = tracked("trackio")
    run.start()
    run.end()
    assert "the run is kept where TRACKIO_SERVER_URL=http://here:1. Set that again" in run.warnings()[-1]
    assert len(library.heard("began")) == 1


def test_a_server_that_has_never_known_the_run_may_be_corrected(
    library: Library, tracked: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://wrong:1")
    library.breaks("init", FAULTS["raises"])
    run = tracked("trackio")
    run.start()
    run.record(1)
    run.end()
    library.mend()
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://right:1")
    assert Supervisor("trackio", run.folder, once=True).wait(60)
    assert library.steps() == [23]


@pytest.mark.parametrize("url", ["http://me:pass@here:1", "http://here:1?write_token=x"])
def test_a_url_with_a_password_is_not_kept(
    library: Library, tracked: Make, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("TRACKIO_SERVER_URL", url)
    run = tracked("trackio")
    run.start()
    run.end()
    assert len(library.heard("finished")) == 1
    assert url not in progress_path(run.folder, "trackio").read_text()


def test_a_run_goes_on_when_nobody_else_tells_of_it(library: Library, tracked: Make) -> None:
    run = tracked("trackio")
    lock = lock_path(run.folder, "trackio")
    lock.parent.mkdir()
    with locked(lock):  # as by the worker of a process that was killed
        run.start()
        run.record(1)
        until(log_path(run.folder, "trackio").exists)
        time.sleep(1)  # in which it would begin
        assert library.heard("began") == []
    run.end()
    assert library.steps() == [23]


def test_what_a_run_could_not_send_is_sent_when_it_is_resumed(library: Library, tracked: Make) -> None:
    library.breaks("init", FAULTS["exits"])
    run = tracked("trackio")
    run.start()
    run.record(1, 2)
    run.end("stopped")
    library.mend()
    run = tracked("trackio")
    run.start(after=46)
    run.record(3)
    run.end()
    assert library.steps() == [23, 46, 69]
    assert run.warnings() == []


def test_a_run_that_is_killed_leaves_no_worker_and_is_told_to_have_failed(
    library: Library, tracked: Make
) -> None:
    run = tracked()
    run.start()
    run.record(1, 2)
    worker = supervisor._start("trackio", run.folder, 0)
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.close()  # as the system does when a process ends
    worker.stdout.read()
    worker.wait()
    worker.stdout.close()
    assert library.steps() == [23, 46]
    assert library.heard("logged")[-1][0]["status"] == "failed"
    assert len(library.heard("finished")) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_full_disk_is_told_and_makes_no_second_run(
    library: Library, tracked: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    )
    run = tracked("trackio")
    with monkeypatch.context() as disk:
        disk.setattr(supervisor, "_START", full + supervisor._START)
        run.start()
        run.record(1)
        until(lambda: not run.sink._supervisors[0].messages.empty())
        run.end()
    assert len(run.warnings()) == 2
    assert all("trackio.json: cannot be written: File too large" in told for told in run.warnings())
    assert library.heard("began") == []
    assert Supervisor("trackio", run.folder, once=True).wait(60)
    assert len(library.heard("began")) == 1


def test_a_folder_that_cannot_be_written_drops_the_sink_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "trackers").write_text("in the way")
    said: list[str] = []
    sinks = Sinks([])
    sinks.sinks.append(Trackers(["trackio"], lambda text, _: said.append(text)))
    sinks.start(facts.info(tmp_path))
    sinks.record(facts.record(1), {})
    sinks.close()
    assert sinks.sinks == []


def test_a_damaged_file_is_told_with_what_to_do(library: Library, tracked: Make) -> None:
    run = tracked("trackio")
    progress_path(run.folder, "trackio").parent.mkdir()
    progress_path(run.folder, "trackio").write_text("{")
    run.start()
    run.end()
    assert "Move it away to send the run as a new one." in run.warnings()[-1]
    assert library.heard("began") == []


def test_secrets_are_not_in_what_is_told(
    library: Library, tracked: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "abcd1234secret")
    monkeypatch.setenv("PWD", str(Path.cwd()))
    library.breaks(
        "init",
        "raise RuntimeError('http://me:pass@host/ refuses ' + os.environ['SOME_API_KEY']"
        " + ' in ' + os.environ['PWD'])",
    )
    run = tracked("trackio")
    run.start()
    run.end()
    assert f"RuntimeError: http://***@host/ refuses *** in {Path.cwd()}." in run.warnings()[-1]


def test_urls_are_told_without_passwords_and_tokens() -> None:
    text = "see https://me:word@host/runs and https://host/?write_token=abc123&x=1, or 'a@b'"
    assert without_secrets(text) == (
        "see https://***@host/runs and https://host/?write_token=***&x=1, or 'a@b'"
    )


def test_several_trackers_end_together(library: Library, tracked: Make, tmp_path: Path) -> None:
    """One that hangs takes nothing from the others."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "mlflow.py").write_text("import threading; threading.Event().wait()")
    sys.path.insert(0, str(folder))
    try:
        run = tracked("mlflow", "trackio", wait=3.0)
        run.start()
        run.record(1)
        run.end()
    finally:
        sys.path.remove(str(folder))
    assert library.steps() == [23]
    assert ("info", "Sending the rest to mlflow, for 3 s at most.") in run.said
    [told] = run.warnings()
    assert told.startswith("mlflow: 1 record of the run was not sent: It did not answer in time. ")


def test_the_worker_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, json; import bigmodel.reporting.trackers.worker;"
        " print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    out = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | paths,
        capture_output=True,
        check=True,
        cwd=tmp_path,
    ).stdout
    assert not {"torch", "numpy", "pydantic", "rich", "omegaconf"} & set(json.loads(out))
