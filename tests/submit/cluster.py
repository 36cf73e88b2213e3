"""A Ray of the tests' own with its job server on loopback, and with private ports, folder and token."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from aclcmp.orchestrator.cluster.ports import free_port
from tests.conftest import _WIPED as WIPED
from tests.processes import PATIENCE, command_of, kill, living


@dataclass(frozen=True)
class OwnCluster:
    """A running cluster."""

    url: str
    token: str = field(repr=False)
    home: Path
    """The home folder of its jobs."""
    temp: Path
    """Ray's folder: sessions, logs."""
    environ: Mapping[str, str] = field(repr=False)
    """For a client that may use it."""


@contextmanager
def own_cluster(folder: Path, cpus: int = 4) -> Iterator[OwnCluster]:
    """Start a head node with a dashboard; end every process of it afterwards, and touch no other Ray."""
    home = folder / "home"
    home.mkdir()
    token = secrets.token_hex(32)
    base = {name: value for name, value in os.environ.items() if not name.startswith(WIPED)}
    base |= {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    temp = Path(tempfile.mkdtemp(prefix="acl-", dir="/tmp"))  # short: sockets lie below it
    ports: set[int] = set()
    while len(ports) < 5:
        ports.add(free_port())
    gcs, dashboard, agent, client, metrics = ports
    options = [
        "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}", "--include-dashboard=true",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
        f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}", "--min-worker-port=0",
        "--max-worker-port=0", f"--num-cpus={cpus}", "--object-store-memory=100000000", "--disable-usage-stats",
        f"--temp-dir={temp}",
    ]  # fmt: skip
    log = (folder / "ray.log").open("w")
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *options],
        env=base, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(url, token, head, folder / "ray.log")
        yield OwnCluster(url, token, home, temp, base)
    finally:
        _end(head, temp)
        log.close()
        shutil.rmtree(temp, ignore_errors=True)


def _wait_for(url: str, token: str, head: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and head.poll() is None:
        request = urllib.request.Request(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=60):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"the job server did not start: {log.read_text()[-3000:]}")


def _end(head: subprocess.Popen[bytes], temp: Path) -> None:
    """End the head as Ray does it at SIGTERM, then the processes of it that are left."""
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(30)
    except subprocess.TimeoutExpired:
        head.kill()
        head.wait()
    left = living(lambda each: str(temp) in command_of(each))
    kill(left)
    psutil.wait_procs(left, PATIENCE)
