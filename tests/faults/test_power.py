"""A power cut while files are on their way to the disk: the run goes on, and ends the same."""

from pathlib import Path

import pytest

from bigmodel.checkpointing import checkpoint
from bigmodel.training import loop
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command
from tests.faults import power
from tests.faults.durability import Order

command = conftest.command


@pytest.mark.parametrize("kind", power.SIZES)
def test_the_power_is_cut(tmp_path: Path, expected: str, kind: str) -> None:
    try:
        result = power.cut_and_resume(tmp_path / kind, kind, expected, ("sync 40", "sync 60"))
    except PermissionError as error:
        pytest.skip(str(error))
    assert result.faults == []
    assert result.cuts == 2


def test_all_that_a_resume_needs_is_synced_in_order(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs no such disk: each call that has to do with it is watched."""
    order = Order()

    def watched(act: object, what: str) -> object:
        def acting(*args: object, **more: object) -> object:
            if what == "the first step":
                order.check_synced(what, *(path.parent for path in Path("outputs").rglob("config.yaml")))
                return act(*args, **more)  # type: ignore[operator]
            result = act(*args, **more)  # type: ignore[operator]
            order.check_synced(what, *Path("outputs").rglob("checkpoints"))
            return result

        return acting

    monkeypatch.setattr(loop, "fit", watched(loop.fit, "the first step"))
    monkeypatch.setattr(checkpoint, "save", watched(checkpoint.save, "a save"))
    words = ("trainer.epochs=2", "trainer.checkpoint.every_steps=10", "device=cpu")
    with order.watching():
        first = command(*words, "trainer.max_steps=20")
        assert first.status == 0, first.err
        assert first.folder is not None
        order.check_synced("the end", first.folder / "summary.json", first.folder / ".hydra")
        again = command(f"resume={first.folder}", "trainer.max_steps=30")
        assert again.status == 0, again.err
        order.check_synced("the end", first.folder / "summary.json", first.folder / ".hydra")
    assert order.faults == []
    assert order.renames > 20
