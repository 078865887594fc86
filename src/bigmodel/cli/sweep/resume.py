"""`sweep.resume=`: the same sweep again, in its own folder, without the jobs that are done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from bigmodel.cli.launch.resume import check_own_files
from bigmodel.cli.launch.run_folder import LOGS
from bigmodel.cli.launch.safe_loader import check_overrides, named_plugins
from bigmodel.errors import ConfigError, counted, hydra_value, shell_quoted
from bigmodel.runtime import run_summary
from bigmodel.runtime.escaping import escape_message
from bigmodel.sweeps import report as reports
from bigmodel.sweeps.jobs import Job, Outcome, Status, changes, in_one_line
from bigmodel.sweeps.manifest import NAME, Manifest

SBATCH_OPTIONS = "sweep.slurm.additional_parameters"
"""Options of sbatch, which can have a job run code, `export` for one."""

_KEY = "sweep.resume"
_DONE: dict[str | None, Status] = {"finished": "finished", "pruned": "pruned"}


def expand_resume(argv: list[str]) -> tuple[list[str], Manifest | None]:
    """Turns `sweep.resume=FOLDER` into the words with which that sweep was started.

    Words that are typed beside it take the place of those with the same key.

    Args:
        argv: the command line without the program's name.

    Returns:
        The words for Hydra, and the sweep's record; None if nothing is resumed.

    Raises:
        ConfigError: no folder is named; a word that may run code is not typed again.
        CheckpointError: it is not a sweep's folder, or something in it is a link to elsewhere.
    """
    wanted = [word.partition("=")[2].strip("'\"") for word in argv if key_of(word) == _KEY]
    if not wanted or wanted[-1] == "null":
        return argv, None
    if not wanted[-1]:
        raise ConfigError(f"{_KEY}=: is empty. Name the folder of a sweep, which holds {NAME}.")
    folder = Path(wanted[-1])
    manifest = Manifest.read(folder)
    check_own_files("sweep", folder, folder / LOGS, folder / reports.FOLDER)
    own = f"hydra.sweep.dir={hydra_value(str(folder.resolve()))}"
    typed = [word for word in argv if key_of(word) != _KEY] + [own]
    check_typed_again(f"{_KEY}={folder}", manifest, manifest.words, typed)
    return_to_start(manifest)
    return replaced(manifest.words, typed), manifest


def check_typed_again(
    where: str, manifest: Manifest, words: Iterable[str], typed: Sequence[str]
) -> None:
    """Makes sure that what a sweep's record says runs no code by itself: the folder may be a stranger's.

    Args:
        where: what was asked for.
        words: those of the record that are to count.
        typed: what was typed now.

    Raises:
        ConfigError: a word that may run code is missing.
    """
    own, plugins = {key_of(word) for word in typed}, named_plugins(typed)
    missing = [
        word
        for word in dict.fromkeys(filter(may_run_code, words))
        if key_of(word) not in own or not named_plugins([word]) <= plugins
    ]
    if missing:
        place = manifest.started_in
        moved = place is not None and place != Path.cwd()
        raise ConfigError(
            f"{where}: the sweep was started with words that can run code, which count only when you"
            " type them again. If you trust them"
            f"{f' and the files in {place}, where the sweep was started' if moved else ''}, add:"
            f" {' '.join(map(shell_quoted, missing))}"
        )


def may_run_code(word: str) -> bool:
    """Whether a word of the command line counts only if the user types it, as in no file."""
    if named_plugins([word]) or key_of(word).startswith(SBATCH_OPTIONS):
        return True
    try:
        check_overrides([word], typed=False)
    except ConfigError:
        return True
    return False


def resume_words(manifest: Manifest) -> str:
    """What to type to go on with a sweep, after the command's name."""
    words = [f"{_KEY}={manifest.folder}", *dict.fromkeys(filter(may_run_code, manifest.words))]
    return f"-m {' '.join(map(shell_quoted, words))}"


def return_to_start(manifest: Manifest) -> None:
    """Goes to the folder that a sweep was started in: its words may name data by relative paths."""
    place = manifest.started_in
    if place is None or place == Path.cwd() or not place.is_dir():
        return
    manifest.folder = manifest.folder.resolve()
    os.chdir(place)
    print(escape_message(f"Relative paths start from {place}, where the sweep was started."))  # noqa: T201


def replaced(words: Sequence[str], typed: Sequence[str]) -> list[str]:
    """The words with those that are typed in the place of those with the same key, or after them. Of
    several with the same key, the last counts."""
    new = {key_of(word): word for word in typed if "=" in word}
    keys = [key_of(word) for word in words]
    merged = [
        new.get(key, word)
        for place, (key, word) in enumerate(zip(keys, words, strict=True))
        if key not in new or key not in keys[:place]
    ]
    others = [word for word in typed if word not in merged and new.get(key_of(word), word) == word]
    return [*merged, *others]


def key_of(word: str) -> str:
    """The key that a word of the command line sets."""
    return word.lstrip("+").partition("=")[0]


def merge_jobs(manifest: Manifest, jobs: Sequence[Job], extend: bool) -> list[Job]:
    """The jobs that are typed now, with the numbers that they have in the sweep's record.

    Args:
        extend: whether there may be more than before.

    Raises:
        ConfigError: they are others than before.
    """
    known = {_without_pluses(state.job): state.job for state in manifest.states.values()}
    typed = {_without_pluses(job): job for job in jobs}
    gone = [known[words] for words in known if words not in typed]
    first = max(manifest.states, default=-1) + 1
    listed = [job.overrides for words, job in typed.items() if words not in known]
    new = [Job(first + index, overrides) for index, overrides in enumerate(listed)]
    differing = changes([*known.values(), *new])
    if gone:
        raise ConfigError(
            f"sweep.resume={manifest.folder}: {counted(len(gone), 'job')} of it would be missing,"
            f" such as {in_one_line(differing[gone[0].number])}. Leave out what changes the sweep,"
            " or start another."
        )
    if new and not extend:
        raise ConfigError(
            f"sweep.resume={manifest.folder}: {counted(len(new), 'job')} would be new, such"
            f" as {in_one_line(differing[new[0].number])}. Add sweep.extend=true to run them too."
        )
    for job in new:
        manifest.add(job)
    return [*known.values(), *new]


def _without_pluses(job: Job) -> tuple[str, ...]:
    """What a job sets. A plus makes no difference to that, and other versions may set one."""
    return tuple(sorted(word.lstrip("+") for word in job.overrides))


def record_words(manifest: Manifest, words: Sequence[str]) -> None:
    """Records other words with which a sweep goes on, such as more values: the next time it is resumed
    with these. Where it is and that it may be extended is said anew each time."""
    now, before = (
        [word for word in each if key_of(word) not in ("hydra.sweep.dir", "sweep.extend")]
        for each in (words, manifest.words)
    )
    if now != before:
        manifest.reword(now)


def to_run(manifest: Manifest, retry: bool) -> list[Job]:
    """The jobs that are not done. The record says of all others that they are, which a sweep that was
    killed may not have heard.

    Args:
        retry: whether those that failed are tried again.
    """
    jobs = []
    for state in list(manifest.states.values()):
        done = None if state.folder is None else _DONE.get(run_summary.status(state.folder))
        if done is not None:
            if state.status != done:
                manifest.ended(state.job, Outcome(done))
        elif retry or state.status != "failed":
            jobs.append(state.job)
    return jobs
