"""Cluster-launcher files of Ray: check them by Ray's own rules, start their cluster by `ray up`, find its head."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aclcmp.orchestrator.errors import LaunchError, UsageError
from aclcmp.orchestrator.submit.cluster_file import ClusterFile

_RAY = (sys.executable, "-m", "ray.scripts.scripts")


def check_launcher(path: Path, body: Mapping[str, Any]) -> None:
    """Raise UsageError for a file that `ray up` would refuse."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        import jsonschema
    except ImportError:  # Ray checks by it, and installs it
        raise UsageError("Ray's check of launcher files is not installed here: pip install 'aclcmp[submit]'") from None
    try:
        validate_config(prepare_config(copy.deepcopy(dict(body))))  # it must be completed before it is checked
    except jsonschema.ValidationError as error:
        place = ".".join(map(str, error.absolute_path))
        raise UsageError(f"{path}: {place + ': ' if place else ''}{error.message}") from None
    except Exception as error:  # Ray raises what it likes: click's, KeyError, ValueError
        raise UsageError(f"{path}: `ray up` would refuse it: {' '.join(str(error).split())}") from None


def bring_up(path: Path) -> None:
    """Run `ray up -y FILE`, its output on stderr. Raises LaunchError when it fails."""
    command = [*_RAY, "up", "-y", str(path)]
    if code := subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), check=False).returncode:
        raise LaunchError(f"`ray up -y {path}` failed with exit code {code}; nothing was submitted")


def head_address(cluster: ClusterFile) -> str:
    """Return the URL of the head of a cluster that `ray up` started. Raises UsageError where Ray does not know it."""
    command = [*_RAY, "get-head-ip", str(cluster.path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    lines = done.stdout.split()
    if done.returncode or not lines:
        raise UsageError(
            f"Ray does not know the head of {cluster.path}; bring it up by --up, or give --address http://HEAD:8265"
        )
    return f"http://{lines[-1]}:8265"
