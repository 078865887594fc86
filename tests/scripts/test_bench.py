"""The benchmark: what it compares does the same work, and its figures are what they say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks import commands, driver, figures, hosts, instructions, plain, table
from benchmarks import ours as ours_side
from benchmarks.driver import Measured
from benchmarks.hosts import BenchError, FailedError, Host, Setting
from benchmarks.lines import LINES, Contest, Line, lines_of
from benchmarks.ours import prepare, verify
from benchmarks.worker import Order
from benchmarks.works import WORKS, checked

SKLEARN = {"9": "sklearn-regressor", "10": "sklearn-classifier"}
ONE = next(line for line in LINES if line.key == "1")


def run_of(milliseconds: float, **more: Any) -> dict[str, Any]:
    """A run of 100 steady steps."""
    steady = {"steady_steps": 100, "steady_seconds": milliseconds / 10, "total": 2.0}
    return steady | {"steps": 120, "whole": 120, "curve": [0.5, 0.1]} | more


def with_peers(package: str, folder: Path) -> Setting:
    """A setting that finds the peers; the test is skipped where they are not installed."""
    known = hosts.peers.FOLDER
    if hosts.peers.missing((package,), known):
        pytest.skip(f"{package} is not installed")
    return Setting("cpu", True, folder, 1, known)


def test_every_line_has_a_key_of_its_own_and_a_work_that_there_is() -> None:
    keys = [line.key for line in LINES]
    assert len(set(keys)) == len(keys)
    assert {key.split("-")[0] for key in keys} == {*"123456789", "10", "4b", "4c", "compile", "saves"}
    assert {line.work for line in LINES} - {""} <= set(WORKS)


def test_lines_are_chosen_by_key_or_by_what_stands_before_the_dash() -> None:
    assert [line.key for line in lines_of("cpu", ["6", "1"])] == ["1", "1-cold", "6-text", "6-fnn"]
    assert [line.key for line in lines_of("cpu", ["7-help"])] == ["7-help"]
    assert "5" not in [line.key for line in lines_of("cpu", [])]
    assert "5" in [line.key for line in lines_of("cuda", [])]


@pytest.mark.parametrize("name", ["fnn", "rnn", "cnn", "text", "gpt2"])
def test_the_bare_loop_has_the_same_losses_from_the_same_weights(name: str, tmp_path: Path) -> None:
    work = WORKS[name]("cpu", True, tmp_path)
    ours = prepare(work, tmp_path)
    bare = plain.run(work, tmp_path, check=True)
    assert bare["parameters"] == ours["parameters"]
    assert len(ours["losses"]) >= 5
    length = len(ours["losses"])
    assert bare["losses"][:length] == pytest.approx(ours["losses"], rel=work.tolerance)


def test_on_a_gpu_the_compiled_loops_are_the_best_that_torch_has() -> None:
    sides = {
        device: [side for contest in line.contests for side in contest.sides]
        for device in ("cpu", "cuda")
        for line in lines_of(device, ["2"])
    }
    assert sides["cpu"] == ["bare", "bare-compiled", "jax"]
    assert sides["cuda"][2:] == ["bare-compiled-cudnn", "bare-compiled-graphs"]


@pytest.mark.parametrize(
    "name", ["fnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rnn", "text"))]
)
def test_jax_has_the_same_losses_from_the_same_weights(name: str, tmp_path: Path) -> None:
    work = WORKS[name]("cpu", True, tmp_path)
    setting = with_peers("jax", tmp_path)
    ours = prepare(work, tmp_path)
    theirs = hosts.do(setting, "check", "jax", name)
    assert theirs["parameters"] == ours["parameters"]
    length = len(ours["losses"])
    assert theirs["losses"][:length] == pytest.approx(ours["losses"], rel=work.tolerance)


def test_jax_does_as_many_steps_and_learns_alike(tmp_path: Path) -> None:
    setting = with_peers("jax", tmp_path)
    prepare(WORKS["fnn"]("cpu", True, tmp_path), tmp_path)
    ours = hosts.do(setting, "time", "ours", "fnn")
    theirs = hosts.do(setting, "time", "jax-unrolled", "fnn")
    assert theirs["steady_steps"] == ours["steady_steps"]
    assert theirs["curve"] == pytest.approx(ours["curve"], rel=0.2)


def test_packages_that_are_not_to_be_had_do_not_take_the_others_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command[-1])
        bad = command[-1] in {"rare==1.0", str(tmp_path / "pins.txt")}
        (tmp_path / "folder").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, int(bad), "", "noise\nno such wheel: rare\n")

    (tmp_path / "pins.txt").write_text("# what is needed\ncommon==2.0\nrare==1.0\n")
    monkeypatch.setattr(hosts.peers, "PINS", tmp_path / "pins.txt")
    monkeypatch.setattr(hosts.peers, "FOLDER", tmp_path / "folder")
    monkeypatch.setattr(hosts.peers, "missing", lambda names, *_: list(names))
    monkeypatch.setattr(hosts.peers.subprocess, "run", run)
    assert hosts.peers.folder() == (tmp_path / "folder", "no such wheel: rare")
    assert asked == [str(tmp_path / "pins.txt"), "common==2.0", "rare==1.0"]
    assert not (tmp_path / "folder" / "ready").exists()


def test_the_compiled_bare_loop_has_its_loss_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def compile_(function: Any, **options: Any) -> Any:
        given.append((function, options))
        return function

    monkeypatch.setattr(plain.torch, "compile", compile_)
    monkeypatch.setattr(plain.torch._dynamo.config, "allow_rnn", False)
    work = WORKS["rnn"]("cpu", True, tmp_path)
    eager = prepare(work, tmp_path)["losses"]
    how = plain.run(work, tmp_path, check=True, compiled=True, own_rnn=True, graphs=True)
    assert how["losses"][: len(eager)] == pytest.approx(eager, rel=work.tolerance)
    ((loss_of, options),) = given
    assert options == {"mode": "reduce-overhead"}
    assert plain.torch._dynamo.config.allow_rnn is False
    start = plain.torch.load(tmp_path / "start.pt", weights_only=True)
    assert loss_of(*start["batches"][0]).shape == ()
    plain.run(work, tmp_path, check=True, compiled=True)
    assert given[1][1] == {"mode": None}
    assert plain.torch._dynamo.config.allow_rnn is True


@pytest.mark.parametrize("name", sorted(WORKS))
def test_losses_are_compared_in_fp32_and_closely(name: str, tmp_path: Path) -> None:
    work = WORKS[name]("cuda", True, tmp_path)
    arguments = checked(work).arguments()
    assert {"device.precision=fp32", "device.tf32=false"} <= set(arguments)
    assert work.tolerance <= 1e-3


def test_pictures_change_at_random_by_a_shift_of_two_pixels_at_most(tmp_path: Path) -> None:
    work = WORKS["cnn"]("cpu", True, tmp_path)
    prepare(work, tmp_path)
    start = plain.torch.load(tmp_path / "start.pt", weights_only=True)
    batch, labels = next(plain.endless(work, start, workers=0))
    assert batch.shape == (128, 1, 28, 28)
    assert labels.shape == (128,)
    dark, light = (float(v * start["scaling"][0] + start["scaling"][1]) for v in (0, 255))
    assert dark <= float(batch.min()) <= float(batch.max()) <= light + 1e-5
    borders = (batch[:, 0, :, 0] == dark).all(1)  # a picture that was moved to the right
    assert 0.2 < float(borders.float().mean()) < 0.6


def test_on_a_cpu_each_process_has_one_core_but_for_workers_of_a_loader() -> None:
    assert hosts.on_one_core("cuda", "bare") is None
    assert hosts.on_one_core("cpu", "bare-workers") is None
    hold = hosts.on_one_core("cpu", "jax")
    assert hold is not None
    ask = "import os; print(len(os.sched_getaffinity(0)))"
    command = [sys.executable, "-c", ask]
    done = subprocess.run(command, preexec_fn=hold, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_a_worker_does_one_order_after_another(tmp_path: Path) -> None:
    host = Host(Setting("cpu", True, tmp_path, 1), "ours", tmp_path / "caches")
    try:
        order = Order("time", "ours", "fnn", "cpu", str(tmp_path), tiny=True)
        first, second = host.ask(order), host.ask(order)
    finally:
        host.close()
    assert first["steady_steps"] == second["steady_steps"] == 40
    assert first["curve"] == second["curve"]
    assert len(first["curve"]) == 3
    assert 0 < second["steady_seconds"] < second["fit"] < second["total"]


def test_a_side_that_fails_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    host = Host(Setting("cpu", True, tmp_path, 1), "bare", tmp_path / "caches")
    try:
        with pytest.raises(BenchError, match=r"bare failed at check of fnn:(.|\n)*start\.pt"):
            host.ask(Order("check", "bare", "fnn", "cpu", str(tmp_path), tiny=True))
    finally:
        host.close()


def test_a_process_that_stays_is_replaced_where_it_has_failed(tmp_path: Path) -> None:
    setting = Setting("cpu", True, tmp_path, 1)
    for _ in range(2):
        with pytest.raises(FailedError, match=r"start\.pt") as caught:
            hosts.do(setting, "check", "bare", "fnn", live=True)
        assert "No such file" in caught.value.reason
        assert setting.hosts == {}
    dead = Host(setting, "bare", tmp_path / "caches")
    dead.process.kill()
    dead.process.wait()
    with pytest.raises(FailedError, match="bare failed at time"):
        dead.ask(Order("time", "bare", "fnn", "cpu", str(tmp_path)))
    dead.close()


@pytest.mark.parametrize("failing", ["check", "time"])
def test_a_peer_that_fails_takes_its_own_cell_alone(
    failing: str, tmp_path: Path, orders: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = hosts.do

    def failed(setting: Setting, mode: Any, side: str, *rest: Any, **more: Any) -> dict[str, Any]:
        made = answer(setting, mode, side, *rest, **more)
        if (mode, side) == (failing, "lightning"):
            raise FailedError("lightning failed", "Traceback …\nOutOfMemoryError: a | b")
        return made

    monkeypatch.setattr(hosts, "do", failed)
    monkeypatch.setattr(hosts.peers, "missing", lambda *_: [])
    setting = Setting("cpu", False, tmp_path, 2)
    found = driver.measure(setting, ONE)
    assert found.failed == ["lightning"]
    assert orders.count((failing, "lightning")) == 1
    assert set(found.cold) == {"ours", "bare", "bare-fused", "jax", "jax-unrolled"}
    bare, fused, lightning, _ = figures.result(setting, ONE, found)["cells"]
    assert bare["ratio"]["pairs"] == fused["ratio"]["pairs"] == 2
    assert lightning["note"] == "not measured: it failed (OutOfMemoryError: a / b)"


def test_where_ours_fails_there_is_nothing_to_tell() -> None:
    with pytest.raises(FailedError), Measured().spared("ours-quiet"):
        raise FailedError("ours failed", "")


@pytest.mark.parametrize(("loss", "engine"), [(0.75001, "compiled"), (0.5, "graph")])
def test_our_faster_engine_is_held_to_our_eager_losses(
    loss: float,
    engine: str,
    tmp_path: Path,
    orders: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = hosts.do

    def verified(setting: Setting, mode: Any, *rest: Any, **more: Any) -> dict[str, Any]:
        result = {"losses": [loss, 9.0], "steps": [2, 4], "engine": engine}  # step 4 has no eager loss
        return result if mode == "verify" else answer(setting, mode, *rest, **more)

    monkeypatch.setattr(hosts, "do", verified)
    monkeypatch.setattr(hosts.peers, "missing", lambda names, *_: list(names))
    setting = Setting("cpu", False, tmp_path, 1)
    if loss == 0.5:
        with pytest.raises(BenchError, match=r"ours by graph steps does other work .* 3\.3e-01"):
            driver.measure(setting, ONE)
        assert ("fill", "ours") in orders
        return
    cell = figures.result(setting, ONE, driver.measure(setting, ONE))["cells"][0]
    match = "by compiled steps ours has the mean losses until steps 2 of its eager ones within 1.3e-05"
    assert cell["checked"][-1].startswith(match)


@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_steps_are_verified_by_the_losses_of_eager_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """Compiling takes half a minute; what compiled steps give is tested where they are made."""
    work, asked = WORKS["fnn"]("cpu", True, tmp_path), list[str]()

    def composed(*words: str) -> dict[str, Any]:
        asked.extend(words)
        return compose(*(word.replace("engine=compiled", f"engine={engine}") for word in words))

    compose = ours_side.composed
    eager = prepare(work, tmp_path)["losses"]
    monkeypatch.setattr(ours_side, "composed", composed)
    ours = verify(work, tmp_path)
    assert "device.engine=compiled" in asked
    assert ours["engine"] == engine
    assert ours["steps"] == [5, 10, 15, 20]
    means = [sum(eager[end - 5 : end]) / 5 for end in ours["steps"]]
    assert ours["losses"] == pytest.approx(means, rel=work.tolerance)


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The orders that are given; each is answered at once, ours in 1 ms a step and others in 9."""
    given: list[tuple[str, str]] = []

    def answer(_: Setting, mode: str, side: str, *__: Any, **___: Any) -> dict[str, Any]:
        given.append((mode, side))
        if mode in {"prepare", "check"}:
            return {"losses": [1.0, 0.5], "parameters": 385}
        if mode == "verify":
            return {"losses": [0.75], "steps": [2], "engine": "compiled"}
        if mode == "multiply":
            return {"flops": 1e12}
        if mode == "compile":
            return {"compile": 2.5}
        if mode == "learn":
            return {"val_loss": 1.01 if side == "ours-bf16" else 1.0}
        return run_of(1.0 if side == "ours" else 9.0, peak_memory=7, fit=1.0)

    monkeypatch.setattr(hosts, "do", answer)
    return given


