"""What several tests of faults compare with."""

import pytest

from tests.faults import trials


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an uninterrupted run of `trials.RECIPE`."""
    return trials.run_uninterrupted(tmp_path_factory.mktemp("uninterrupted"), *trials.RECIPE)
