"""Checks that torch and torch_npu can be loaded. Pure: the result of loading them goes in, findings come out."""

from __future__ import annotations

from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.core.torch_faults import SET_ENV, ErrorTrail
from aclcmp.orchestrator.doctor.findings import Findings, HostReport, bad, ok, warn

_NO_CANN = SET_ENV.replace("(", "(no CANN was found here; ")
_NAMES = {"torch": "torch", "torch_npu": "torch-npu"}


def check_loading(host: HostReport) -> Findings:
    """Check that torch, and torch_npu where it is installed, could be loaded on one host."""
    loading = host.facts.loading
    if not loading.tried:
        return
    if not loading.failed:
        names = " and ".join(_NAMES[name] for name in loading.tried)
        yield ok(f"{names} can be loaded, in {loading.seconds:.1f} s", host.where)
        return
    # A script that computes on the CPU needs no torch_npu, unless torch loads it by itself.
    harmless = loading.failed == "torch_npu" and not host.facts.devices.npus
    yield (warn if harmless else bad)(*_why(host))


def _why(host: HostReport) -> tuple[str, str, str]:
    loading, ascend = host.facts.loading, host.facts.ascend
    fails = f"`import {loading.failed}` fails"
    see = f"look at python -X faulthandler -c 'import {loading.failed}'"
    if not loading.in_time:
        what = f"`import {loading.failed}` did not end within {loading.seconds:.0f} s"
        return what, host.where, f"look at python -X importtime -c 'import {loading.failed}'; is the disk slow?"
    trail = ErrorTrail()
    for line in loading.lines:
        trail.hear(line)
    fault = trail.fault(f"{ascend.home}/set_env.sh" if ascend.home else _NO_CANN)
    if fault:
        before = "; on this host, before `ray start`" if host.ip else ""
        return f"{fails}: {fault.what}", host.where, fault.fix + before
    if loading.signal:
        other = "its build may be for another CPU; " if loading.signal == "SIGILL" else ""
        return f"{fails}: Python is killed by {loading.signal}", host.where, other + see
    last = next((line for line in reversed(loading.lines) if line.strip()), "it printed nothing")
    return f"{fails}: {visible(last.strip())}", host.where, see
