"""Everything that a resume needs, in one object.

`State.save` gives it as named groups of tensors and as facts that JSON can hold; `State.load` takes
both back. What stands in here and nowhere else is what makes a resumed run the same run.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.checkpointing.serialization import (
    TensorGroups,
    flatten_optimizer,
    plain_names,
    unflatten_optimizer,
)
from bigmodel.engine.accumulation import Accumulation
from bigmodel.engine.ema import EMA
from bigmodel.errors import CheckpointError, NonFiniteError
from bigmodel.metrics import Metrics
from bigmodel.optim.optimizers import evaluation_weights, own_options, training_weights
from bigmodel.optim.schedulers import Schedule
from bigmodel.runtime.device import Choice, random_facts, random_tensors, restore_random

_JUDGED_BY = ("data", "loss.", "trainer.checkpoint.m", "trainer.early_stopping.m")
_NOT_JUDGED_BY = ("data.batch_size", "data.drop_last", "data.augment.")


_SAME_STATE = {f"optimizer.{name}" for name in ("lr", "adamw_lr", "weight_decay", "betas", "eps")}
"""Options of optimizers that say nothing of what they keep from step to step."""


def changes_judgement(key: str) -> bool:
    """Whether a setting decides by what figure of which samples a model is called the best."""
    return key.startswith(_JUDGED_BY) and not key.startswith(_NOT_JUDGED_BY)


@dataclass
class Progress:
    """How far a run has come; plain numbers only.

    Attributes:
        step: optimizer steps done.
        attended: the newest step after which all that was due (evaluation, records) has been done.
        loss_sum, loss_weight: add up the training loss since the last record.
        seconds: time spent in training and evaluation, over all sittings.
        best: the record of the best evaluation so far, and `best_value` its monitored metric.
        final: the newest record.
        waited: evaluations since early stopping's metric got better; `stop_value` is its best.
        figures: the newest evaluation's figures, by full name.
        stopped_early: whether early stopping has ended the run.
        skipped: updates left out because the loss or a gradient was not finite, and `skipped_in_row`
            how many of them came last without a good one between.
        passed_over: steps that are counted without an update, since rewinding found their batches bad.
        evaluation_batch: samples that are evaluated at once, where memory was too little for more.
    """

    step: int = 0
    attended: int = 0
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
    skipped: int = 0
    skipped_in_row: int = 0
    passed_over: list[int] = field(default_factory=list)
    evaluation_batch: int | None = None


class State:
    """The parts of a run that change while it runs; `ema`, `scaler` (of fp16) and `loss` may be None.

    Attributes:
        begun_anew: whether the optimizer's saved state did not fit changed settings.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        metrics: Metrics,
        accumulation: Accumulation,
        ema: EMA | None = None,
        scaler: torch.amp.GradScaler | None = None,
        loss: nn.Module | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.metrics = metrics
        self.accumulation = accumulation
        self.ema = ema
        self.scaler = scaler
        self.loss = loss
        self._loss_at_first = {name: value.clone() for name, value in self._loss_buffers().items()}
        self.progress = Progress()
        self.choice = Choice()
        self.begun_anew = False

    def save(self) -> tuple[TensorGroups, dict[str, Any]]:
        """The whole state: tensors by group and name, and facts for `exact_json`.

        Group `model` holds the weights that are trained. Where the weights to evaluate and predict with
        are others (an average of them), group `averaged` holds those. In the middle of a step, group
        `accumulation` holds what its micro-batches have given so far. Where a loss has buffers that are
        not as it was built with, group `loss` holds those. Tensors are the live ones; facts
        are the caller's to keep: nothing changes them any more.

        Raises:
            NonFiniteError: a weight, average or moment is NaN or infinite; such a state is never saved.
        """
        optimizer_tensors, optimizer_facts = flatten_optimizer(self.optimizer.state_dict())
        groups: TensorGroups = {
            "model": self._weights(),
            "optimizer": optimizer_tensors,
            "metrics": self.metrics.state_dict(),
            "random": random_tensors(),
        }
        if self.averages:
            with self.evaluation_weights():
                groups["averaged"] = {name: value.clone() for name, value in self._weights().items()}
        if changed := self._changed_loss_buffers():
            groups["loss"] = changed
        if self.accumulation.losses:
            groups["accumulation"] = {"losses": torch.stack(self.accumulation.losses)} | {
                f"gradient.{name}": p.grad
                for name, p in self.model.named_parameters()
                if p.grad is not None
            }
            if self.accumulation.sums is not None:
                groups["accumulation"]["sums"] = self.accumulation.sums
        # Of a step that is under way it is decided when its gradient is whole.
        self._check_finite({name: tensors for name, tensors in groups.items() if name != "accumulation"})
        facts = {
            "progress": asdict(self.progress),
            "optimizer": optimizer_facts,
            "optimizer_class": type(self.optimizer).__name__,
            "scheduler": self.schedule.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "ema_updates": None if self.ema is None else self.ema.updates,
            "micro_batch": self.accumulation.micro_batch,
            "grad_norm": None if (norm := self.accumulation.grad_norm) is None else float(norm),
            "random": random_facts(),
            "choice": asdict(self.choice),
        }
        return groups, facts

    def load(self, groups: TensorGroups, facts: dict[str, Any], changed: Collection[str] = ()) -> None:
        """Takes over a saved state, in place.

        Args:
            groups, facts: as `save` gave them.
            changed: settings, by dotted key, that are others now than when it was saved. What follows
                from them is taken from now; what no longer fits begins anew.

        Raises:
            CheckpointError: it is the state of another model or optimizer.
        """
        if missing := sorted({"model", "optimizer", "metrics", "random"} - groups.keys()):
            raise CheckpointError(f"The checkpoint is damaged: it has no {missing[0]}.safetensors.")
        self.load_model(groups["model"])
        self._load_optimizer(groups["optimizer"], facts, changed)
        if not {"scheduler.name", "scheduler.interval"} & set(changed):
            self.schedule.load_state_dict(facts["scheduler"], facts["progress"]["step"])
        with contextlib.suppress(*[ValueError] if changed else []):  # of another target: from zero
            self.metrics.load_state_dict(groups["metrics"])
        if self.ema is not None:
            averages = groups["model"] if facts["ema_updates"] is None else groups["averaged"]
            names = plain_names(self.model).items()
            self.ema.load({n: averages[plain] for n, plain in names}, facts["ema_updates"] or 0)
        if self.scaler is not None and facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
        if "data.batch_size" not in changed and facts["micro_batch"] is not None:
            self.accumulation.micro_batch = facts["micro_batch"]
        norm = facts["grad_norm"]
        self.accumulation.grad_norm = None if norm is None else torch.tensor(norm)
        self._load_accumulation({} if changed else groups.get("accumulation", {}))
        if not any(key.startswith("loss.") for key in changed):
            self._load_loss(groups.get("loss", {}))
        restore_random(groups["random"], facts["random"])
        self.progress = Progress(**facts["progress"])
        if not any(key.startswith("device.") for key in changed):
            kept = facts.get("choice") or {}
            self.choice.engine, self.choice.threads = kept.get("engine"), kept.get("threads")
        if any(map(changes_judgement, changed)):
            forgotten = Progress()  # what was best by another measure says nothing
            self.progress.best, self.progress.best_value = forgotten.best, forgotten.best_value
            self.progress.waited, self.progress.stop_value = forgotten.waited, forgotten.stop_value

    def load_model(self, weights: dict[str, Tensor]) -> None:
        """Takes over weights alone.

        Raises:
            CheckpointError: names or shapes are not this model's.
        """
        own = {plain: name for name, plain in plain_names(self.model).items()}
        try:
            self.model.load_state_dict({own.get(name, name): value for name, value in weights.items()})
        except RuntimeError as error:
            first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
            raise CheckpointError(
                f"The checkpoint holds another model: {first} Weights cannot be turned into those of"
                " another size: leave model.* and the data's sizes as they were, or start anew."
            ) from error

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
        self._check_finite({"model": self._weights()})

    def _check_finite(self, groups: TensorGroups) -> None:
        named = {
            f"{group} {name}": value
            for group, tensors in groups.items()
            for name, value in tensors.items()
            if value.is_floating_point() and value.numel()
        }
        # A norm of all is a few kernels; NaN and infinity come through. Large numbers overflow it too.
        if not math.isfinite(float(nn.utils.get_total_norm(named.values()))):
            bad = [name for name, value in named.items() if not bool(value.isfinite().all())]
            if bad:
                raise NonFiniteError(
                    f"Step {self.progress.step} left NaN or infinite values in {', '.join(bad[:3])}."
                    " A smaller optimizer.lr, or trainer.clip_norm=1.0, usually helps.",
                    self.progress.step,
                )

    def _weights(self) -> dict[str, Tensor]:
        names = plain_names(self.model)
        return {names[name]: value.detach() for name, value in self.model.state_dict().items()}

    def _loss_buffers(self) -> dict[str, Tensor]:
        """What a loss keeps from step to step; fixed parameters and what is not persistent left out."""
        if self.loss is None:
            return {}
        saved = self.loss.state_dict()
        return {name: value.detach() for name, value in self.loss.named_buffers() if name in saved}

    def _changed_loss_buffers(self) -> dict[str, Tensor]:
        first = self._loss_at_first
        return {
            name: value
            for name, value in self._loss_buffers().items()
            if name not in first or not torch.equal(value, first[name].to(value))
        }

    def _load_loss(self, saved: dict[str, Tensor]) -> None:
        """The loss's buffers; those that were not saved are as it was built with.

        Raises:
            CheckpointError: names or shapes are not this loss's.
        """
        if self.loss is None:
            return
        try:
            wrong = self.loss.load_state_dict(self._loss_at_first | saved, strict=False).unexpected_keys
        except RuntimeError as error:
            raise CheckpointError(
                f"The checkpoint's loss has buffers of other sizes: {error}"
            ) from error
        if wrong:
            raise CheckpointError(f"The checkpoint's loss is another: it has a buffer {wrong[0]}.")

    def _load_optimizer(
        self, tensors: dict[str, Tensor], facts: dict[str, Any], changed: Collection[str]
    ) -> None:
        """The optimizer's state. Where other options need another kind of state, it begins anew."""
        options = {key for key in changed if key.startswith("optimizer.")}
        if options - _SAME_STATE:
            self.begun_anew = True
            return
        ours, theirs = type(self.optimizer).__name__, facts["optimizer_class"]
        if ours != theirs:
            raise CheckpointError(f"The checkpoint's optimizer is {theirs}, and this run's is {ours}.")
        own = own_options(self.optimizer)
        try:
            self.optimizer.load_state_dict(unflatten_optimizer(tensors, facts["optimizer"]))
        except (KeyError, ValueError) as error:
            if options:  # such as a weight decay, which parts the weights into two groups
                self.begun_anew = True
                return
            raise CheckpointError(f"The checkpoint's optimizer is not this run's: {error}") from error
        if options:
            for group, now in zip(self.optimizer.param_groups, own, strict=True):
                group.update(now, initial_lr=now["lr"])

    def _load_accumulation(self, saved: dict[str, Tensor]) -> None:
        """The gradient of a step that was under way; none between two steps."""
        for name, parameter in self.model.named_parameters():
            gradient = saved.get(f"gradient.{name}")
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        device = next((p.device for p in self.model.parameters()), None)
        self.accumulation.losses = list(saved["losses"].to(device).unbind()) if saved else []
        sums = saved.get("sums")
        self.accumulation.sums = None if sums is None else sums.to(device)
