"""Proves what is promised of a run: ends it by force, damages what it wrote, and counts what survived.

    python scripts/prove_reliability.py                # everything: about an hour on two cores
    python scripts/prove_reliability.py --only kills   # one line
    python scripts/prove_reliability.py --share 0.1    # a tenth of the tries

The tests in tests/faults are a quick form of the same. It ends with status 1 where anything was lost. A
full disk needs root, since a small one is mounted; without it that line says so.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import count, islice, product
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.faults import (
    damage,
    every_step,
    foreign,
    fuzz,
    interruptions,
    kills,
    power,
    streams,
    trials,
)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
ANOTHER_FILE_SYSTEM = Path("/dev/shm")


class Tally(NamedTuple):
    """What a line of the table says.

    Attributes:
        promise: what is promised.
        tries: how often it was put to the test.
        faults: what went wrong, in words: one for each try that did not survive, unless `lost` counts
            them.
        note: what else is to be known.
    """

    promise: str
    tries: int
    faults: list[str]
    note: str = ""
    lost: int | None = None


class Prover:
    """Makes each line.

    Args:
        folder: an empty one, for all runs.
        share: of the tries that make the whole proof.
    """

    def __init__(self, folder: Path, share: float) -> None:
        self._folders: Iterator[Path] = (folder / str(number) for number in count())
        self._share = share
        self._expected = trials.whole(next(self._folders), *trials.RECIPE)

    def _tries(self, whole: int) -> int:
        return max(1, round(whole * self._share))

    def kills(self, tries: int = 200, **more: object) -> Tally:
        wanted, done, inside, lost, faults = self._tries(tries), 0, 0, 0, []
        for seed in count():
            if done >= wanted:
                break
            result = kills.kill_and_go_on(
                next(self._folders), self._expected, min(5, wanted - done), seed, **more
            )
            done, inside = done + result.kills, inside + result.inside
            lost += result.kills if result.faults else 0  # which of them it was is not known
            faults += [f"seed {seed}: {result.faults}"] if result.faults else []
        note = f"{inside} of them left a checkpoint unfinished"
        return Tally("kill -9 at any moment: goes on, ends the same", done, faults, note, lost)

    def elsewhere(self) -> Tally:
        if not ANOTHER_FILE_SYSTEM.is_dir():
            return Tally("kill -9, temporary files elsewhere", 0, [], f"no {ANOTHER_FILE_SYSTEM} here")
        tally = self.kills(50, environment={"TMPDIR": str(ANOTHER_FILE_SYSTEM)})
        return tally._replace(promise="kill -9, TMPDIR on another file system")

    def power(self) -> Tally:
        promise = "the power is cut: the record and all that was saved are there, ends the same"
        done, lost, faults, left_out = 0, 0, [], []
        for kind in power.SIZES:
            wanted, seeds = done + self._tries(15), count()
            try:
                while done < wanted:
                    moments = list(islice(seeds, min(5, wanted - done)))
                    result = power.cut_and_go_on(next(self._folders), kind, self._expected, moments)
                    done += result.cuts
                    lost += result.cuts if result.faults else 0
                    faults += result.faults
            except PermissionError as error:
                left_out.append(f"not {kind}: {error}")
        tried = [kind for kind in power.SIZES if not any(f"not {kind}" in words for words in left_out)]
        note = "; ".join([f"on {', '.join(tried) or 'nothing'}", *left_out])
        return Tally(promise, done, faults, note, lost)

    def foreign(self) -> Tally:
        faults, tries = [], 0
        for name, kind in product(list(foreign.FILES)[: self._tries(9)], ("run", "sweep")):
            tries, told = tries + 1, foreign.refused(next(self._folders), name, kind)
            faults += [str(told)] if told else []
        for name, kind in product(foreign.COPIES[: self._tries(7)], ("best", "last")):
            folder = next(self._folders)
            tries, told = tries + 1, foreign.left_alone(folder, name, self._expected, kind)
            faults += [str(told)] if told else []
        return Tally("a user's files where a run writes: refused, or left alone", tries, faults)

    def bytes(self) -> Tally:
        tries = self._tries(100)
        faults = self._damaged([("flip", seed) for seed in range(tries)])
        return Tally("one byte of the newest checkpoint changed: the one before", tries, faults)

    def files(self) -> Tally:
        cases = list(product(damage.KINDS[1:], range(self._tries(4))))
        return Tally("a file of it cut off or missing: the one before", len(cases), self._damaged(cases))

    def _damaged(self, cases: list[tuple[str, int]]) -> list[str]:
        stopped = damage.stopped_run(next(self._folders))
        told = [
            damage.go_on_damaged(stopped, next(self._folders), self._expected, *case) for case in cases
        ]
        return [str(faults) for faults in told if faults]

    def signals(self) -> Tally:
        chance, cases = random.Random(0), []
        for number, phase in product(SIGNALS, interruptions.PHASES):
            times = 4 if phase == "start" else 3
            cases += [(number, phase)] * self._tries(times)
        cases.append((signal.SIGTERM, "training"))
        faults = []
        for number, phase in cases:
            wait = chance.random() * 2 if phase == "start" else 0.0
            folder = next(self._folders)
            told = interruptions.interrupt(folder, self._expected, number, phase, wait)
            faults += [f"{number.name} in {phase} after {wait:.2f} s: {told}"] if told else []
        return Tally("SIGTERM, SIGINT, SIGHUP, SIGUSR1 at any time: saved, gone on", len(cases), faults)

    def twice(self) -> Tally:
        cases = [signal.SIGTERM, signal.SIGINT] * self._tries(5)
        told = [interruptions.leave_at_once(next(self._folders), number) for number in cases]
        return Tally("a second signal leaves at once", len(cases), [str(t) for t in told if t])

    def terminals(self) -> Tally:
        cases = [False, True] * self._tries(5)
        told = [
            interruptions.hang_up(next(self._folders), self._expected, ignored=ignored)
            for ignored in cases
        ]
        promise = "the terminal is closed: saved, gone on; under nohup it trains on"
        return Tally(promise, len(cases), [str(t) for t in told if t])

    def streams(self) -> Tally:
        cases = list(streams.REDIRECTIONS) * self._tries(2)
        told = [streams.train(next(self._folders), redirected) for redirected in cases]
        promise = "closed, full or unread streams: trained to the end, status 0"
        return Tally(promise, len(cases), [str(t) for t in told if t])

    def disks(self) -> Tally:
        faults, tries = [], self._tries(10)
        for number in range(tries):
            try:
                with damage.small_disk(next(self._folders)) as disk:
                    told = damage.fill_the_disk(disk, self._expected, after=2 + 2 * number)
            except PermissionError as error:
                return Tally("a full disk: the old one stays, gone on", number, faults, str(error))
            faults += [str(told)] if told else []
        return Tally("a full disk: the old checkpoint stays, gone on", tries, faults)

    def steps(self) -> Tally:
        tries, faults = 0, []
        for name, changes in every_step.VARIANTS.items():
            folder = next(self._folders)
            kept = every_step.checkpoints_of(folder, changes)
            wrong = every_step.differing(folder, changes, kept[: self._tries(len(kept))])
            tries += self._tries(len(kept))
            faults += [f"{name}: from {path}" for path in wrong]
        changes = every_step.VARIANTS["accumulation"]
        whole = next(self._folders)
        every_step.checkpoints_of(whole, changes)
        pieces = every_step.checkpoints_of(next(self._folders), changes, pieces=True)
        faults += [f"accumulation: from {path}" for path in every_step.differing(whole, changes, pieces)]
        note = f"{len(every_step.VARIANTS)} ways to train"
        return Tally("going on from every step of two epochs", tries + len(pieces), faults, note)

    def folders(self) -> Tally:
        folder = next(self._folders)
        folder.mkdir()
        faults = trials.launch_at_once(folder, 8, "debug=fast", "device=cpu", "device.threads=1")
        return Tally("launched in the same moment: a folder each", 8, faults)

    def fuzz(self) -> Tally:
        tries = self._tries(500)
        faults, ends = fuzz.many(tries)
        return Tally("odd configurations: trained or told in a message", tries, faults, ends)


LINES = (
    "kills",
    "elsewhere",
    "power",
    "foreign",
    "bytes",
    "files",
    "signals",
    "twice",
    "terminals",
    "streams",
    "disks",
    "steps",
    "folders",
    "fuzz",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=LINES, help="one line instead of all")
    parser.add_argument("--share", type=float, default=1.0, help="of the tries, 0 to 1")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    failed = False
    print("| promise | tries | survived | |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        prover = Prover(Path(folder), options.share)
        for name in [options.only] if options.only else LINES:
            line: Callable[[], Tally] = getattr(prover, name)
            began = time.monotonic()
            with contextlib.redirect_stdout(io.StringIO()):  # what runs in this process prints
                tally = line()
            seconds = f"{time.monotonic() - began:.0f} s"
            survived = tally.tries - (len(tally.faults) if tally.lost is None else tally.lost)
            note = "; ".join(filter(None, [tally.note, seconds]))
            print(f"| {tally.promise} | {tally.tries} | {survived} | {note} |", flush=True)
            for fault in tally.faults:
                failed = True
                print(fault, file=sys.stderr, flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