def test_sides_run_in_turns_and_one_that_is_missing_is_told(
    tmp_path: Path, orders: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {"lightning", "jax"}
    monkeypatch.setattr(hosts.peers, "missing", lambda names, *_: [n for n in names if n in absent])
    setting = Setting("cpu", False, tmp_path, 2, trouble="no network")
    found = driver.measure(setting, ONE)
    timed = [side for mode, side in orders if mode == "time"]
    assert timed == ["ours", "bare", "bare-fused"] * 3  # with empty caches, and two pairs
    assert orders[:2] == [("prepare", "ours"), ("check", "bare")]
    of_ours = [mode for mode, side in orders if side == "ours"]
    assert of_ours == ["prepare", "time", "fill", "verify", "time", "time"]
    result = figures.result(setting, ONE, found)
    bare, _, lightning, jax = result["cells"]
    assert jax["note"] == "not measured: jax is not installed (no network)"
    assert bare["ratio"] == {"median": 9.0, "low": 9.0, "high": 9.0, "pairs": 2}
    assert bare["reached"] is True
    assert lightning["note"] == "not measured: lightning is not installed (no network)"
    assert "not measured" in table.markdown([{"device": "cpu", "lines": {"1": result}}])


@pytest.mark.parametrize("key", [line.key for line in LINES if "cuda" in line.devices])
def test_on_a_gpu_processes_stay_and_whole_runs_have_their_own(
    key: str, tmp_path: Path, orders: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts.peers, "missing", lambda *_: [])
    monkeypatch.setattr(figures, "machine", lambda device: {"gpu": device})
    (line,) = lines_of("cuda", [key])
    setting = Setting("cuda", True, tmp_path, 3)
    found = driver.measure(setting, line)
    assert {len(runs) for runs in found.rounds.values()} == {3}
    assert set(found.cold) == (driver.WHOLE & set(found.rounds) if line.whole else set())
    result = figures.result(setting, line, found)
    assert [cell["ratio"]["pairs"] for cell in result["cells"]] == [3] * len(line.contests)
    count = len(orders)
    assert driver.measure(setting, line) is found  # what is known is not measured again
    assert len(orders) == count


def test_a_side_that_does_other_work_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {"prepare": [1.0, 0.5], "check": [1.0, 0.501]}
    monkeypatch.setattr(
        hosts, "do", lambda _, mode, *__, **___: {"losses": losses[mode], "parameters": 1}
    )
    with pytest.raises(BenchError, match=r"bare does other work than ours: .* 2\.0e-03"):
        driver.measure(Setting("cpu", False, tmp_path, 1), ONE)


@pytest.mark.parametrize(
    ("measure", "goal", "figure", "reached"),
    [
        ("steady", 4.0, 4.5, True),
        ("slowed", 0.2, 2 / 9, False),
        ("added", 5.0, -7000.0, True),
        ("fit", 0.5, 0.5, True),
        ("memory", 0.7, 0.75, False),
        ("total", 2.0, 2.0, True),
    ],
)
def test_what_is_compared(measure: Any, goal: float, figure: float, reached: bool) -> None:
    ours = run_of(2.0, fit=1.0, peak_memory=3, total=1.0)
    theirs = [run_of(9.0, fit=2.0, peak_memory=4), run_of(10.0, fit=3.0, peak_memory=5)]
    contest = Contest("others", ("a", "b"), measure, {"cpu": goal})
    assert figures.compared(contest, ours, theirs) == pytest.approx(figure)
    assert contest.reached("cpu", figure) is reached
    assert contest.reached("cuda", figure) is None


def test_timed_runs_that_do_not_learn_alike_are_refused(
    tmp_path: Path, orders: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = hosts.do

    def worse(setting: Setting, mode: Any, side: str, *rest: Any, **more: Any) -> dict[str, Any]:
        curve = {"curve": [0.5, 0.14]} if side == "bare" else {}
        return answer(setting, mode, side, *rest, **more) | curve

    monkeypatch.setattr(hosts, "do", worse)
    monkeypatch.setattr(hosts.peers, "missing", lambda names, *_: list(names))
    with pytest.raises(BenchError, match=r"bare does other work .* mark 2 0\.1 of ours and 0\.14"):
        driver.measure(Setting("cpu", False, tmp_path, 1), ONE)
    assert ("time", "bare") in orders


def test_steps_that_were_left_out_count_in_a_whole_run() -> None:
    assert driver.whole_seconds(run_of(9.0)) == 2.0
    assert driver.whole_seconds(run_of(9.0, whole=620)) == pytest.approx(2.0 + 500 * 0.009)


def test_the_median_has_its_spread() -> None:
    assert figures.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0, "pairs": 3}


def result_of(line: Line, median: float, reached: bool) -> dict[str, Any]:
    """A kept result of a line with one figure."""
    cell = {
        "against": line.contests[0].against,
        "measure": line.contests[0].measure,
        "goal": 8,
        "part": 1,
        "checked": [],
        "ratio": {"median": median, "low": 7.0, "high": 9.5, "pairs": 5},
        "reached": reached,
    }
    return {
        "title": line.title,
        "cells": [cell],
        "totals": {"ours": {"cold": 9.04, "warm": 4.0}},
        "note": "a part of it",
        "date": "2026-01-02",
        "machine": {"cpu": "a processor", "cores": 2},
        "versions": {"python": "3.13"},
    }


def test_a_page_gets_the_table_between_its_marks(tmp_path: Path) -> None:
    page, results = tmp_path / "performance.md", tmp_path / "results"
    page.write_text("before\n<!-- bench -->\nof another day\n<!-- /bench -->\nafter\n")
    figures.keep(results / "cpu.json", "cpu", {"1": result_of(ONE, 7.5, reached=False)})
    table.update(page, results)
    text = page.read_text()
    assert text.startswith("before\n<!-- bench -->\n| # |")
    assert text.endswith("<!-- /bench -->\nafter\n")
    assert "of another day" not in text
    row = next(row for row in text.splitlines() if row.startswith("| 1 |"))
    assert "| ≥ 8 × | 7.50 × (7.00 to 9.50), missed |" in row
    assert "- a processor: 2 cores; python 3.13; 2026-01-02.\n" in text
    assert "Line 1: a part of it; ours: cold 9.0, warm 4.0 s." in text
    assert "On a GPU: not yet measured." in text


def test_each_processor_that_was_ever_measured_has_a_column(tmp_path: Path) -> None:
    for name, widest, median in (("amd", "AVX2", 9.0), ("xeon", "AMX", 8.5)):
        result = result_of(ONE, median, reached=True)
        result["machine"] |= {"cpu": name, "instructions": widest}
        figures.keep(tmp_path / f"{name}.json", "cpu", {"1": result})
    page = tmp_path / "performance.md"
    page.write_text("<!-- bench -->\n<!-- /bench -->\n")
    table.update(page, tmp_path)
    rows = page.read_text().splitlines()
    assert rows[1] == "| # | work | against | goal | amd (AVX2) | xeon (AMX) |"
    assert "| 9.00 × (7.00 to 9.50) | 8.50 × (7.00 to 9.50) |" in rows[3]
    assert "- xeon (AMX): 2 cores; python 3.13; 2026-01-02." in rows


@pytest.mark.parametrize(
    ("described", "name", "widest", "bf16"),
    [
        (
            "Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz",
            "intel-xeon-platinum-8488c-amx",
            "amx_bf16 avx512_bf16 avx512f avx2",
            True,
        ),
        ("AMD EPYC 9R14 Processor", "amd-epyc-9r14-avx-512-bf16", "avx512_bf16 avx512f avx2", True),
        ("Intel(R) Xeon(R) Processor", "intel-xeon-avx-512", "avx512f avx2", False),
        ("AMD EPYC", "amd-epyc-avx2", "sse2 avx2", False),
    ],
)
def test_results_are_kept_by_processor_and_instructions(
    described: str, name: str, widest: str, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"processor : 0\nmodel name\t: {described}\nflags\t\t: fpu {widest}\n"
    monkeypatch.setattr(instructions, "described", lambda: text)
    assert figures.file_of("cpu").name == f"{name}.json"
    assert instructions.multiplies_bf16() is bf16


def test_bf16_is_not_measured_where_no_instruction_multiplies_it(
    tmp_path: Path, orders: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instructions, "described", lambda: "flags : avx2")
    line = next(line for line in LINES if line.key == "4c-128")
    setting = Setting("cpu", False, tmp_path, 1)
    cells = figures.result(setting, line, driver.measure(setting, line))["cells"]
    assert {cell["note"] for cell in cells} == {"needs AMX or AVX-512 BF16, which this processor lacks"}
    assert orders == []


def test_bf16_is_measured_against_fp32_and_its_validation_loss_is_compared(
    tmp_path: Path, orders: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instructions, "described", lambda: "flags : amx_bf16")
    line = next(line for line in LINES if line.key == "4c-512")
    setting = Setting("cpu", False, tmp_path, 2)
    speed, loss = figures.result(setting, line, driver.measure(setting, line))["cells"]
    assert speed["ratio"]["median"] == pytest.approx(1 / 9)  # ours in fp32 takes 1 ms, in bf16 9
    assert loss["ratio"]["median"] == pytest.approx(1.0)
    assert loss["reached"] is False
    assert [order for order in orders if order[0] == "time"] == [
        *(("time", "ours-bf16"), ("time", "ours")) * 2
    ]


def test_from_cold_each_round_has_an_empty_cache(
    tmp_path: Path, orders: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts.peers, "missing", lambda *_: [])
    line = next(line for line in LINES if line.key == "1-cold")
    setting = Setting("cpu", False, tmp_path, 2)
    (cell,) = figures.result(setting, line, driver.measure(setting, line))["cells"]
    assert cell["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0, "pairs": 2}
    timed = [side for mode, side in orders if mode == "time"]
    assert timed == ["ours", "jax", "jax-unrolled"] * 3  # the first round reads the files
    assert "fill" not in [mode for mode, _ in orders]


def test_compiling_is_told_in_seconds(tmp_path: Path, orders: list[tuple[str, str]]) -> None:
    line = next(line for line in LINES if line.key == "compile-1")
    setting = Setting("cpu", False, tmp_path, 3)
    (cell,) = figures.result(setting, line, driver.measure(setting, line))["cells"]
    assert cell["ratio"]["median"] == 2.5
    assert cell["reached"] is True
    assert table.measured(cell) == "2.5 s (2.5 to 2.5; 3 pairs)"
    assert orders == [("compile", "ours")] * 3


def test_the_share_of_the_rate_of_matrices_is_that_of_each_round(
    tmp_path: Path, orders: list[tuple[str, str]]
) -> None:
    line = next(line for line in LINES if line.key == "4b")
    setting = Setting("cpu", True, tmp_path, 2)
    bare, share = figures.result(setting, line, driver.measure(setting, line))["cells"]
    assert bare["ratio"]["median"] == 9.0
    # 385 weights, 4 layers of 32 × 64 positions; 12 × 64 tokens in 1 ms, 1e12 operations a second
    assert share["ratio"]["median"] == pytest.approx(768 * (6 * 385 + 12 * 4 * 32 * 64) / 1e9)
    assert [mode for mode, _ in orders].count("multiply") == 2


@pytest.mark.parametrize("key", ["9", "10"])
def test_scikit_learn_does_as_many_steps_as_ours(key: str, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    line = next(line for line in LINES if line.key == key)
    setting = Setting("cpu", True, tmp_path, 1)
    sides = {side: commands._run(setting, line, side, 0) for side in ("ours", SKLEARN[key])}
    assert {run["steps"] for run in sides.values()} == {{"9": 7, "10": 690}[key]}
    assert all(run["total"] > 0 for run in sides.values())
    if key == "10":
        assert min(run["score"] for run in sides.values()) > 0.93


def test_programs_that_did_not_do_as_many_steps_are_refused(tmp_path: Path) -> None:
    line = next(line for line in LINES if line.key == "10")
    found = Measured()
    for side, steps in (("ours", 690), ("sklearn-classifier", 400)):
        found.rounds[side] = [{"total": 1.0, "score": 0.97, "steps": steps}]
    with pytest.raises(BenchError, match=r"other work than ours: .* after 690 and 400 steps"):
        commands._compare(Setting("cpu", False, tmp_path, 1), line, found)


def test_seconds_of_compiling_end_with_the_first_compiled_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(run: Any) -> None:
        clock = run.sinks
        clock.messages += [("Compiling the step takes …", 2.0), ("A step takes 1 ms (compiled) …", 4.0)]
        clock.marks += [(1, 1.0), (2, 4.5), (3, 9.0)]

    monkeypatch.setattr(ours_side, "fit", fit)
    work = WORKS["fnn"]("cpu", True, tmp_path)
    assert ours_side.compile_seconds(work, tmp_path) == 2.5
    monkeypatch.setattr(ours_side, "fit", lambda run: run.sinks.message("Steps run eagerly: why."))
    with pytest.raises(RuntimeError, match=r"no compiled step: Steps run eagerly: why\."):
        ours_side.compile_seconds(work, tmp_path)


@pytest.mark.slow
def test_keras_has_the_same_losses_from_the_same_weights(tmp_path: Path) -> None:
    setting = with_peers("keras", tmp_path)
    work = WORKS["cnn"]("cpu", True, tmp_path)
    ours = prepare(work, tmp_path)
    host = Host(setting, "keras", tmp_path / "caches")
    try:
        theirs = host.ask(Order("check", "keras", "cnn", "cpu", str(tmp_path), tiny=True))
        timed = host.ask(Order("time", "keras", "cnn", "cpu", str(tmp_path), tiny=True))
    finally:
        host.close()
    assert theirs["parameters"] == ours["parameters"]
    assert theirs["losses"] == pytest.approx(ours["losses"], rel=work.tolerance)
    assert timed["steady_steps"] == 4
    assert len(timed["curve"]) == 3


@pytest.mark.parametrize(
    ("measure", "goal", "figure", "shown"),
    [
        ("steady", 8, 7.504, ("≥ 8 ×", "7.50 × (7.50 to 7.50)")),
        ("slowed", 1.02, 1.0149, ("≤ 1.02 ×", "1.015 × (1.015 to 1.015)")),
        ("added", 5, 4.96, ("≤ 5 µs", "5.0 µs (5.0 to 5.0)")),
        ("rate", 0.55, 0.571, ("≥ 55 %", "57 % (57 to 57)")),
        ("val_loss", 0.5, 0.251, ("≤ 0.5 %", "0.25 % (0.25 to 0.25)")),
        ("compile", 15, 12.34, ("≤ 15 s", "12.3 s (12.3 to 12.3)")),
        ("cold", 1, 1.25, ("≥ 1 ×", "1.25 × (1.25 to 1.25)")),
        ("fit", None, 1.0, ("", "1.00 × (1.00 to 1.00)")),
    ],
)
def test_figures_have_their_unit(
    measure: str, goal: float | None, figure: float, shown: tuple[str, str]
) -> None:
    ratio = {"median": figure, "low": figure, "high": figure, "pairs": 5}
    cell = {"measure": measure, "goal": goal, "ratio": ratio}
    assert (table.goal_of(cell), table.measured(cell)) == shown


def test_a_figure_stands_beside_what_it_was_measured_against() -> None:
    result = result_of(ONE, 9.0, reached=True)
    result["cells"][0]["against"] = ONE.contests[2].against
    rows = table.markdown([{"device": "cpu", "lines": {"1": result}}]).splitlines()
    at = next(place for place, row in enumerate(rows) if row.startswith("| 1 |"))
    found = ["9.00 ×" in row for row in rows[at : at + 3]]
    assert found == [False, False, True]


def test_seconds_below_one_have_two_digits() -> None:
    shown = table.totals_of({"totals": {"ours": {"cold": 0.052, "warm": 12.34}}})
    assert shown == "ours: cold 0.05, warm 12.3 s"


def test_fewer_pairs_than_usual_are_told() -> None:
    ratio = {"median": 2.0, "low": 2.0, "high": 2.0, "pairs": 1}
    assert table.measured({"measure": "steady", "ratio": ratio}) == "2.00 × (2.00 to 2.00; 1 pair)"


def test_lines_of_other_machines_and_days_have_a_foot_of_their_own() -> None:
    old, new = result_of(ONE, 9.0, reached=True), result_of(ONE, 9.0, reached=True)
    new |= {"date": "2026-03-04", "engines": ["compiled"], "filling": 31.4}
    text = table.markdown([{"device": "cpu", "lines": {"3": old, "2": new, "1": old}}])
    assert "- a processor, lines 1, 3: 2 cores; python 3.13; 2026-01-02.\n" in text
    assert "- a processor, line 2: 2 cores; python 3.13; 2026-03-04.\n" in text
    assert (
        "- Line 2: a part of it; ours by compiled steps; ours: cold 9.0, warm 4.0 s; ours filled" in text
    )
    assert "its cache in 31 s." in text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "performance.md").write_text("nothing")
    with pytest.raises(ValueError, match="has no <!-- bench -->"):
        table.update(tmp_path / "performance.md", tmp_path)
    assert (tmp_path / "performance.md").read_text() == "nothing"


def test_the_page_has_the_results_that_are_kept(tmp_path: Path) -> None:
    page = figures.peers.ROOT / "docs" / "performance.md"
    copy = tmp_path / "performance.md"
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    table.update(copy, figures.RESULTS)
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_lines_that_were_measured_before_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "results" / "cpu.json"
    figures.keep(path, "cpu", {"1": {"title": "old"}, "2": {"title": "kept"}})
    figures.keep(path, "cpu", {"1": {"title": "new"}})
    lines = json.loads(path.read_text())["lines"]
    assert {key: line["title"] for key, line in lines.items()} == {"1": "new", "2": "kept"}
    figures.keep(path, "cpu", {"2": None})  # it failed
    assert list(json.loads(path.read_text())["lines"]) == ["1"]
