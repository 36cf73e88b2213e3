"""A free port for the ranks' rendezvous."""

import random
import socket
from pathlib import Path

_CANDIDATES = range(20_000, 30_000)
"""Above the ports of Ray's workers, below those that Kubernetes gives to services."""
_TRIES = 100


def free_port() -> int:
    """Return a TCP port of this host that is free now; another process may take it before the rank does.

    Ephemeral ports are avoided: the kernel would soon give one to some connection, and a rank imports torch for
    seconds before it listens. Raises OSError when no port is free.
    """
    lowest, highest = ephemeral_ports()
    candidates = [port for port in _CANDIDATES if not lowest <= port <= highest]
    for port in [*random.sample(candidates, min(_TRIES, len(candidates))), 0]:
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free TCP port: see /proc/sys/net/ipv4/ip_local_port_range")


def ephemeral_ports(root: Path = Path("/")) -> tuple[int, int]:
    """Return the first and the last port that the kernel assigns itself; Linux's default where it cannot be read."""
    try:
        lowest, highest = map(int, (root / "proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        return 32_768, 60_999
    return lowest, highest
