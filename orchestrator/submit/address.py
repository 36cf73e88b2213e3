"""Checks on the address of a job server: that it is a URL of one, that it answers, and that it is safe to use."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from aclcmp.orchestrator.errors import UsageError

_PROBE_SECONDS = 5.0
_HOST = re.compile(r"\[[^\]/]+\]|[^/:?#]+")


def check_address(address: str | None) -> str:
    """Return the URL without a slash at its end. Raises UsageError for anything but the URL of a job server."""
    if not address:
        raise UsageError("no address: give --address http://HEAD:8265, or `address:` in the cluster file")
    if "@" in address:
        raise UsageError("address: leave the user name and password out; Ray takes a token (RAY_AUTH_TOKEN)")
    parts = _parse_url(address)
    if parts is None or parts.path.strip("/") or parts.query or parts.fragment:
        host = _HOST.match(re.sub(r"^\w+://", "", address))
        raise UsageError(
            f"address {address} is not the URL of a job server; it is that of the head's dashboard, "
            f"such as http://{host.group() if host else 'HEAD'}:8265"
        )
    return parts.geturl().rstrip("/")


def check_answers(address: str) -> None:
    """Raise UsageError, with what to do, when nothing listens there: Ray's client would wait for minutes."""
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return
    try:
        socket.create_connection((host, port), timeout=_PROBE_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UsageError(no_answer(address, str(getattr(error, "strerror", None) or error))) from None


def no_answer(address: str, why: str) -> str:
    """Say that no job server answers at an address, and what to do."""
    host = urlsplit(address).hostname
    return (
        f"no job server answers at {address} ({why}). Is Ray running there with its dashboard (ray[default])? "
        f"It listens on the head's loopback by default: `ssh -L 8265:127.0.0.1:8265 {host}`, then --address "
        "http://127.0.0.1:8265"
    )


def safety_warning(address: str) -> str:
    """Return why it is unsafe to submit there (plain http over a public network), "" where it is safe."""
    parts = urlsplit(address)
    if parts.scheme != "http":
        return ""
    public = sorted(ip for ip in _ip_addresses(parts) if ipaddress.ip_address(ip).is_global)
    if not public:
        return ""
    where = parts.hostname if parts.hostname in public else f"{parts.hostname} ({public[0]})"
    return (
        f"{where} is a public address, and http is not encrypted: whoever can read along gets the token, and with it "
        f"the cluster. Use https, or a tunnel: ssh -L 8265:127.0.0.1:8265 {parts.hostname}"
    )


def proxy_of(address: str) -> str:
    """Return the proxy of requests to an address without its user and password, "" if there is none."""
    parts = urlsplit(address)
    proxy = "" if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme, "")
    return proxy.rpartition("@")[2]


def without_ray_addresses() -> dict[str, str]:
    """Take the variables out of the environment that would count instead of the address; return them."""
    return {name: os.environ.pop(name) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if name in os.environ}


def _parse_url(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname else None


def _ip_addresses(parts: SplitResult) -> set[str]:
    host = parts.hostname or ""
    try:
        return {str(ipaddress.ip_address(host.split("%")[0]))}
    except ValueError:
        pass
    try:
        return {str(each[4][0]).split("%")[0] for each in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return set()
