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


def test_metrics_of_each_class_are_a_second_table() -> None:
    by_class = {"val/recall": {"cat": 0.5, "dog": float("nan")}, "val/auc": {"cat": 0.75, "dog": 1.0}}
    plain, drawn = io.StringIO(), io.StringIO()
    print_metrics("outputs/run", ROWS, METRICS, by_class, stream=plain, terminal=False)
    assert plain.getvalue().splitlines()[-3:] == [
        "     val/recall  val/auc",
        "cat  0.5000      0.7500",
        "dog  nan         1.0000",
    ]
    print_metrics("outputs/run", ROWS, METRICS, by_class, stream=drawn, terminal=True, width=60)
    assert all(word in drawn.getvalue() for word in ("val/recall", "cat", "0.7500"))


def test_of_many_classes_the_first_are_shown() -> None:
    stream = io.StringIO()
    by_class = {"val/recall": {f"c{index}": 1.0 for index in range(1000)}}
    print_metrics("outputs/run", ROWS, METRICS, by_class, stream=stream, terminal=False)
    assert "c49 " in stream.getvalue()
    assert "c50 " not in stream.getvalue()
    assert stream.getvalue().endswith("and 950 more: --json has all\n")
