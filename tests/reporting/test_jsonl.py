import json
import math
import tracemalloc
from pathlib import Path

import pytest

from bigmodel.errors import CheckpointError
from bigmodel.reporting.jsonl import JsonLines, damaged_lines, read_records
from tests.reporting import facts


def read(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write(folder: Path, *epochs: int, first_step: int = 0) -> None:
    sink = JsonLines(folder)
    sink.start(facts.info(folder, first_step=first_step))
    for epoch in epochs:
        sink.record(facts.record(epoch), {})
    sink.close()


def test_one_object_a_record_with_keys_in_order(tmp_path: Path) -> None:
    write(tmp_path / "new", 1, 2)
    assert (tmp_path / "new/metrics.jsonl").read_text().splitlines()[1] == (
        '{"epoch": 2, "step": 46, "train/loss": 0.12341, "val/loss": 0.0987,'
        ' "val/accuracy": 0.9722, "lr": 0.01, "samples_per_second": 12345.6}'
    )


def test_each_record_is_on_disk_at_once(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path)
    sink.start(facts.info(tmp_path))
    sink.record(facts.record(1), {})
    assert len(read(tmp_path)) == 1
    sink.close()


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path)
    sink.start(facts.info(tmp_path))
    sink.record(facts.record(1, math.nan, lr=math.inf), {})
    sink.close()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    line = (tmp_path / "metrics.jsonl").read_text()
    found = json.loads(line, parse_constant=refuse)
    assert found["val/accuracy"] is None
    assert found["lr"] is None


def test_a_resume_drops_what_will_come_again_and_a_torn_line(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "step": 23, "train/l')
    write(tmp_path, 3, 4, first_step=46)
    assert [record["epoch"] for record in read(tmp_path)] == [1, 2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_whole_last_line_without_its_end_counts_as_torn(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 2, "step": 4')  # of "step": 46
    write(tmp_path, 2, first_step=46)
    assert [record["step"] for record in read(tmp_path)] == [23, 46]


def test_a_resume_leaves_a_sound_file_untouched(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    before = (tmp_path / "metrics.jsonl").stat().st_ino
    write(tmp_path, 3, first_step=46)
    assert (tmp_path / "metrics.jsonl").stat().st_ino == before
    assert len(read(tmp_path)) == 3


def test_a_fault_is_told(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: cannot be written: Is a directory"):
        JsonLines(tmp_path).start(facts.info(tmp_path, first_step=5))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path)
    sink.start(facts.info(tmp_path))
    sink.close()
    sink._file = Path("/dev/full").open("a")  # noqa: SIM115 (the sink closes it)
    with pytest.raises(CheckpointError, match="No space left"):
        sink.record(facts.record(1), {})
    with pytest.raises(CheckpointError, match="No space left"):
        sink.close()


def test_damaged_records_are_told_and_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert damaged_lines(tmp_path) is None
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert damaged_lines(tmp_path) is None, "a torn last line is usual"
    whole = '{"step": 1}\n\x00\x01garbage\n{"step": 3}\n[]\n'
    path.write_text(whole)
    told = damaged_lines(tmp_path)
    assert told is not None
    assert "2 damaged lines are skipped" in told
    assert (tmp_path / "metrics.jsonl.damaged").read_text() == whole


def test_numbers_that_are_no_steps_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    odd = ["1e999", "NaN", "-Infinity", "[]", "null", f"1{'0' * 5001}"]
    path.write_text("".join(f'{{"step": {number}}}\n' for number in [1, *odd]))
    told = damaged_lines(tmp_path)
    assert told is not None
    assert f"{len(odd)} damaged lines are skipped" in told
    write(tmp_path, 2, first_step=1)
    assert [record["step"] for record in read(tmp_path)] == [1, 46]


def test_a_line_nested_deep_is_damage(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": ' + "[" * 30_000 + "\n")
    assert "1 damaged lines are skipped" in str(damaged_lines(tmp_path))


def test_a_large_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    line = json.dumps({"step": 1, "train/loss": 0.25, "val/loss": 0.5}) + "\n"
    path.write_text(line * 100_000 + "x" * 5_000_000 + line + line.replace("1", "9"))
    size = path.stat().st_size
    tracemalloc.start()
    told = damaged_lines(tmp_path)
    write(tmp_path, first_step=5)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "1 damaged lines are skipped" in str(told)
    assert path.read_text() == line * 100_000
    assert most < size / 2


def test_records_are_read_again(tmp_path: Path) -> None:
    lines = ['{"epoch": 1, "step": 2, "val/loss": null}', "no record", '{"epoch": 2, "step": 4, "val/lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    (record,) = read_records(tmp_path)
    assert math.isnan(record.pop("val/loss"))
    assert record == {"epoch": 1, "step": 2}
    assert read_records(tmp_path / "nowhere") == []
