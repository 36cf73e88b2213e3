"""One process that forks ranks, for all tests here."""

from collections.abc import Iterator

import pytest

from tests.cli.conftest import aclcmp as aclcmp
from tests.models.running import Ranks, forking


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    with forking() as started:
        yield started
