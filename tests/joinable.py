"""Rays of the tests that other processes of this machine may join, which the command's local Ray does not allow."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from aclcmp.orchestrator.cluster import ray_start
from aclcmp.orchestrator.cluster.cluster import Cluster
from tests.processes import PATIENCE


@contextmanager
def joinable_ray(**options: Any) -> Iterator[Cluster]:
    """Open a local Ray that listens on all addresses, as one of `ray start` does."""
    with patch.object(ray_start, "LOOPBACK", None), Cluster.open(**options) as opened:
        yield opened


@contextmanager
def cluster_process(head: str) -> Iterator[str]:
    """Run a script that makes a cluster, prints its address and waits for the end of its input; yield the address."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", head],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
    )
    assert process.stdout is not None
    lines = (line.strip() for line in process.stdout)
    found = next((line for line in lines if line.count(":") == 1 and " " not in line), "")
    assert found, "the cluster did not start"
    yield found
    process.communicate("", timeout=PATIENCE)
