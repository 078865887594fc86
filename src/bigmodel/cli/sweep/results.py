"""The results of a sweep: its jobs as its record lists them, with what their folders say."""

from __future__ import annotations

from typing import Any

from bigmodel.reporting.leaderboard import Row
from bigmodel.runtime import nested_json
from bigmodel.runtime.disk import read_text
from bigmodel.sweeps.jobs import Outcome, changes
from bigmodel.sweeps.manifest import JobState, Manifest


def collect(manifest: Manifest) -> tuple[list[Row], str, str]:
    """The jobs of a sweep, in the order of their numbers, those that never began too.

    Returns:
        A row a job, the monitored metric's name, and its mode (`max` or `min`).
    """
    states = list(manifest.states.values())
    changed = changes(state.job for state in states)
    summaries = {state.job.number: _summary(state) for state in states}
    metric = next((s["monitor"] for s in summaries.values() if s.get("monitor")), "metric")
    mode = next((s["mode"] for s in summaries.values() if s.get("mode")), "max")
    rows = []
    for state in states:
        number, summary = state.job.number, summaries[state.job.number]
        best = summary.get("best") or {}
        rows.append(
            Row(
                job=str(number),
                changed=changed[number],
                metric=best.get(metric),
                seconds=float(summary.get("seconds", 0.0)),
                status=str(summary["status"]),
                folder="" if state.folder is None else str(state.folder),
                error=_remark(summary, metric),
                loss=str(summary.get("loss") or ""),
                val_loss=best.get("val/loss"),
            )
        )
    return rows, metric, mode


def finished(manifest: Manifest) -> list[Outcome]:
    """The outcomes of the jobs that have finished, as their folders tell them."""
    outcomes = []
    for state in manifest.states.values():
        summary = _summary(state)
        if summary["status"] == "finished":
            value = (summary.get("best") or {}).get(summary.get("monitor"))
            outcomes.append(Outcome("finished", None, state.folder, value, summary))
    return outcomes


def _remark(summary: dict[str, Any], metric: str) -> str | None:
    """Why a job failed, or why it has no rank."""
    if summary.get("status") != "finished" or (summary.get("best") or {}).get(metric) is not None:
        return summary.get("error")
    if summary.get("monitor") != metric:
        return f"has no {metric}: its best was chosen by {summary.get('monitor')}"
    others = [figure for name, figure in (summary.get("final") or {}).items() if name.startswith("val/")]
    if any(figure is not None for figure in others):
        return f"{metric} was never a number: the validation part leaves it undefined"
    return f"{metric} was never a number: the model gave NaN or infinity in every evaluation"


def _summary(state: JobState) -> dict[str, Any]:
    """What a job's folder says of it; where it has none, what the sweep's record says."""
    known = {"status": state.status, "error": state.error}
    if state.folder is None or state.status == "waiting":
        return known
    try:
        summary = nested_json.loads(read_text(state.folder / "summary.json"))
    except (OSError, ValueError):
        summary = None
    if not isinstance(summary, dict):
        return {"status": "failed", "error": state.error or "left no summary: it was ended from outside"}
    # A process that was killed leaves a summary that says that it is running.
    return summary | (known if state.status in ("failed", "pruned") else {})
