"""Everything that is needed to resume a run, in one object.

`State.save` returns it as named groups of tensors and as facts that JSON can hold; `State.load` takes
both back, part by part. Nothing else decides whether a resumed run is the same run.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.checkpointing.base_weights import BaseWeights
from bigmodel.checkpointing.serialization import (
    TensorGroups,
    flatten_optimizer,
    plain_names,
    unflatten_optimizer,
)
from bigmodel.distributed.layout import Part
from bigmodel.distributed.ranks import ALONE, Ranks
from bigmodel.engine.accumulation import Accumulation
from bigmodel.engine.ema import EMA
from bigmodel.errors import CheckpointError, NonFiniteError, first_difference
from bigmodel.metrics import Metrics
from bigmodel.optim.optimizers import evaluation_weights, own_options, training_weights
from bigmodel.optim.schedulers import Schedule
from bigmodel.runtime import rng
from bigmodel.runtime.device import Choice
from bigmodel.training.progress import Progress

_EVALUATION_KEYS = ("data", "loss.", "trainer.checkpoint.m", "trainer.early_stopping.m")
_NOT_EVALUATION_KEYS = ("data.batch_size", "data.drop_last", "data.augment.")

_SAME_MOMENTS = {f"optimizer.{name}" for name in ("lr", "adamw_lr", "weight_decay", "betas", "eps")}
"""Optimizer options that leave the shape and meaning of its saved state as they are."""

_WHAT_IS_TRAINED = ("model.freeze", "model.lora.")
"""Settings that decide which parameters the optimizer has: those of another choice may fit by chance."""

_DEVICES = ("cpu", "cuda")


def _of_rank(name: str, rank: int) -> str:
    return f"{name}.{rank}" if rank else name


def _changes_evaluation(key: str) -> bool:
    """Whether a setting decides which metric, of which samples, chooses the best model."""
    return key.startswith(_EVALUATION_KEYS) and not key.startswith(_NOT_EVALUATION_KEYS)


@dataclass(eq=False)
class State:
    """The parts of a run that change while it runs.

    Attributes:
        model: of several ranks, this one's part of it (`Parallel.own`).
        parts: where the parts lie in whole weights, by name; a weight that is not named is whole.
        base: weights that are named instead of saved; None: all are saved.
        scaler: scales fp16's gradients.
        loss: its buffers may change, as those of a loss that keeps running statistics.
        ranks: the processes that train together. All of them save and load at the same time.
        choice: the engine, the number of threads and the precision.
        optimizer_reset: whether the optimizer's saved state did not fit the changed settings.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    metrics: Metrics
    accumulation: Accumulation
    ema: EMA | None = None
    scaler: torch.amp.GradScaler | None = None
    loss: nn.Module | None = None
    ranks: Ranks = ALONE
    parts: Mapping[str, Part] = field(default_factory=dict)
    base: BaseWeights | None = None
    progress: Progress = field(default_factory=Progress, init=False)
    choice: Choice = field(default_factory=Choice, init=False)
    optimizer_reset: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        state = self.model.state_dict(keep_vars=True)
        self._frozen = {
            n for n, v in state.items() if isinstance(v, nn.Parameter) and not v.requires_grad
        }
        self._initial_loss = {name: value.clone() for name, value in self._loss_buffers().items()}

    def save(self) -> tuple[TensorGroups, dict[str, Any]]:
        """The whole state: tensors by group and name, and facts for `exact_json`.

        Group `model` holds the weights that are trained. If the weights to evaluate and predict with
        differ (an average of them), group `averaged` holds those. In the middle of a step, group
        `accumulation` holds the sums over its micro-batches so far. If a loss has buffers that
        have changed since it was built, group `loss` holds those. Tensors are the live ones; the facts
        are the caller's to keep: nothing changes them later.

        Of several ranks that share the weights, each returns its own part; see `parts_of`.

        Raises:
            NonFiniteError: a weight, average or moment is NaN or infinite; such a state is never saved.
        """
        optimizer_tensors, optimizer_facts = flatten_optimizer(self.optimizer.state_dict())
        groups: TensorGroups = {
            "model": self._weights(),
            "optimizer": optimizer_tensors,
            "metrics": self.metrics.summed(self.ranks.sum).state_dict(),
            "random": self._random_states(),
        }
        if self.averages:
            with self.evaluation_weights():
                frozen = {plain for name, plain in self._plain_names() if name in self._frozen}
                groups["averaged"] = {
                    name: value if name in frozen else value.clone()
                    for name, value in self._weights().items()
                }
        if changed := self._changed_loss_buffers():
            groups["loss"] = changed
        self._check_finite(groups)
        if self.accumulation.losses:
            # Unchecked: whether an unfinished step is finite is decided once its gradient is complete.
            groups["accumulation"] = self._accumulated()
        norm = self.accumulation.grad_norm
        facts = {
            "progress": self.progress.state_dict(),
            "optimizer": optimizer_facts,
            "optimizer_class": type(self.optimizer).__name__,
            "scheduler": self.schedule.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "ema_updates": None if self.ema is None else self.ema.updates,
            "micro_batch": self.accumulation.micro_batch,
            "grad_norm": None if norm is None else float(norm),
            "random": rng.python_states(),
            "choice": asdict(self.choice),
            "base": None if self.base is None else self.base.facts(),
        }
        return groups, facts

    def parts_of(self, groups: TensorGroups) -> dict[str, dict[str, Part]]:
        """Which parts of whole tensors the tensors are that `save` returned; others are whole."""
        if not self.parts:
            return {}
        of_weights = {
            plain: self.parts[name] for name, plain in self._plain_names() if name in self.parts
        }
        parts: dict[str, dict[str, Part]] = {
            group: of_weights for group in ("model", "averaged") if group in groups
        }
        parts["optimizer"] = {
            name: part
            for name, value in groups["optimizer"].items()
            if value.ndim and (part := self._part_of_slot(name)) is not None
        }
        return parts

    def load(self, groups: TensorGroups, facts: dict[str, Any], changed: Collection[str] = ()) -> None:
        """Loads a saved state, in place.

        Args:
            groups, facts: as `save` returned them.
            changed: settings, by dotted key, that differ from those it was saved with. What depends on
                them is not loaded.

        Raises:
            CheckpointError: it is the state of another model or optimizer.
        """
        if missing := sorted({"model", "optimizer", "metrics", "random"} - groups.keys()):
            raise CheckpointError(f"The checkpoint is damaged: it has no {missing[0]}.safetensors.")

        def has_changed(*prefixes: str) -> bool:
            return any(key.startswith(prefixes) for key in changed)

        if self.base is not None:
            self.base.check(facts)
        self.load_model(groups["model"])
        self._load_optimizer(groups["optimizer"], facts, changed)
        if not has_changed("scheduler.name", "scheduler.interval"):
            self.schedule.load_state_dict(facts["scheduler"], facts["progress"]["step"])
        with contextlib.suppress(*[ValueError] if changed else []):  # sums for another target
            self.metrics.load_state_dict(groups["metrics"])
            self.metrics.keep_on(self.ranks.data_rank == 0)
        if self.ema is not None:
            self._load_ema(self.ema, groups, facts["ema_updates"])
        if self.scaler is not None and facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
        self._load_accumulation(groups, facts, changed)
        if self.loss is not None and not has_changed("loss."):
            self._load_loss(self.loss, groups.get("loss", {}))
        self.progress.load_state_dict(facts["progress"])
        if any(map(_changes_evaluation, changed)):  # the best so far cannot be compared with
            self.progress.reset_best()
        if not has_changed("device."):
            chosen = facts.get("choice") or {}
            for name in asdict(self.choice):
                setattr(self.choice, name, chosen.get(name))
        self._restore_random(groups["random"], facts["random"])

    def load_model(self, weights: Mapping[str, Tensor]) -> None:
        """Loads weights alone.

        Raises:
            CheckpointError: names or shapes are not this model's.
        """
        own = {plain: name for name, plain in self._plain_names()}
        try:
            # One after another: of whole weights that no rank can hold, there is never more than one.
            self.model.load_state_dict(
                {own.get(n, n): self._cut(own.get(n, n), weights[n]) for n in weights} | self._unsaved()
            )
        except (RuntimeError, ValueError) as error:
            first = first_difference(error)
            raise CheckpointError(
                f"The checkpoint holds another model: {first} Weights cannot be converted to another "
                "size: leave model.* and the data's sizes as they were, or start a new run."
            ) from error

    @property
    def averages(self) -> bool:
        """Whether the weights to evaluate with differ from those that are trained."""
        return self.ema is not None or hasattr(self.optimizer, "eval")

    @contextlib.contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Puts the weights to evaluate with into the model, and restores its own exactly."""
        if not self.averages:
            yield
            return
        own = {
            name: value.detach().clone()
            for name, value in self.model.state_dict().items()
            if name not in self._frozen
        }
        evaluation_weights(self.optimizer)
        if self.ema is not None:
            self.model.load_state_dict(self.ema.weights, strict=False)
        try:
            yield
        finally:
            # Switching back by arithmetic would leave rounding errors: the copy does not.
            training_weights(self.optimizer)
            self.model.load_state_dict(own, strict=False)

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
        # One norm over all tensors takes few kernels, and NaN and infinity come through. Large finite
        # numbers overflow it too, so that each tensor is looked at before anything is reported.
        bad: list[str] = []
        if not math.isfinite(float(nn.utils.get_total_norm(named.values()))):
            bad = [name for name, value in named.items() if not bool(value.isfinite().all())]
        if self.parts:  # each rank has looked at its own
            bad = sorted({name for names in self.ranks.gather(bad) for name in names})
        if bad:
            raise NonFiniteError(
                f"Step {self.progress.step} left NaN or infinite values in {', '.join(bad[:3])}."
                " A smaller optimizer.lr, or trainer.clip_norm=1.0, usually helps.",
                self.progress.step,
            )

    def _random_states(self) -> dict[str, Tensor]:
        """Those of all ranks; the others' names end in their number. Ranks that compute layers together
        draw the same numbers."""
        states: dict[str, Tensor] = {}
        sharing_layers = self.ranks.size // self.ranks.data_size
        for rank, own in enumerate(self.ranks.gather(rng.torch_states())[::sharing_layers]):
            states |= {_of_rank(name, rank): state for name, state in own.items()}
        return states

    def _restore_random(self, states: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
        rank = self.ranks.data_rank
        own = {name: states[_of_rank(name, rank)] for name in _DEVICES if _of_rank(name, rank) in states}
        rng.restore(own or states, facts)
        if not own:  # it was saved by fewer ranks
            rng.seed_rank(torch.initial_seed(), rank)

    def _weights(self) -> dict[str, Tensor]:
        names, base = plain_names(self.model), self._unsaved()
        state = self.model.state_dict()
        return {names[name]: state[name].detach() for name in state if name not in base}

    def _unsaved(self) -> dict[str, Tensor]:
        """The weights that are not saved."""
        if self.base is None:
            return {}
        state = self.model.state_dict()
        return {name: state[name] for name, plain in self._plain_names() if plain in self.base.names}

    def _plain_names(self) -> Iterable[tuple[str, str]]:
        """Names in the model, and in a checkpoint."""
        return plain_names(self.model).items()

    def _cut(self, name: str, whole: Tensor) -> Tensor:
        """This rank's part of a whole weight, or of anything that has its shape."""
        part = self.parts.get(name)
        return whole if part is None else part.cut(whole).clone()  # no view, which would keep the whole

    def _part_of_slot(self, name: str) -> Part | None:
        """The part that an optimizer's tensor, `<parameter>.<slot>`, is of; None: it is whole."""
        index = name.split(".", 1)[0]
        return self._parts_by_index.get(int(index)) if index.isdigit() else None

    @cached_property
    def _parts_by_index(self) -> dict[int, Part]:
        """The parts by the numbers of parameters in the optimizer's state."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        found = enumerate(self.parts.get(names.get(parameter, "")) for parameter in parameters)
        return {index: part for index, part in found if part is not None}

    def _accumulated(self) -> dict[str, Tensor]:
        tensors = {"losses": torch.stack(self.accumulation.losses)}
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                tensors[f"gradient.{name}"] = parameter.grad
        if self.accumulation.sums is not None:
            tensors["sums"] = self.accumulation.sums
        return tensors

    def _loss_buffers(self) -> dict[str, Tensor]:
        """Persistent buffers of the loss; its fixed parameters are built from the config again."""
        if self.loss is None:
            return {}
        saved = self.loss.state_dict()
        return {name: value.detach() for name, value in self.loss.named_buffers() if name in saved}

    def _changed_loss_buffers(self) -> dict[str, Tensor]:
        initial = self._initial_loss
        return {
            name: value
            for name, value in self._loss_buffers().items()
            if name not in initial or not torch.equal(value, initial[name].to(value))
        }

    def _load_optimizer(
        self, tensors: Mapping[str, Tensor], facts: dict[str, Any], changed: Collection[str]
    ) -> None:
        """If changed options need another kind of state, the optimizer starts with none."""
        options = {key for key in changed if key.startswith("optimizer.")}
        if options - _SAME_MOMENTS or any(key.startswith(_WHAT_IS_TRAINED) for key in changed):
            self.optimizer_reset = True
            return
        own_class, saved_class = type(self.optimizer).__name__, facts["optimizer_class"]
        if own_class != saved_class:
            raise CheckpointError(
                f"The checkpoint's optimizer is {saved_class}, and this run's is {own_class}."
            )
        current = own_options(self.optimizer)
        try:
            self.optimizer.load_state_dict(
                unflatten_optimizer(self._own_slots(tensors), facts["optimizer"])
            )
        except (KeyError, ValueError) as error:
            if options:  # such as a weight decay, which splits the weights into two groups
                self.optimizer_reset = True
                return
            raise CheckpointError(f"The checkpoint's optimizer is not this run's: {error}") from error
        if options:
            for group, now in zip(self.optimizer.param_groups, current, strict=True):
                group.update(now, initial_lr=now["lr"])

    def _own_slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This rank's part of an optimizer's whole tensors."""
        own: dict[str, Tensor] = {}
        for name, value in tensors.items():
            part = self._part_of_slot(name) if value.ndim else None
            own[name] = value if part is None else part.cut(value).clone()
        return own

    def _load_ema(self, ema: EMA, groups: TensorGroups, updates: int | None) -> None:
        """A run that did not average before starts from the weights themselves."""
        averages = groups["model" if updates is None else "averaged"]
        own = {
            name: self._cut(name, averages[plain])
            for name, plain in self._plain_names()
            if name in ema.weights
        }
        ema.load(own, updates or 0)

    def _load_accumulation(
        self, groups: TensorGroups, facts: dict[str, Any], changed: Collection[str]
    ) -> None:
        """The gradient of an interrupted step; none between two steps, or if settings changed."""
        accumulation = self.accumulation
        before, is_of_one = facts["micro_batch"], _of_rank("cpu", 1) not in groups["random"]
        if "data.batch_size" not in changed and before is not None and is_of_one:
            # That of several ranks is a share of the batch. One alone may have halved it.
            accumulation.micro_batch = min(before, accumulation.micro_batch)
        norm = facts["grad_norm"]
        accumulation.grad_norm = None if norm is None else torch.tensor(norm)
        # It is that of one rank, since several finish a step before they stop.
        saved = {} if changed or self.ranks.size > 1 else groups.get("accumulation", {})
        for name, parameter in self.model.named_parameters():
            gradient = saved.get(f"gradient.{name}")
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        tensors = {name: tensor.to(self.metrics.sums.device) for name, tensor in saved.items()}
        accumulation.losses = list(tensors["losses"].unbind()) if tensors else []
        accumulation.sums = tensors.get("sums")

    def _load_loss(self, loss: nn.Module, buffers: Mapping[str, Tensor]) -> None:
        """Buffers that were not saved are as the loss was built with.

        Raises:
            CheckpointError: names or shapes are not this loss's.
        """
        try:
            unexpected = loss.load_state_dict(
                {**self._initial_loss, **buffers}, strict=False
            ).unexpected_keys
        except RuntimeError as error:
            raise CheckpointError(
                f"The checkpoint's loss has buffers of other sizes: {error}"
            ) from error
        if unexpected:
            raise CheckpointError(f"The checkpoint's loss is another: it has a buffer {unexpected[0]}.")
