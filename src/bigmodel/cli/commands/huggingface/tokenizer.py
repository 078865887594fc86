"""tokenizer.json and tokenizer_config.json of a run of texts."""

from __future__ import annotations

from typing import Any

from bigmodel.data.texts.tokenizer_file import opening_of, tokenizer_file
from bigmodel.data.texts.vocabulary import VocabularyReader
from bigmodel.spec import DataSpec, NextTokens, Tokens

_ROLES = {"pad": "pad_token", "start": "bos_token", "end": "eos_token", "unknown": "unk_token"}


def tokenizer_files(reader: VocabularyReader, spec: DataSpec) -> dict[str, str | dict[str, Any]]:
    """Their contents, by name.

    Raises:
        DataError: see `tokenizer_file`.
    """
    assert isinstance(spec.input, Tokens)
    file = tokenizer_file(reader.vocabulary, opening_of(reader))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": spec.input.length,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left" if isinstance(spec.target, NextTokens) else "right",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": not file.finds_special,
        **{_ROLES[role]: name for role, name in file.names.items()},
    }
    return {"tokenizer.json": file.text, "tokenizer_config.json": config}
