"""`bigmodel compare`: the jobs of sweeps and single runs, ranked."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from bigmodel.cli.commands.output_files import check_kind, check_place, write_bytes
from bigmodel.cli.messages import note
from bigmodel.errors import ConfigError, did_you_mean, join_names, require
from bigmodel.reporting.formatting import shown_path
from bigmodel.reporting.leaderboard import print_leaderboard
from bigmodel.reporting.leaderboard_csv import write_csv
from bigmodel.runtime import standard_streams
from bigmodel.sweeps.leaderboard import changed_keys, metric_names, rank
from bigmodel.sweeps.results import curve, read


def run(arguments: Namespace) -> None:
    """Ranks, prints, and writes what is asked for."""
    html, table = (_target(getattr(arguments, kind), kind, arguments.force) for kind in ("html", "csv"))
    folders = [Path(folder).expanduser() for folder in arguments.folders]
    results = read(folders)
    for key in arguments.by:
        _check_known(
            f"--by {key}", key, changed_keys(results), "the jobs do not differ in it", "They differ in"
        )
    if (metric := arguments.metric) is not None:
        _check_known(f"--metric {metric}", metric, metric_names(results), "no job has it", "There are")
    boards = rank(results, metric)
    if html is not None:
        from bigmodel.reporting.sweep_page import page

        title = ", ".join(shown_path(folder) for folder in folders)
        write_bytes(page(title, boards, curve, arguments.by).encode(errors="replace"), html)
    if table is not None:
        write_csv(boards, table, arguments.by)
    print_leaderboard(boards, by=arguments.by, top=arguments.top, path=table)
    standard_streams.check_result()
    for path in (html, table):
        if path is not None:
            note(f"Wrote {shown_path(path)}")


def _target(text: str | None, kind: str, force: bool) -> Path | None:
    """A file to write, which can be written; None if there is none."""
    if text is None:
        return None
    if kind == "html":
        require("plotly", "bigmodel compare --html")
    path = Path(text).expanduser()
    check_kind(path, [f".{kind}"], f"--{kind}")
    check_place(path, force=force, option=f"--{kind}")
    return path


def _check_known(option: str, name: str, known: Sequence[str], wrong: str, right: str) -> None:
    if name not in known:
        listed = join_names(known) if known else "none"
        raise ConfigError(f"{option}: {wrong}.{did_you_mean(name, known)} {right} {listed}.")
