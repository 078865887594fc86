"""Small runs of each family's preset, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from bigmodel.training.loop import fit
from tests.cli.commands.conftest import write_data
from tests.data.texts.chat_templates import CHATML, small_tokenizer
from tests.small_runs import built

CONFIGS = Path(__file__).parents[3] / "configs" / "model"


def preset(name: str, **changes: Any) -> dict[str, Any]:
    """The options of `model=name` at a small size."""
    options: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return options | {"dim": 32, "depth": 2, "num_heads": 4, "mlp_dim": 48} | changes


def text(unit: str = "character", **changes: Any) -> dict[str, Any]:
    return {"name": "text", "path": "verses.txt", "context": 24, "unit": unit, "cache": None, **changes}


def labels(**changes: Any) -> dict[str, Any]:
    return {"name": "text_labels", "path": "reviews.csv", "vocab_size": 270, "length": 12, **changes}


def photos(**changes: Any) -> dict[str, Any]:
    return {"name": "images", "path": "photos", "size": 8, "fit": "stretch", "cache": None, **changes}


def chat(unit: str, **changes: Any) -> dict[str, Any]:
    return {"name": "chat", "path": "chats.jsonl", "context": 96, "unit": unit, **changes}


LLAMA = {"num_kv_heads": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "gpt2": {"model": preset("gpt2"), "data": text()},
    "gpt2-bytes": {"model": preset("gpt2"), "data": text("byte")},
    "gpt2-documents": {
        "model": preset("gpt2"),
        "data": text("bpe", vocab_size=270, packing="documents", document="line"),
    },
    "gpt2-untied": {"model": preset("gpt2", tied_embeddings=False), "data": text()},
    "gpt2-labels": {"model": preset("gpt2", tied_embeddings=False), "data": labels()},
    "gpt2-values": {
        "model": preset("gpt2", tied_embeddings=False),
        "data": labels(path="stars.csv"),
    },
    "llama": {
        "model": preset("llama", **LLAMA),
        "data": text("bpe", vocab_size=270, path="two", val_fraction=0.2),
    },
    "llama-chat": {"model": preset("llama", **LLAMA), "data": chat("byte")},
    "llama-chat-template": {
        "model": preset("llama", **LLAMA),
        "data": chat("bpe", tokenizer="tokenizer.json"),
    },
    "llama-labels": {"model": preset("llama", **LLAMA), "data": labels()},
    "llama-values": {"model": preset("llama", **LLAMA), "data": labels(path="stars.csv")},
    "bert": {"model": preset("bert"), "data": labels()},
    "bert-values": {"model": preset("bert"), "data": labels(path="stars.csv")},
    "bert-characters": {"model": preset("bert"), "data": labels(unit="character")},
    "vit": {"model": preset("vit", patch_size=4), "data": photos()},
    "vit-crop": {"model": preset("vit", patch_size=4), "data": photos(fit="crop")},
    "vit-wide": {"model": preset("vit", patch_size=4), "data": photos(size=[4, 8])},
    "sinusoidal": {"model": preset("gpt2", position="sinusoidal", qk_norm=True), "data": text()},
    "fnn": {"data": labels()},
}


def make(name: str, folder: Path) -> Path:
    """Trains a run of `SETTINGS` in a folder; its data lies beside it."""
    write_data(folder)
    rows = [f'"{"good " * (n % 5)}{n}",{1000 + 2.5 * (n % 5) + n / 100}' for n in range(60)]
    (folder / "stars.csv").write_text("\n".join(["text,label", *rows, ""]))
    (folder / "two").mkdir()
    for n in range(2):
        (folder / "two" / f"{n}.txt").write_text((folder / "verses.txt").read_text())
    small_tokenizer().save(str(folder / "tokenizer.json"))
    named = {"chat_template": CHATML, "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    settings = {group: dict(options) for group, options in SETTINGS[name].items()}
    settings["data"]["path"] = str(folder / settings["data"]["path"])
    if "tokenizer" in settings["data"]:
        settings["data"]["tokenizer"] = str(folder / settings["data"]["tokenizer"])
    run, _ = built(folder / "run", settings | {"trainer.epochs": 1})
    (folder / "run").mkdir()
    fit(run)
    return folder / "run"
