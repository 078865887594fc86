"""Computes on paper how training scales: bytes that a GPU sends, and efficiency, on up to 1,024 GPUs.

    python scripts/scaling_table.py             # the tables of docs/distributed.md
    python scripts/scaling_table.py --mfu 0.5   # faster GPUs make links slower by comparison
    python scripts/scaling_table.py --docs      # puts them into docs/distributed.md

Nothing is measured. Shapes of weights and FLOPs are torch's own counts, of models on the meta device;
tests compare the bytes with those that torch hands to its collectives. The rest is written here:

- Collectives are as in `collectives.py`: rings, at a share of the links' rates, with the hops that NCCL
  assumes.
- Weights, gradients and Adam's moments are fp32, 16 bytes a parameter, and gradients are summed up in
  fp32. DDP does so once a step, block by block. FSDP2 shards each block and, as one more group, what is
  outside the blocks; each GPU has all norms. It gathers blocks in bf16 for the forward and again for the
  backward pass, the other group once in fp32, and sums up gradients: all of that for each micro-batch.
  HSDP does so within each machine, and then sums up shards over machines.
- Computing takes the model's FLOPs at a share of the GPU's peak (MFU), a third of it forward, however
  few samples there are.
- At worst, nothing is hidden behind computing. At best, all is but the norms and the group outside the
  blocks, which is gathered before the first of them and summed up after the last.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from collectives import Cluster, Group, Traffic
from marks import replace_between
from torch import nn

from bigmodel.models.transformer import Transformer
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import DataSpec, NextTokens, Tokens
from bigmodel.training.throughput import training_flops

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "distributed.md"
Shapes = tuple[torch.Size, ...]
STRATEGIES = ("DDP", "FSDP2", "HSDP")
COUNTS = (8, 64, 1024)
FP32, BF16 = 4, 2
STATE = 4 * FP32
"""Bytes of a parameter, its gradient, and Adam's two moments."""

WORTHWHILE = 0.8
"""The least efficiency, at best, with which more GPUs are called useful."""


class Counts(NamedTuple):
    """What torch counts of a model.

    Attributes:
        norms: the shapes of all norms' weights.
        outside: of the other weights outside the blocks.
        blocks: of each block's other weights.
        flops: of training, for a token.
    """

    norms: Shapes
    outside: Shapes
    blocks: tuple[Shapes, ...]
    flops: float

    @property
    def parameters(self) -> int:
        return sum(map(numel, (self.norms, self.outside, *self.blocks)))


def numel(shapes: Shapes) -> int:
    return sum(shape.numel() for shape in shapes)


def counts_of(model: Transformer, sample: torch.Tensor) -> Counts:
    """Counts a model, and its FLOPs for a sample of (1, length)."""
    norms = {
        weight
        for module in model.modules()
        if isinstance(module, nn.LayerNorm | nn.RMSNorm)
        for weight in module.parameters()
    }

    def shapes(module: nn.Module, others: set[nn.Parameter]) -> Shapes:
        return tuple(weight.shape for weight in module.parameters() if weight not in others)

    return Counts(
        norms=tuple(weight.shape for weight in norms),
        outside=shapes(model, norms | set(model.blocks.parameters())),
        blocks=tuple(shapes(block, norms) for block in model.blocks),
        flops=training_flops(model, sample) / sample.numel(),
    )


@dataclass(frozen=True)
class Work:
    """A model, and how it is trained.

    Attributes:
        context: tokens of a sample.
        batch: samples of a step, if that stays the same.
        micro_batch: samples that a GPU computes at once, at most.
    """

    name: str
    options: dict[str, Any]
    vocab_size: int
    context: int
    batch: int
    micro_batch: int

    def model(self) -> Transformer:
        """On the device that is the default; on the meta device it takes no memory."""
        data = DataSpec("text", Tokens(self.context, self.vocab_size), NextTokens(self.vocab_size))
        return Transformer(TransformerConfig(name="transformer", **self.options), data)

    @cached_property
    def counts(self) -> Counts:
        with torch.device("meta"):
            return counts_of(self.model(), torch.zeros(1, self.context, dtype=torch.long))


