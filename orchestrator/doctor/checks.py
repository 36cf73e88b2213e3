"""All checks of an examination, host by host, then of the cluster. Pure: reports go in, findings come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from aclcmp.orchestrator.cluster.ray_start import HEALTH_CHECKS
from aclcmp.orchestrator.cluster.versions import Versions
from aclcmp.orchestrator.doctor.findings import Finding, Findings, HostReport, bad, ok, warn
from aclcmp.orchestrator.doctor.host_checks import check_machine
from aclcmp.orchestrator.doctor.load_checks import check_loading
from aclcmp.orchestrator.doctor.net_checks import check_network, check_variables
from aclcmp.orchestrator.doctor.network import Network

_HEALTHY_SECONDS = 20.0
_INSTALL = "install the same version on all hosts, into the Python that runs Ray"


def check(
    hosts: Sequence[HostReport], silent: Sequence[tuple[str, str]] = (), shell: Network | None = None
) -> list[Finding]:
    """Check hosts, the asking one first; `silent` are hosts that gave no answer, as (host, reason).

    `shell` is the network as the asking shell sees it: its variables may differ from those of the Ray there.
    """
    alone = len(hosts) + len(silent) == 1
    findings: list[Finding] = []
    for where, why in silent:
        findings.append(bad(why.partition(": install")[0], where, _fix_of_silence(why)))
    for host in hosts:
        findings += _versions(host, hosts[0])
        findings += check_network(host, hosts[0].where, alone=alone)
        findings += check_machine(host)
        findings += check_loading(host)
        if not alone and not host.facts.run_folder.exists:
            what = f"there is no folder {host.facts.run_folder.path}: a command started from here runs there too"
            findings.append(
                warn(what, host.where, f"mkdir -p {host.facts.run_folder.path}, or start from a shared one")
            )
    if shell is not None:
        known = {finding.what for finding in findings}
        own = check_variables(shell, f"{shell.host}, this shell")
        findings += [finding for finding in own if finding.what not in known]
    if hosts:
        findings += _together(hosts, alone=alone)
    return findings


def versions_text(versions: Versions) -> str:
    """Return the versions in one line, without packages that are not installed."""
    names = {"python": "Python", "ray": "Ray", "torch_npu": "torch-npu"}
    order = ("aclcmp", "python", "ray", "numpy", "h5py", "torch", "torch_npu")
    return ", ".join(f"{names.get(name, name)} {value}" for name in order if (value := getattr(versions, name)))


def _fix_of_silence(why: str) -> str:
    if "aclcmp" in why:
        return _INSTALL
    return "look whether it is up (`ray status`), and into /tmp/ray/session_latest/logs there"


def _versions(host: HostReport, asker: HostReport) -> Findings:
    mine, theirs, where = asker.facts.versions, host.facts.versions, host.where
    problems: list[Finding] = []
    if theirs.aclcmp != mine.aclcmp:
        problems.append(
            bad(f"has aclcmp {theirs.aclcmp or '(no version)'}, {asker.where} has {mine.aclcmp}", where, _INSTALL)
        )
    elif host.facts.code != asker.facts.code:
        what = f"has another state of aclcmp {theirs.aclcmp} than {asker.where} (a checkout?)"
        problems.append(warn(what, where, "check out or install the same state everywhere"))
    if _minor(theirs.python) != _minor(mine.python):
        problems.append(bad(f"has Python {theirs.python}, {asker.where} has {mine.python}", where, _INSTALL))
    elif theirs.python != mine.python:
        what = f"has Python {theirs.python}, {asker.where} has {mine.python}: Ray may refuse it"
        problems.append(warn(what, where, "the same Python on all hosts, to the last number"))
    if theirs.ray != mine.ray:
        problems.append(
            bad(f"has Ray {theirs.ray}, {asker.where} has {mine.ray}", where, "pip install ray==" + mine.ray)
        )
    for name, title in (("torch", "torch"), ("torch_npu", "torch-npu"), ("numpy", "numpy"), ("h5py", "h5py")):
        here, there = getattr(mine, name), getattr(theirs, name)
        if here != there:
            what = f"has {f'{title} {there}' if there else f'no {title}'}, {asker.where} has {here or 'none'}"
            problems.append(
                warn(f"{what}: ranks may compute differently by host", where, "the same versions everywhere")
            )
    here, there = asker.facts.ascend.cann, host.facts.ascend.cann
    if here != there:
        what = f"has {f'CANN {there}' if there else 'no CANN'}, {asker.where} has {here or 'none'}"
        problems.append(warn(f"{what}: ranks may compute differently by host", where, "the same CANN on all hosts"))
    yield from problems or [ok(versions_text(theirs), where)]


def _together(hosts: Sequence[HostReport], *, alone: bool) -> Findings:
    if hosts[0].resources is not None and hosts[0].ip:
        yield from _token(hosts)
    if alone:
        return
    shared = [ip for ip, count in Counter(host.ip for host in hosts).items() if count > 1]
    for ip in shared:
        count = sum(host.ip == ip for host in hosts)
        what = f"{count} nodes of Ray share the address {ip}: scripts that count by address see one"
        yield warn(what, "", "one `ray start` per host; behind NAT, --node-ip-address= of its own")
    health = next((host.facts.health for host in hosts if host.facts.health), None)
    if health is None:
        yield ok("how soon Ray notices a lost host is not known: the head's process may not be looked at")
    elif health.seconds > _HEALTHY_SECONDS:
        settings = " ".join(f"{name}={value}" for name, value in HEALTH_CHECKS.items())
        what = f"a lost host is noticed after up to {health.seconds:.0f} s: until then its ranks are waited for"
        yield warn(what, "", f"on the head: {settings} ray start --head ...")
    else:
        yield ok(f"a lost host is noticed within {health.seconds:.0f} s")


def _token(hosts: Sequence[HostReport]) -> Findings:
    known = {host.where: host.facts.token for host in hosts}
    digests = {token.digest for token in known.values() if token.digest}
    if len(digests) > 1:
        odd = [where for where, token in known.items() if token.digest and token.digest != hosts[0].facts.token.digest]
        what = f"Ray's token on {', '.join(odd)} is another than on {hosts[0].where}"
        yield warn(
            what, "", "give all the same RAY_AUTH_TOKEN or ~/.ray/auth_token, or the next `ray start` is refused"
        )
    if any(token.mode == "token" for token in known.values()):
        yield ok("Ray asks for a token")
    elif any(token.mode == "disabled" or not token.source for token in known.values()):
        what = "Ray asks for no token: whoever reaches its ports runs code as this user"
        fix = "before `ray start`, on all hosts: export RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN"
        yield warn(what, "", fix)


def _minor(python: str) -> list[str]:
    return python.split(".")[:2]
