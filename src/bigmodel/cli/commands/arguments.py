"""The arguments of `bigmodel`: one parser a verb, each error one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bigmodel.errors import ConfigError, did_you_mean
from bigmodel.runtime.device_names import ALLOWED, is_device

_EPILOG = """\
RUN is a run's folder, which bigmodel-train prints as Output, or a checkpoint in it:

  bigmodel eval outputs/2026-11-23/10-15-02
  bigmodel predict outputs/2026-11-23/10-15-02 --input new.csv --output predictions.csv
  bigmodel predict outputs/2026-11-23/10-15-02 --prompt "ROMEO:" --temperature 0.8
  bigmodel chat outputs/2026-11-23/10-15-02 --system "Answer in one sentence."
  bigmodel explain outputs/2026-11-23/10-15-02 --data new.csv --output why.csv
  bigmodel export outputs/2026-11-23/10-15-02 --output model.onnx
  bigmodel export outputs/2026-11-23/10-15-02 --format huggingface --output my-model
  bigmodel report outputs/2026-11-23/10-15-02 --output report.html
  bigmodel track outputs/2026-11-23/10-15-02 --logger mlflow

compare takes the folders of sweeps, and of runs:

  bigmodel compare outputs/multirun/2026-11-23/10-00-00 --by model --html sweep.html
"""


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError with a suggestion instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(
            f"{message.removeprefix('argument ')}. {self.prog} --help lists the arguments."
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [text for action in self._actions for text in action.option_strings]
            name = str(unknown[0]).partition("=")[0]
            kind = "option" if name.startswith("-") else "argument"
            raise ConfigError(
                f"{unknown[0]}: {self.prog} has no such {kind}.{did_you_mean(name, options)}"
                f" {self.prog} --help lists all."
            )
        return parsed, unknown


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line; `verb` names the verb.

    Raises:
        ConfigError: an unknown verb or option, a value that is missing or wrong.
    """
    parser = _parser()
    words = [re.sub(r"^data\.(encoding|max_bad)=", _as_option, word) for word in argv]
    if not words:
        parser.print_help()
        parser.exit(0)
    if words[0] == "--version":
        from importlib.metadata import version  # slow to import and rarely needed

        print(f"bigmodel {version('bigmodel-train')}")  # noqa: T201
        parser.exit(0)
    if not words[0].startswith("-") and words[0] not in _VERBS:
        raise ConfigError(
            f"{words[0]}: no such verb.{did_you_mean(words[0], ['train', *_VERBS])} There are train,"
            f" {', '.join(_VERBS)}."
        )
    return parser.parse_args(words)


def _as_option(setting: re.Match[str]) -> str:
    """The option for a training setting that a message may suggest."""
    return f"--{setting[1].replace('_', '-')}="


