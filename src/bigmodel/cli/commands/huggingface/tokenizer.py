"""The files of a tokenizer: tokenizer.json, its settings, and the chat template."""

from __future__ import annotations

from typing import Any

from bigmodel.data.sources.chat import ChatReader
from bigmodel.data.texts.tokenizer_file import opening_of, tokenizer_file
from bigmodel.data.texts.vocabulary import VocabularyReader
from bigmodel.spec import DataSpec, NextTokens, Tokens

_ROLES = {"pad": "pad_token", "start": "bos_token", "end": "eos_token", "unknown": "unk_token"}

_TURNS = (
    "{% for message in messages %}"
    "{{ START + message['role'] + '\\n' + message['content'] + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ START + 'assistant\\n' }}{% endif %}"
)
"""The format of conversations that have no template; see `chat_format`."""


def tokenizer_files(reader: VocabularyReader, spec: DataSpec) -> dict[str, str | dict[str, Any]]:
    """Their contents, by name.

    Raises:
        DataError: see `tokenizer_file`.
    """
    assert isinstance(spec.input, Tokens)
    file = tokenizer_file(reader.vocabulary, opening_of(reader))
    chat = reader if isinstance(reader, ChatReader) else None
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": spec.input.length,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left" if isinstance(spec.target, NextTokens) else "right",
        "clean_up_tokenization_spaces": False,
        # A template writes special tokens into a text, where they have to be found.
        "split_special_tokens": not file.finds_special and chat is None,
        **{_ROLES[role]: name for role, name in file.names.items()},
        **(chat.format.tokens if chat is not None else {}),
    }
    files: dict[str, str | dict[str, Any]] = {
        "tokenizer.json": file.text,
        "tokenizer_config.json": config,
    }
    if chat is not None:
        start = "eos_token" if reader.vocabulary.start is None else "bos_token"
        files["chat_template.jinja"] = chat.format.template or _TURNS.replace("START", start)
    return files


def chat_remarks(reader: VocabularyReader) -> list[str]:
    """What the chat template does otherwise than training did."""
    if not isinstance(reader, ChatReader) or reader.format.template:
        return []
    found = ["A message must not contain the names of special tokens, which would be taken for them."]
    if reader.vocabulary.unit not in ("character", "byte"):
        found.append("A message that begins with blank lines may become other tokens than in training.")
    return found
