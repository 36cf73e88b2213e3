"""A Ray of the tests that other processes of this machine may join, which the command's local Ray does not allow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from aclcmp.orchestrator.cluster import ray_start
from aclcmp.orchestrator.cluster.cluster import Cluster


@contextmanager
def joinable_ray(**options: Any) -> Iterator[Cluster]:
    """Open a local Ray that listens on all addresses, as one of `ray start` does."""
    with patch.object(ray_start, "LOOPBACK", None), Cluster.open(**options) as opened:
        yield opened
