"""A port for the ranks to meet at."""

import random
import socket
from pathlib import Path

_CANDIDATES = range(20_000, 30_000)
"""Above the ports of Ray's workers, below those that Kubernetes gives to services."""
_TRIES = 100


def free_port() -> int:
    """A TCP port of this host that nobody listens on now; another process may take it before the rank does.

    Not one of those that the kernel hands out itself: it would soon give it to somebody's connection, and a rank
    imports torch for long before it listens.
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
    """The first and the last of the ports that the kernel hands out; Linux' own where that cannot be read."""
    try:
        lowest, highest = map(int, (root / "proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        return 32_768, 60_999
    return lowest, highest
