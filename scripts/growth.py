"""Measures how the cost of training grows with its size, and whether faster than the work.

    python scripts/growth.py                     # all series: about a quarter of an hour
    python scripts/growth.py --only width jobs   # some; --list names them
    python scripts/growth.py --engines eager compiled
    python scripts/growth.py --bound 600         # sizes that take so many seconds, too
    python scripts/growth.py --docs              # puts the kept results into docs/performance.md

Each size is one run of the command in its own process, on one CPU thread, with an empty cache. Seconds
are those of the processor, which do not depend on what else the machine does: of a step, between a run's
own records; or of a whole run that reads data, and of a sweep. The latter, and peak memory, are above
those of a run that only starts. Exponents are fitted to the upper half of the sizes, where overhead
counts least.

Results are kept in scripts/results/growth, in a file for each processor. A size that would take longer
than the bound, by what the one before took, is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, versions
from benchmarks.hosts import Setting
from costs import page
from costs.measure import measure
from costs.series import SERIES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "scripts" / "results" / "growth"
ENGINES = ("eager", "auto", "compiled")
OWN = ("python", "torch")
"""Packages whose versions say something here."""


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    keys = [series.key for series in SERIES]
    options.add_argument("--only", nargs="+", choices=keys, default=keys, metavar="SERIES")
    options.add_argument("--engines", nargs="+", choices=ENGINES, default=["eager"])
    options.add_argument("--bound", type=float, default=90.0, help="most seconds of one size")
    options.add_argument("--output", type=Path, help="another file for the results")
    options.add_argument("--list", action="store_true", help="name the series")
    options.add_argument("--docs", action="store_true", help="update docs/performance.md")
    options.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)  # does it run at all?
    return options


def main(words: Sequence[str] | None = None) -> None:
    given = parser().parse_args(words)
    if given.list:
        for series in SERIES:
            print(f"{series.key:12} {series.title}: {', '.join(f'{size:,}' for size in series.sizes)}")
    elif given.docs:
        files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
        page.update(ROOT / "docs" / "performance.md", ROOT / ".github" / "images", files)
    else:
        run(given)


def run(given: argparse.Namespace) -> None:
    """Measures the series that are asked for, keeps them, and shows them."""
    processor = str(machine("cpu")["cpu"])
    output = given.output or RESULTS / f"{re.sub('[^a-z0-9]+', '-', processor.lower()).strip('-')}.json"
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        setting = Setting("cpu", given.tiny, Path(folder), pairs=1)
        for series in (series for series in SERIES if series.key in given.only):
            # A whole run is of reading, or of many jobs: its few steps are alike by each engine.
            for engine in given.engines if series.batch is not None else given.engines[:1]:
                points = measure(setting, series, engine, given.bound)
                found.setdefault(series.key, {})[engine] = points
                if not given.tiny or given.output:  # after each: what is measured is not lost
                    keep(output, processor, {series.key: {engine: points}})
            for path in [*Path(folder).glob("*.csv"), *Path(folder).glob("*.txt")]:
                path.unlink()  # gigabytes
    page.show(found)


def keep(path: Path, processor: str, points: dict[str, Any]) -> None:
    """Writes points beside those of other series and engines."""
    known = json.loads(path.read_text(encoding="utf-8"))["points"] if path.is_file() else {}
    for key, engines in points.items():
        known.setdefault(key, {}).update(engines)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "processor": processor,
        "date": datetime.date.today().isoformat(),
        "versions": {name: number for name, number in versions().items() if name in OWN},
        "points": known,
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
