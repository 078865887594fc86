"""The measurement of ranks: what it runs, what it makes of the records, and the table that it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bench_ranks
import pytest
from bench_ranks import COUNTS, PAGE, efficiencies, filled, kept, markdown, measured, spread

SETTINGS = ["device.parallel.shard={ranks}", "device.parallel.replicate={ranks/2}", "seed=1"]


def record(step: int, speed: float, **more: float) -> dict[str, float]:
    return {"step": step, "samples_per_second": speed, "tokens_per_second": 64 * speed, **more}


def result_of(*speeds: dict[int, float], **more: Any) -> dict[str, Any]:
    """As it is read from a file, where numbers of ranks are texts."""
    rounds = [{ranks: measured([record(1, speed)], 0.5) for ranks, speed in of.items()} for of in speeds]
    return {
        "title": "DDP",
        "work": "a model",
        "machine": {"cpu": "a processor", "cores": 2},
        "versions": {"torch": "2.13"},
        "date": "2026-01-02",
        "rounds": json.loads(json.dumps(rounds)),
        **more,
    }


def test_settings_know_the_number_of_ranks() -> None:
    assert filled(SETTINGS, 8) == ["device.parallel.shard=8", "device.parallel.replicate=4", "seed=1"]


@pytest.mark.parametrize(("setting", "ranks"), [("a={ranks/2}", 3), ("a={ranks/0}", 4)])
def test_ranks_that_cannot_be_divided_are_refused(
    setting: str, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_ranks, "run", lambda *_: pytest.fail("nothing may run"))
    with pytest.raises(SystemExit, match=rf"--set {setting}: {ranks} ranks cannot be divided so"):
        bench_ranks.main(["--device", "cpu", "--ranks", str(ranks), "--set", setting, "--tiny"])


def test_the_start_is_not_in_the_speed_and_memory_is_the_largest() -> None:
    records = [record(3, 1.0), record(6, 10.0), record(9, 30.0), record(12, 11.0)]
    run = measured(records, 0.5)
    assert (run["samples_per_second"], run["tokens_per_second"], run["memory_gib"]) == (11, 704, 0.5)
    assert [raw["samples_per_second"] for raw in run["records"]] == [1, 10, 30, 11]
    gpu = [record(3, 1.0, memory_gib=2.0), record(6, 1.0, memory_gib=3.0)]
    assert measured(gpu, 0.5)["memory_gib"] == 3.0


def test_efficiency_is_over_the_fewest_ranks_of_the_same_round() -> None:
    rounds = [{2: {"samples_per_second": 10.0}, 8: {"samples_per_second": 30.0}}]
    rounds.append({2: {"samples_per_second": 20.0}, 8: {"samples_per_second": 40.0}})
    assert efficiencies(rounds, 2) == [1.0, 1.0]
    assert efficiencies(rounds, 8) == [0.75, 0.5]


def test_a_figure_is_the_median_with_its_range() -> None:
    assert spread([1234.4]) == "1,234"
    assert spread([3.0, 1.0, 2.0], digits=1, unit=" %") == "2.0 % (1.0 to 3.0)"


def test_a_table_has_a_row_for_each_number_of_ranks() -> None:
    two = result_of({1: 100.0, 2: 150.0}, {1: 100.0, 2: 190.0}, {1: 100.0, 2: 160.0})
    gpu = result_of({1: 10.0}, title="a=b", machine={"cpu": "a processor", "cores": 2, "gpu": "H100"})
    memory = "0.50 (0.50 to 0.50)"
    assert markdown([two, gpu]).splitlines()[2:] == [
        f"| DDP | 1 | 100 (100 to 100) | 6,400 (6,400 to 6,400) | 100 % (100 to 100) | {memory} |",
        f"| DDP | 2 | 160 (150 to 190) | 10,240 (9,600 to 12,160) | 80 % (75 to 95) | {memory} |",
        "| a=b | 1 | 10 | 640 | 100 % | 0.50 |",
        "",
        "- a model; a processor, 2 cores; torch 2.13; 3 rounds; 2026-01-02.",
        "- a model; H100, 2 cores; torch 2.13; 1 round; 2026-01-02.",
    ]


def test_rounds_run_in_turns_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[int, list[str]]] = []
    path = tmp_path / "cpu.json"

    def run(_setting: Any, _work: Any, ranks: int, words: list[str]) -> dict[str, Any]:
        ran.append((ranks, words))
        if len(ran) == 4:  # the first round has been kept by then
            assert len(json.loads(path.read_text())["lines"]["seed={ranks}"]["rounds"]) == 1
        return measured([record(1, 10.0 * ranks)], 0.5)

    monkeypatch.setattr(bench_ranks, "run", run)
    words = ["--device", "cpu", "--rounds", "2", "--tiny", "--output", str(path), "--ranks", "2", "1"]
    bench_ranks.main([*words, "--set", "seed={ranks}"])
    assert ran == [(1, ["seed=1"]), (2, ["seed=2"])] * 2
    bench_ranks.main([*words, "--grow"])
    assert ran[5] == (2, ["data.batch_size=24"])
    lines = json.loads(path.read_text())["lines"]
    assert list(lines) == ["seed={ranks}", "the batch grows"]
    assert len(lines["seed={ranks}"]["rounds"]) == 2


def test_as_many_ranks_as_there_are_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(bench_ranks, "measure", lambda *given: asked.append(given[1:3]))
    for gpus, cores in ((0, 3), (8, 2)):
        found = {"cuda": gpus, "cpu": cores}
        monkeypatch.setattr(bench_ranks, "devices", found.__getitem__)
        bench_ranks.main(["--tiny"])
    assert asked == [("cpu", [1, 2]), ("cuda", list(COUNTS))]
    with pytest.raises(SystemExit, match="--ranks 16: torch finds 8 GPUs here"):
        bench_ranks.main(["--tiny", "--ranks", "16"])
    with pytest.raises(SystemExit, match="--rounds 0, --ranks 1 2 4 8: at least 1 of each"):
        bench_ranks.main(["--tiny", "--rounds", "0"])


def test_the_command_runs_on_two_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cpu.json"
    words = ["--device", "cpu", "--ranks", "2", "--rounds", "1", "--tiny", "--output", str(path)]
    bench_ranks.main([*words, "--set", "model.depth=1", "trainer.tensorboard=false"])
    (result,) = json.loads(path.read_text())["lines"].values()
    run = result["rounds"][0]["2"]
    assert [raw["step"] for raw in run["records"]] == [3, 6, 9]
    assert run["tokens_per_second"] == pytest.approx(64 * run["samples_per_second"])
    assert 0.05 < run["memory_gib"] < 20
    assert "| model.depth=1, trainer.tensorboard=false | 2 | " in capsys.readouterr().out


def test_a_run_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho a reason\nexit 3\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(SystemExit, match=r"The run failed: .* device\.ranks=1\na reason"):
        bench_ranks.main(["--device", "cpu", "--ranks", "1", "--rounds", "1", "--tiny"])


def test_the_page_has_the_results_that_are_kept() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"<!-- ranks -->\n{markdown(kept())}\n<!-- /ranks -->" in page
