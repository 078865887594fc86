"""`bigmodel-train`, but that it notes when the loop has counted its first optimizer step.

The time goes to the file that BENCH_NOTES names.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from bigmodel.cli.train import main
from bigmodel.training.stopwatch import Stopwatch

_at: list[float] = []
_count = Stopwatch.count


def count(watch: Stopwatch, samples: int) -> None:
    """As the loop's own, and the time of the first call."""
    if not _at:
        _at.append(time.time())
    _count(watch, samples)


if __name__ == "__main__":
    Stopwatch.count = count  # type: ignore[method-assign]
    sys.argv[0] = "bigmodel-train"
    main()
    Path(os.environ["BENCH_NOTES"]).write_text(json.dumps({"first_step_at": _at[0]}))
