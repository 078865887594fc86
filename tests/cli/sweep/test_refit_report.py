"""What `sweep.refit=` says at the end of its run."""

from pathlib import Path
from typing import Any

import pytest

from bigmodel.cli.sweep.refit_report import conclusion
from bigmodel.reporting.base import Summary
from bigmodel.sweeps.leaderboard import JobResult
from bigmodel.sweeps.refit import Refit, winners


def refit(values: list[float], seeds: int = 1, metric: str = "val/accuracy", **more: Any) -> Refit:
    """A run with the best of settings with these figures, each as often as there are seeds."""
    results = [
        JobResult(
            job=f"{number}{seed}",
            changed={"model": str(number)} | ({"seed": str(seed)} if seeds > 1 else {}),
            status="finished",
            monitor=metric,
            mode="max" if metric == "val/accuracy" else "min",
            best={metric: value + 0.01 * seed},
        )
        for number, value in enumerate(values)
        for seed in range(seeds)
    ]
    (winner,) = winners(results)
    return Refit(winner, "", "mine", "", **more)


def said(
    refit: Refit, best: float | None, test: float | None, metric: str = "val/accuracy"
) -> list[str]:
    own = {} if best is None else {metric: best}
    tested = {} if test is None else {metric.replace("val", "test"): test}
    return conclusion(refit, Path("runs/my run"), Summary("finished", best=own, test=tested))


def test_the_figures_are_side_by_side() -> None:
    blank, *table, words, again = said(refit([0.5, 0.9]), 0.875, 0.8)
    assert (blank, table) == (
        "",
        [
            "                val/accuracy  test/accuracy",
            "best of 2 jobs  0.9000        –",
            "this run        0.8750        0.8000",
        ],
    )
    assert words == (
        "The best of 2 jobs is partly the luckiest, so that both figures of val/accuracy are optimistic."
        " Report test/accuracy, worse by 0.1000 than as picked: its samples took no part in the choice."
    )
    assert again == "These settings again: bigmodel-train '--config-dir=runs/my run' experiment=mine"


def test_seeds_have_a_standard_error() -> None:
    _, _, picked, own, words, _ = said(refit([0.5, 0.9], seeds=3), 0.9, 0.95)
    assert picked == "best of 2 settings, mean of 3 seeds ± standard error  0.9100 ± 0.0058  –"
    assert own.split() == ["this", "run", "0.9000", "0.9500"]
    assert "Report test/accuracy, no worse than as picked" in words


def test_less_may_be_better() -> None:
    metric = "val/loss"
    *_, words, _ = said(refit([0.5, 0.9], metric=metric), 0.5, 0.7, metric)
    assert "Report test/loss, worse by 0.2000 than" in words


def test_without_a_test_set_there_is_nothing_better_to_report() -> None:
    _, *table, words, _ = said(refit([0.5, 0.9]), None, None)
    assert table == ["                val/accuracy", "best of 2 jobs  0.9000", "this run        –"]
    assert "so that val/accuracy as picked is optimistic. There is no test set" in words


def test_nothing_is_optimistic_about_the_only_job() -> None:
    _, *table, again = said(refit([0.5]), 0.5, 0.8)
    assert [row.split()[-1] for row in table] == ["test/accuracy", "–", "0.8000"]
    assert again.startswith("These settings again")


@pytest.mark.parametrize(
    ("known", "typed"),
    [
        ({"plugins": ["plug"]}, "'--config-dir=runs/my run' experiment=mine 'plugins=[plug]'"),
        (
            {"flags": ["--config-dir=conf"], "search_path": ["file://more"]},
            "--config-dir=conf 'hydra.searchpath=[runs/my run,\"file://more\"]' experiment=mine",
        ),
    ],
)
def test_the_settings_are_named_with_all_that_they_need(known: dict[str, Any], typed: str) -> None:
    *_, again = said(refit([0.5, 0.9], **known), 0.5, None)
    assert again == f"These settings again: bigmodel-train {typed}"


def test_a_user_elsewhere_goes_to_where_the_paths_start() -> None:
    *_, again = said(refit([0.5, 0.9], moved_to=Path("/there")), 0.5, None)
    there = Path("runs/my run").resolve()
    assert again.startswith(f"These settings again: cd /there && bigmodel-train '--config-dir={there}'")


def test_folds_say_how_much_the_choice_flatters() -> None:
    def folds(**values: tuple[float, float]) -> str:
        results = [
            JobResult(
                job=f"{model}{fold}",
                changed={"model": model, "data.val_fold": str(fold)},
                status="finished",
                monitor="val/accuracy",
                mode="max",
                best={"val/accuracy": value},
            )
            for model, figures in values.items()
            for fold, value in enumerate(figures)
        ]
        (winner,) = winners(results)
        _, _, picked, _, words, _ = said(Refit(winner, "", "mine", ""), None, None)
        assert picked.startswith("best of 2 settings, mean of 2 folds ± standard error")
        return words

    assert "as picked is optimistic, the mean by about 0.0500." in folds(fnn=(0.5, 0.8), cnn=(0.6, 0.5))
    assert "best of 2 settings in every fold: having been picked does not" in folds(
        fnn=(0.5, 0.8), cnn=(0.4, 0.5)
    )
