"""`sweep.resume=`: the words of the sweep, its jobs, and those of them that are still to be run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from bigmodel.cli.sweep.resume import expand_resume, merge_jobs, record_words, resume_words, to_run
from bigmodel.errors import CheckpointError, ConfigError
from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.manifest import Manifest

WORDS = ["-m", "model=fnn,rnn", "trainer.epochs=3", "data.path='a b'"]


def sweep(folder: Path, *jobs: str, words: list[str] = WORDS) -> Manifest:
    """A sweep that was begun, with a job for each line."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = [Job(number, tuple(line.split())) for number, line in enumerate(jobs)]
    return Manifest.create(folder, words, listed)


# ----- the words -----


@pytest.mark.parametrize("word", ["sweep.jobs=2", "model=fnn", "sweep.resume=null"])
def test_nothing_is_resumed(word: str) -> None:
    assert expand_resume(["-m", word]) == (["-m", word], None)


def test_an_empty_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.resume=: is empty"):
        expand_resume(["-m", "sweep.resume="])


def test_relative_paths_start_where_the_sweep_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    sweep(Path("mine"))
    monkeypatch.chdir(tmp_path / "second")
    words, manifest = expand_resume(["-m", "sweep.resume=../first/mine"])
    assert Path.cwd() == tmp_path / "first"
    assert manifest is not None
    assert (manifest.folder, words[-1]) == (
        tmp_path / "first" / "mine",
        f"hydra.sweep.dir='{tmp_path}/first/mine'",
    )
    assert f"Relative paths start from {tmp_path / 'first'}" in capsys.readouterr().out


def test_the_words_with_which_it_was_started(tmp_path: Path) -> None:
    sweep(tmp_path / "mine")
    words, manifest = expand_resume(["-m", f"sweep.resume={tmp_path}/mine"])
    assert words == [*WORDS, f"hydra.sweep.dir='{tmp_path}/mine'"]
    assert manifest is not None
    assert manifest.words == tuple(WORDS)


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_relative_folder_and_one_in_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quote: str
) -> None:
    sweep(tmp_path / "my sweeps" / "a=b, c")
    monkeypatch.chdir(tmp_path)
    words, _ = expand_resume(["-m", f"sweep.resume={quote}my sweeps/a=b, c{quote}"])
    assert words[-1] == f"hydra.sweep.dir='{tmp_path}/my sweeps/a=b, c'"


def test_words_typed_beside_it_take_the_place_of_those_with_the_same_key(tmp_path: Path) -> None:
    sweep(tmp_path)
    typed = ["trainer.epochs=5", "-m", f"sweep.resume={tmp_path}", "sweep.jobs=4", "++model=cnn"]
    words, _ = expand_resume(typed)
    assert words == [
        "-m", "++model=cnn", "trainer.epochs=5", "data.path='a b'", "sweep.jobs=4",
        f"hydra.sweep.dir='{tmp_path}'",
    ]  # fmt: skip


def test_of_words_with_the_same_key_the_last_counts(tmp_path: Path) -> None:
    """As for Hydra, then and now."""
    sweep(tmp_path, words=["-m", "trainer.epochs=3", "seed=1,2", "trainer.epochs=4", "sweep.jobs=1"])
    words, _ = expand_resume([f"sweep.resume={tmp_path}", "trainer.epochs=5"])
    assert words[:-1] == ["-m", "trainer.epochs=5", "seed=1,2", "sweep.jobs=1"]
    typed = ["sweep.jobs=2", "sweep.retries=1", "sweep.jobs=3", "sweep.retries=2"]
    words, _ = expand_resume([f"sweep.resume={tmp_path}", *typed])
    assert [word for word in words if "sweep." in word][:-1] == ["sweep.jobs=3", "sweep.retries=2"]
    assert [word for word in words if "epochs" in word] == ["trainer.epochs=3", "trainer.epochs=4"]


def test_the_folder_it_was_given_then_is_not_that_of_now(tmp_path: Path) -> None:
    sweep(tmp_path, words=["-m", "hydra.sweep.dir=elsewhere", "seed=1,2"])
    words, _ = expand_resume(["-m", f"sweep.resume={tmp_path}"])
    assert words == ["-m", f"hydra.sweep.dir='{tmp_path}'", "seed=1,2"]


def test_one_that_was_resumed_before_can_be_resumed_again(tmp_path: Path) -> None:
    sweep(tmp_path)
    once, _ = expand_resume(["-m", f"sweep.resume={tmp_path}"])
    sweep(tmp_path, words=once)
    assert expand_resume(["-m", f"sweep.resume={tmp_path}"])[0] == once


def test_a_folder_of_no_sweep(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="is not a sweep's record"):
            expand_resume(["-m", f"sweep.resume={folder}"])


# ----- what counts only if it is typed again -----

CODE = (
    "plugins=[evil]",
    "sweep.slurm.additional_parameters={export: a}",
    "++sweep.slurm.additional_parameters.export=a",
    "hydra/launcher=joblib",
    "hydra.launcher.n_jobs=2",
    "hydra.job.env_set={PATH: theirs}",
    "hydra.searchpath=[theirs]",
)


