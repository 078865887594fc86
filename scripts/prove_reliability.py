"""Tests what is promised of a run: ends it by force, damages what it wrote, and counts what survives.

    python scripts/prove_reliability.py                # everything: about an hour on two cores
    python scripts/prove_reliability.py --only kills   # one row
    python scripts/prove_reliability.py --share 0.1    # a tenth of the tries
    python scripts/prove_reliability.py --keep         # keeps the results in scripts/results
    python scripts/prove_reliability.py --docs         # puts the kept results into docs/promises.md

The tests in tests/faults are a quick form of the same. It ends with status 1 if anything was lost. Full
disks and power cuts need root, since small disks are mounted; without it those rows say so.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import platform
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice, product
from pathlib import Path
from typing import Any

import torch
from benchmarks.figures import machine
from marks import replace_between

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.faults import (  # noqa: E402
    damage,
    every_step,
    foreign,
    fuzz,
    interruptions,
    kills,
    power,
    rank_kills,
    streams,
    sweep_kills,
    trials,
)

RESULTS = ROOT / "scripts" / "results" / "reliability.json"
PAGE = ROOT / "docs" / "promises.md"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
SWEEP = ("optimizer.lr=0.03,0.01,0.003,0.001", "seed=range(16)")
"""The grid of the sweep that is killed."""

ANOTHER_FILE_SYSTEM = Path("/dev/shm")


@dataclass
class Row:
    """One row of the table.

    Attributes:
        promise: what is promised.
        tries: how often it was tested.
        lost: how many tries did not survive.
        faults: what went wrong, in words; a try may have several.
        cases: how many tries there were of each kind.
        note: what else a reader should know.
    """

    promise: str
    tries: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)
    cases: dict[str, int] = field(default_factory=dict)
    note: str = ""

    def add(self, case: str, faults: list[str], tries: int = 1) -> None:
        """Counts tries of a kind.

        Args:
            faults: what went wrong, in words; if any did, all of these tries count as lost.
        """
        self.tries += tries
        self.cases[case] = self.cases.get(case, 0) + tries
        if faults:
            self.lost += tries
            self.faults += [f"{case}: {fault}" for fault in faults]


class Prover:
    """Fills each row.

    Args:
        folder: an empty one, for all runs.
        share: of the tries that make the whole proof.
    """

    def __init__(self, folder: Path, share: float) -> None:
        self._folders: Iterator[Path] = (folder / str(number) for number in count())
        self._share = share
        self._expected = trials.run_uninterrupted(next(self._folders), *trials.RECIPE)

    def _tries(self, whole: int) -> int:
        return max(1, round(whole * self._share))

    def kills(self) -> Row:
        return self._killed(Row("kill -9 at any moment: continues, ends the same"), self._tries(200))

    def elsewhere(self) -> Row:
        row = Row("kill -9, TMPDIR on another file system")
        if not ANOTHER_FILE_SYSTEM.is_dir():
            row.note = f"no {ANOTHER_FILE_SYSTEM} here"
            return row
        return self._killed(row, self._tries(50), environment={"TMPDIR": str(ANOTHER_FILE_SYSTEM)})

    def _killed(self, row: Row, wanted: int, **options: Any) -> Row:
        unfinished = 0
        for seed in count():
            if row.tries >= wanted:
                break
            at_most = min(5, wanted - row.tries)
            result = kills.kill_and_resume(next(self._folders), self._expected, at_most, seed, **options)
            unfinished += result.inside
            # Which of the kills did the damage is not known, so all of a run's kills count as lost.
            row.add(f"seed {seed}", result.faults, result.kills)
        row.note = f"{unfinished} of them left a checkpoint unfinished"
        return row

    def sweeps(self) -> Row:
        row = Row("kill -9 of a sweep of 64 jobs and all its processes: the same table, no job twice")
        wanted = self._tries(10)
        expected = sweep_kills.run_uninterrupted(next(self._folders), *SWEEP)
        for seed in count():
            if row.tries >= wanted:
                break
            result = sweep_kills.kill_and_resume(
                next(self._folders), expected, SWEEP, wanted - row.tries, seed
            )
            row.add(f"seed {seed}", result.faults, result.kills)
        return row

    def ranks(self) -> Row:
        row = Row("kill -9 of one of two ranks: all start again, ends the same")
        for way, words in rank_kills.WAYS.items():
            expected = trials.run_uninterrupted(next(self._folders), *rank_kills.RECIPE, *words)
            for place, seed in product(rank_kills.PLACES, range(self._tries(10))):
                faults = rank_kills.kill(next(self._folders), expected, place, seed, *words)
                row.add(f"{way}, {place}", faults)
        return row

    def power(self) -> Row:
        row = Row("the power is cut: the record and all that was saved are there, ends the same")
        left_out = []
        for kind in power.SIZES:
            wanted, seeds = row.tries + self._tries(15), count()
            try:
                while row.tries < wanted:
                    moments = list(islice(seeds, min(5, wanted - row.tries)))
                    result = power.cut_and_resume(next(self._folders), kind, self._expected, moments)
                    row.add(kind, result.faults, result.cuts)
            except PermissionError as error:
                left_out.append(f"not {kind}: {error}")
        row.note = "; ".join([f"on {', '.join(row.cases) or 'nothing'}", *left_out])
        return row

    def foreign(self) -> Row:
        row = Row("a user's files where a run writes: refused, or left alone")
        for name, kind in product(list(foreign.FILES)[: self._tries(9)], ("run", "sweep")):
            row.add(
                f"{name} in the folder of a {kind}", foreign.refused(next(self._folders), name, kind)
            )
        for name, kind in product(foreign.COPIES[: self._tries(7)], ("best", "last")):
            faults = foreign.left_alone(next(self._folders), name, self._expected, kind)
            row.add(f"{name} beside {kind}", faults)
        return row

    def bytes(self) -> Row:
        row = Row("one byte of the newest checkpoint changed: the one before is used")
        return self._damaged(row, [("flip", seed) for seed in range(self._tries(100))])

    def files(self) -> Row:
        row = Row("a file of it cut off or missing: the one before is used")
        return self._damaged(row, list(product(damage.KINDS[1:], range(self._tries(4)))))

    def _damaged(self, row: Row, cases: list[tuple[str, int]]) -> Row:
        stopped = damage.stopped_run(next(self._folders))
        for kind, seed in cases:
            faults = damage.resume_damaged(stopped, next(self._folders), self._expected, kind, seed)
            row.add(kind, faults)
        return row

    def signals(self) -> Row:
        row, chance = (
            Row("SIGTERM, SIGINT, SIGHUP, SIGUSR1 at any time: saved, continued"),
            random.Random(0),
        )
        for number, phase in product(SIGNALS, interruptions.PHASES):
            for _ in range(self._tries(4)):
                wait = chance.random() * 2 if phase == "start" else 0.0
                folder = next(self._folders)
                faults = interruptions.interrupt(folder, self._expected, number, phase, wait)
                row.add(f"{number.name} in {phase}", faults)
        return row

    def twice(self) -> Row:
        row = Row("a second signal exits at once")
        for number in [signal.SIGTERM, signal.SIGINT] * self._tries(5):
            row.add(number.name, interruptions.leave_at_once(next(self._folders), number))
        return row

    def terminals(self) -> Row:
        row = Row("the terminal is closed: saved, continued; under nohup it trains on")
        for ignored in [False, True] * self._tries(5):
            faults = interruptions.hang_up(next(self._folders), self._expected, ignored=ignored)
            row.add("nohup" if ignored else "terminal", faults)
        return row

    def streams(self) -> Row:
        row = Row("closed, full or unread streams: trained to the end, status 0")
        for redirected in list(streams.REDIRECTIONS) * self._tries(2):
            row.add(redirected, streams.train(next(self._folders), redirected))
        return row

    def disks(self) -> Row:
        row = Row("a full disk: the old checkpoint stays, continued")
        for number in range(self._tries(10)):
            try:
                with damage.small_disk(next(self._folders)) as disk:
                    after = 2 + 2 * number
                    row.add(
                        f"after step {after}", damage.fill_the_disk(disk, self._expected, after=after)
                    )
            except PermissionError as error:
                row.note = str(error)
                break
        return row

    def steps(self) -> Row:
        row = Row("resumed from every step of two epochs")
        for way, changes in every_step.VARIANTS.items():
            self._resumed(row, way, changes)
        accumulation = "accumulation, between two batches"
        self._resumed(row, accumulation, every_step.VARIANTS["accumulation"], pieces=True)
        row.note = f"{len(every_step.VARIANTS)} ways to train"
        return row

    def _resumed(self, row: Row, way: str, changes: dict[str, Any], pieces: bool = False) -> None:
        """Resumes from the checkpoints of a run; of a share of them, evenly spread over the run."""
        whole = folder = next(self._folders)
        kept = every_step.checkpoints_of(folder, changes)
        if pieces:
            folder = next(self._folders)
            kept = every_step.checkpoints_of(folder, changes, pieces=True)
        if not kept:
            row.add(way, ["no checkpoint was taken"])
            return
        tries = self._tries(len(kept))
        for number in range(tries):
            path = kept[number * len(kept) // tries]
            wrong = every_step.differing(whole, changes, [path])
            row.add(way, [f"from {path}: another end" for _ in wrong])

    def folders(self) -> Row:
        row, folder = Row("launched in the same moment: a folder each"), next(self._folders)
        folder.mkdir()
        faults = trials.launch_at_once(folder, 8, "debug=fast", "device=cpu", "device.threads=1")
        row.add("at once", faults, tries=8)
        return row

    def fuzz(self) -> Row:
        tries = self._tries(500)
        faults, ends = fuzz.many(tries)
        promise = "odd configurations: trained, or refused with a message"
        return Row(promise, tries, len(faults), faults, note=ends)


ROWS = (
    *("kills", "elsewhere", "sweeps", "ranks", "power", "foreign", "bytes", "files", "signals", "twice"),
    *("terminals", "streams", "disks", "steps", "folders", "fuzz"),
)


def measure(prover: Prover, name: str, share: float) -> dict[str, Any]:
    """One row as it is kept."""
    fill: Callable[[], Row] = getattr(prover, name)
    began = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):  # what runs in this process prints
        row = fill()
    return {
        **vars(row),
        "share": share,
        "seconds": round(time.monotonic() - began),
        "date": datetime.date.today().isoformat(),
        "machine": machine("cpu"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def keep(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Writes rows to a file, beside those that are there already."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = known | rows
    ordered = {name: found[name] for name in ROWS if name in found}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


HEAD = "| promise | tries | survived | |\n|---|---|---|---|"


def table_row(row: dict[str, Any]) -> str:
    """A row as Markdown."""
    note = "; ".join(filter(None, [row["note"], f"{row['seconds']} s"]))
    return f"| {row['promise']} | {row['tries']} | {row['tries'] - row['lost']} | {note} |"


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The table, and below it how, when and on what each row was measured."""
    groups: dict[str, list[str]] = {}
    for name, row in rows.items():
        machine = f"{row['machine']['cpu']}, {row['machine']['cores']} cores"
        versions = ", ".join(f"{package} {number}" for package, number in row["versions"].items())
        share = "all tries" if row["share"] == 1 else f"{row['share']:g} of the tries"
        groups.setdefault(f"{share}; {machine}; {versions}; {row['date']}", []).append(name)
    named = len(groups) > 1
    foot = [f"- {', '.join(names)}: {how}." if named else f"- {how}." for how, names in groups.items()]
    return "\n".join([HEAD, *map(table_row, rows.values()), "", *foot])


def update(page: Path, path: Path) -> None:
    """Replaces the table of a page by one of the rows that are kept."""
    replace_between(page, "reliability", markdown(json.loads(path.read_text(encoding="utf-8"))))


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--only", choices=ROWS, nargs="+", default=ROWS, help="some rows")
    options.add_argument("--share", type=float, default=1.0, help="of the tries, 0 to 1")
    options.add_argument("--keep", action="store_true", help="keep the results in scripts/results")
    options.add_argument("--docs", action="store_true", help="update the table in docs/promises.md")
    return options


def main() -> None:
    options = parser().parse_args()
    if options.docs and not options.keep:
        update(PAGE, RESULTS)
        return
    warnings.simplefilter("ignore")
    failed = False
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        prover = Prover(Path(folder), options.share)
        for name in options.only:
            row = measure(prover, name, options.share)
            print(table_row(row), flush=True)
            for fault in row["faults"]:
                failed = True
                print(fault, file=sys.stderr, flush=True)
            if options.keep:  # after each row: what was measured is not lost
                keep(RESULTS, {name: row})
    if options.docs:
        update(PAGE, RESULTS)
    sys.exit(failed)


if __name__ == "__main__":
    main()