def _parser() -> Parser:
    parser = Parser(
        prog="bigmodel",
        description="Trains networks, and evaluates, applies, exports, shows and compares trained ones.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    # Listed only: `cli.entry` has handed `bigmodel train` on before anything is parsed here.
    verbs.add_parser("train", help="Trains a network; the same as bigmodel-train.", add_help=False)
    for name, (add, help_text) in _VERBS.items():
        one = verbs.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        add(one)
    return parser


def _of_a_run(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, or a checkpoint in it")
    _loading(parser)


def _loading(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--weights",
        choices=["best", "last"],
        default="best",
        help="the best by validation, or the newest (default: best)",
    )
    add(
        "--device",
        type=_device,
        default="auto",
        metavar="{auto,cpu,cuda,mps}",
        help="or one of several, such as cuda:1; auto takes the fastest available (default: auto)",
    )
    add(
        "--plugins",
        action="append",
        default=[],
        metavar="MODULE",
        help="a plugin that the run was trained with; its code is run; can be repeated",
    )
    add(
        "--base",
        metavar="PATH",
        help="the weights that a run with model.lora was started from, if they have moved",
    )


def _device(name: str) -> str:
    if not is_device(name):
        raise argparse.ArgumentTypeError(f"no such device: '{name}'. Allowed: {ALLOWED}")
    return name


def _eval(parser: Parser) -> None:
    _of_a_run(parser)
    add = parser.add_argument
    add(
        "--data",
        metavar="PATH",
        help="new data with its targets, in the form that the run was trained on (default: the run's"
        " test set, or its validation set if it has none)",
    )
    add(
        "--metrics",
        type=lambda text: text.strip("[]").replace(" ", "").split(","),
        action="extend",
        default=[],
        metavar="NAME",
        help="metrics to add to those of the run, such as auc; several are separated by commas",
    )
    _reading(add)
    add("--json", action="store_true", help="print one line of JSON instead of a table")


def _predict(parser: Parser) -> None:
    _of_a_run(parser)
    add = parser.add_argument_group("files").add_argument
    add("--input", metavar="PATH", help="new data, in the form that the run was trained on")
    add(
        "--output",
        metavar="FILE",
        help="where predictions go: .csv, .tsv, .parquet or .jsonl; texts also as plain lines under any"
        " other name, such as new.en (default: -, the terminal)",
    )
    add("--force", action="store_true", help="replace an existing output file")
    add("--probabilities", action="store_true", help="add one column per class or label")
    calibrated = "probabilities as high as they turn out right on the validation set"
    add("--calibrated", action="store_true", help=calibrated)
    interval = "of values: add a lower and an upper end that hold the truth this often, such as 0.9"
    add("--interval", type=_level, metavar="SHARE", help=interval)
    sets = (
        "of classes: add the set of those that may be true; it holds the truth this often, such as 0.9"
    )
    add("--set", type=_level, metavar="SHARE", help=sets)
    _reading(add)
    add = parser.add_argument_group("texts").add_argument
    add("--prompt", metavar="TEXT", help="a text to continue, or to translate")
    add("--beams", type=_count, metavar="N", help="beam search with N beams")
    _sampling(add)
    add("--samples", type=_count, default=1, metavar="N", help="number of texts (default: 1)")


def _sampling(add: Callable[..., Any]) -> None:
    add("--tokens", type=_count, metavar="N", help="most new tokens (default: 200)")
    add("--temperature", type=float, metavar="X", help="0: always the likeliest token")
    add("--top-k", type=_count, metavar="N", help="sample from the N likeliest tokens")
    add("--top-p", type=float, metavar="P", help="sample from tokens that make up P")
    add("--seed", type=_whole, default=0, metavar="N", help="seed of sampling (default: 0)")


def _chat(parser: Parser) -> None:
    _of_a_run(parser)
    add = parser.add_argument
    add("--system", metavar="TEXT", help="what the model is told before the conversation")
    _sampling(add)


def _reading(add: Callable[..., Any]) -> None:
    add("--batch-size", type=_count, metavar="N", help="samples computed at once")
    unreadable = "unreadable samples that may be skipped (default: 0)"
    add("--max-bad", type=_whole, default=0, metavar="N", help=unreadable)
    encoding = "encoding of the file, such as cp1252 (default: that of the run's data, or by its mark)"
    add("--encoding", type=_encoding, metavar="NAME", help=encoding)


def _export(parser: Parser) -> None:
    _of_a_run(parser)
    add = parser.add_argument
    add(
        "--format",
        choices=["onnx", "huggingface", "safetensors"],
        help="onnx: one file for any program; huggingface: a folder that transformers loads, of a GPT-2,"
        " Llama, BERT or ViT; safetensors: the weights alone (default: onnx)",
    )
    add(
        "--output",
        metavar="PATH",
        help="file or folder to write (default: model.onnx, huggingface or model.safetensors in the"
        " run's folder)",
    )
    add(
        "--merge",
        action="store_true",
        help="the weights alone, with the updates of model.lora added: the same as --format safetensors;"
        " other formats have them added as well",
    )
    add(
        "--with-past",
        action="store_true",
        help="onnx of a transformer that continues texts: a graph for writing, which takes and gives the"
        " keys and values of what was read",
    )
    add("--force", action="store_true", help="replace existing files")


def _explain(parser: Parser) -> None:
    from bigmodel.explain.names import METHODS  # without torch

    _of_a_run(parser)
    add = parser.add_argument
    add(
        "--data",
        metavar="PATH",
        help="samples in the form that the run was trained on (default: the run's test set, or its"
        " validation set if it has none)",
    )
    add(
        "--prompt",
        metavar="TEXT",
        help="a text to explain instead: one to judge, to continue, or to translate",
    )
    methods = "; ".join(f"{name}: {words}" for name, words in METHODS.items())
    add(
        "--method",
        metavar="NAME",
        help=f"{methods} (default: integrated_gradients; without --output, permutation for tables)",
    )
    add(
        "--output",
        metavar="FILE",
        help="where it goes: .csv, .tsv, .parquet, .jsonl, .json or .png; a folder for a picture of each"
        " sample (default: -, the terminal)",
    )
    add("--force", action="store_true", help="replace existing files")
    add("--tensorboard", action="store_true", help="pictures for the run's page Images, too")
    add(
        "--class",
        dest="class_name",
        metavar="NAME",
        help="the class, label, value or next token to explain (default: what is predicted)",
    )
    add("--samples", type=_count, metavar="N", help="explain only the first N samples")
    add(
        "--repeats",
        type=_count,
        default=10,
        metavar="N",
        help="how often a column is shuffled (default: 10)",
    )
    add("--seed", type=_whole, default=0, metavar="N", help="seed of what is random (default: 0)")
    _reading(add)


def _report(parser: Parser) -> None:
    help_text = "a run's folder, or a checkpoint in it; several are shown side by side"
    parser.add_argument("runs", metavar="RUN", nargs="+", help=help_text)
    _loading(parser)
    add = parser.add_argument
    add(
        "--output", metavar="FILE", help="the page to write: one .html file that holds all that it shows"
    )
    add("--png", metavar="FOLDER", help="a folder for the figures alone, as .png files")
    add("--force", action="store_true", help="replace existing files")
    add(
        "--data",
        metavar="PATH",
        help="new data with its targets, to evaluate on (default: the run's test set, or its validation"
        " set if it has none)",
    )
    _reading(add)


def _compare(parser: Parser) -> None:
    add = parser.add_argument
    add("folders", metavar="FOLDER", nargs="+", help="a sweep's folder, a run's, or one that holds such")
    add(
        "--by",
        type=lambda text: text.split(","),
        action="extend",
        default=[],
        metavar="KEY",
        help="compare the values of this setting, such as model, with means over all other settings;"
        " several are separated by commas (default: all but seeds and folds)",
    )
    add(
        "--metric",
        metavar="NAME",
        help="what to rank by, such as val/loss or test/accuracy, taken at each job's best checkpoint"
        " (default: the metric that chose it)",
    )
    add("--top", type=_count, default=30, metavar="N", help="most jobs to print (default: 30)")
    add(
        "--html",
        type=_file("html"),
        metavar="FILE",
        help="write a page with tables, learning curves and other pictures",
    )
    add(
        "--csv",
        type=_file("csv"),
        metavar="FILE",
        help="write all jobs as a table, like a sweep's leaderboard.csv",
    )
    add("--force", action="store_true", help="replace existing files")


def _track(parser: Parser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder")
    parser.add_argument(
        "--logger",
        type=lambda text: text.strip("[]").replace(" ", "").split(","),
        action="extend",
        default=[],
        metavar="NAME",
        help="mlflow, trackio or wandb; several are separated by commas (default: those of the run)",
    )


_VERBS: dict[str, tuple[Callable[[Parser], None], str]] = {
    "eval": (_eval, "Evaluates a run's model on its held-out data, or on a file of yours."),
    "predict": (_predict, "Predicts for new data with a run's model, or writes text with it."),
    "chat": (_chat, "Answers messages with a run that was trained on conversations."),
    "explain": (_explain, "Tells why a run's model says what it says."),
    "export": (_export, "Exports a run's model, with its preprocessing, for other programs."),
    "report": (_report, "Writes a page on one or several runs: curves, figures, mistakes, settings."),
    "track": (
        _track,
        "Sends runs, or what is missing of them, to MLflow, Trackio or Weights & Biases.",
    ),
    "compare": (_compare, "Ranks the jobs of sweeps, and says whether the best is more than lucky."),
}


def _encoding(name: str) -> str:
    from bigmodel.data.text_encoding import valid_encoding

    try:
        return valid_encoding(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{name}': {error}") from None


def _file(kind: str) -> Callable[[str], str]:
    def file(text: str) -> str:
        if Path(text).expanduser().is_dir():
            raise argparse.ArgumentTypeError(
                f"{text} is a folder, but it takes a file to write, as in: {text} --{kind} sweep.{kind}"
            )
        return text

    return file


def _level(text: str) -> float:
    if not 0 < float(text) < 1:
        meant = float(text) / 100 if 1 < float(text) < 100 else 0.9
        raise argparse.ArgumentTypeError(f"{text}: must be a share between 0 and 1, such as {meant:g}")
    return float(text)


_level.__name__ = "share"


def _whole_number(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: must be a whole number, {least} or more")
        return int(text)

    number.__name__ = "whole number"  # argparse's messages name the type
    return number


_count, _whole = _whole_number(1), _whole_number(0)
