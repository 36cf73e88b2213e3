"""Examination of a cluster file: whether it is right, whether its cluster answers, and what is wrong there."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from aclcmp.orchestrator.doctor.disk_folders import ray_folder
from aclcmp.orchestrator.doctor.examine import Examination, examine_cluster
from aclcmp.orchestrator.doctor.findings import Finding, bad, ok, warn
from aclcmp.orchestrator.doctor.network import is_loopback
from aclcmp.orchestrator.doctor.show import from_json
from aclcmp.orchestrator.errors import LaunchError, UsageError
from aclcmp.orchestrator.submit import address as addresses
from aclcmp.orchestrator.submit.client import JobClient
from aclcmp.orchestrator.submit.cluster_file import ClusterFile, ClusterFileKind, read_cluster_file
from aclcmp.orchestrator.submit.submission import Submission, new_job_id

EXAMINE = "aclcmp doctor --address auto --json"
_LOG = 1 << 24
"""Characters of a job's log that are read."""


def examine_file(path: Path) -> Examination:
    """Examine a cluster file and what it names. Raises UsageError where the file itself is wrong."""
    file = read_cluster_file(path)
    where, section = str(path), file.section
    ranks = f"{section.ranks} rank{'s' * (section.ranks > 1)}"
    findings = [ok(f"the file is right: `{section.exec}` on {ranks}", where)]
    if file.address is None:
        return Examination(where, (*findings, _no_address(file)))
    url = addresses.check_address(file.address)
    subject = f"{where}, {url}"
    if danger := addresses.safety_warning(url):
        findings.append(warn(danger, where, f"ssh -L 8265:127.0.0.1:8265 {urlsplit(url).hostname}, and that address"))
    if proxy := addresses.proxy_of(url):
        host = urlsplit(url).hostname
        findings.append(warn(f"it is asked through the proxy {proxy}", where, f"export no_proxy={host}"))
    try:
        client = JobClient.connect(url)
    except (UsageError, LaunchError) as error:
        what, _, fix = str(error).partition(": " if "token" in str(error) else ". ")
        return Examination(subject, (*findings, bad(what, where, fix)))
    findings.append(ok(f"the job server answers at {url}", where))
    return _examine_behind(url, client, subject, findings)


def _no_address(file: ClusterFile) -> Finding:
    if file.kind is ClusterFileKind.KUBERAY:
        what = "KubeRay starts its cluster: nothing of it can be asked from here"
        fix = f"kubectl exec HEAD-POD -- {EXAMINE.removesuffix(' --json')}"
    else:
        what = "the head's address is not in the file: its provider chooses it"
        fix = f"after `ray up`: ray exec {file.path} '{EXAMINE.removesuffix(' --json')}'"
    return warn(what, str(file.path), fix)


def _examine_behind(url: str, client: JobClient, subject: str, findings: Sequence[Finding]) -> Examination:
    """Examine the cluster behind a job server: directly where this host is part of it, else by a job."""
    if local := _local_address(urlsplit(url).hostname or ""):
        found: Examination | None = examine_cluster(local)
        problem = ""
    else:
        printed, problem = _run(client)
        found = from_json(printed)
    if found is None:
        last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "it printed nothing")
        fix = "install aclcmp on all hosts, into the Python that runs Ray, so that its PATH has it"
        return Examination(subject, (*findings, bad(f"`{EXAMINE}` failed on the cluster: {problem or last}", "", fix)))
    others = [each for each in found.findings if "job server" not in each.what]  # its job server was asked just now
    return replace(found, subject=f"{subject}: {found.subject}", findings=(*findings, *others))


def _run(client: JobClient) -> tuple[str, str]:
    """Run the examination as a job; return its output, and the problem where one is known."""
    job = Submission(new_job_id(), EXAMINE, "", {}, None, ())
    client.submit(job, role="doctor")
    try:
        printed = asyncio.run(_log(client, job.job_id))
        state = client.state(job.job_id)
        if state.exit_code == 127:
            return printed, "the head node has no aclcmp on the PATH with which its Ray was started"
        return printed, "" if state.exit_code in (0, 4) or printed else state.message
    finally:
        with suppress(UsageError, LaunchError):
            if not client.state(job.job_id).over:
                client.stop(job.job_id)


async def _log(client: JobClient, job_id: str) -> str:
    log = ""
    with suppress(RuntimeError, OSError):
        async for piece in client.tail(job_id):
            log = (log + piece)[-_LOG:]
    return log


def _local_address(head: str) -> str:
    """Return the address of the Ray on this host if its head is `head`; else "".

    A head called localhost may be the end of a tunnel and says nothing about this host.
    """
    try:
        address = (ray_folder(os.environ) / "ray_current_cluster").read_text().strip()
        found = socket.gethostbyname(head)
        socket.create_connection((found, int(address.rpartition(":")[2])), timeout=2).close()
    except (OSError, ValueError):
        return ""
    return address if found == address.rpartition(":")[0] and not is_loopback(found) else ""
