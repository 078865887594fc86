"""`bigmodel report`: runs on one page, or their figures as pictures."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from bigmodel.cli.commands.output_files import (
    check_kind,
    check_place,
    file_stem,
    make_folder,
    write_bytes,
)
from bigmodel.cli.messages import note
from bigmodel.errors import ConfigError, counted, require
from bigmodel.reporting.formatting import shown_path
from bigmodel.runtime.progress_messages import report_progress

MOST_RUNS = 12
_EXHIBITS = 24  # mistakes that are shown of one run; of several, so many in all, but four of each


def run(arguments: Namespace) -> None:
    """Gathers what is known of the runs, and writes it."""
    output, pictures = _targets(arguments)
    # Torch is only needed from here on.
    from bigmodel.cli.commands.reports.single import report_run
    from bigmodel.cli.commands.reports.together import together
    from bigmodel.reporting.report.content import charts_of
    from bigmodel.reporting.report.page import page

    texts = list({Path(text).expanduser().resolve(): text for text in arguments.runs}.values())
    if len(texts) > MOST_RUNS:
        raise ConfigError(
            f"report shows at most {MOST_RUNS} runs, but there are {len(texts)}. bigmodel compare ranks"
            " any number."
        )
    exhibits = max(4, _EXHIBITS // len(texts))
    gathered = []
    for text, name in zip(texts, distinct_names(texts), strict=True):
        with report_progress(f"Reporting on {name}"):
            gathered.append(report_run(text, name, arguments, exhibits))
    reports = [report for report, _ in gathered]
    shared = together([(report.name, files) for report, files in gathered]) if len(texts) > 1 else []
    if output is not None:
        write_bytes(page(reports, shared).encode(errors="replace"), output)
        note(f"Wrote {shown_path(output)}")
    if pictures is not None:
        from bigmodel.reporting.report.raster import png_of_drawing

        parts = [("", shared)] if shared else []
        parts += [
            (f"{n}-" if len(reports) > 1 else "", each.sections) for n, each in enumerate(reports, 1)
        ]
        drawn = [
            (f"{prefix}{chart.name}", chart.drawing) for prefix, s in parts for chart in charts_of(s)
        ]
        make_folder(pictures)
        for name, drawing in drawn:
            write_bytes(png_of_drawing(drawing), pictures / f"{file_stem(name)}.png")
        note(f"Wrote {counted(len(drawn), 'picture')} to {shown_path(pictures)}")


def distinct_names(folders: Sequence[str]) -> list[str]:
    """The ends of paths, of at least two folders, that tell them apart: `2026-11-23/10-15-02`."""
    parts = [Path(folder).expanduser().resolve().parts for folder in folders]
    for length in range(2, max(map(len, parts)) + 1):
        ends = ["/".join(each[-length:]) for each in parts]
        if len(set(ends)) == len(ends):
            return ends
    return ["/".join(each) for each in parts]


def _targets(arguments: Namespace) -> tuple[Path | None, Path | None]:
    """The page and the folder to write; what cannot be written is refused before anything is read."""
    if arguments.output is None and arguments.png is None:
        raise ConfigError("report needs --output FILE, for a page, or --png FOLDER, for its figures.")
    output = pictures = None
    if arguments.output is not None:
        output = Path(arguments.output).expanduser()
        check_kind(output, [".html"])
        check_place(output, force=arguments.force)
    if arguments.png is not None:
        require("PIL", "bigmodel report --png")
        pictures = Path(arguments.png).expanduser()
        if pictures.is_dir():
            if any(pictures.iterdir()) and not arguments.force:
                raise ConfigError(
                    f"--png {pictures}: the folder is not empty. Name a new one, or add --force to"
                    " replace pictures in it."
                )
        else:
            check_place(pictures, force=False, option="--png")
    return output, pictures
