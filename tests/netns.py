"""Real hosts on one machine, for tests: each with its own network, processes, name, Ray folder, and private files.

Each host is a set of Linux namespaces that one process holds. It is the host's first process, so when it ends, the
kernel ends all others of that host; and it ends when its standard input does, so also when the tests are killed. All
hosts are connected to a bridge in namespaces of its own; nothing is made outside of them that would need removing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil
import pytest

from aclcmp.orchestrator.cluster.ray_start import HEALTH_CHECKS
from tests.conftest import _WIPED as WIPED
from tests.processes import PATIENCE, living

_UNSHARE = ("unshare", "--mount", "--uts", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")

_HOLD = """
set -e
mount --make-rprivate /
if [ -n "$1" ]; then
    hostname "$1"
    mkdir -p /tmp/ray "$2/ray" "$2/files"
    mount --bind "$2/ray" /tmp/ray           # sessions, sockets
    mount --bind "$2/files" "$3"             # the same path, other files on each host
    mkdir -p "$3/shared" "$2/../shared"
    mount --bind "$2/../shared" "$3/shared"  # the same files on all hosts
    mount --bind "$2/../hosts" /etc/hosts    # or each look-up of a name waits seconds for an answer
    mount -t tmpfs -o size=1g tmpfs /dev/shm # object stores
fi
ip link set lo up
echo ready
read -r _ || true
"""
"""Arguments: name, the host's own folder, the path of its private files."""


@cache
def why_not() -> str:
    """Return what this machine lacks for these tests, "" if nothing."""
    missing = [name for name in ("ip", "unshare", "nsenter", "mount") if not shutil.which(name)]
    if missing:
        return f"needs {' and '.join(missing)} (iproute2, util-linux)"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    tried = subprocess.run(
        [*_UNSHARE, "ip", "link", "add", "br0", "type", "bridge"], capture_output=True, text=True, timeout=PATIENCE
    )
    return f"cannot make namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True)
class Done:
    """Exit code and output of a command on a host."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Host:
    """One host. `files` are its private files as this process sees them; on the host they are at `work`.

    Below `work`/shared all hosts have the same files, which this process sees at `shared`.
    """

    name: str
    ip: str
    files: Path
    work: Path
    environ: Mapping[str, str] = field(repr=False)
    pid: int
    """Its first process, as this process sees it."""
    bridge: int
    """A process in the network that all hosts hang on."""

    @property
    def shared(self) -> Path:
        """The files that all hosts share."""
        return self.files.parent.parent / "shared"

    def cable(self, how: str) -> None:
        """Pull the host's cable (`down`), or plug it in again (`up`)."""
        _ip(self.bridge, "link", "set", f"to-{self.name}", how)

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the host but its first and its shells' holders, as this process sees them."""
        own = Path(f"/proc/{self.pid}/ns/pid").readlink()
        return living(lambda each: each.pid != self.pid and Path(f"/proc/{each.pid}/ns/pid").readlink() == own)

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command that runs `arguments` on the host, in its private folder."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--net", "--pid", f"--wdns={self.work}"]
        return [*enter, *map(str, arguments)]

    def run(self, *arguments: str | Path, timeout: float = PATIENCE) -> Done:
        """Run a command on the host and wait for its end."""
        done = subprocess.run(
            self.command(*arguments), env=self.environ, capture_output=True, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def hosts(folder: Path, names: Sequence[str] = ("acl-a", "acl-b")) -> Iterator[list[Host]]:
    """Make hosts 10.77.0.1, 10.77.0.2 and so on, whose files lie below `folder`; skip the test where that cannot be."""
    if why_not():
        pytest.skip(why_not())
    work = folder / "work"
    work.mkdir()
    addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
    (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in addresses.items()))
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(WIPED)},
        "XDG_STATE_HOME": str(folder / "state"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with ExitStack() as stack:
        bridge = stack.enter_context(_hold_namespaces())
        _ip(bridge, "link", "add", "br0", "up", "type", "bridge")
        made = []
        for name, ip in addresses.items():
            own = folder / name
            own.mkdir()
            pid = stack.enter_context(_hold_namespaces(name, own, work))
            made.append(Host(name, ip, own / "files", work, environ, pid, bridge))
            _ip(bridge, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            _ip(bridge, "link", "set", f"to-{name}", "up", "master", "br0")
            _ip(pid, "addr", "add", f"{ip}/24", "dev", "eth0")
            _ip(pid, "link", "set", "eth0", "up")
        yield made


@contextmanager
def ray_on(hosts: Sequence[Host], cpus: int = 2, npus: int = 0, dashboard: str = "") -> Iterator[str]:
    """Start Ray on hosts, its head on the first, and yield its address. It ends with the hosts.

    `dashboard` is where the head's job server listens; "": there is none.
    """
    address = f"{hosts[0].ip}:6379"
    for host in hosts:
        start_ray(host, "" if host is hosts[0] else address, cpus, npus, dashboard=dashboard)
    yield address


def start_ray(
    host: Host,
    address: str,
    cpus: int = 2,
    npus: int = 0,
    environ: Mapping[str, str] | None = None,
    dashboard: str = "",
) -> None:
    """Start Ray on a host, which claims to have NPUs: a head if there is no `address`, else a node of that cluster."""
    job_server = f"--include-dashboard=true --dashboard-host={dashboard}" if dashboard else "--include-dashboard=false"
    head = f"--head --port=6379 {job_server}"
    options = f"--node-ip-address={host.ip} --num-cpus={cpus} --object-store-memory=200000000 --disable-usage-stats"
    variables = (f"{name}={value}" for name, value in {**HEALTH_CHECKS, **(environ or {})}.items())
    where = f"--address={address}" if address else head
    claimed = f'--resources={{"NPU": {npus}}}'
    done = host.run("env", *variables, "ray", "start", claimed, *where.split(), *options.split())
    assert done.code == 0, f"Ray does not start on {host.name}: {done.out}{done.err}"


@contextmanager
def _hold_namespaces(*arguments: str | Path) -> Iterator[int]:
    """Hold new namespaces, and yield the id of their first process."""
    holder = subprocess.Popen(
        [*_UNSHARE, "bash", "-c", _HOLD, "hold", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == "ready\n", "the namespaces were not set up"
        (first,) = psutil.Process(holder.pid).children()
        yield first.pid
    finally:
        holder.stdin.close()
        holder.wait(PATIENCE)
        holder.stdout.close()


def _ip(pid: int, *arguments: str) -> None:
    """Run `ip` in the network of a process."""
    subprocess.run(["nsenter", f"--target={pid}", "--net", "ip", *arguments], check=True)
