"""One local Ray for all tests of this folder that need one."""

from collections.abc import Iterator

import pytest

from aclcmp.orchestrator.cluster import Cluster


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    with Cluster.open() as opened:
        yield opened
