import re
import subprocess
import sys
from pathlib import Path

import pytest

from bigmodel.cli.launch.config_index import read_index
from bigmodel.cli.launch.help import help_page, help_text
from bigmodel.errors import ConfigError

REAL = Path(__file__).parents[3] / "configs"


def lines_with(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


ALL = ["--help=all"]


def test_every_choice_is_listed_with_its_meaning(configs):
    text = help_text(configs)
    assert lines_with(text, "* fnn ", "Layers that see everything")
    assert lines_with(text, "  cnn ", "Convolutions, for images")
    assert lines_with(text, "* sgd ", "Stochastic gradient descent")
    assert lines_with(text, "experiment=", "tiny_cnn")
    assert lines_with(help_text(configs, ALL), "tiny_cnn", "A convolution on thumbnails")


def test_the_page_is_short_and_says_where_the_rest_is():
    text = help_text(REAL, width=80)
    assert len(text.splitlines()) <= 100
    assert "Settings" not in text
    assert "trainer.epochs  " not in text
    assert lines_with(text, "model=cnn --help")
    assert lines_with(text, "--help=all")
    assert len(help_text(REAL, ALL).splitlines()) > 300


def test_help_has_no_other_pages(configs):
    with pytest.raises(ConfigError, match="--help=cnn: expected --help, or --help=all"):
        help_page(configs, ["--help=cnn"])


def test_every_key_is_listed_with_default_and_meaning(configs):
    text = help_text(configs, ALL)
    assert lines_with(text, "seed", " 0 ", "seed of everything random")
    assert lines_with(text, "plugins", "[]", "modules of yours")
    assert lines_with(text, "early.patience", " 3 ", "epochs without improvement, 1 or more")
    assert lines_with(text, "model.hidden_sizes", "[128, 64]", "width of each layer")
    assert lines_with(text, "model.channels", 'channels of each stage; "same" is no choice')
    assert lines_with(text, "optimizer.betas", "[0.9, 0.999]", "decay of both means")
    assert "hydra.run.dir" not in text


def test_what_all_choices_share_is_listed_once(configs):
    text = help_text(configs, ALL)
    shared = text.index("model: every choice")
    assert len(lines_with(text, "model.dropout", "share of activations dropped")) == 1
    assert shared < text.index("model.dropout") < text.index("model=cnn\n", shared)
    assert len(lines_with(text, "optimizer.lr ")) == 2  # the defaults differ


def test_a_choice_narrows_the_page(configs):
    text = help_text(configs, ["model=cnn", "--help"])
    assert lines_with(text, "> cnn")
    assert lines_with(text, "model.channels")
    assert not lines_with(text, "model.hidden_sizes")
    assert not lines_with(text, "optimizer.betas")
    both = help_text(configs, ["-m", "model=fnn,cnn"])
    assert lines_with(both, "model.channels")
    assert lines_with(both, "model.hidden_sizes")


def test_an_experiment_shows_what_it_sets(configs):
    assert not lines_with(help_text(configs, ALL), "experiment=tiny_cnn")
    text = help_text(configs, ["experiment=tiny_cnn"])
    assert lines_with(text, "experiment=tiny_cnn")
    assert lines_with(text, "> cnn")
    assert lines_with(text, "    seed ", " 7")
    assert not lines_with(text, "model.hidden_sizes")


@pytest.mark.parametrize("flag", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"]])
def test_own_choices_are_added(flag, configs, own):
    folder = own(
        {
            "model/mine.yaml": "# Mine alone\nname: mine\nwidth: 3  # how wide\n",
            "model/fnn.yaml": "# Not read: the shipped one stands\nname: fnn\n",
            "tokenizer/words.yaml": "# A group of its own\nlower: true  # in small letters\n",
        }
    )
    text = help_text(configs, [*(part.format(folder) for part in flag), *ALL])
    assert lines_with(text, "mine", "Mine alone (yours)")
    assert lines_with(text, "model.width", "how wide")
    assert lines_with(text, "tokenizer.lower", "in small letters")
    assert "Not read" not in text


def test_yaml_in_any_style_does_no_harm(configs, own):
    folder = own(
        {
            "model/odd.yaml": """\
                # It's odd # twice
                name: odd
                text: |
                  not: a key
                  # nor this

                sizes:  # of layers
                  - 1
                  - 2
                flow: [1,
                  2]
                empty:
                "quoted": "a # in it"  # a comment
                words: it's # here
                ? complex
                : value
                """,
            "model/broken.yaml": "a: [1\n\tb: {\n",
            "model/empty.yaml": "",
            "model/folder.yaml/x": "",
        }
    )
    group = read_index([configs, folder]).groups["model"]
    keys = {key.path: (key.value, key.description) for key in group.choices["odd"].keys}
    assert group.choices["odd"].description == "It's odd # twice"
    assert keys["model.sizes"] == ("[1, 2]", "of layers")
    assert keys["model.flow"] == ("[1, 2]", "")
    assert keys["model.empty"] == ("null", "")
    assert keys["model.quoted"] == ('"a # in it"', "a comment")
    assert keys["model.words"] == ("it's", "here")
    assert "model.text.not" not in keys
    assert {"broken", "empty"} <= set(group.choices)
    assert "folder" not in group.choices
    help_text(configs, [f"--config-dir={folder}"])


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_lines_fit_the_width(width):
    for line in [
        *help_text(REAL, width=width).splitlines(),
        *help_text(REAL, ALL, width=width).splitlines(),
    ]:
        assert len(line) <= width or " " not in line.strip()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_long_description_of_a_choice_is_wrapped_and_not_cut(width):
    text = help_text(REAL, width=width)
    assert "…" not in text
    fashion = text[text.index("      fashion_mnist ") : text.index("      images ")]
    assert " ".join(fashion.split()).endswith("10 classes; IDX files in data.root")


def test_bold_is_for_terminals_alone(configs):
    assert "\033[1mChoices\033[0m" in help_text(configs, bold=True)
    assert "\033" not in help_page(configs, [])


def test_misspelt_choice_is_told(configs):
    with pytest.raises(ConfigError, match=r"model=cnnn: no such model\. Did you mean 'cnn'\?"):
        help_text(configs, ["model=cnnn"])
    with pytest.raises(ConfigError, match="--config-dir nowhere: there is no such folder"):
        help_text(configs, ["--config-dir", "nowhere"])


def test_every_shipped_key_is_there():
    text, index = help_text(REAL, ALL, width=200), read_index([REAL])
    assert set(index.groups) >= {
        "model",
        "data",
        "loss",
        "optimizer",
        "scheduler",
        "device",
        "trainer",
    }
    for group in index.groups.values():
        for choice in group.choices.values():
            assert lines_with(text, f" {choice.name} ", choice.description[:40])
            if group.name in ("experiment", "debug"):
                continue
            for key in choice.keys:
                assert re.search(rf"^ +{re.escape(key.path)}\b", text, re.MULTILINE), key.path


def test_it_imports_nothing_heavy():
    code = (
        "import sys; from pathlib import Path; from bigmodel.cli.launch.help import help_page;"
        "from bigmodel.cli.launch.pager import show;"
        f"show(help_page(Path({str(REAL)!r}), []));"
        "heavy = {'torch', 'hydra', 'omegaconf', 'pydantic', 'rich', 'numpy', 'subprocess'};"
        "heavy &= set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
