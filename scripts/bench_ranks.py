"""Measures how much faster more ranks train: 1, 2, 4 and 8 GPUs, or ranks on a CPU with a thread each.

    python scripts/bench_ranks.py                  # GPUs if there are any, else the processor
    python scripts/bench_ranks.py --ranks 1 2 --rounds 5
    python scripts/bench_ranks.py --grow           # a batch for each rank, not one for all
    python scripts/bench_ranks.py --set device.parallel.shard={ranks}
    python scripts/bench_ranks.py --set device.parallel.replicate={ranks/2} device.parallel.shard=2
    python scripts/bench_ranks.py --docs           # puts the kept results into docs/distributed.md

It has not run on GPUs yet.

Each run is the command with its reports, on this machine: GPT-2 124M in bf16 on GPUs, a character model
of 0.8 million parameters on a processor, both on random text. Without settings, each rank has a copy of
the model. In settings, `{ranks}` stands for the number of ranks, and `{ranks/2}` for half of it. All
steps run eagerly, those of one rank too. In a round, all numbers of ranks run in turns. The speed of a
run is the median of its records without the first, which has the start in it. Efficiency is, within a
round, the speed of a rank over what it is with the fewest ranks. Memory is that of the largest process,
or on GPUs what the run records (`memory_gib`). Raw results are kept in scripts/results/ranks.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import figures, peers
from benchmarks.hosts import Setting
from benchmarks.works import WORKS, Work
from marks import replace_between

RESULTS = peers.ROOT / "scripts" / "results" / "ranks"
PAGE = peers.ROOT / "docs" / "distributed.md"
COUNTS = (1, 2, 4, 8)
EAGER = "device.engine=eager"
"""What several ranks do anyway."""

SPEEDS = ("samples_per_second", "tokens_per_second")
Run = dict[str, Any]


def filled(settings: Iterable[str], ranks: int) -> list[str]:
    """Settings, with the number of ranks where they say `{ranks}`, and a part of it for `{ranks/2}`.

    Raises:
        ValueError: the number cannot be divided so.
    """

    def number(found: re.Match[str]) -> str:
        parts = int(found[1] or 1)
        if not parts or ranks % parts:
            raise ValueError(f"--set {found.string}: {ranks} ranks cannot be divided so")
        return str(ranks // parts)

    return [re.sub(r"\{ranks(?:/(\d+))?\}", number, setting) for setting in settings]


def run(setting: Setting, work: Work, ranks: int, words: Sequence[str]) -> Run:
    """Trains on so many ranks; speeds and memory, with the records that they are from."""
    with tempfile.TemporaryDirectory(dir=setting.folder) as name:
        folder = Path(name)
        log = folder / "log.txt"
        arguments = [*work.arguments(), EAGER, f"device.ranks={ranks}", *words]
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "bigmodel", *arguments, f"hydra.run.dir={folder / 'run'}"],
                stdout=output,
                stderr=output,
                cwd=folder,
                env=setting.environment("ours", setting.folder / "caches"),
            )
            _, status, usage = os.wait4(process.pid, 0)  # its memory, and that of its ranks
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said = log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]
            sys.exit(f"The run failed: {' '.join(arguments)}\n{said}")
        lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if SPEEDS[0] in record]
    unit = 1 if sys.platform == "darwin" else 1024
    return measured(records, usage.ru_maxrss * unit / 2**30)


def measured(records: list[dict[str, Any]], process_gib: float) -> Run:
    """Speeds and memory of a run.

    Args:
        records: those that have a speed, in order.
        process_gib: of the largest process.
    """
    steady = records[1:] or records
    speeds = {key: statistics.median(record[key] for record in steady) for key in SPEEDS}
    memory = max((record["memory_gib"] for record in records if "memory_gib" in record), default=None)
    raw = [{key: record[key] for key in ("step", *SPEEDS)} for record in records]
    return {**speeds, "memory_gib": process_gib if memory is None else memory, "records": raw}


def efficiencies(rounds: Sequence[dict[int, Run]], ranks: int) -> list[float]:
    """Share of the linear speed-up over the fewest ranks, in each round."""
    fewest = min(rounds[0])
    return [found[ranks][SPEEDS[0]] / found[fewest][SPEEDS[0]] * fewest / ranks for found in rounds]


def spread(values: Sequence[float], digits: int = 0, unit: str = "") -> str:
    """Median and, of several values, their range."""
    low, middle, high = (f"{of(values):,.{digits}f}" for of in (min, statistics.median, max))
    return f"{middle}{unit}" + (f" ({low} to {high})" if len(values) > 1 else "")


HEAD = (
    "| | ranks | samples a second | tokens a second | efficiency | GiB of the largest rank |"
    "\n|---|---|---|---|---|---|"
)


def rows(result: dict[str, Any]) -> list[str]:
    """The table's rows of one strategy."""
    rounds = [{int(ranks): run for ranks, run in found.items()} for found in result["rounds"]]
    lines = []
    for ranks in rounds[0]:
        samples, tokens, memory = (
            [found[ranks][key] for found in rounds] for key in (*SPEEDS, "memory_gib")
        )
        shares = [100 * share for share in efficiencies(rounds, ranks)]
        cells = (
            *(result["title"], str(ranks), spread(samples), spread(tokens)),
            *(spread(shares, unit=" %"), spread(memory, digits=2)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def markdown(results: Iterable[dict[str, Any]]) -> str:
    """The table, and below it how, when and on what it was measured."""
    found = list(results)
    if not found:
        return "No results are kept yet."
    notes = dict.fromkeys(
        f"- {result['work']}; {result['machine'].get('gpu', result['machine']['cpu'])},"
        f" {result['machine']['cores']} cores; torch {result['versions']['torch']};"
        f" {len(result['rounds'])} round{'s' * (len(result['rounds']) > 1)}; {result['date']}."
        for result in found
    )
    return "\n".join([HEAD, *(row for result in found for row in rows(result)), "", *notes])


def kept() -> list[dict[str, Any]]:
    """All results that are kept."""
    files = sorted(RESULTS.glob("*.json"))
    return [line for path in files for line in json.loads(path.read_text())["lines"].values()]


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--device", choices=("cpu", "cuda"), help="GPUs if there are any")
    options.add_argument("--ranks", type=int, nargs="+", metavar="N", help="1 2 4 8, if there are")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for all runs")
    options.add_argument("--grow", action="store_true", help="a batch for each rank, not one for all")
    options.add_argument("--output", type=Path, help="another file for the results")
    options.add_argument("--docs", action="store_true", help="update the table in docs/distributed.md")
    options.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)  # does it run at all?
    return options


def devices(device: str) -> int:
    """How many ranks can have a device of their own."""
    if device == "cuda":
        import torch

        return torch.cuda.device_count()
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def measure(given: argparse.Namespace, device: str, counts: Sequence[int], output: Path | None) -> None:
    """Runs all rounds; results are kept and shown after each, as what is measured is not to be lost."""
    try:
        words = {ranks: filled(given.set, ranks) for ranks in counts}
    except ValueError as error:
        sys.exit(str(error))
    title = ", ".join([*given.set, *["the batch grows"] * given.grow]) or "DDP"
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        setting = Setting(device, given.tiny, Path(name), given.rounds)
        work = WORKS["gpt2" if device == "cuda" else "text"](device, given.tiny, setting.folder)
        result: dict[str, Any] = {
            "title": title,
            "work": f"{'GPT-2 124M' if device == 'cuda' else 'character model'},"
            f" {work.batch_size} samples {'for each rank' if given.grow else 'in a batch'}",
            "rounds": [],
            "date": datetime.date.today().isoformat(),
            "machine": figures.machine(device),
            "versions": figures.versions(),
        }
        for _ in range(given.rounds):
            found = {}
            for ranks in counts:
                batch = [f"data.batch_size={work.batch_size * ranks}"] if given.grow else []
                found[ranks] = run(setting, work, ranks, [*batch, *words[ranks]])
                print(f"  {ranks} ranks: {found[ranks][SPEEDS[0]]:.1f} samples/s", file=sys.stderr)
            result["rounds"].append(found)
            if output is not None:
                figures.keep(output, device, {title: result})
    print(markdown([result]))


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    if given.docs:
        replace_between(PAGE, "ranks", markdown(kept()))
        return
    device = given.device or ("cuda" if devices("cuda") else "cpu")
    most = devices(device)
    counts = sorted(given.ranks or [count for count in COUNTS if count <= most])
    if given.rounds < 1 or not counts or counts[0] < 1:
        sys.exit(f"--rounds {given.rounds}, --ranks {' '.join(map(str, counts))}: at least 1 of each")
    if device == "cuda" and counts[-1] > most:
        sys.exit(f"--ranks {counts[-1]}: torch finds {most} GPUs here")
    output = given.output
    if output is None and not given.tiny:
        output = RESULTS / figures.file_of(device).name
    measure(given, device, counts, output)


if __name__ == "__main__":
    main()
