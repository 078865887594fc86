"""The metrics of an evaluation, on a terminal and off it."""

import io

from bigmodel.reporting.metrics_table import print_metrics

ROWS = [("Model", "cnn on digits"), ("Data", "new.npz, 20 samples")]
METRICS = {"test/loss": 0.12345, "test/accuracy": 1.0}


def test_plain_lines_off_a_terminal() -> None:
    stream = io.StringIO()
    print_metrics("outputs/run", ROWS, METRICS, stream=stream, terminal=False)
    assert stream.getvalue().splitlines() == [
        "outputs/run",
        "Model  cnn on digits",
        "Data   new.npz, 20 samples",
        "test/loss      0.1235",
        "test/accuracy  1.0000",
    ]


def test_a_table_on_a_terminal() -> None:
    stream = io.StringIO()
    print_metrics("outputs/run", ROWS, METRICS, stream=stream, terminal=True, width=60)
    shown = stream.getvalue()
    assert all(word in shown for word in ("outputs/run", "cnn on digits", "test/accuracy", "0.1235"))
    assert max(map(len, shown.splitlines())) < 120