@pytest.mark.parametrize("word", CODE)
def test_what_may_run_code_is_typed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    sweep(tmp_path / "mine", words=["-m", "seed=1,2", word, "hydra.sweep.subdir=a"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # where it stays
    again = ["-m", f"sweep.resume={tmp_path}/mine"]
    with pytest.raises(ConfigError) as error:
        expand_resume(again)
    assert str(error.value).endswith(f"add: {shlex.quote(word)}")
    assert (Path.cwd(), capsys.readouterr().out) == (tmp_path / "elsewhere", "")
    words, manifest = expand_resume([*again, word])
    assert words[:4] == ["-m", "seed=1,2", word, "hydra.sweep.subdir=a"]
    assert manifest is not None
    assert resume_words(manifest) == f"-m sweep.resume={tmp_path}/mine {shlex.quote(word)}"


def test_all_of_it_is_named_at_once_with_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "theirs")
    sweep(Path("mine"), words=["-m", *CODE[:2], "seed=1,2"])
    monkeypatch.chdir(tmp_path / "ours")
    with pytest.raises(ConfigError, match="can run code") as error:
        expand_resume(["-m", "sweep.resume=../theirs/mine", "plugins=[other]"])
    assert str(error.value).endswith(
        f"If you trust them and the files in {tmp_path}/theirs, where the sweep was started, add:"
        f" {' '.join(map(shlex.quote, CODE[:2]))}"
    )


def test_other_words_need_not_be_typed_again(tmp_path: Path) -> None:
    words = ["-m", "--config-dir=mine", "plugins=[]", "hydra.verbose=true", "sweep.slurm.partition=a"]
    words = [*words, "sweep.slurm.gpus_per_node=1", "hydra.sweep.subdir=${hydra.job.num}"]
    manifest = sweep(tmp_path, words=words)
    assert expand_resume(["-m", f"sweep.resume={tmp_path}"])[0][:-1] == words
    assert resume_words(manifest) == f"-m sweep.resume={tmp_path}"


# ----- the jobs -----


def typed(*lines: str) -> list[Job]:
    return [Job(number, tuple(line.split())) for number, line in enumerate(lines)]


def test_the_same_jobs_keep_their_numbers(tmp_path: Path) -> None:
    manifest = sweep(tmp_path, "a=1 b=2", "a=2 b=2")
    jobs = merge_jobs(manifest, typed("b=2 a=2", "b=2 a=1"), extend=False)
    assert jobs == [Job(0, ("a=1", "b=2")), Job(1, ("a=2", "b=2"))]
    assert merge_jobs(manifest, typed("a=1 ++b=2", "+a=2 b=2"), extend=False) == jobs


@pytest.mark.parametrize("extend", [False, True])
def test_jobs_that_are_missing_are_refused(tmp_path: Path, extend: bool) -> None:
    manifest = sweep(tmp_path, "a=1", "a=2", "a=3")
    with pytest.raises(ConfigError, match=f"{tmp_path}: 2 jobs of it would be missing, such as a=2"):
        merge_jobs(manifest, typed("a=1"), extend)


def test_new_jobs_are_refused_unless_it_may_be_extended(tmp_path: Path) -> None:
    manifest = sweep(tmp_path, "a=1")
    with pytest.raises(ConfigError, match=r"1 job would be new, such as a=0\. Add sweep.extend=true"):
        merge_jobs(manifest, typed("a=0", "a=1"), extend=False)
    assert set(Manifest.read(tmp_path).states) == {0}
    jobs = merge_jobs(manifest, typed("a=0", "a=1"), extend=True)
    assert jobs == [Job(0, ("a=1",)), Job(1, ("a=0",))]
    assert [state.job for state in Manifest.read(tmp_path).states.values()] == jobs


def test_words_that_differ_are_recorded_for_the_next_time(tmp_path: Path) -> None:
    manifest = sweep(tmp_path, words=["-m", "a=1"])
    same = ["-m", "a=1", f"hydra.sweep.dir='{tmp_path}'", "sweep.extend=true"]
    record_words(manifest, same)
    assert (tmp_path / "sweep.jsonl").read_text().count("\n") == 1
    record_words(manifest, ["-m", "a=1,2", "sweep.jobs=4", *same[2:]])
    words, _ = expand_resume(["-m", f"sweep.resume={tmp_path}"])
    assert words == ["-m", "a=1,2", "sweep.jobs=4", f"hydra.sweep.dir='{tmp_path}'"]


# ----- what is left to do -----


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of five jobs: finished, finished although the record does not say so, stopped, failed, waiting."""
    made = sweep(tmp_path, *(f"seed={number}" for number in range(5)))
    summaries = ["finished", "finished", "stopped", "failed"]
    for job, status in zip(typed("seed=0", "seed=1", "seed=2", "seed=3"), summaries, strict=True):
        folder = tmp_path / str(job.number)
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({"status": status}))
        made.started(job, folder)
        if job.number != 1:
            made.ended(job, Outcome(status))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize(("retry", "expected"), [(False, [2, 4]), (True, [2, 3, 4])])
def test_what_is_not_done_is_run(manifest: Manifest, retry: bool, expected: list[int]) -> None:
    assert [job.number for job in to_run(manifest, retry)] == expected


def test_the_record_then_says_of_all_that_are_done_that_they_are(manifest: Manifest) -> None:
    to_run(manifest, retry=False)
    states = Manifest.read(manifest.folder).states
    assert [states[n].status for n in range(5)] == [
        "finished",
        "finished",
        "stopped",
        "failed",
        "waiting",
    ]


@pytest.mark.parametrize("summary", [None, "", "{}", '{"status": "running"}'])
def test_a_job_is_done_only_if_its_folder_says_so(manifest: Manifest, summary: str | None) -> None:
    """As after a kill, or where the folder was taken away."""
    path = manifest.folder / "0" / "summary.json"
    path.unlink() if summary is None else path.write_text(summary)
    assert [job.number for job in to_run(manifest, retry=False)] == [0, 2, 4]