def _gpt2() -> dict[str, Any]:
    options = yaml.safe_load((ROOT / "configs" / "model" / "gpt2.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in options.items() if key != "name"}


LLAMA = {
    "dim": 4096,
    "depth": 32,
    "num_heads": 32,
    "position": "rotary",
    "norm": "rmsnorm",
    "activation": "swiglu",
    "bias": False,
    "causal": True,
    "dropout": 0.0,
}
WIDE = 1.5 * 11_008 / 4096
"""Llama's feed-forward layers are 11,008 wide (Touvron et al. 2023, arXiv:2307.09288); of the three
matrices of swiglu, `mlp_ratio` counts two."""

WORKS = (
    Work("GPT-2 124M", _gpt2(), vocab_size=50_257, context=1024, batch=512, micro_batch=16),
    Work("7B", LLAMA | {"mlp_ratio": WIDE}, vocab_size=32_000, context=4096, batch=1024, micro_batch=2),
)


class Exchange(NamedTuple):
    """What a group of weights has to exchange for a micro-batch.

    Attributes:
        forward: before its forward pass.
        backward: before its backward pass.
        reduce: after it.
        replicate: after that, over other links.
    """

    forward: Traffic = Traffic()
    backward: Traffic = Traffic()
    reduce: Traffic = Traffic()
    replicate: Traffic = Traffic()


@dataclass(frozen=True)
class Scaled:
    """A model trained by one strategy on a number of GPUs."""

    cluster: Cluster
    work: Work
    strategy: str
    gpus: int

    @property
    def _everyone(self) -> Group:
        return Group(self.cluster, self.gpus, max(1, self.gpus // self.cluster.machine))

    @property
    def _shards(self) -> Group:
        """The GPUs that share one copy of the weights."""
        if self.strategy == "FSDP2":
            return self._everyone
        size = min(self.gpus, self.cluster.machine) if self.strategy == "HSDP" else 1
        return Group(self.cluster, size, 1)

    @property
    def _copies(self) -> Group:
        """The GPUs that have the same shard."""
        number = self.gpus // self._shards.size
        return Group(self.cluster, number, number)

    def _replicated(self, shapes: Shapes) -> Exchange:
        """Of weights that each GPU has."""
        payload = FP32 * numel(shapes)
        if self.strategy == "DDP":
            return Exchange(reduce=self._everyone.all_reduce(payload))
        return Exchange(
            reduce=self._shards.all_reduce(payload), replicate=self._copies.all_reduce(payload)
        )

    def _sharded(self, shapes: Shapes, *, block: bool) -> Exchange:
        """Of weights that each GPU has a shard of; their first dimension is padded, so that all shards
        have the same size."""
        if self.strategy == "DDP":
            return self._replicated(shapes)
        size = self._shards.size
        padded = sum(math.ceil(shape[0] / size) * size * math.prod(shape[1:]) for shape in shapes)
        gather = self._shards.ring((BF16 if block else FP32) * padded)
        return Exchange(
            forward=gather,
            backward=gather if block else Traffic(),
            reduce=self._shards.ring(FP32 * padded),
            replicate=self._copies.all_reduce(FP32 * padded / size),
        )

    @property
    def blocks(self) -> list[Exchange]:
        """What each block exchanges."""
        return [self._sharded(shapes, block=True) for shapes in self.work.counts.blocks]

    @property
    def others(self) -> list[Exchange]:
        """What norms, and other weights outside the blocks, exchange."""
        counts = self.work.counts
        return [self._replicated(counts.norms), self._sharded(counts.outside, block=False)]

    @property
    def traffic(self) -> Traffic:
        """Of a step with one micro-batch."""
        exchanges = [*self.blocks, *self.others]
        return Traffic().plus(*(traffic for exchange in exchanges for traffic in exchange))

    @property
    def state(self) -> float:
        """Bytes of weights, gradients and moments on each GPU."""
        norms = numel(self.work.counts.norms)
        return STATE * (norms + (self.work.counts.parameters - norms) / self._shards.size)

    def efficiency(self, samples: float) -> tuple[float, float]:
        """Share of the linear speed-up, at worst and at best.

        Args:
            samples: of a step, for each GPU.
        """
        micro_batches = math.ceil(samples / self.work.micro_batch)
        tokens = samples * self.work.context / micro_batches
        compute = tokens * self.work.counts.flops / (self.cluster.peak * self.cluster.mfu)
        best, worst = self._seconds(compute)
        # DDP leaves gradients where they are until the last micro-batch.
        others = [compute] * 2 if self.strategy == "DDP" else [best, worst]
        best, worst = (
            last + (micro_batches - 1) * other for last, other in zip((best, worst), others, strict=True)
        )
        return micro_batches * compute / worst, micro_batches * compute / best

    def _seconds(self, compute: float) -> tuple[float, float]:
        """Of a micro-batch, at best and at worst, by the seconds of computing alone."""
        forward, backward, reduce, replicate = (
            sum(traffic.seconds for traffic in kind) for kind in zip(*self.blocks, strict=True)
        )
        best = max(compute / 3, forward) + max(2 * compute / 3, backward + reduce, replicate)
        best += sum(traffic.seconds for exchange in self.others for traffic in exchange)
        return best, compute + self.traffic.seconds


def useful(cluster: Cluster, work: Work, strategy: str) -> int | None:
    """The most GPUs, a power of two, that are worthwhile at best, with the batch that stays; None: even
    one machine does not hold the model."""
    fits = Scaled(cluster, work, strategy, cluster.machine).state <= cluster.memory
    most = None
    for power in range(3, int(math.log2(work.batch)) + 1):
        case = Scaled(cluster, work, strategy, 2**power)
        if fits and case.efficiency(work.batch / case.gpus)[1] >= WORTHWHILE:
            most = case.gpus
    return most


def percent(worst: float, best: float) -> str:
    return f"{100 * worst:.0f} to {100 * best:.0f} %"


def gigabytes(value: float) -> str:
    """With two digits that count."""
    value /= 1e9
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}" if value else "0"


def row(case: Scaled) -> str:
    """A line of the table."""
    work, cluster = case.work, case.cluster
    traffic = case.traffic
    fits = case.state <= cluster.memory
    fixed = growing = "does not fit"
    if fits:
        growing = percent(*case.efficiency(work.micro_batch))
        fixed = f"{work.batch} samples are too few"
        if work.batch >= case.gpus:
            fixed = percent(*case.efficiency(work.batch / case.gpus))
    cells = (
        *(work.name, f"{case.gpus:,}", case.strategy, gigabytes(case.state)),
        *(gigabytes(traffic.nvlink), gigabytes(traffic.network), f"{1e3 * traffic.seconds:.0f}"),
        *(fixed, growing),
    )
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| model | GPUs | | GB of state | GB sent: NVLink | InfiniBand | ms of exchange"
    " | efficiency, batch stays | batch grows |\n|---|---|---|---|---|---|---|---|---|"
)


def limits(cluster: Cluster) -> list[str]:
    """How many GPUs are worthwhile, and how many tokens each of them needs."""
    lines = []
    for work in WORKS:
        most = [(name, useful(cluster, work, name)) for name in STRATEGIES]
        found = ", ".join(f"{number:,} with {name}" for name, number in most if number is not None)
        lines.append(
            f"- {work.name}, {work.batch * work.context:,} tokens a step: the best case is"
            f" {100 * WORTHWHILE:.0f} % or more on up to {found}."
        )
    speed = cluster.peak * cluster.mfu
    rate = cluster.used * min(cluster.nvlink, cluster.network * cluster.machine)
    # Bytes sent a parameter, against 4 FLOPs a token: DDP's two rounds of 4; FSDP2's gather of 2 and one
    # round of 4. FSDP2's other gather, of 2, has the forward pass's 2 FLOPs.
    ddp, fsdp = speed / rate * 8 / 4, speed / rate * 6 / 4
    lines.append(
        f"- The backward pass takes as long as what is exchanged meanwhile over machines if a GPU has"
        f" {ddp:,.0f} tokens (DDP) or {fsdp:,.0f} (FSDP2), hops and attention left out."
    )
    return lines


def markdown(cluster: Cluster) -> str:
    """The table, what it is about, and where scaling ends."""
    about = [
        f"- {work.name}: {work.counts.parameters:,} parameters,"
        f" {work.counts.flops / 1e9:.2f} GFLOPs a token; samples of {work.context:,} tokens;"
        f" {work.batch:,} a step if the batch stays, {work.micro_batch} on each GPU if it grows,"
        f" which is a GPU's largest micro-batch in both."
        for work in WORKS
    ]
    cases = [
        Scaled(cluster, work, strategy, gpus)
        for work in WORKS
        for gpus in COUNTS
        for strategy in STRATEGIES
        if (strategy, gpus) != ("HSDP", cluster.machine)  # that is FSDP2
    ]
    links = (
        f"- H100 SXM: {cluster.peak / 1e12:.0f} TFLOP/s of bf16, of which {100 * cluster.mfu:.0f} %"
        f" (assumed); NVLink {cluster.nvlink / 1e9:.0f} GB/s and InfiniBand"
        f" {cluster.network / 1e9:.0f} GB/s a GPU and direction, of which {100 * cluster.used:.0f} %;"
        f" {cluster.memory / 1e9:.0f} GB."
    )
    return "\n".join([HEAD, *map(row, cases), "", *about, links, *limits(cluster)])


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = Cluster()
    options.add_argument("--mfu", type=float, default=usual.mfu, help="share of the peak, 0 to 1")
    options.add_argument("--used", type=float, default=usual.used, help="share of link rates, 0 to 1")
    options.add_argument("--docs", action="store_true", help="update the table in docs/distributed.md")
    given = options.parse_args(arguments)
    if not (0 < given.mfu <= 1 and 0 < given.used <= 1):
        options.error("--mfu and --used: shares above 0, up to 1")
    text = markdown(replace(usual, mfu=given.mfu, used=given.used))
    print(text)
    if given.docs:
        replace_between(PAGE, "scaling", text)


if __name__ == "__main__":
    main()
