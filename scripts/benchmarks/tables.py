"""The table that line 9 is about."""

from __future__ import annotations

from pathlib import Path

ROWS, COLUMNS = 1_000_000, 20


def written_table(folder: Path, tiny: bool) -> Path:
    """A CSV file of 20 columns of figures and a target `y`, written once.

    The target is a curved function of some of them and of their products.
    """
    import numpy as np

    path = folder / ("few.csv" if tiny else "table.csv")
    if path.is_file():
        return path
    draw = np.random.default_rng(0)
    x = draw.normal(size=(2_000 if tiny else ROWS, COLUMNS)).astype("float32")
    y = x[:, :8].sum(1) + 2 * np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * x[:, -1]
    values = np.column_stack([x, y]).astype("float64").round(4)
    names = [*(f"x{column}" for column in range(COLUMNS)), "y"]
    try:
        import pyarrow as pa
        from pyarrow.csv import write_csv
    except ImportError:
        np.savetxt(path, values, "%.4f", ",", header=",".join(names), comments="")
    else:
        write_csv(pa.table(list(values.T.copy()), names), path)
    return path
