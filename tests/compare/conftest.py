"""One local Ray for all tests of this folder that need one; some add a node to it."""

from collections.abc import Iterator

import pytest

from aclcmp.orchestrator.cluster.cluster import Cluster
from tests.joinable import joinable_ray


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    with joinable_ray() as opened:
        yield opened
