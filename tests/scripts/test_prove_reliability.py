"""The proof of reliability: what it counts, which tries it makes, and the table that it writes."""

import json
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import prove_reliability
import pytest
from prove_reliability import ROWS, Prover, Row, keep, measure, update

from tests.faults import every_step


def row_of(promise: str, **more: Any) -> dict[str, Any]:
    """A row as it is kept."""
    return {
        **vars(Row(promise, tries=10, lost=1)),
        "share": 1.0,
        "seconds": 12,
        "date": "2026-01-02",
        "versions": {"python": "3.13"},
        "machine": {"cpu": "a processor", "cores": 2},
        **more,
    }


@pytest.fixture
def prover(tmp_path: Path) -> Prover:
    """One that has run nothing yet."""
    made = object.__new__(Prover)
    made._folders = (tmp_path / str(number) for number in count())
    made._share, made._expected = 0.25, "the digest"
    return made


def test_every_row_can_be_filled() -> None:
    assert [name for name in ROWS if not callable(getattr(Prover, name, None))] == []


def test_a_try_with_several_faults_is_lost_once() -> None:
    row = Row("a promise")
    row.add("one", [])
    row.add("two", ["a fault", "another"])
    row.add("three", ["a fault of any of them"], tries=5)
    assert (row.tries, row.lost) == (7, 6)
    assert row.cases == {"one": 1, "two": 1, "three": 5}
    assert row.faults == ["two: a fault", "two: another", "three: a fault of any of them"]


def test_a_run_is_resumed_in_every_way_from_steps_all_over_it(
    prover: Prover, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed: list[str] = []

    def differing(_folder: Path, _changes: Mapping[str, Any], kept: Iterable[Path]) -> list[str]:
        resumed.extend(path.name for path in kept)
        return []

    steps = [Path(f"{step:02d}") for step in range(20)]
    monkeypatch.setattr(every_step, "checkpoints_of", lambda *_, **__: steps)
    monkeypatch.setattr(every_step, "differing", differing)
    row = prover.steps()
    assert resumed[:5] == ["00", "04", "08", "12", "16"]
    assert set(every_step.VARIANTS) < set(row.cases)
    assert set(row.cases.values()) == {5}
    assert (row.tries, row.lost) == (5 * (len(every_step.VARIANTS) + 1), 0)


def test_a_way_without_a_checkpoint_is_a_fault(prover: Prover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every_step, "checkpoints_of", lambda *_, **__: [])
    row = prover.steps()
    assert row.lost == row.tries == len(every_step.VARIANTS) + 1


def test_a_row_is_kept_with_its_time_and_machine(
    prover: Prover, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prover, "twice", lambda: Row("a promise", tries=3), raising=False)
    found = measure(prover, "twice", 0.25)
    assert (found["promise"], found["tries"], found["share"]) == ("a promise", 3, 0.25)
    assert found["machine"]["cores"] >= 1
    assert json.loads(json.dumps(found)) == found


def test_rows_that_were_measured_before_stay_and_are_in_order(tmp_path: Path) -> None:
    path = tmp_path / "results" / "reliability.json"
    keep(path, {"fuzz": row_of("old"), "twice": row_of("stays")})
    keep(path, {"fuzz": row_of("new")})
    rows = json.loads(path.read_text())
    assert [(name, row["promise"]) for name, row in rows.items()] == [
        ("twice", "stays"),
        ("fuzz", "new"),
    ]


def test_a_page_gets_the_table_between_its_marks(tmp_path: Path) -> None:
    page, path = tmp_path / "promises.md", tmp_path / "reliability.json"
    page.write_text("before\n<!-- reliability -->\nold\n<!-- /reliability -->\nafter\n")
    keep(path, {"kills": row_of("a kill", note="a note"), "fuzz": row_of("odd", share=0.5)})
    update(page, path)
    assert page.read_text() == (
        "before\n<!-- reliability -->\n"
        "| promise | tries | survived | |\n|---|---|---|---|\n"
        "| a kill | 10 | 9 | a note; 12 s |\n| odd | 10 | 9 | 12 s |\n\n"
        "- kills: all tries; a processor, 2 cores; python 3.13; 2026-01-02.\n"
        "- fuzz: 0.5 of the tries; a processor, 2 cores; python 3.13; 2026-01-02.\n"
        "<!-- /reliability -->\nafter\n"
    )


def test_the_page_has_the_results_that_are_kept(tmp_path: Path) -> None:
    copy = tmp_path / "promises.md"
    copy.write_text(prove_reliability.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    update(copy, prove_reliability.RESULTS)
    assert copy.read_text(encoding="utf-8") == prove_reliability.PAGE.read_text(encoding="utf-8")
    rows = json.loads(prove_reliability.RESULTS.read_text(encoding="utf-8"))
    assert list(rows) == list(ROWS)
    assert set(every_step.VARIANTS) <= set(rows["steps"]["cases"])
