"""`bigmodel explain`: why a run's model says what it says."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from bigmodel.cli.commands.output_files import check_place
from bigmodel.cli.messages import note


def run(arguments: Namespace) -> None:
    """Explains, and writes or prints what was found."""
    output = None if arguments.output in (None, "-") else Path(arguments.output).expanduser()
    if output is not None:
        check_place(output, force=arguments.force)
    # Torch is only needed from here on.
    from bigmodel.cli.commands.explain_output import check_output, write_result
    from bigmodel.cli.commands.explain_subject import explained_part, subject_of
    from bigmodel.cli.commands.loaded_run import load_run
    from bigmodel.explain.methods import method_named
    from bigmodel.explain.names import default_method
    from bigmodel.explain.subject import Options

    loaded = load_run(arguments.run, arguments.weights, arguments.device, arguments.plugins, note)
    spec = loaded.preprocessing.spec
    name = arguments.method or default_method(spec.input, spec.target, summary=output is None)
    method = method_named(name, spec)
    if output is not None:
        check_output(output, name)
    part = explained_part(loaded, arguments, needs_targets=method.needs_targets)
    subject = subject_of(loaded, part, arguments.class_name, samples=arguments.samples)
    result = method.explain(subject, Options(seed=arguments.seed, repeats=arguments.repeats))
    write_result(result, subject, part, output)
