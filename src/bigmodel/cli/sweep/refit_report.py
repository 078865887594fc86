"""What `sweep.refit=` says when its run begins and ends."""

from __future__ import annotations

from pathlib import Path

from bigmodel.cli.sweep.baseline_words import better_baseline
from bigmodel.errors import counted, hydra_value, shell_quoted
from bigmodel.reporting.base import Summary
from bigmodel.reporting.formatting import aligned, figure, shown_path
from bigmodel.sweeps.jobs import in_one_line
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.refit import Refit, Winner


def announcement(folder: Path, manifest: Manifest, winner: Winner, how: str) -> str:
    """Which settings are trained again, and why.

    Args:
        folder: the sweep's.
        manifest: its record.
        winner: the settings.
        how: ends the sentence that says that they are trained.
    """
    words = in_one_line(winner.changed)
    chosen = words if winner.repeats else f"job {winner.job.job} ({words})"
    metric = winner.metric
    if winner.repeats:
        metric = f"mean {metric} of {counted(winner.runs, winner.unit)}"
    best = f"{chosen} is the best of {winner.among}" if winner.candidates > 1 else "its only settings"
    sentences = [
        f"sweep.refit={folder}: {best}, {metric}: {figure(winner.value)}. It is trained again{how}."
    ]
    if unfinished := sum(state.status in ("waiting", "running") for state in manifest.states.values()):
        sentences.append(f"{counted(unfinished, 'job')} had not ended and did not count.")
    if (baseline := better_baseline(folder, winner)) is not None:
        sentences.append(baseline)
    return " ".join(sentences)


def conclusion(refit: Refit, folder: Path, summary: Summary) -> list[str]:
    """The figures side by side, what they are worth, and how to name the settings again.

    Args:
        folder: the run's.
        summary: of the run.
    """
    winner = refit.winner
    metric, test = winner.metric, f"test/{winner.metric.partition('/')[2]}"
    own, tested = summary.best.get(metric), summary.test.get(test)
    rows = [
        ("", metric, test),
        (_as_picked(winner), figure(winner.value) + _error(winner), "–"),
        ("this run", *("–" if value is None else figure(value) for value in (own, tested))),
    ]
    if tested is None:
        rows = [row[:2] for row in rows]
    words = _meaning(winner, test, own, tested) if winner.candidates > 1 else []  # else none was picked
    return ["", *aligned(rows), *([" ".join(words)] if words else []), _again(refit, folder)]


def _as_picked(winner: Winner) -> str:
    mean = f", mean of {counted(winner.runs, winner.unit)} ± standard error" if winner.runs > 1 else ""
    return f"best of {winner.among}{mean}" if winner.candidates > 1 else f"the sweep{mean}"


def _error(winner: Winner) -> str:
    error = winner.estimate.standard_error
    return "" if error is None else f" ± {figure(error)}"


def _meaning(winner: Winner, test: str, own: float | None, tested: float | None) -> list[str]:
    figures = f"{winner.metric} as picked is" if own is None else f"both figures of {winner.metric} are"
    picked = f"The best of {winner.among} is partly the luckiest, so that {figures} optimistic"
    picked += f", the mean by about {figure(winner.bias)}." if winner.bias else "."
    if winner.bias == 0:
        among = winner.among
        picked = f"It is the best of {among} in every fold: having been picked does not flatter it."
    if tested is None:
        return [picked, "There is no test set, whose figure could be reported instead."]
    worse = (winner.value - tested) * (1 if winner.mode == "max" else -1)
    gap = f"worse by {figure(worse)}" if worse > 0 else "no worse"
    return [picked, f"Report {test}, {gap} than as picked: its samples took no part in the choice."]


def _again(refit: Refit, folder: Path) -> str:
    away = refit.moved_to not in (None, Path.cwd())
    own, path = str(folder.resolve()) if away else shown_path(folder), refit.search_path
    if refit.flags:  # there is one folder of configurations: the run's becomes one that is searched
        words = [*refit.flags, f"hydra.searchpath={hydra_value([own, *path], literal=True)}"]
    else:
        words = [f"--config-dir={own}"]
        words += [f"hydra.searchpath={hydra_value(path, literal=True)}"] if path else []
    words.append(f"experiment={refit.name}")
    words += [f"plugins=[{','.join(refit.plugins)}]"] if refit.plugins else []
    first = "" if refit.moved_to is None else f"cd {shell_quoted(str(refit.moved_to))} && "
    return f"These settings again: {first}bigmodel-train {' '.join(map(shell_quoted, words))}"
