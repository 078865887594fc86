import gc

import pytest

from bigmodel.cli import imports


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_collected_while_importing(enabled: bool) -> None:
    gc.enable() if enabled else gc.disable()
    before = gc.get_freeze_count()
    seen = []

    def fails() -> None:
        seen.append(gc.isenabled())
        raise ImportError

    with pytest.raises(ImportError), imports.importing():
        fails()
    assert seen == [False]
    assert gc.isenabled() == enabled
    assert gc.get_freeze_count() > before
