"""`bigmodel explain`: why a run's model says what it says."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import cast

from bigmodel.cli.messages import note
from bigmodel.errors import ConfigError, counted, require


def run(arguments: Namespace) -> None:
    """Explains, and writes or prints what was found."""
    if arguments.prompt is not None and arguments.data is not None:
        raise ConfigError("explain takes one of --data FILE and --prompt TEXT.")
    printed = arguments.output in (None, "-")
    output = None if printed else Path(arguments.output).expanduser()
    # Torch is only needed from here on.
    from bigmodel.cli.commands.explanations.output import (
        check_output,
        columns_of,
        most_drawn,
        pictures_of,
        show_in_tensorboard,
        write_result,
    )
    from bigmodel.cli.commands.explanations.prompt import prompt_part
    from bigmodel.cli.commands.explanations.subject import explained_part, subject_of
    from bigmodel.cli.commands.explanations.summary import check_printable, notes_of, print_summary
    from bigmodel.cli.commands.explanations.texts import (
        check_text_output,
        is_of_texts,
        text_pictures,
        write_text_result,
    )
    from bigmodel.cli.commands.loaded_run import load_run, loading
    from bigmodel.cli.commands.output_files import write_columns
    from bigmodel.cli.commands.predictions.rows import check_defined
    from bigmodel.explain.methods import method_named, usual_samples
    from bigmodel.explain.names import default_method
    from bigmodel.explain.results import Attributions, Result, TextResult
    from bigmodel.explain.subject import Options
    from bigmodel.spec import Features

    loaded = load_run(arguments.run, *loading(arguments))
    spec = loaded.preprocessing.spec
    part = None if arguments.prompt is None else prompt_part(loaded, arguments.prompt, note)
    summary = arguments.output is None
    name = arguments.method or default_method(spec.input, spec.target, summary=summary)
    method = method_named(name, spec)
    of_texts = is_of_texts(name, spec.input)
    of_columns = isinstance(spec.input, Features) and not of_texts
    if arguments.tensorboard:
        require("PIL", "bigmodel explain --tensorboard")
    if output is None and not of_texts and not arguments.tensorboard:
        check_printable(spec)
    elif output is not None and of_texts:
        check_text_output(output, name, force=arguments.force)
    elif output is not None:
        check_output(output, name, spec, force=arguments.force)
    if part is None:
        part = explained_part(loaded, arguments, needs_targets=method.needs_targets)
    samples = arguments.samples or usual_samples(method, spec)
    if samples is None and not of_texts:
        samples = most_drawn(output, spec)
    if samples is not None and samples < len(part.part) and arguments.samples is None:
        which = "the first" if samples == 1 else f"the first {samples}"
        note(f"Only {which} of {len(part.part):,} samples; --samples N takes more.")
    subject = subject_of(loaded, part, arguments.class_name, samples=samples)
    began = time.perf_counter()
    found = method.explain(subject, Options(seed=arguments.seed, repeats=arguments.repeats))
    seconds = time.perf_counter() - began
    if arguments.tensorboard:
        if of_texts:
            pictures = text_pictures(cast(TextResult, found), subject)
        else:
            pictures = pictures_of(cast(Result, found), subject, part, arguments.samples)
        show_in_tensorboard(pictures, loaded, name)
    if summary and of_columns:
        print_summary(loaded, cast(Result, found), subject, part)
        return
    for line in notes_of(found, subject):
        note(line)
    if of_texts:
        write_text_result(cast(TextResult, found), subject, part, output, loaded.name)
    elif output is not None:
        write_result(cast(Result, found), subject, part, output)
    elif of_columns:  # pictures are in TensorBoard alone
        write_columns(columns_of(cast(Result, found), subject, part), None)
    if output is not None:
        note(f"{counted(len(subject), 'sample')} of {part.source} in {seconds:.2f} s: {output}")
    if isinstance(found, Attributions) and found.baseline:  # else there are no scores
        check_defined(int(found.scores.isnan().sum()), len(subject), "samples")
