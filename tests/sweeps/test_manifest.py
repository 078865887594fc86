"""A sweep's record: what was written is read again, whatever happened to the writer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bigmodel.errors import CheckpointError
from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.manifest import NAME, JobState, Manifest
from tests.sweeps.small_jobs import jobs

WORDS = ["-m", "seed=0,1,2"]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of three jobs: one has finished, one has begun, one waits."""
    made = Manifest.create(tmp_path, WORDS, jobs(3))
    first, second, _ = jobs(3)
    made.started(first, tmp_path / "0")
    made.ended(first, Outcome("finished", value=0.5))
    made.started(second, tmp_path / "1")
    return made


def test_what_was_recorded_is_read_again(manifest: Manifest) -> None:
    read = Manifest.read(manifest.folder)
    assert read.words == tuple(WORDS)
    assert read.states == manifest.states
    assert read.states == {
        0: JobState(Job(0, ("seed=0",)), "finished", None, manifest.folder / "0", 1),
        1: JobState(Job(1, ("seed=1",)), "running", None, manifest.folder / "1", 1),
        2: JobState(Job(2, ("seed=2",))),
    }


def test_attempts_are_counted_and_the_last_says_how_it_is(manifest: Manifest) -> None:
    job = Job(1, ("seed=1",))
    manifest.ended(job, Outcome("failed", "no memory"))
    assert Manifest.read(manifest.folder).states[1].error == "no memory"
    manifest.started(job, manifest.folder / "1")
    manifest.ended(job, Outcome("finished"))
    state = Manifest.read(manifest.folder).states[1]
    assert (state.status, state.error, state.attempts) == ("finished", None, 2)


def test_a_job_that_is_new_when_it_is_chosen_is_added(manifest: Manifest) -> None:
    before = (manifest.folder / NAME).read_text()
    manifest.chosen(manifest.jobs[1])
    assert (manifest.folder / NAME).read_text() == before
    manifest.chosen(Job(3, ("seed=7",)))
    assert Manifest.read(manifest.folder).states[3] == JobState(Job(3, ("seed=7",)))


def test_a_job_s_folder_is_known_when_its_sweep_was_moved(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    made, moved, elsewhere = (
        Manifest.create(tmp_path / "s", WORDS, jobs(2)),
        tmp_path / "m",
        tmp_path / "e",
    )
    for job, folder in zip(made.jobs, (made.folder / "0", elsewhere), strict=True):
        made.started(job, folder)
    made.folder.rename(moved)
    assert [state.folder for state in Manifest.read(moved).states.values()] == [moved / "0", elsewhere]


def test_other_words_with_which_it_goes_on_are_kept(manifest: Manifest) -> None:
    manifest.reword(["-m", "seed=1,2,3,4"])
    assert Manifest.read(manifest.folder).words == manifest.words == ("-m", "seed=1,2,3,4")


def test_a_line_that_was_cut_off_is_as_if_it_had_not_been_written(manifest: Manifest) -> None:
    """At each of its characters; what is recorded afterwards is not lost with it."""
    path = manifest.folder / NAME
    whole = path.read_text()
    before = whole.rstrip("\n").rpartition("\n")[0] + "\n"
    for end in range(len(before), len(whole) - 1):
        path.write_text(whole[:end])
        read = Manifest.read(manifest.folder)
        assert read.states[1] == JobState(Job(1, ("seed=1",)))
        read.started(Job(2, ("seed=2",)), manifest.folder / "2")
        read.ended(Job(2, ("seed=2",)), Outcome("finished"))
        again = Manifest.read(manifest.folder).states
        assert again == read.states
        assert (again[2].status, again[2].attempts) == ("finished", 1)


@pytest.mark.parametrize(
    "line",
    [
        "", "5", "null", "[]", "{}", "\x00", '{"note": "mine"}', '{"job": null}', '{"job": "x"}',
        '{"job": 99, "status": "running", "folder": "99"}', '{"job": 1}',
        '{"words": [1]}', '{"words": "-m"}', '{"job": 1, "overrides": [null]}',
    ],
)  # fmt: skip
def test_a_line_that_says_nothing_is_left_out(manifest: Manifest, line: str) -> None:
    path = manifest.folder / NAME
    path.write_text(path.read_text() + line + "\n" + '{"job": 2, "status": "failed", "error": "x"}\n')
    read = Manifest.read(manifest.folder)
    assert set(read.states) == {0, 1, 2}
    assert read.states[1] == manifest.states[1]
    assert read.states[2].status == "failed"


@pytest.mark.parametrize(
    "word",
    [
        "data.path=a\u2028b",
        "data.path=a\x85b",
        "data.path='a\nb'",
        "data.path=\udcff",
        "data.path=größe",
    ],
)
def test_any_word_that_can_be_typed_is_kept(tmp_path: Path, word: str) -> None:
    Manifest.create(tmp_path, ["-m", word], [Job(0, (word,))])
    manifest = Manifest.read(tmp_path)
    assert manifest.words == ("-m", word)
    manifest.ended(Job(0, (word,)), Outcome("failed", word))
    assert Manifest.read(tmp_path).states == {0: JobState(Job(0, (word,)), "failed", word)}


@pytest.mark.parametrize("head", [{"words": [1]}, {"words": "-m"}, {"words": None}, {"started_in": 1}])
def test_words_that_are_none_are_refused(manifest: Manifest, head: dict[str, object]) -> None:
    path = manifest.folder / NAME
    first, _, rest = path.read_text().partition("\n")
    path.write_text(json.dumps(json.loads(first) | head) + "\n" + rest)
    with pytest.raises(CheckpointError, match="is not a sweep's record"):
        Manifest.read(manifest.folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_s_is_refused(manifest: Manifest, version: object) -> None:
    path = manifest.folder / NAME
    first, _, rest = path.read_text().partition("\n")
    path.write_text(json.dumps(json.loads(first) | {"version": version}) + "\n" + rest)
    with pytest.raises(CheckpointError, match="was written by another version") as caught:
        Manifest.read(manifest.folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "\n", "[]\n", '{"version": 1}\n', "job,seed\n", "\x00"])
def test_what_is_no_record_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / NAME).write_text(content)
    with pytest.raises(CheckpointError, match=f"is not a sweep's record.*which holds {NAME}"):
        Manifest.read(tmp_path)


def test_a_record_that_cannot_be_written_to_is_told(manifest: Manifest) -> None:
    path = manifest.folder / NAME
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match=NAME):
        manifest.ended(Job(1, ("seed=1",)), Outcome("finished"))
    assert manifest.states[1].status == "running"  # as it is on the disk
