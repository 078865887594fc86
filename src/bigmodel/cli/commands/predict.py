"""`bigmodel predict`: predictions for new data, or text generated from a prompt."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from bigmodel.cli.commands.output_files import check_place
from bigmodel.errors import ConfigError

_OF_TEXTS = ("tokens", "temperature", "top_k", "top_p", "beams")
_OF_FILES = ("output", "force", "probabilities", "calibrated", "interval", "set", "max_bad")


def run(arguments: Namespace) -> None:
    """Predicts and writes the result."""
    _check_options(arguments)
    output = None if arguments.output in (None, "-") else Path(arguments.output).expanduser()
    if output is not None:
        check_place(output, force=arguments.force)
    # Torch is only needed from here on.
    from bigmodel.cli.commands.loaded_run import load_run, loading
    from bigmodel.cli.commands.predictions.rows import predict_rows
    from bigmodel.cli.commands.predictions.texts import predict_lines, write_prompt
    from bigmodel.spec import NextTokens

    loaded = load_run(arguments.run, *loading(arguments))
    writes = isinstance(loaded.preprocessing.spec.target, NextTokens)
    given = next((name for name in _OF_TEXTS if getattr(arguments, name) is not None), None)
    if not writes and arguments.prompt is not None:
        raise ConfigError(
            f"--prompt: {loaded.name} gives {loaded.preprocessing.spec.target} and writes no text. Pass"
            " new samples with --input FILE."
        )
    if not writes and given is not None:
        raise ConfigError(f"--{given.replace('_', '-')}: {loaded.name} writes no text. Leave it out.")
    of_numbers = ("probabilities", "calibrated", "interval", "set")
    if writes and (wrong := [name for name in of_numbers if getattr(arguments, name)]):
        raise ConfigError(f"--{wrong[0]}: {loaded.name} writes texts, which have none. Leave it out.")
    if arguments.prompt is not None:
        write_prompt(loaded, arguments)
    elif writes:
        predict_lines(loaded, arguments, output)
    else:
        predict_rows(loaded, arguments, output)


def _check_options(arguments: Namespace) -> None:
    if (arguments.prompt is None) == (arguments.input is None):
        raise ConfigError("predict needs one of --input FILE, for new data, and --prompt TEXT.")
    if arguments.prompt is None and arguments.samples != 1:
        raise ConfigError("--samples: goes with --prompt.")
    wrong = [name for name in _OF_FILES if getattr(arguments, name)]
    if arguments.prompt is not None and wrong:
        raise ConfigError(
            f"--{wrong[0].replace('_', '-')}: goes with --input. What follows a prompt is printed."
        )
