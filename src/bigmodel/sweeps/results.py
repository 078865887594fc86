"""What jobs have left on the disk: those of sweeps, older ones without a record too, and single runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bigmodel.errors import CheckpointError
from bigmodel.runtime import nested_json, run_summary
from bigmodel.runtime.disk import check_regular, read_text
from bigmodel.sweeps import manifest as manifests
from bigmodel.sweeps import report as reports
from bigmodel.sweeps.jobs import Job, Outcome, changes, settings
from bigmodel.sweeps.leaderboard import JobResult, changed_keys
from bigmodel.sweeps.manifest import JobState, Manifest

DEPTH = 4
"""Folders between `outputs` and a run: multirun, date, time, job."""


@dataclass(frozen=True)
class _Found:
    """A job.

    Attributes:
        words: what it sets.
        state: what is known of it beside its summary.
        typed: what was typed for it, or for its sweep.
    """

    name: str
    words: tuple[str, ...]
    state: JobState
    typed: tuple[str, ...]


def collect(manifest: Manifest) -> list[JobResult]:
    """The jobs of a sweep, in the order of their numbers, those that never began too."""
    return _results(_of_sweep(manifest))


def finished(manifest: Manifest) -> list[Outcome]:
    """The outcomes of the jobs of a sweep that have finished, as their folders tell them."""
    outcomes = []
    for job in _of_sweep(manifest):
        summary = _summary(job.state)
        if summary["status"] == "finished":
            value = (summary.get("best") or {}).get(summary.get("monitor"))
            outcomes.append(Outcome("finished", None, job.state.folder, value, summary))
    return outcomes


def read(folders: Sequence[Path]) -> list[JobResult]:
    """The jobs of several sweeps and runs, in the order of the folders.

    Of several folders, a job's name begins with what tells its folder from the others; a setting that
    only some of them changed is looked up in the other runs' configurations.

    Raises:
        CheckpointError: a folder is not there, or holds no run; a sweep's record cannot be read.
    """
    distinct = list({folder.resolve(): folder for folder in folders}.values())
    if len(distinct) == 1:
        return _results(list(_below(distinct[0])))
    found: dict[Path | str, _Found] = {}
    for folder, label in zip(distinct, _labels(distinct), strict=True):
        for job in _below(folder):
            own = None if job.state.folder is None else job.state.folder.resolve()
            name = label if own == folder.resolve() else f"{label}/{job.name}"
            found.setdefault(own or name, replace(job, name=name))  # a job of a sweep may be named again
    return _with_defaults(_results(list(found.values())))


def curve(result: JobResult, metric: str) -> list[tuple[float, float]]:
    """How a metric of a job went: epochs done, fractions included, and its value."""
    try:
        lines = read_text(Path(result.folder) / "metrics.jsonl").splitlines()
    except (OSError, ValueError):
        return []
    points = []
    for line in lines:
        try:
            record = nested_json.loads(line)
            value, epoch = record.get(metric), float(record["epoch"])
            if result.steps and result.epochs:
                epoch = record["step"] * result.epochs / result.steps
            if value is not None:
                points.append((epoch, float(value)))
        except (ValueError, KeyError, TypeError, AttributeError):  # cut off when its writer was killed
            continue
    return points


def _below(folder: Path) -> Iterator[_Found]:
    """The jobs in a folder: a sweep's, a run's, or those of the sweeps and runs below it."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder. Name the folder of a sweep or a run.")
    found = list(_jobs_below(folder, "", DEPTH))
    if not found:
        raise CheckpointError(
            f"{folder}: holds no run. Name the folder of a sweep, such as"
            f" outputs/multirun/<date>/<time>, or of a run, which holds summary.json."
        )
    yield from found


def _jobs_below(folder: Path, prefix: str, depth: int) -> Iterator[_Found]:
    if (folder / manifests.NAME).is_file():
        for job in _of_sweep(Manifest.read(folder)):
            yield replace(job, name=f"{prefix}{job.name}")
    elif (folder / ".hydra").is_dir() or (folder / run_summary.NAME).is_file():
        words = typed_words(folder)
        state = JobState(Job(0, words), "running", None, folder)
        yield _Found(prefix.removesuffix("/") or folder.name, words, state, words)
    elif depth:
        inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        for path in sorted(inner, key=lambda path: (len(path.name), path.name)):
            yield from _jobs_below(path, f"{prefix}{path.name}/", depth - 1)


def _of_sweep(manifest: Manifest) -> list[_Found]:
    states = dict(sorted(manifest.states.items()))
    if (manifest.folder / reports.FOLDER).is_dir():  # jobs may have begun while nobody was watching
        for number, state in states.items():
            if state.folder is None and (folder := reports.folder_of(manifest.folder, number)):
                states[number] = replace(state, status="running", folder=folder)
    return [
        _Found(str(number), state.job.overrides, state, manifest.words)
        for number, state in states.items()
    ]


