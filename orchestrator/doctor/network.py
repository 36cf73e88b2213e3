"""The network of one host: interfaces, the addresses of its own name, ports, proxies."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import psutil

from aclcmp.orchestrator.cluster.ports import ephemeral_ports

HCCL_PORTS = range(60000, 60016)
"""Ports of HCCL unless HCCL_IF_BASE_PORT is set (CANN's documentation, envref_07_0074)."""
RAY_PORTS = (6379, 8265, 10001)
"""Ports of `ray start --head`: its own, the dashboard with the job server, the client server."""
SOCKET_NAMES = ("GLOO_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")

_NAME_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Network:
    """The network as one host sees it."""

    host: str
    interfaces: tuple[tuple[str, str], ...]
    """(name, address), IPv4 and IPv6."""
    resolved: tuple[str, ...]
    """Addresses of the host's name on the host itself; empty where it does not resolve."""
    resolve_seconds: float
    """Seconds that resolving took; it is given up after 5 s."""
    socket_names: tuple[tuple[str, str], ...] = ()
    """Variables that name the interface of a collective library, as set on the host."""
    proxied: tuple[str, ...] = ()
    """Addresses of the cluster's hosts that an http proxy would be asked for."""
    free_port: bool = True
    """Whether the system still hands out a free port; every connection needs one."""
    local_ports: tuple[int, int] = (32768, 60999)
    """The range from which the system hands out ports."""
    reserved_ports: str = ""
    """Ports that the system does not hand out, e.g. "60000-60015"."""
    taken: tuple[tuple[int, str], ...] = ()
    """(port, process name) of the given ports on which a process listens; "" is a process of another user."""

    def owner(self, ip: str) -> str:
        """Return the name of the interface that has the address, "" if none has."""
        return next((name for name, address in self.interfaces if address == ip), "")


def inspect_network(
    peers: Sequence[str], ports: Sequence[int], environ: Mapping[str, str], root: Path = Path("/")
) -> Network:
    """Return this host's network. `peers` are the addresses of the cluster's hosts, `ports` should be free."""
    host = socket.gethostname()
    begun = time.monotonic()
    resolved = _resolve_patiently(host)
    seconds = time.monotonic() - begun
    return Network(
        host=host,
        interfaces=tuple(
            (name, address.address.partition("%")[0])
            for name, addresses in sorted(psutil.net_if_addrs().items())
            for address in addresses
            if address.family in (socket.AF_INET, socket.AF_INET6)
        ),
        resolved=resolved,
        resolve_seconds=round(seconds, 2),
        socket_names=tuple((name, environ[name]) for name in SOCKET_NAMES if environ.get(name)),
        proxied=tuple(peer for peer in peers if uses_proxy(peer, environ)),
        free_port=_is_free(0),
        local_ports=ephemeral_ports(root),
        reserved_ports=_read(root / "proc/sys/net/ipv4/ip_local_reserved_ports"),
        taken=_listeners([port for port in ports if not _is_free(port)]),
    )


def is_loopback(address: str) -> bool:
    """Tell whether other hosts cannot reach an address."""
    return address.startswith("127.") or address == "::1"


def is_reserved(text: str, port: int) -> bool:
    """Tell whether a list like ip_local_reserved_ports ("8080,60000-60015") contains a port."""
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        if int(low) <= port <= int(high or low):
            return True
    return False


def _resolve_patiently(host: str) -> tuple[str, ...]:
    """Return the addresses of a name; none where the name server does not answer within 5 s."""
    found: list[str] = []

    def look_up() -> None:
        with suppress(OSError):
            found.extend(sorted({str(answer[4][0]) for answer in socket.getaddrinfo(host, None)}))

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(_NAME_SECONDS)
    return tuple(found)


def uses_proxy(peer: str, environ: Mapping[str, str]) -> bool:
    """Tell whether http to an address goes through a proxy. no_proxy may contain networks ("10.0.0.0/8") too."""
    if not {"http", "all"} & getproxies().keys() or proxy_bypass(peer):
        return False
    for word in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(","):
        with suppress(ValueError):
            if ipaddress.ip_address(peer) in ipaddress.ip_network(word.strip(), strict=False):
                return False
    return True


def _is_free(port: int) -> bool:
    """Tell whether a process can listen on the port at every address of the host; 0: on any port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen()
        except OSError:
            return False
    return True


def _listeners(ports: Sequence[int]) -> tuple[tuple[int, str], ...]:
    """Return (port, process name) of the listeners on ports; "" where this user may not read the name."""
    if not ports:
        return ()
    names = dict.fromkeys(ports, "")
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            port = connection.laddr.port if connection.laddr else 0
            if connection.status == psutil.CONN_LISTEN and connection.pid and port in names:
                with suppress(psutil.Error):
                    names[port] = psutil.Process(connection.pid).name()
    return tuple(sorted(names.items()))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
