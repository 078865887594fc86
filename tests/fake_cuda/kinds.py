"""Small data of every kind that a model may be given, as settings of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

_SAMPLES = {"name": "synthetic", "samples": 80, "batch_size": 12}
_CLASSES = _SAMPLES | {"target": "classes", "outputs": 3}

KINDS: dict[str, dict[str, Any]] = {
    "features": _CLASSES | {"shape": [5]},
    "values": _SAMPLES | {"target": "values", "outputs": 2, "shape": [5]},
    "flags": _SAMPLES | {"target": "flags", "outputs": 4, "shape": [5]},
    "sequence": _CLASSES | {"input": "sequence", "shape": [6, 8]},
    "tokens": _CLASSES | {"input": "tokens", "shape": [8], "vocab_size": 20},
    "image": _CLASSES | {"input": "image", "shape": [3, 12, 12], "outputs": 7},
    "digits": {"name": "digits", "batch_size": 128, "augment": {"shift": 1}},
    "text": {"name": "text", "context": 8, "batch_size": 16},
    "packed": {"name": "text", "packing": "documents", "document": "line", "batch_size": 4},
    "padded": {"name": "text", "packing": "padded", "document": "line", "batch_size": 12},
    "chat": {"name": "chat", "unit": "byte", "context": 32, "batch_size": 4},
    "texts": {"name": "text_labels", "unit": "character", "batch_size": 12},
    "pairs": {"name": "pairs", "vocab_size": 300, "batch_tokens": 512, "length": 8, "bleu_pairs": 2},
    "several": {"name": "table", "target": ["price", "label"], "vocab_size": 300, "batch_size": 12},
}


def data_of(kind: str, folder: Path) -> dict[str, Any]:
    """One of them; what is read from files is written into `folder`."""
    settings = dict(KINDS[kind])
    if kind == "text":
        settings["path"] = _written(folder / "verse.txt", "How now, brown cow? " * 60)
    if kind in ("packed", "padded"):
        lines = (f"{'a word ' * (1 + n % 4)}{n % 10}\n" for n in range(80))
        settings["path"] = _written(folder / "lines.txt", "".join(lines))
    if kind == "chat":
        said = [{"role": role, "content": "a word"} for role in ("user", "assistant")]
        settings["path"] = _written(folder / "chats", f"{json.dumps({'messages': said})}\n" * 40)
    if kind == "texts":
        rows = (f"{'a word ' * (1 + n % 4)}{n},{'yes' if n % 2 else 'no'}\n" for n in range(60))
        settings["path"] = _written(folder / "texts.csv", "text,label\n" + "".join(rows))
    if kind == "several":
        picture = _written_picture(folder / "photo.png")
        rows = (
            f"{picture},{'a word ' * (1 + n % 4)},{n % 5},{n}.5,{'yes' if n % 2 else 'no'}\n"
            for n in range(80)
        )
        settings["path"] = _written(
            folder / "several.csv", "photo,text,age,price,label\n" + "".join(rows)
        )
        settings |= {"columns": {"photo": "image", "text": "text"}, "cache": None}
    if kind == "pairs":
        for side, word in (("source", "eins"), ("target", "one")):
            lines = (f"{word} {n % 9} {word} {n % 7}\n" for n in range(400))
            settings[side] = _written(folder / side, "".join(lines))
    return settings


def _written_picture(path: Path) -> str:
    Image.new("RGB", (8, 8), "green").save(path)
    return path.name


def _written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)
