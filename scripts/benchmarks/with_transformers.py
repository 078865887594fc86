"""The same work by the `Trainer` of Transformers, with a GPT-2 of the same size and the same weights.

Its head has no bias where ours, at the size of line 4, has one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.plain import Windows, round_as
from benchmarks.plain_models import optimizer_of
from benchmarks.works import Work, checked

_LAYER = {
    "attention.qkv": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "feed_forward.expand": "mlp.c_fc",
    "feed_forward.contract": "mlp.c_proj",
    "attention_norm": "ln_1",
    "feed_forward_norm": "ln_2",
}


def gpt2_of(work: Work) -> GPT2LMHeadModel:
    """Its GPT-2 in the work's size."""
    sizes, as_gpt2 = work.sizes, work.kind == "gpt2"
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=sizes["vocab"],
            n_positions=sizes["context"],
            n_embd=sizes["dim"],
            n_layer=sizes["depth"],
            n_head=sizes["heads"],
            activation_function="gelu_new" if as_gpt2 else "gelu",
            tie_word_embeddings=as_gpt2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation="sdpa",
        )
    )


def take_over(model: GPT2LMHeadModel, weights: dict[str, Tensor]) -> None:
    """Copies the weights that ours began with; its layers hold their matrices transposed."""
    own = model.state_dict()
    with torch.no_grad():
        for name, value in weights.items():
            stem, _, kind = name.rpartition(".")
            if stem == "head" and kind == "bias":
                continue
            if stem.startswith("blocks."):
                _, layer, rest = stem.split(".", 2)
                if kind == "weight" and value.ndim == 2:
                    value = value.t()
                stem = f"transformer.h.{layer}.{_LAYER[rest]}"
            else:
                stem = {
                    "embedding": "transformer.wte",
                    "positions": "transformer.wpe",
                    "final_norm": "transformer.ln_f",
                    "head": "lm_head",
                }[stem]
            target = own[f"{stem}.{kind}"]
            target.copy_(value.reshape(target.shape))


class Named(Dataset[dict[str, Tensor]]):
    """Windows as the model wants them, with targets that are shifted already."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        inputs, targets = self.samples[index]
        return {"input_ids": inputs, "labels": targets, "shift_labels": targets}


class Marks(TrainerCallback):
    """Reads the clock where ours does."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.marks: list[tuple[int, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, control
        if state.global_step % self.work.mark_every == 0:
            if self.work.device == "cuda":
                torch.cuda.synchronize()
            self.marks.append((state.global_step, time.perf_counter()))


def run(
    work: Work,
    folder: Path,
    *,
    check: bool = False,
    compiled: bool = False,
    on_end: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One whole run, or the first steps on the batches that ours began with."""
    round_as(check)
    work = checked(work) if check else work
    start = torch.load(folder / "start.pt", weights_only=True)
    model = gpt2_of(work)
    take_over(model, start["weights"])
    if check:
        samples: Any = [pair for x, y in start["batches"] for pair in zip(x, y, strict=True)]
    else:
        count = work.steps * work.batch_size
        samples = Windows(start["stream"].long(), work.sizes["context"], count)
    marks = Marks(work)
    arguments = TrainingArguments(
        output_dir=str(folder / "transformers"),
        max_steps=work.steps,
        per_device_train_batch_size=work.batch_size,
        learning_rate=work.lr,
        lr_scheduler_type="linear",
        weight_decay=work.weight_decay or 0.0,
        max_grad_norm=0.0,
        logging_steps=work.mark_every,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=work.device == "cpu",
        bf16=work.precision == "bf16",
        torch_compile=compiled,
        train_sampling_strategy="sequential",
    )
    optimizer = optimizer_of(work, model.to(work.device))
    trainer = Trainer(
        model, arguments, train_dataset=Named(samples), callbacks=[marks], optimizers=(optimizer, None)
    )
    trainer.train()
    on_end()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    parameters = sum(p.numel() for p in model.parameters())
    return {"losses": losses, "curve": losses, "marks": marks.marks, "parameters": parameters}
