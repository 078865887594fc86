"""Text to tokens and back: always the same text, whatever it holds."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel.checkpointing.exact_json import dumps, loads
from bigmodel.data.reader import TextReader
from bigmodel.data.texts import vocabulary
from bigmodel.data.texts.tokenizer_training import build_vocabulary, distinct_characters
from bigmodel.data.texts.vocabulary import CHUNK, Vocabulary, VocabularyReader, split_long_text
from bigmodel.errors import DataError

QUOTE = "To be, or not to be: that is the question.\nWhether 'tis nobler – señor, 日本語 🙂 – in\n" * 9
TRICKY = ("\r\n\t \x00", "e\u0301 é Å Å ﬁ", "  a  ", "<pad></s>", "\ufeff", "\U0010ffff")
UNITS = ("character", "byte", "bpe")
LEARNT = {unit: build_vocabulary([QUOTE], unit, 300, special=["pad", "start", "end"]) for unit in UNITS}


@pytest.mark.parametrize("unit", ["byte", "bpe"])
@given(text=st.text())
@settings(deadline=None)
def test_every_text_comes_back_as_it_was(unit, text):
    known = LEARNT[unit]
    tokens = known.encode(text)
    assert known.decode(tokens.tolist()) == text
    assert sum(known.characters[token] for token in tokens.tolist()) == len(text)


@given(text=st.text())
@settings(deadline=None)
def test_every_text_of_known_characters_comes_back(text):
    known = build_vocabulary([text], "character", 300)
    assert known.decode(known.encode(text).tolist()) == text
    assert known.size == len(set(text))
    assert list(known.letters) == sorted(set(text))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("text", TRICKY)
def test_nothing_is_normalised(unit, text):
    known = build_vocabulary([text], unit, 300)
    assert known.decode(known.encode(text).tolist()) == text


@pytest.mark.parametrize("unit", UNITS)
def test_many_texts_are_encoded_as_each_alone(unit):
    texts = [*QUOTE.splitlines()[:7], "", "t", " be"]
    known = LEARNT[unit]
    found = known.encode_all(texts)
    parts = found.tokens.split(found.sizes.tolist())
    assert [part.tolist() for part in parts] == [known.encode(text).tolist() for text in texts]
    assert found.starts.tolist() == np.cumsum([0, *found.sizes.tolist()])[:-1].tolist()


@pytest.mark.parametrize("unit", UNITS)
def test_special_tokens_come_last_and_stand_for_no_text(unit):
    known = LEARNT[unit]
    first = known.base_size
    assert (known.pad, known.start, known.end) == (first, first + 1, first + 2)
    assert known.size == known.base_size + 3 == len(known.characters)
    assert known.characters[known.base_size :] == (0, 0, 0)
    around = [known.start, *known.encode("to be").tolist(), known.end, known.pad]
    assert known.decode(around) == "to be"


@pytest.mark.parametrize("unit", UNITS)
def test_a_checkpoint_keeps_it(unit):
    known = LEARNT[unit]
    again = Vocabulary.model_validate(loads(dumps(known.model_dump())))
    assert again == known
    assert again.size == known.size
    assert again.encode("to be, or").tolist() == known.encode("to be, or").tolist()


def test_a_reader_encodes_and_decodes():
    reader = VocabularyReader(vocabulary=LEARNT["bpe"])
    assert isinstance(reader, TextReader)
    assert reader.decode(reader.encode("señor 🙂")) == "señor 🙂"
    assert all(type(token) is int for token in reader.encode("to be"))


@pytest.mark.parametrize(("size", "kind"), [(300, torch.int16), (256, torch.uint8)])
def test_tokens_are_kept_in_the_smallest_type_that_can_be_looked_up(size, kind):
    text = "".join(map(chr, range(1000, 1000 + size)))
    assert build_vocabulary([text], "character", 300).encode_all([text]).tokens.dtype == kind


def test_a_large_vocabulary_needs_four_bytes():
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 0x5000))) + "".join(map(chr, range(0xAC00, 0xD7A0)))
    known = build_vocabulary([text + "".join(map(chr, range(0x20000, 0x21000)))], "character", 300)
    assert known.encode("").dtype == np.int32
    assert known.decode(known.encode(text).tolist()) == text


def test_a_character_that_training_has_not_seen():
    known = LEARNT["character"]
    words = r"b.txt: the character 'ß' \(U\+00DF\) at position 1,002 .* Use data.unit=byte or"
    with pytest.raises(DataError, match=words):
        known.encode("toß", "b.txt", first=1000)
    forgiving = build_vocabulary([QUOTE], "character", 300, special=["pad", "unknown"])
    assert forgiving.encode("toß").tolist()[-1] == forgiving.unknown
    assert forgiving.decode(forgiving.encode("toß").tolist()) == "to\ufffd"
    assert forgiving.characters[-2:] == (0, 1)


@pytest.mark.parametrize("unit", UNITS)
def test_half_a_character_is_refused_in_words(unit):
    with pytest.raises(DataError, match=r"The text: at position 1 .* half of a surrogate pair"):
        LEARNT[unit].encode("t\ud83d")


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_half_a_character_among_many_texts_is_refused_in_words(unit):
    with pytest.raises(DataError, match=r"The texts: at position 3 .* half of a surrogate pair"):
        LEARNT[unit].encode_all(["to", "t\ud83d"])


def test_bytes_that_are_no_text_are_shown_as_such():
    assert LEARNT["byte"].decode([0xE6, 0x97, 65]) == "\ufffdA"


def test_long_texts_are_cut_between_lines_or_words(monkeypatch):
    monkeypatch.setattr(vocabulary, "CHUNK", 10)
    assert list(split_long_text("one\ntwo three four")) == ["one\n", "two three", " four"]
    assert list(split_long_text("x" * 25)) == ["x" * 10, "x" * 10, "x" * 5]
    assert "".join(split_long_text(QUOTE)) == QUOTE
    assert list(split_long_text("")) == [""]


def test_a_text_longer_than_a_piece_comes_back():
    text = QUOTE * (3 * CHUNK // len(QUOTE))
    for unit in UNITS:
        assert LEARNT[unit].decode(LEARNT[unit].encode(text).tolist()) == text


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_a_million_characters_are_not_looked_at_one_by_one(unit):
    text = QUOTE * (1_000_000 // len(QUOTE))
    known, done = LEARNT[unit], 0

    def count(frame, event, _):
        nonlocal done
        frame.f_trace_opcodes = True
        done += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        known.encode(text)
    finally:
        sys.settrace(before)
    assert 0 < done < len(text) / 100


FORKS = """
import os
from bigmodel.data.texts.tokenizer_training import build_vocabulary
known = build_vocabulary(["to be or not to be"] * 4, "bpe", 280)
known.encode_all(["to be"] * 100)
if os.fork() == 0:
    os._exit(0)
os.wait()
print(known.tokenizer)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("threads", ["1", "4"])
def test_learning_is_the_same_in_any_process_and_workers_may_be_forked(threads):
    values = {**os.environ, "RAYON_NUM_THREADS": threads}
    values.pop("TOKENIZERS_PARALLELISM", None)
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    done = subprocess.run(command, env=values, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() == build_vocabulary(["to be or not to be"] * 4, "bpe", 280).tokenizer


def test_letters_are_those_of_all_texts():
    assert distinct_characters(["ba", "", "c🙂a"]) == "abc🙂"
    assert distinct_characters([]) == ""


def test_a_tokenizer_that_panics_ends_in_a_message():
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    engine = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    engine.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    vocabulary = Vocabulary(unit="tokenizer", tokenizer=engine.to_str())
    with pytest.raises(DataError, match=r"the tokenizer fails on a text: .*retry-limit"):
        vocabulary.encode("a" * 60 + "b")
    with pytest.raises(DataError, match=r"the tokenizer fails on a text: .*retry-limit"):
        vocabulary.encode_all(["a" * 60 + "b"])
