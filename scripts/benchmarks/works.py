"""What is timed: one description of each work, which every side reads."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

CHECKED_STEPS = 20
"""Steps whose losses are compared before anything is timed."""

LETTERS = 65
GPT2_TOKENS = 50_257


@dataclass(frozen=True)
class Work:
    """A training run that several sides do alike.

    Attributes:
        kind: which network and data; peers build theirs by it.
        overrides: arguments of `bigmodel-train`, in addition to those of the other fields.
        steps: optimizer steps of the whole run.
        mark_every: steps between two readings of the clock, which are records of ours.
        validate_every: steps between two evaluations; the last step is always followed by one.
        weight_decay: AdamW's; None: Adam.
        fused: Adam's option of the same name; None: torch's default, slower on a CPU.
        linear: whether the learning rate falls to 0 in a straight line; else it stays.
        sizes: of the network, by name.
        tolerance: how far the first losses may lie apart, relatively.
        data_note: what the data is, where it may not be what the title says.
    """

    name: str
    kind: Literal["fnn", "rnn", "cnn", "text", "gpt2"]
    device: str
    overrides: tuple[str, ...]
    batch_size: int
    steps: int
    mark_every: int
    validate_every: int
    lr: float = 1e-3
    weight_decay: float | None = None
    fused: bool | None = None
    linear: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    sizes: dict[str, int] = field(default_factory=dict)
    tolerance: float = 1e-4
    data_note: str = ""

    def arguments(self) -> list[str]:
        """The arguments of `bigmodel-train`."""
        optimizer = "adam" if self.weight_decay is None else "adamw"
        decay = [] if self.weight_decay is None else [f"optimizer.weight_decay={self.weight_decay}"]
        threads = ["device.threads=1"] if self.device == "cpu" else []
        return [
            *self.overrides,
            f"device={self.device}",
            *threads,
            f"device.precision={self.precision}",
            f"data.batch_size={self.batch_size}",
            f"optimizer={optimizer}",
            f"optimizer.lr={self.lr}",
            *decay,
            f"scheduler={'linear' if self.linear else 'constant'}",
            f"trainer.max_steps={self.steps}",
            f"trainer.record_every_steps={self.mark_every}",
            f"trainer.eval_every_steps={self.validate_every}",
        ]


Maker = Callable[[str, bool, Path], Work]


def fnn(device: str, tiny: bool, folder: Path) -> Work:  # noqa: ARG001
    """Line 1: 10 → 32 → 1 on 32,000 samples, 1,000 steps an epoch, an evaluation after each."""
    epoch = 20 if tiny else 1000
    return Work(
        "fnn",
        "fnn",
        device,
        (
            *("model=fnn", "model.hidden_sizes=[32]", "loss=mse"),
            *("data=synthetic", "data.shape=[10]", f"data.samples={40 * epoch}"),
        ),
        batch_size=32,
        steps=3 * epoch if tiny else 50 * epoch,
        mark_every=epoch,
        validate_every=epoch,
        sizes={"inputs": 10, "hidden": 32},
    )


def rnn(device: str, tiny: bool, folder: Path) -> Work:  # noqa: ARG001
    """Line 2: a GRU that reads 28 steps of 28 figures, as an image's rows."""
    epoch = 5 if tiny else 200
    return Work(
        "rnn",
        "rnn",
        device,
        (
            *("model=rnn", "model.cell=gru", "model.hidden_size=64"),
            *("data=synthetic", "data.input=sequence", "data.shape=[28,28]"),
            *("data.target=classes", "data.outputs=10", f"data.samples={80 * epoch}"),
        ),
        batch_size=64,
        steps=(3 if tiny or device == "cpu" else 10) * epoch,
        mark_every=epoch,
        validate_every=epoch,
        sizes={"inputs": 28, "hidden": 64},
    )


def cnn(device: str, tiny: bool, folder: Path) -> Work:
    """Line 3: an epoch of Fashion-MNIST, of which a CPU takes the first batches only."""
    steps = 6 if tiny else 100 if device == "cpu" else 422
    root, note = _pictures(folder, tiny)
    if steps != 422:
        note = f"{steps} of 422 batches; {note}" if note else f"{steps} of 422 batches"
    return Work(
        "cnn",
        "cnn",
        device,
        (
            *("model=cnn", "model.channels=[32,64,64,80]"),
            *("data=fashion_mnist", f"data.root={root}"),
            *("data.augment.shift=2", "data.augment.flip=0.5"),
            *(f"trainer.limit.train={steps}", "trainer.limit.val=4"),
        ),
        batch_size=128,
        steps=steps,
        mark_every=2 if tiny else 20,
        validate_every=steps,
        precision=_mixed(device),
        # Batch norm and Adam make more of what rounding leaves; sums of convolutions have another order.
        tolerance=1e-3,
        data_note=note,
    )


def text(device: str, tiny: bool, folder: Path) -> Work:
    """Line 4: a character model, 4 layers of 128."""
    return _writer("text", device, tiny, folder, 128)


def text512(device: str, tiny: bool, folder: Path) -> Work:
    """Line 4b: the same 512 wide, in fewer steps."""
    work = _writer("text512", device, tiny, folder, 32 if tiny else 512)
    return work if tiny else replace(work, steps=50, mark_every=10)


