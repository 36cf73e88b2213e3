"""Checks of one host's network: name, interfaces, ports, proxies, token, clock. Pure: facts in, findings out."""

from __future__ import annotations

from aclcmp.orchestrator.doctor.findings import Findings, HostReport, bad, ok, warn
from aclcmp.orchestrator.doctor.network import HCCL_PORTS, RAY_PORTS, Network, is_loopback, is_reserved

_SLOW_NAME = 1.0
_SKEW = 1.0
_RAY_PROCESSES = ("gcs_server", "raylet", "ray", "python", "python3")
"""Names of Ray's own listeners; its dashboard is a Python."""
_TUNNELS = ("ssh", "kubectl")
_OWN_INTERFACE = "aclcmp sets GLOO_, HCCL_ and NCCL_SOCKET_IFNAME for its ranks itself"


def check_network(host: HostReport, asker: str, *, alone: bool) -> Findings:
    """Check the network of one host. `alone`: it is the only host, so no other has to reach it.

    `asker` names the host against whose clock its own was measured.
    """
    network, where = host.facts.network, host.where
    yield from _name(network, where, alone)
    if host.ip:
        yield from _address(host, alone)
    yield from check_variables(network, where)
    yield from _ports(host)
    yield from _token(host)
    yield from _clock(host, asker, alone)


def check_variables(network: Network, where: str) -> Findings:
    """Check the variables for interfaces and proxies, of a host or of the shell that runs the command."""
    yield from _socket_names(network, where)
    if network.proxied:
        named = ", ".join(network.proxied[:3]) + (", ..." if len(network.proxied) > 3 else "")
        fix = f"export no_proxy=$no_proxy,{','.join(network.proxied[:8])} (also NO_PROXY)"
        yield warn(f"http_proxy would be asked for {named}: job servers and dashboards are not reached", where, fix)


def _name(network: Network, where: str, alone: bool) -> Findings:
    host = network.host
    entry = f'the line "ADDRESS {host}" in /etc/hosts, with the address that other hosts reach'
    if not network.resolved:
        yield warn(f"its name {host} does not resolve: gloo and HCCL fall back to loopback, or wait long", where, entry)
    elif all(map(is_loopback, network.resolved)) and not alone:
        yield warn(
            f"its name {host} resolves to {network.resolved[0]}: gloo and HCCL of scripts that start their own ranks "
            f"listen where no other host reaches them ({_OWN_INTERFACE})",
            where,
            entry,
        )
    elif network.resolve_seconds > _SLOW_NAME:
        what = f"looking up its own name took {network.resolve_seconds:.1f} s: so does every process group's start"
        yield warn(what, where, entry)
    else:
        yield ok(f"its name resolves to {network.resolved[0]}", where)


def _address(host: HostReport, alone: bool) -> Findings:
    interface = host.facts.network.owner(host.ip)
    if is_loopback(host.ip) and not alone:
        fix = "`ray start --node-ip-address=ADDRESS`, with the address that other hosts reach"
        yield bad(f"Ray knows it as {host.ip}: no other host can reach it", host.where, fix)
    elif not interface:
        yield warn(
            f"no interface has Ray's address {host.ip} (a container behind NAT?): others may not reach its ranks",
            host.where,
            "docker run --network=host, or `ray start --node-ip-address=` an address of the container itself",
        )
    else:
        yield ok(f"Ray's address {host.ip} is that of interface {interface}", host.where)


def _socket_names(network: Network, where: str) -> Findings:
    names = {name for name, _ in network.interfaces}
    for variable, value in network.socket_names:
        if value.startswith("^"):  # HCCL and NCCL: any but these
            continue
        exact = variable.startswith("GLOO") or value.startswith("=")
        wanted = [word for word in value.removeprefix("=").split(",") if word]
        if not any(name == word or (not exact and name.startswith(word)) for name in names for word in wanted):
            what = f"{variable}={value} names no interface of this host ({', '.join(sorted(names))})"
            yield bad(what, where, f"unset {variable} where `ray start` or aclcmp is called: {_OWN_INTERFACE}")


def _ports(host: HostReport) -> Findings:
    network, where = host.facts.network, host.where
    taken = dict(network.taken)
    if not network.free_port:
        fix = "sysctl net.ipv4.ip_local_port_range, or close connections (`ss -s`)"
        yield bad("the system hands out no free port: ranks cannot connect to each other", where, fix)
    for port in RAY_PORTS:
        if port not in taken:
            continue
        if taken[port] in _TUNNELS:
            yield ok(f"port {port} is taken by {taken[port]}, as by a tunnel to a cluster", where)
        elif taken[port] in _RAY_PROCESSES:
            yield ok(f"port {port} is taken, it seems by a Ray that runs here ({taken[port]})", where)
        else:
            who = taken[port] or "a process of another user"
            option = {6379: "--port=6380", 8265: "--dashboard-port=8266", 10001: "--ray-client-server-port=10002"}[port]
            yield warn(f"port {port}, which `ray start --head` takes, is taken by {who}", where, f"give it {option}")
    if host.facts.devices.npus:
        yield from _hccl_ports(network, where)


def _hccl_ports(network: Network, where: str) -> Findings:
    fix = "export HCCL_IF_BASE_PORT=50000 (any 16 free ports)"
    if busy := [port for port, _ in network.taken if port in HCCL_PORTS]:
        who = ", ".join(sorted({name or "another user" for port, name in network.taken if port in HCCL_PORTS}))
        yield warn(f"port {busy[0]} of HCCL's 60000-60015 is taken by {who}: HCCL's start fails", where, fix)
    low, high = network.local_ports
    ephemeral_ports = [p for p in HCCL_PORTS if low <= p <= high and not is_reserved(network.reserved_ports, p)]
    if ephemeral_ports:
        yield warn(
            "the system may hand out HCCL's ports 60000-60015 to anybody: HCCL's start fails now and then",
            where,
            "sysctl -w net.ipv4.ip_local_reserved_ports=60000-60015",
        )


def _token(host: HostReport) -> Findings:
    token = host.facts.token
    if token.readable:
        yield warn(f"other users may read Ray's token in {token.source}", host.where, f"chmod 600 {token.source}")
    if token.mode not in ("", "token", "disabled"):
        fix = "export RAY_AUTH_MODE=token"
        what = f"RAY_AUTH_MODE={token.mode} is for Ray as good as disabled: whoever reaches its ports runs code here"
        yield bad(what, host.where, fix)
    elif token.mode == "token" and not token.source:
        fix = "export RAY_AUTH_TOKEN, the same on all hosts, before `ray start`; or put it into ~/.ray/auth_token"
        yield bad("RAY_AUTH_MODE=token, and there is no token", host.where, fix)


def _clock(host: HostReport, asker: str, alone: bool) -> Findings:
    low, high = host.skew
    if low > _SKEW or high < -_SKEW:
        ahead = low > 0
        off = low if ahead else -high
        what = f"its clock is at least {off:.1f} s {'ahead of' if ahead else 'behind'} that of {asker}"
        yield warn(what, host.where, "start chrony or ntpd there (`timedatectl set-ntp true`)")
    elif not alone and host.skew != (0.0, 0.0):
        yield ok(f"its clock is within {max(abs(low), abs(high), 0.01):.2f} s of that of {asker}", host.where)
