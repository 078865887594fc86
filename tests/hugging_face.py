"""Small models in folders as Hugging Face's libraries write them, with tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

transformers.utils.logging.disable_progress_bar()

LENGTH = 24
SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": LENGTH,
}
WORDS = """the a cat dog mat sat on ran good bad film was and we saw it far away home today""".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[i % len(WORDS)] for i in range(n, 3 * n + 1)) for n in range(1, 12)]
KINDS = ("bert", "gpt2", "llama", "vit")


def tokenizer_of(kind: str) -> Any:
    """A trained tokenizer: BERT's lower-cases, and has [CLS] and [SEP]; Llama's begins with <s>."""
    if kind == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        engine = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
        engine.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
        engine.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        trainer = tokenizers.trainers.WordPieceTrainer(
            vocab_size=90, special_tokens=special, show_progress=False
        )
        engine.train_from_iterator(TEXTS, trainer)
        engine.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            special_tokens=[(t, engine.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
        )
        engine.decoder = tokenizers.decoders.WordPiece()
        named = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    else:
        named = {"bos": "<s>", "eos": "</s>"} if kind == "llama" else {"eos": "<|endoftext|>"}
        engine = tokenizers.Tokenizer(tokenizers.models.BPE())
        engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        engine.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=list(named.values()),
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        engine.train_from_iterator(TEXTS, trainer)
        if kind == "llama":
            engine.post_processor = tokenizers.processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", engine.token_to_id("<s>"))]
            )
    names = {f"{name}_token": token for name, token in named.items()}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=engine, **names)


def model_of(kind: str, tokens: int, **settings: Any) -> Any:
    """A model with weights that are far from their start, so that each of them matters."""
    ends = {"bos_token_id": None, "eos_token_id": None, "vocab_size": tokens}
    match kind:
        case "gpt2":
            own = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": LENGTH, **ends}
            name = "GPT2LMHeadModel"
        case "llama":
            own, name = {**SIZES, **ends, "num_key_value_heads": 2}, "LlamaForCausalLM"
        case "bert":
            own, name = {**SIZES, "vocab_size": tokens, "num_labels": 3}, "BertForSequenceClassification"
        case _:
            own = {k: v for k, v in SIZES.items() if k != "max_position_embeddings"}
            own |= {"image_size": 12, "patch_size": 4, "num_channels": 3, "num_labels": 3}
            name = "ViTForImageClassification"
    cls = getattr(transformers, name)
    model = cls(cls.config_class(**(own | settings), attn_implementation="eager"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.tie_weights()
    return model.eval()


def write_folder(folder: Path, kind: str, shard: str = "1GB", **settings: Any) -> Any:
    """Writes a model with its tokenizer; returns the model.

    Args:
        shard: the most bytes of a file, such as `50KB`.
    """
    tokens = 0
    if kind != "vit":
        tokenizer = tokenizer_of(kind)
        tokenizer.save_pretrained(folder)
        tokens = len(tokenizer)
    model = model_of(kind, tokens, **settings)
    model.save_pretrained(folder, max_shard_size=shard)
    return model


def write_table(path: Path, texts: Sequence[str], labels: Sequence[str]) -> Path:
    """A CSV file with texts and their labels."""
    rows = [f"{text},{label}" for text, label in zip(texts, labels, strict=True)]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path
