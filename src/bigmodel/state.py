"""Everything that a resume needs, in one object.

`State.save` gives it as named groups of tensors and as facts that JSON can hold; `State.load` takes
both back. What stands in here and nowhere else is what makes a resumed run the same run.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.ema import EMA
from bigmodel.errors import CheckpointError, NonFiniteError
from bigmodel.metrics import Metrics
from bigmodel.optimizers import evaluation_weights, training_weights
from bigmodel.schedulers import Scheduler

TensorGroups = dict[str, dict[str, Tensor]]


@dataclass
class Progress:
    """How far a run has come; plain numbers only.

    Attributes:
        step: optimizer steps done.
        loss_sum, loss_weight: add up the training loss since the last record.
        seconds: time spent in training and evaluation, over all sittings.
        best: the record of the best evaluation so far, and `best_value` its monitored metric.
        final: the newest record.
        waited: evaluations since early stopping's metric got better; `stop_value` is its best.
        figures: the newest evaluation's figures, by full name.
        stopped_early: whether early stopping has ended the run.
    """

    step: int = 0
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    seconds: float = 0.0
    best: dict[str, float | int] = field(default_factory=dict)
    best_value: float | None = None
    final: dict[str, float | int] = field(default_factory=dict)
    waited: int = 0
    stop_value: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    stopped_early: bool = False


class State:
    """The parts of a run that change while it runs.

    Args:
        model, optimizer, scheduler: what is trained, and how.
        metrics: add up training metrics since the last record.
        ema: averaged weights, or None.
        scaler: gradient scaling of fp16, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler,
        metrics: Metrics,
        ema: EMA | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.metrics = metrics
        self.ema = ema
        self.scaler = scaler
        self.progress = Progress()

    def save(self) -> tuple[TensorGroups, dict[str, Any]]:
        """The whole state: tensors by group and name, and facts that JSON can hold.

        Group `model` holds the weights that are trained. Where the weights to evaluate and predict with
        are others (an average of them), group `averaged` holds those.

        Raises:
            NonFiniteError: a weight is NaN or infinite; such a state is never saved.
        """
        self.check_finite()
        optimizer_tensors, optimizer_facts = flatten_optimizer(self.optimizer.state_dict())
        groups: TensorGroups = {
            "model": _plain(self.model.state_dict()),
            "optimizer": optimizer_tensors,
            "metrics": self.metrics.state_dict(),
            "random": _random_tensors(),
        }
        if self.averages:
            with self.evaluation_weights():
                groups["averaged"] = {k: v.clone() for k, v in _plain(self.model.state_dict()).items()}
        facts = {
            "progress": asdict(self.progress),
            "optimizer": optimizer_facts,
            "optimizer_class": type(self.optimizer).__name__,
            "scheduler": self.scheduler.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "ema_updates": None if self.ema is None else self.ema.updates,
            "python_random": _python_random(),
        }
        return groups, facts

    def load(self, groups: TensorGroups, facts: dict[str, Any]) -> None:
        """Takes over a saved state, in place.

        Raises:
            CheckpointError: it is the state of another model or optimizer.
        """
        if missing := sorted({"model", "optimizer", "metrics", "random"} - groups.keys()):
            raise CheckpointError(f"The checkpoint is damaged: it has no {missing[0]}.safetensors.")
        self.load_model(groups["model"])
        ours, theirs = type(self.optimizer).__name__, facts["optimizer_class"]
        if ours != theirs:
            raise CheckpointError(f"The checkpoint's optimizer is {theirs}, and this run's is {ours}.")
        try:
            saved = unflatten_optimizer(groups["optimizer"], facts["optimizer"])
            self.optimizer.load_state_dict(saved)
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"The checkpoint's optimizer is not this run's: {error}") from error
        self.metrics.load_state_dict(groups["metrics"])
        self.scheduler.load_state_dict(facts["scheduler"])
        if self.ema is not None and facts["ema_updates"] is not None:
            self.ema.load(groups["averaged"], facts["ema_updates"])
        if self.scaler is not None and facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
        _restore_random(groups["random"], facts["python_random"])
        self.progress = Progress(**facts["progress"])

    def load_model(self, weights: dict[str, Tensor]) -> None:
        """Takes over weights alone.

        Raises:
            CheckpointError: names or shapes are not this model's.
        """
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(f"The checkpoint holds another model: {error}") from error

    @property
    def averages(self) -> bool:
        """Whether the weights to evaluate with are others than those that are trained."""
        return self.ema is not None or hasattr(self.optimizer, "eval")

    @contextlib.contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Within it the model holds the weights to evaluate with; afterwards its own, to the bit."""
        if not self.averages:
            yield
            return
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        evaluation_weights(self.optimizer)
        if self.ema is not None:
            self.model.load_state_dict(self.ema.weights)
        try:
            yield
        finally:
            # Switching back by arithmetic would leave rounding errors behind: the copy does not.
            training_weights(self.optimizer)
            self.model.load_state_dict(own)

    def check_finite(self) -> None:
        """Makes sure that no weight is NaN or infinite; waits for the device.

        Raises:
            NonFiniteError: one is.
        """
        values = [p for p in self.model.state_dict().values() if p.is_floating_point()]
        # The largest magnitude of all, in a few kernels: NaN and infinity come through.
        if not math.isfinite(float(nn.utils.get_total_norm(values, norm_type=math.inf))):
            names = [n for n, p in self.model.state_dict().items() if not bool(p.isfinite().all())]
            raise NonFiniteError(
                f"Step {self.progress.step} left NaN or infinite weights in {', '.join(names[:3])}."
                " A smaller optimizer.lr, or trainer.clip_norm=1.0, usually helps."
            )


def flatten_optimizer(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Parts an optimizer's state dict into tensors, named `<parameter>.<slot>`, and plain values."""
    tensors: dict[str, Tensor] = {}
    values: list[list[Any]] = []
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{slot}"] = value
            else:
                values.append([index, slot, value])
    groups = []
    for number, group in enumerate(state["param_groups"]):
        plain = {key: value for key, value in group.items() if not isinstance(value, Tensor)}
        tensors |= {f"group{number}.{k}": v for k, v in group.items() if isinstance(v, Tensor)}
        groups.append(plain)
    return tensors, {"state": values, "param_groups": groups}


def unflatten_optimizer(tensors: dict[str, Tensor], facts: dict[str, Any]) -> dict[str, Any]:
    """The state dict that `flatten_optimizer` parted."""
    state: dict[int, dict[str, Any]] = {}
    groups = [dict(group) for group in facts["param_groups"]]
    for name, value in tensors.items():
        owner, slot = name.split(".", 1)
        if owner.startswith("group"):
            groups[int(owner.removeprefix("group"))][slot] = value
        else:
            state.setdefault(int(owner), {})[slot] = value
    for index, slot, value in facts["state"]:
        state.setdefault(index, {})[slot] = value
    for group in groups:  # JSON has no tuples; options such as betas are ones
        for key, value in group.items():
            if isinstance(value, list) and key != "params":
                group[key] = tuple(value)
    return {"state": state, "param_groups": groups}


def _plain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in weights.items()}


def _random_tensors() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _python_random() -> list[Any]:
    version, numbers, gauss = random.getstate()
    return [version, list(numbers), gauss]


def _restore_random(tensors: dict[str, Tensor], python: list[Any]) -> None:
    torch.set_rng_state(tensors["cpu"].cpu())
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"].cpu())
    version, numbers, gauss = python
    random.setstate((version, tuple(numbers), gauss))
