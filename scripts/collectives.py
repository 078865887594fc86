"""What collectives of torch take on machines with several GPUs each, on paper.

They are rings. Of S bytes, each of n GPUs sends S (n-1)/n in a gather or a reduce-scatter, and twice
that in an all-reduce, at a share of the links' rates. Rings over whole machines enter each of them by
another GPU, so that all of its network cards work at once. A hop takes what NCCL assumes
(`src/graph/tuning.cc` there, protocol Simple). All-reduces over machines may take NCCL's tree instead,
if that is faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from bigmodel.training.throughput import peak_of

PEAK = peak_of("NVIDIA H100 80GB HBM3", "bf16", tf32=True) or math.nan


@dataclass(frozen=True)
class Cluster:
    """Machines of 8 H100 SXM each, with a network card for each GPU; rates are those of one direction.

    Attributes:
        mfu: share of the peak that computing alone reaches.
        used: share of the links' rates that collectives reach.
        peak: FLOP/s in bf16.
        memory: bytes of a GPU.
        machine: GPUs of a machine.
        nvlink: bytes a second of a GPU to others of its machine.
        network: bytes a second of a GPU's card.
        start: seconds that a collective takes beside its hops.
        hops: seconds of a hop over NVLink and over the network, in a ring.
        tree_hops: the same in a tree.
    """

    mfu: float = 0.4
    used: float = 0.8
    peak: float = PEAK
    memory: float = 80e9
    machine: int = 8
    nvlink: float = 450e9
    network: float = 400e9 / 8
    start: float = 8.4e-6
    hops: tuple[float, float] = (3.4e-6, 14e-6)
    tree_hops: tuple[float, float] = (4e-6, 14e-6)


class Traffic(NamedTuple):
    """What collectives take: seconds, and bytes that each GPU sends over NVLink and over the network."""

    seconds: float = 0.0
    nvlink: float = 0.0
    network: float = 0.0

    def plus(self, *others: Traffic) -> Traffic:
        return Traffic(*map(sum, zip(self, *others, strict=True)))


@dataclass(frozen=True)
class Group:
    """GPUs that exchange something, the same number on each of some machines."""

    cluster: Cluster
    size: int
    machines: int

    def ring(self, payload: float, rounds: int = 1) -> Traffic:
        """A gather or a reduce-scatter of so many bytes in all; an all-reduce is two rounds."""
        if self.size == 1:
            return Traffic()
        sent = rounds * payload * (self.size - 1) / self.size
        over_network = sent * self.machines / self.size if self.machines > 1 else 0.0
        nvlink, network = self.cluster.hops
        crossings = self.machines - 1
        hops = rounds * ((self.size - 1 - crossings) * nvlink + crossings * network)
        seconds = self.cluster.start + hops + sent / self._rate
        return Traffic(seconds, sent - over_network, over_network)

    def all_reduce(self, payload: float) -> Traffic:
        """The faster of a ring and a tree; both send the same."""
        ring = self.ring(payload, rounds=2)
        if self.machines == 1:
            return ring
        nvlink, network = self.cluster.tree_hops
        within = self.size // self.machines - 1
        hops = 2 * (within * nvlink + math.ceil(math.log2(self.machines)) * network)
        sent = ring.nvlink + ring.network
        return ring._replace(seconds=min(ring.seconds, self.cluster.start + hops + sent / self._rate))

    @property
    def _rate(self) -> float:
        """Bytes that a GPU sends in a second."""
        within = self.cluster.used * self.cluster.nvlink
        if self.machines == 1:
            return within
        return min(within, self.cluster.used * self.cluster.network * self.size / self.machines)
