"""One local Ray for all tests of this folder that need one, to which some add a node; the library of the kernels."""

import ctypes
from collections.abc import Iterator

import pytest

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from tests.joinable import joinable_ray

TARGETS = range(3)
"""Kinds of CPU: any, with AVX2, with AVX-512. Of one that this CPU is not, the best that it is takes the place."""


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    with joinable_ray() as opened:
        yield opened


@pytest.fixture
def kernels() -> Iterator[ctypes.CDLL]:
    """The library of the kernels; after the test it is for this kind of CPU again."""
    library = load_library()
    yield library
    library.use_target(TARGETS[-1])
