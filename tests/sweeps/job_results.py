"""Results of jobs for tests of what is made of them."""

from typing import Any

from bigmodel.sweeps.leaderboard import JobResult


def job(
    name: int | str, value: float | None, status: str = "finished", mode: str = "max", **more: Any
) -> JobResult:
    known: dict[str, Any] = {
        "changed": {"seed": str(name)},
        "monitor": "val/accuracy",
        "best": {"val/accuracy": value},
    }
    return JobResult(job=str(name), status=status, mode=mode, **(known | more))
