"""What git says of the folder that a run is started in: quick, quiet, and without secrets."""

import subprocess
import time
from pathlib import Path

import pytest

from bigmodel.runtime import git_state
from bigmodel.runtime.git_state import ask_git, without_credentials


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false")
    command = ["git", *who, *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "mine"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "train.py").write_text("1\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "First")
    return folder


def test_commit_branch_changes_and_remote(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    clean = {"git_commit": commit, "git_branch": "main", "git_changed_files": "0"}
    assert ask_git(repository)() == clean
    git(repository, "remote", "add", "origin", "https://ann:secret@example.org/a/b.git")
    (repository / "train.py").write_text("2\n")
    (repository / "outputs").mkdir()  # not tracked: no change of the code
    (repository / "outputs" / "a.txt").write_text("")
    remote = {"git_changed_files": "1", "git_remote": "https://example.org/a/b.git"}
    assert ask_git(repository / "outputs")() == clean | remote
    git(repository, "checkout", "-q", "--detach")
    assert "git_branch" not in ask_git(repository)()


def test_without_a_repository_or_a_commit_there_is_nothing(repository: Path, tmp_path: Path) -> None:
    assert ask_git(tmp_path)() == {}
    git(tmp_path, "init", "-q", "empty")
    assert ask_git(tmp_path / "empty")() == {}
    (repository / ".git" / "config").write_text("[broken")
    assert ask_git(repository)() == {}


def test_without_git_there_is_nothing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert ask_git(repository)() == {}


def test_nothing_of_the_repository_is_run_or_written(repository: Path) -> None:
    fired, hooks = repository.parent / "fired", repository.parent / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "monitor"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {fired}\n")
        (hooks / name).chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hooks / "monitor"))
    git(repository, "config", "core.hooksPath", str(hooks))
    index = (repository / ".git" / "index").read_bytes()
    (repository / "train.py").touch()  # git would refresh its index
    assert ask_git(repository)()["git_changed_files"] == "0"
    assert not fired.exists()
    assert (repository / ".git" / "index").read_bytes() == index
    git(repository, "status")
    assert fired.exists()  # or the traps are none


def test_a_slow_git_is_not_waited_for(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin" / "git"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(git_state, "SECONDS", 0.2)
    began = time.monotonic()
    assert ask_git(repository)() == {}
    assert time.monotonic() - began < 30


def test_a_git_in_the_current_folder_is_not_run(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "git").write_text("#!/bin/sh\ntouch fired\n")
    (repository / "git").chmod(0o755)
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PATH", ":.")
    assert ask_git(repository)() == {}
    assert not (repository / "fired").exists()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ann:secret@example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://secret@example.org:8443/a?token=secret#secret", "https://example.org:8443/a"),
        ("ssh://git@example.org/a/b.git", "ssh://example.org/a/b.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("/srv/git/b.git", "/srv/git/b.git"),
        ("https://[secret", ""),
        ("https://ann:sec/ret@example.org/a", ""),
        ("ann:secret@example.org:a/b.git", "example.org:a/b.git"),
        ("https://example.org/@ann/b", "https://example.org/@ann/b"),
        (
            "persistent-https::https://ann:secret@example.org/a",
            "persistent-https::https://example.org/a",
        ),
        ("ext::sh -c 'curl https://ann:secret@example.org/a'", ""),
        ("ext::fetch --token secret", ""),
    ],
)
def test_a_remote_is_told_without_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
