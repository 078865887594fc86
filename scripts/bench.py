"""Compares speed and memory: ours, bare loops, Lightning, Transformers, JAX, Keras, scikit-learn.

    .venv/bin/python scripts/bench.py                # every line that a CPU can do, on one thread
    .venv/bin/python scripts/bench.py --device cuda  # on a GPU
    .venv/bin/python scripts/bench.py --only 1 4     # some lines; --list names them
    .venv/bin/python scripts/bench.py --docs         # puts the kept results into docs/performance.md

The sides of a line run in turns, A B A B, each in its own process. The result is the median ratio of the
pairs, with its spread. First all sides do the same steps from the same weights on the same batches, in
fp32, and must give the same losses; ours also by its compiled steps, or CUDA graphs. Ours is the command
with its defaults, in a pipe: plain lines, `metrics.jsonl`, TensorBoard and checkpoints. The steady part
of a run is compared, between its first record and its last. Whole runs, from the start of the process,
are reported too, with an empty and with a filled compile cache.

Lightning, Transformers, JAX and Keras are installed once, into .bench-peers, with the versions of
bench-constraints.txt. Results are kept in scripts/results/speed, in a file for each processor.
Fashion-MNIST is read from the folder that --data or BIGMODEL_BENCH_DATA names; without it, random
pictures of its size are used, and the table says so.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks import commands, driver, figures, hosts, peers, table
from benchmarks.lines import LINES, lines_of


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--only", nargs="+", default=[], metavar="LINE", help="these lines alone")
    options.add_argument("--pairs", type=int, default=5, help="rounds that count")
    options.add_argument("--data", type=Path, default=os.environ.get("BIGMODEL_BENCH_DATA"))
    options.add_argument("--output", type=Path, help="another file for the results")
    options.add_argument("--list", action="store_true", help="name the lines")
    options.add_argument("--docs", action="store_true", help="update the table in docs/performance.md")
    options.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)  # does it run at all?
    return options


def main() -> None:
    arguments = parser().parse_args()
    if arguments.list:
        for line in LINES:
            print(f"{line.key:8} {line.title} ({', '.join(line.devices)})")
        return
    if arguments.docs:
        table.update(peers.ROOT / "docs" / "performance.md", figures.RESULTS)
    else:
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Measures the lines that are asked for, shows them and keeps them."""
    if arguments.pairs < 1:
        sys.exit(f"--pairs {arguments.pairs}: at least one round has to count")
    if arguments.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            sys.exit("--device cuda: torch finds no CUDA device here")
    lines = lines_of(arguments.device, arguments.only, arguments.tiny)
    known = {part for line in lines for part in (line.key, line.key.split("-")[0])}
    if unknown := [key for key in arguments.only if key not in known]:
        sys.exit(f"--only {' '.join(unknown)}: no such line for {arguments.device}; see --list")
    output = arguments.output
    if output is None and not arguments.tiny:
        output = figures.file_of(arguments.device)
    results, failed = {}, []
    data = Path(arguments.data) if arguments.data else None
    with hosts.setting(arguments.device, arguments.tiny, arguments.pairs, data) as setting:
        for line in lines:
            print(f"{line.key}: {line.title}", file=sys.stderr)
            measure = driver.measure if line.work else commands.measure
            result = None
            try:
                found = measure(setting, line)
                result = results[line.key] = figures.result(setting, line, found)
                failed += [f"{line.key} ({side})" for side in found.failed]
            except hosts.BenchError as error:
                failed.append(line.key)
                print(f"{line.key}: {error}", file=sys.stderr)
            if output is not None:  # after each line: what is measured is not lost
                figures.keep(output, arguments.device, {line.key: result})
    table.show(results)
    if failed:
        sys.exit(f"There are no figures of line {', '.join(failed)}; see above.")


if __name__ == "__main__":
    main()
