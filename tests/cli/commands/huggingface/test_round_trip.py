"""A model of transformers, trained on here, is one of transformers again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from bigmodel.cli.commands.huggingface.folder import write_folder
from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.training.loop import fit
from tests.cli.commands.conftest import VERSES, write_data
from tests.cli.commands.family_runs import labels, photos, preset, text
from tests.cli.commands.huggingface.test_folder import ours_of
from tests.cli.commands.test_loaded_run import loaded
from tests.small_runs import built

transformers = pytest.importorskip("transformers")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
PICTURES = {"image_size": 8, "patch_size": 4, "num_channels": 3, "num_labels": 2}


def word_pieces() -> Any:
    """A tokenizer such as BERT's, which adds [CLS] and [SEP]."""
    engine = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    engine.train_from_iterator(
        ["good nice fine bad awful poor, "],
        trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL, show_progress=False),
    )
    engine.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=engine, **names)


def subwords() -> Any:
    """A tokenizer such as GPT-2's."""
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator(
        [VERSES],
        trainers.BpeTrainer(
            vocab_size=280,
            special_tokens=["<|end|>"],
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        ),
    )
    names = {"bos_token": "<|end|>", "eos_token": "<|end|>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=engine, **names)


def theirs_of(family: str, folder: Path) -> None:
    """Writes a model of transformers with random weights, as transformers does."""
    kind = getattr(transformers, KINDS[family])
    settings: dict[str, Any] = dict(SIZES)
    if family == "vit":
        settings |= PICTURES
        processor = transformers.ViTImageProcessorPil(size={"height": 8, "width": 8})
        processor.save_pretrained(folder)
    else:
        tokenizer = word_pieces() if family == "bert" else subwords()
        tokenizer.save_pretrained(folder)
        settings |= {"vocab_size": len(tokenizer) + 3, "max_position_embeddings": 40}
        settings |= {"bos_token_id": None, "eos_token_id": 0} if family != "bert" else {}
    if family == "gpt2":
        settings = settings | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
    if family == "llama":
        settings = settings | {"num_key_value_heads": 2}
    kind(kind.config_class(**settings)).save_pretrained(folder)


KINDS = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "bert": "BertForSequenceClassification",
    "vit": "ViTForImageClassification",
}
DATA = {"gpt2": text(), "llama": text(), "bert": labels(), "vit": photos()}
AUTO = {
    "gpt2": "AutoModelForCausalLM",
    "llama": "AutoModelForCausalLM",
    "bert": "AutoModelForSequenceClassification",
    "vit": "AutoModelForImageClassification",
}


def trained(family: str, folder: Path, **settings: Any) -> LoadedRun:
    """A run of a hundred steps that starts from it, with other settings of its model."""
    write_data(folder)
    theirs_of(family, folder / "theirs")
    data = {key: value for key, value in DATA[family].items() if key not in ("unit", "vocab_size")}
    whole = {
        "model": {**preset(family, dim=64), "pretrained": str(folder / "theirs"), **settings},
        "data": {**data, "path": str(folder / str(data["path"])), "batch_size": 12},
        "trainer.max_steps": 100,
        "trainer.limit.val": 1,
        "device.engine": "eager",
    }
    run, _ = built(folder / "run", whole)
    (folder / "run").mkdir()
    fit(run)
    return loaded(folder / "run", "last")


@pytest.mark.parametrize(
    ("family", "settings"),
    [*((family, {}) for family in KINDS), ("llama", {"lora": {"rank": 4}, "frozen_precision": "bf16"})],
)
def test_logits_after_a_hundred_steps_are_the_same(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    run = trained(family, tmp_path, **settings)
    assert run.step == 100
    write_folder(run, tmp_path / "back", lambda _: None)
    card = (tmp_path / "back" / "README.md").read_text()
    assert f"- Started from `{tmp_path / 'theirs'}`" in card
    assert re.search(r"^  dim: 32$", card, re.MULTILINE)
    auto = getattr(transformers, AUTO[family])
    back, first = auto.from_pretrained(tmp_path / "back"), auto.from_pretrained(tmp_path / "theirs")
    if family == "vit":
        reader = transformers.AutoImageProcessor.from_pretrained(tmp_path / "back")
        pictures = [Image.open(path) for path in sorted((tmp_path / "photos").rglob("*.png"))]
        inputs, expected = reader(pictures, return_tensors="pt"), ours_of(run, pictures)
    elif family == "bert":
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
        texts = ["good", "bad, awful!", "good and not poor " * 9]
        inputs = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
        expected = ours_of(run, texts)
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
        inputs = tokenizer("JULIET: Sweet, so would", return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == run.reader.encode("JULIET: Sweet, so would")
        with torch.inference_mode():
            expected = run.model(inputs["input_ids"])
    with torch.inference_mode():
        found, before = back(**inputs).logits, first(**inputs).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (found - before).abs().max() > 1e-2  # it has learnt something
