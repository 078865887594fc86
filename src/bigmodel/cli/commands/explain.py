"""`bigmodel explain`: why a run's model says what it says."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

from bigmodel.cli.messages import note
from bigmodel.errors import counted


def run(arguments: Namespace) -> None:
    """Explains, and writes or prints what was found."""
    printed = arguments.output in (None, "-")
    output = None if printed else Path(arguments.output).expanduser()
    # Torch is only needed from here on.
    from bigmodel.cli.commands.explain_output import check_output, columns_of, write_result
    from bigmodel.cli.commands.explain_subject import explained_part, subject_of
    from bigmodel.cli.commands.explain_summary import check_printable, notes_of, print_summary
    from bigmodel.cli.commands.loaded_run import load_run
    from bigmodel.cli.commands.output_files import write_columns
    from bigmodel.explain.methods import method_named
    from bigmodel.explain.names import default_method
    from bigmodel.explain.subject import Options

    loaded = load_run(arguments.run, arguments.weights, arguments.device, arguments.plugins, note)
    spec = loaded.preprocessing.spec
    summary = arguments.output is None
    name = arguments.method or default_method(spec.input, spec.target, summary=summary)
    method = method_named(name, spec)
    if output is None:
        check_printable(spec)
    else:
        check_output(output, name, spec, force=arguments.force)
    part = explained_part(loaded, arguments, needs_targets=method.needs_targets)
    subject = subject_of(loaded, part, arguments.class_name, samples=arguments.samples)
    began = time.perf_counter()
    result = method.explain(subject, Options(seed=arguments.seed, repeats=arguments.repeats))
    seconds = time.perf_counter() - began
    if summary:
        print_summary(loaded, result, subject, part)
        return
    for line in notes_of(result, subject):
        note(line)
    if output is None:
        write_columns(columns_of(result, subject, part), None)
    else:
        write_result(result, subject, part, output)
        note(f"{counted(len(subject), 'sample')} of {part.source} in {seconds:.2f} s: {output}")
