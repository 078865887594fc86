"""Which version of the user's own code a run was started with: what git says of the current folder.

It is asked in a thread, for at most two seconds, and never changes or locks anything: without hooks,
file monitors, prompts and submodules. A folder that git refuses, such as another user's, has no state.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from bigmodel.redaction import masked

SECONDS = 2.0
"""How long git may take."""

_QUIET = (
    *("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}"),
    *("--no-optional-locks", "--no-pager"),
)
_STATUS = ("status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules=all")


def ask_git(folder: Path) -> Callable[[], dict[str, str]]:
    """Asks git for the state of a folder.

    Returns:
        A function that waits for the answer: `git_commit`; `git_branch` unless none is checked out;
        `git_changed_files`, the number of files that differ from the commit; and `git_remote`, where it
        comes from, without credentials. Empty if the folder is in no repository, or git is too slow.
    """
    answer: dict[str, str] = {}
    git = next(
        (
            path
            for place in os.get_exec_path()
            if (path := Path(place, "git")).is_absolute() and path.exists()
        ),
        None,
    )
    if git is None:
        return lambda: answer

    def ask() -> None:
        state = _parse(_output(git, folder, *_STATUS))
        if state:
            url = _output(git, folder, "config", "--get", "remote.origin.url").strip()
            answer.update(state | ({"git_remote": without_credentials(url)} if url else {}))

    thread = threading.Thread(target=ask, name="bigmodel-git", daemon=True)
    thread.start()

    def wait() -> dict[str, str]:
        thread.join(SECONDS)
        return dict(answer)

    return wait


def without_credentials(url: str) -> str:
    """A remote's address without user, password and query, which may hold a token; empty if that cannot
    be told, as of commands of a remote helper."""
    before, separator, after = url.partition("://")
    if not separator:  # a path, or git@host:path
        return "" if "::" in url else masked(re.sub(r"^[^/@]*:[^/@]*@", "", url))
    host, slash, path = re.split(r"[?#]", after)[0].partition("/")
    host = host.rpartition("@")[2]
    try:
        urlsplit(f"//{host}").port  # noqa: B018  # raises if it is none, but part of a password
    except ValueError:
        return ""
    return masked(f"{before}://{host}{slash}{path}") if re.fullmatch(r"[\w+.:-]+", before) else ""


def _parse(status: str) -> dict[str, str]:
    """The output of `git status --porcelain=v2 --branch`."""
    lines = status.splitlines()
    heads = dict(
        line.removeprefix("# branch.").split(" ", 1) for line in lines if line.startswith("# branch.")
    )
    commit, branch = heads.get("oid", "(initial)"), heads.get("head", "(detached)")
    if commit == "(initial)":
        return {}
    changed = sum(not line.startswith("#") for line in lines)
    named = {} if branch == "(detached)" else {"git_branch": branch}
    return {"git_commit": commit, **named, "git_changed_files": str(changed)}


def _output(git: Path, folder: Path, *words: str) -> str:
    """What a command prints; empty if it fails or takes too long."""
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            [git, *_QUIET, *words],
            cwd=folder,
            env=os.environ | quiet,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return ""
    with process:
        try:
            printed = process.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):  # with all that it has started
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            return ""
    return printed.decode(errors="replace") if process.returncode == 0 else ""
