"""The same networks of torch's own modules, as anyone would write them, from the same first weights."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.works import Work


class PlainWriter(nn.Module):
    """A decoder of torch's own layers: (batch, length) tokens → (batch, length, vocab) logits.

    Args:
        as_gpt2: with GPT-2's approximation of GELU, and the embedding for a head.
    """

    def __init__(
        self, dim: int, depth: int, heads: int, context: int, vocab: int, as_gpt2: bool = False
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, dim)
        self.places = nn.Embedding(context, dim)
        gelu = partial(F.gelu, approximate="tanh") if as_gpt2 else F.gelu
        layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, dropout=0.0, activation=gelu, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(dim)
        self.blocks = nn.TransformerEncoder(layer, depth, norm=norm, enable_nested_tensor=False)
        self.head = nn.Linear(dim, vocab, bias=not as_gpt2)
        if as_gpt2:
            self.head.weight = self.tokens.weight
        mask = nn.Transformer.generate_square_subsequent_mask(context)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.blocks(x, mask=self.mask, is_causal=True))


class PlainRNN(nn.Module):
    """A GRU, and a linear layer over its last state: (batch, steps, inputs) → (batch, classes)."""

    def __init__(self, inputs: int, hidden: int, classes: int = 10) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs, _ = self.gru(inputs)
        return self.head(outputs[:, -1])


class Mean(nn.Module):
    """(batch, channels, height, width) → (batch, channels)."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean((2, 3))


def plain_cnn(channels: tuple[int, ...] = (32, 64, 64, 80)) -> nn.Sequential:
    """Convolutions with batch norm, halved before each wider one, in the same order as ours."""
    layers: list[nn.Module] = []
    before = 1
    for width, after in zip(channels, [*channels[1:], 0], strict=True):
        layers.append(nn.Conv2d(before, width, 3, padding=1, bias=False))
        if after > width:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, Mean(), nn.Linear(before, 10))


def plain_fnn(work: Work) -> nn.Sequential:
    """The feed-forward network of line 1, or the wide one."""
    hidden = work.sizes["hidden"]
    return nn.Sequential(nn.Linear(work.sizes["inputs"], hidden), nn.ReLU(), nn.Linear(hidden, 1))


def build(work: Work, weights: dict[str, Tensor]) -> nn.Module:
    """The work's network, with weights that ours began with."""
    match work.kind:
        case "fnn":
            model: nn.Module = plain_fnn(work)
        case "rnn":
            model = PlainRNN(**work.sizes)
        case "cnn":
            model = plain_cnn()
        case _:
            model = PlainWriter(**work.sizes, as_gpt2=work.kind == "gpt2")
    take_over(model, weights)
    return model.to(work.device)


def take_over(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copies weights by their order, which is the same in both networks.

    Raises:
        ValueError: they are not of one size.
    """
    own = dict(model.state_dict(keep_vars=True))
    if isinstance(model, PlainWriter) and model.head.weight is model.tokens.weight:
        del own["head.weight"]
    # Ours counts no batches in its batch norms.
    kept = [value for name, value in own.items() if not name.endswith("num_batches_tracked")]
    given = [value for name, value in weights.items() if not name.endswith("num_batches_tracked")]
    with torch.no_grad():
        for target, source in zip(kept, given, strict=True):
            if target.numel() != source.numel():
                raise ValueError(f"weights of {tuple(source.shape)} for {tuple(target.shape)}")
            target.copy_(source.view_as(target))


def criterion(work: Work, outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean loss."""
    if work.kind == "fnn":
        return F.mse_loss(outputs, targets)
    if outputs.ndim == 3:
        outputs, targets = outputs.flatten(0, 1), targets.flatten()
    return F.cross_entropy(outputs, targets)


def optimizer_of(work: Work, model: nn.Module) -> torch.optim.Optimizer:
    """Adam as torch gives it, or AdamW as in nanoGPT: fused, decay on the matrices of layers alone."""
    if work.weight_decay is None:
        return torch.optim.Adam(model.parameters(), lr=work.lr, fused=work.fused)
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices = [p for p in model.parameters() if p.ndim > 1 and id(p) not in embedded]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [
        {"params": matrices, "weight_decay": work.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=work.lr, fused=True)
