"""`TrainedRun.explain` of texts, attention and language models."""

from html import unescape
from pathlib import Path

import numpy as np
import pytest

from bigmodel.errors import ConfigError, DataError
from tests.api.test_trained_run import opened
from tests.cli.commands.conftest import Run


def test_each_piece_of_a_text_has_a_number(made: Run) -> None:
    why = opened(made("reviews")).explain(["good, nice", "awful <b>"])
    assert ["".join(pieces) for pieces in why.tokens] == ["good, nice", "awful <b>"]
    for pieces, values, score, base in zip(
        why.tokens, why.attributions, why.scores, why.baseline_scores, strict=True
    ):
        assert len(pieces) == len(values)
        assert sum(values) == pytest.approx(score - base, abs=1e-3)
    html = why._repr_html_()
    assert "<b>" not in html
    assert html.count("color-mix(") == sum(map(len, why.tokens))


def test_a_prompt_is_explained_like_a_text(made: Run, capfd: pytest.CaptureFixture[str]) -> None:
    run = opened(made("reviews"))
    listed, typed = run.explain(["good, nice"]), run.explain(prompt="good, nice")
    np.testing.assert_allclose(typed.attributions[0], listed.attributions[0], rtol=1e-5)
    with pytest.warns(UserWarning, match="Cut: 1 prompt; the model sees only their end"):
        why = opened(made("text")).explain(prompt="Good night, good night!")
    assert "".join(why.tokens[0]) == "ht, good night!"
    assert why.explained[0] in unescape(why._repr_html_())
    assert capfd.readouterr() == ("", "")


def test_attention_and_the_logit_lens_are_given_as_tensors(made: Run) -> None:
    run = opened(made("text"))
    (maps,) = run.explain(prompt="Sweet", method="attention").samples
    assert maps[0].weights.shape == (2, 5, 5)
    assert "".join(maps[0].keys) == "Sweet"
    (lens,) = run.explain(prompt="Sweet", method="logit_lens")
    assert lens.layers == ("embedding", "block 1")
    assert lens.probabilities.shape == (2, 5, 5)
    (maps,) = opened(made("pairs")).explain(prompt="zwei Hund", method="attention").samples
    assert [each.of for each in maps] == ["source", "target", "target to source"]


def test_mistakes_are_told_in_the_words_of_python(made: Run, tmp_path: Path) -> None:
    run = opened(made("text"))
    with pytest.raises(DataError, match=r"^prompt: is empty"):
        run.explain(prompt="")
    with pytest.raises(ConfigError, match=r"class_name=ni: is not one token"):
        run.explain(prompt="Good", class_name="ni")
    with pytest.raises(ConfigError, match="one of data and prompt"):
        run.explain(tmp_path, prompt="Good")
    with pytest.raises(ConfigError, match=r"^prompt: fnn on synthetic reads"):
        opened(made("classes")).explain(prompt="x")