def _writer(name: str, device: str, tiny: bool, folder: Path, width: int) -> Work:
    """A character model of 4 layers on letters, of which each has four that may follow."""
    heads = max(4, width // 64)
    sizes = {"dim": width, "depth": 4, "heads": heads, "context": 64, "vocab": LETTERS}
    path = _learnable_text(folder / "letters.txt", 50_000 if tiny else 1_000_000)
    return Work(
        name,
        "text",
        device,
        (
            *("model=transformer", f"model.dim={sizes['dim']}", f"model.depth={sizes['depth']}"),
            *(f"model.num_heads={sizes['heads']}", "model.dropout=0", "data=text", f"data.path={path}"),
            *(f"data.context={sizes['context']}", "trainer.limit.val=1"),
        ),
        batch_size=12,
        steps=9 if tiny else 200 if device == "cpu" else 1000,
        mark_every=3 if tiny else 20,
        validate_every=10_000,
        weight_decay=0.01,
        linear=True,
        precision=_mixed(device),
        sizes=sizes,
    )


def gpt2(device: str, tiny: bool, folder: Path) -> Work:
    """Lines 5 and 8: GPT-2 of 124 million parameters on random tokens, 32 × 1,024 a step.

    Its tokens are the letters of a text that has 50,257 different ones.
    """
    sizes = {"dim": 768, "depth": 12, "heads": 12, "context": 1024, "vocab": GPT2_TOKENS}
    if tiny:
        sizes = {"dim": 32, "depth": 2, "heads": 2, "context": 16, "vocab": 300}
    path = _random_text(folder / "tokens.txt", sizes["vocab"], 60 * sizes["vocab"])
    return Work(
        "gpt2",
        "gpt2",
        device,
        (
            *("model=gpt2", f"model.dim={sizes['dim']}", f"model.depth={sizes['depth']}"),
            *(f"model.num_heads={sizes['heads']}", "model.dropout=0", "data=text", f"data.path={path}"),
            *(f"data.context={sizes['context']}", "trainer.limit.val=1"),
        ),
        batch_size=4 if tiny else 32,
        steps=9 if tiny else 40,
        mark_every=3 if tiny else 10,
        validate_every=10_000,
        lr=6e-4,
        weight_decay=0.1,
        linear=True,
        precision="bf16",
        sizes=sizes,
    )


def wide(device: str, tiny: bool, folder: Path) -> Work:  # noqa: ARG001
    """What the line on saves trains: ten million parameters, 250 steps an epoch."""
    width, epoch = (20, 5) if tiny else (2200, 250)
    return Work(
        "wide",
        "fnn",
        device,
        (
            *("model=fnn", f"model.hidden_sizes=[{width},{width},{width}]"),
            *("data=synthetic", "data.shape=[64]", "data.target=classes", "data.outputs=10"),
            *(f"data.samples={80 * epoch}", "trainer.checkpoint.interval=0"),
        ),
        batch_size=64,
        steps=2 * epoch,
        mark_every=epoch,
        validate_every=epoch,
        weight_decay=0.01,
    )


WORKS: dict[str, Maker] = {
    "fnn": fnn,
    "rnn": rnn,
    "cnn": cnn,
    "text": text,
    "text512": text512,
    "gpt2": gpt2,
    "wide": wide,
}


def checked(work: Work) -> Work:
    """The first steps alone, each with a record, on samples as they are stored; in plain fp32, in which
    losses of other work lie farther apart than rounding makes them."""
    plain = (argument for argument in work.overrides if not argument.startswith("data.augment"))
    return replace(
        work,
        overrides=(*plain, "device.tf32=false"),
        steps=min(work.steps, CHECKED_STEPS),
        mark_every=1,
        precision="fp32",
    )


def _mixed(device: str) -> Literal["fp32", "bf16"]:
    return "fp32" if device == "cpu" else "bf16"


def _random_text(path: Path, kinds: int, length: int) -> Path:
    """A text of letters drawn from `kinds` different ones, none of which is a space or ends a line."""
    if not path.is_file():
        # U+4E00 is the first of 20,992 ideographs, U+20000 of 42,720 more: no case, no combining.
        known = [chr(33 + i) for i in range(kinds)] if kinds < 90 else [
            chr(0x4E00 + i) if i < 20_000 else chr(0x20000 + i - 20_000) for i in range(kinds)
        ]  # fmt: skip
        path.write_text("".join(random.Random(0).choices(known, k=length)), encoding="utf-8")
    return path


def _learnable_text(path: Path, length: int) -> Path:
    """A text in which one of four letters follows each, some of them likelier than others."""
    if not path.is_file():
        draw, letters = random.Random(0), [chr(33 + i) for i in range(LETTERS)]
        # The first of the four are a permutation, so that each letter occurs in any long text.
        after = [[(7 * i + 1) % LETTERS, *draw.sample(range(LETTERS), 3)] for i in range(LETTERS)]
        ranks, now, text = draw.choices(range(4), (4, 3, 2, 1), k=length), 0, list[str]()
        for rank in ranks:
            now = after[now][rank]
            text.append(letters[now])
        path.write_text("".join(text), encoding="utf-8")
    return path


def _pictures(folder: Path, few: bool) -> tuple[Path, str]:
    """Where Fashion-MNIST lies: what `folder/pictures` points to, else noise in its form, made here."""
    given = folder / "pictures"
    if given.is_dir():
        return given, ""
    noise = folder / "noise"
    noise.mkdir(exist_ok=True)
    for part, count in (("train", 1200 if few else 60_000), ("t10k", 200 if few else 10_000)):
        images, labels = noise / f"{part}-images-idx3-ubyte", noise / f"{part}-labels-idx1-ubyte"
        if not labels.is_file():
            draw = random.Random(count)
            images.write_bytes(struct.pack(">4i", 2051, count, 28, 28) + draw.randbytes(count * 784))
            labels.write_bytes(struct.pack(">2i", 2049, count) + bytes(draw.choices(range(10), k=count)))
    return noise, "random pictures of its size, as its files were not given"
