"""Programs that keep runs, such as MLflow: each is told of a run by a process of its own.

Their libraries wait for servers, print, start processes, handle signals and exit. So none is loaded into
the process that trains: a worker (`worker.py`) reads the records from the run's folder, where they are
anyway, and keeps how far it has sent them. What fails is tried again by a fresh worker, and what a run
could not send is sent by `bigmodel track` or when the run is resumed.
"""

from __future__ import annotations

from typing import Any

from bigmodel.errors import did_you_mean

NAMES = ("mlflow", "trackio", "wandb")
"""What `logger` may list; the module of each library has the same name."""

_TENSORBOARD = "TensorBoard is no logger here: its files are written with trainer.tensorboard=true"

FOLDER = "trackers"
"""In a run's folder: what the trackers know of it, and what their libraries print."""


def check_names(names: list[str]) -> list[str]:
    """The names, each once.

    Raises:
        ValueError: there is no such tracker.
    """
    for name in names:
        if name == "tensorboard":
            raise ValueError(_TENSORBOARD)
        if name not in NAMES:
            raise ValueError(
                f"there is no '{name}'.{did_you_mean(name, NAMES)} Allowed: {', '.join(NAMES)}"
            )
    return list(dict.fromkeys(names))


def check_list(value: Any) -> Any:
    """The value, unless another tool's switch was meant.

    Raises:
        ValueError: it is one.
    """
    if isinstance(value, bool) or value in (None, "tensorboard"):
        raise ValueError(f"should be a list, such as [mlflow]. {_TENSORBOARD} or false")
    return value
