"""The tokenizer of a pretrained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigmodel.data.texts.vocabulary import Vocabulary
from bigmodel.errors import DataError, first_line
from bigmodel.runtime import nested_json, standard_streams

_SPECIAL = {
    "pad": ("pad_token", "pad_token_id"),
    "start": ("bos_token", "bos_token_id"),
    "end": ("eos_token", "eos_token_id"),
    "unknown": ("unk_token", None),
}
"""Special tokens: what tokenizer_config.json and config.json call them."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty if there is no such file.

    Raises:
        DataError: it cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        content = nested_json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no JSON: {first_line(error, type(error).__name__)}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object with settings.")
    return content


def read_tokenizer(folder: Path, settings: Mapping[str, Any], where: str) -> Vocabulary:
    """The tokenizer in a Hugging Face folder, with its special tokens and its template.

    A model that has no token for padding, or for unknown text, gets another special one for it.

    Args:
        settings: the config.json.

    Raises:
        DataError: there is none, it cannot be read, or it has more tokens than the model.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(
            f"{where}: the folder has no tokenizer.json. Transformers writes one:"
            f" AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')"
        )
    rows = settings.get("vocab_size")
    if not isinstance(rows, int):
        raise DataError(f"{where}: its config.json has vocab_size={rows}, which is no number of tokens.")
    try:
        text = path.read_text(encoding="utf-8")
        with standard_streams.errors_held_back():
            plain = Vocabulary(unit="pretrained", tokenizer=text, rows=rows)
            tokens = plain.base_size
    except Exception as error:  # the library has no exception class of its own
        raise DataError(
            f"{where}: {path.name} cannot be read as one of the tokenizers library:"
            f" {first_line(error, type(error).__name__)}."
        ) from error
    if not 0 < tokens <= rows:
        raise DataError(
            f"{where}: the tokenizer has {tokens:,} tokens, and the model vectors for {rows:,}. Is"
            f" {path.name} of another model?"
        )
    special = _special_tokens(folder, settings, plain)
    end = special["end"]
    pad = special["pad"] if special["pad"] is not None else end
    unknown = special["unknown"] if special["unknown"] is not None else end
    special |= {"pad": 0 if pad is None else pad, "unknown": 0 if unknown is None else unknown}
    restores = plain.characters is not None and not nested_json.loads(text).get("normalizer")
    return Vocabulary(**{**plain.model_dump(), **special, "exact": restores})


def _special_tokens(
    folder: Path, settings: Mapping[str, Any], vocabulary: Vocabulary
) -> dict[str, int | None]:
    named = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    found: dict[str, int | None] = {}
    for ours, (name, number) in _SPECIAL.items():
        token = named.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        found[ours] = vocabulary.number_of(text) if isinstance(text, str) else None
        if found[ours] is None and number is not None:
            numbers = settings.get(number)
            first = numbers[0] if isinstance(numbers, list) and numbers else numbers
            if isinstance(first, int) and 0 <= first < vocabulary.base_size:
                found[ours] = first
    return found