def _labels(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(each[-length:]) for each in parts]
        if max(Counter(ends).values()) == 1:
            return ends
    return [str(folder) for folder in folders]


def _results(found: Sequence[_Found]) -> list[JobResult]:
    changed = changes(Job(index, job.words) for index, job in enumerate(found))
    if len(found) == 1:  # it differs from no other: what its sweep has chosen is told
        changed = {0: settings(word for word in found[0].words if word not in found[0].typed)}
    for own in changed.values():  # what a run is called changes nothing about it
        for key in [key for key in own if key.partition(".")[0] == "run"]:
            del own[key]
    return [_result(job, changed[index]) for index, job in enumerate(found)]


def _result(job: _Found, changed: Mapping[str, str]) -> JobResult:
    summary, folder = _summary(job.state), job.state.folder
    best = _figures(summary.get("best")) | _figures(summary.get("test"))
    directions, labels = summary.get("directions"), summary.get("run")
    labels = labels if isinstance(labels, dict) else {}
    tags = labels.get("tags")
    return JobResult(
        job=job.name,
        changed=changed,
        status=str(summary["status"]),
        error=summary.get("error"),
        folder="" if folder is None else str(folder),
        checkpoint="" if folder is None else _checkpoint(folder),
        monitor=str(summary.get("monitor") or ""),
        mode=str(summary.get("mode") or "max"),
        directions=directions if isinstance(directions, dict) else {},
        loss=str(summary.get("loss") or ""),
        best=best,
        final=_figures(summary.get("final")),
        epochs=_number(summary.get("epochs")),
        steps=int(_number(summary.get("steps"))),
        seconds=_number(summary.get("seconds")),
        name=str(labels.get("name") or ""),
        tags=[str(tag) for tag in tags] if isinstance(tags, list) else [],
        notes=str(labels.get("notes") or ""),
    )


def _figures(record: Any) -> dict[str, float | None]:
    if not isinstance(record, dict):
        return {}
    return {name: None if value is None else _number(value) for name, value in record.items()}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _checkpoint(folder: Path) -> str:
    places = (folder / "checkpoints" / name for name in ("best", "last"))
    return next((str(place) for place in places if place.is_dir()), "")


def _summary(state: JobState) -> dict[str, Any]:
    """What a job's folder says of it; if it has none, what the sweep's record says."""
    known = {"status": state.status, "error": state.error}
    if state.folder is None or state.status == "waiting":
        return known
    summary = run_summary.read_leniently(state.folder)
    if summary is None:
        return {"status": "failed", "error": state.error or "left no summary: it was ended from outside"}
    told = summary.get("status")
    # A process that was killed leaves a summary that says that it is running, or that it had finished.
    killed = state.status in ("failed", "pruned") and told != "finished"
    return {"status": "failed"} | summary | (known if killed or state.status == told else {})


def typed_words(folder: Path) -> tuple[str, ...]:
    """The words with which the run in a folder was started; none if the folder does not say so."""
    words = _yaml(folder / ".hydra" / "overrides.yaml")
    return tuple(word for word in words if isinstance(word, str)) if isinstance(words, list) else ()


def _with_defaults(results: list[JobResult]) -> list[JobResult]:
    """The results with the settings that they left at their defaults, without those that all share."""
    keys = changed_keys(results)
    values: dict[str, list[str | None]] = {key: [] for key in keys}
    for result in results:
        missing = any(key not in result.changed for key in keys) and result.folder
        config = _yaml(Path(result.folder) / ".hydra" / "config.yaml") if missing else None
        for key in keys:
            values[key].append(result.changed.get(key, _setting(config, key)))
    differing = [key for key in keys if len(set(values[key])) > 1 or len(results) == 1]
    return [
        replace(result, changed={k: v for k in differing if (v := values[k][index]) is not None})
        for index, result in enumerate(results)
    ]


def _setting(config: Any, key: str) -> str | None:
    """A setting of a configuration as it would be typed: the name of a choice, such as `model`."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    if isinstance(config, dict):
        config = config.get("name")
    if isinstance(config, bool):
        return str(config).lower()
    return str(config) if isinstance(config, int | float | str) else None


def _yaml(path: Path) -> Any:
    """The content of a YAML file as plain values; None if it cannot be read."""
    import yaml  # type: ignore[import-untyped]

    try:
        check_regular(path)
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return loader(read_text(path)).get_single_data()
    except (OSError, ValueError, RecursionError, yaml.YAMLError):  # cut off while it was written
        return None
