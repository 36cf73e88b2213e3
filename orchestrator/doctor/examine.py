"""Examination of this machine or of a cluster: gather the facts of all hosts, and check them."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from aclcmp.orchestrator.cluster.cluster import Cluster, Node
from aclcmp.orchestrator.doctor.checks import check
from aclcmp.orchestrator.doctor.facts import FactsRequest, NodeFacts, gather_facts
from aclcmp.orchestrator.doctor.findings import Finding, HostReport, Severity, bad, ok
from aclcmp.orchestrator.doctor.network import inspect_network
from aclcmp.orchestrator.doctor.torch_loading import LOADING_SECONDS
from aclcmp.orchestrator.errors import LaunchError, UsageError

_CLOCK_ROUNDS = 3
"""Rounds of reading clocks; the tightest bounds count. The first round also starts Python on the hosts."""
_DASHBOARD_PORT = 8265
_PATIENCE = LOADING_SECONDS + 60.0
"""Seconds, for all hosts together."""
ASKS_FOR_TOKEN = "it asks for a token"
_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Examination:
    """The subject of an examination, in words, and its findings."""

    subject: str
    findings: tuple[Finding, ...]
    facts: tuple[Mapping[str, object], ...] = ()
    """The facts of every host, as in the JSON. Digests of tokens are left out."""

    @property
    def healthy(self) -> bool:
        """True where no finding is bad."""
        return all(finding.level is not Severity.BAD for finding in self.findings)


def examine_machine() -> Examination:
    """Examine this machine. A local Ray, with a token and without a dashboard, is started as a test."""
    facts = gather_facts(FactsRequest(str(Path.cwd()), salt=secrets.token_hex(16)))
    where = facts.network.host
    begun = time.monotonic()
    resources = None
    try:
        with Cluster.open(None, simulate={}) as cluster:
            seconds = time.monotonic() - begun
            resources = dict(cluster.nodes[0].resources)
            started = ok(f"a local Ray starts, in {seconds:.1f} s", where)
    except LaunchError as error:
        started = bad(str(error), where, "look into its logs; what is marked here may be the cause")
    report = HostReport(where, "", facts, resources)
    return Examination("this machine", (*check([report]), started), _facts_as_json([report]))


def examine_cluster(address: str) -> Examination:
    """Examine all hosts of the Ray cluster at `address` ("auto" or HOST:PORT). Raises UsageError if none answers."""
    with _join_cluster(address) as cluster:
        host, _, port = cluster.head.address.rpartition(":")
        request = FactsRequest(
            folder=str(Path.cwd()),
            peers=tuple(sorted({node.ip for node in cluster.nodes})),
            head_port=int(port),
            salt=secrets.token_hex(16),
        )
        answers = cluster.ask(gather_facts, request, patience=_PATIENCE)
        shell = inspect_network(request.peers, (), os.environ)
        skews = _skews(cluster, [node for node in cluster.nodes if isinstance(answers[node.node_id], NodeFacts)])
        reports, silent = [], []
        for node in cluster.nodes:
            where = f"{node.host} ({node.ip})"
            answer = answers[node.node_id]
            if isinstance(answer, str):
                silent.append((where, answer.removeprefix(f"host {where} ")))
            else:
                reports.append(
                    HostReport(where, node.ip, answer, dict(node.resources), skews.get(node.node_id, (0.0, 0.0)))
                )
    # Asked without the token: on a cluster without a dashboard any process may listen on that port, and would get it.
    why_not = why_no_job_server(f"http://{host}:{_DASHBOARD_PORT}")
    server = f"a job server, for `aclcmp submit`, answers at http://{host}:{_DASHBOARD_PORT}"
    if why_not == ASKS_FOR_TOKEN:
        server += f", and {why_not}"
    elif why_not:
        server = f"--address works; `aclcmp submit` would need a job server at {host}:{_DASHBOARD_PORT} ({why_not})"
    count = len(cluster.nodes)
    subject = f"the Ray cluster at {cluster.head.address}, {count} host{'s' * (count > 1)}"
    return Examination(subject, (*check(reports, silent, shell), ok(server)), _facts_as_json(reports))


def _join_cluster(address: str) -> Cluster:
    try:
        return Cluster.open(address)
    except UsageError as error:
        if "no Ray answers" not in str(error):
            raise
        raise UsageError(
            f"{error}. Only a host of the cluster can join it: run this on one, or give a cluster file"
        ) from None


def read_clock() -> float:
    """Return the seconds since the epoch on the host that runs this."""
    return time.time()


def _skews(cluster: Cluster, nodes: Sequence[Node]) -> dict[str, tuple[float, float]]:
    """Return, by node id, by how many seconds at least and at most its clock is ahead of this host's."""
    others = [node for node in nodes if node.node_id != cluster.driver_node_id]
    skews: dict[str, tuple[float, float]] = {}
    for _ in range(_CLOCK_ROUNDS if others else 0):
        sent = time.time()
        answers = cluster.ask(read_clock, nodes=others)
        received = time.time()
        for node_id, clock in answers.items():
            if isinstance(clock, float):
                low, high = skews.get(node_id, (float("-inf"), float("inf")))
                skews[node_id] = max(low, clock - received), min(high, clock - sent)
    return skews


def _facts_as_json(reports: Sequence[HostReport]) -> tuple[Mapping[str, object], ...]:
    all_facts = []
    for report in reports:
        facts = asdict(report.facts)
        del facts["token"]["digest"]
        all_facts.append({"where": report.where, "ip": report.ip, "resources": report.resources, **facts})
    return tuple(all_facts)


def why_no_job_server(address: str) -> str:
    """Ask `http[s]://HOST:PORT` for Ray's version; return why that failed in a few words, "" if it answered.

    The request carries no token; for a server that wants one the answer is ASKS_FOR_TOKEN.
    """
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/api/version")
        answer = connection.getresponse()
        found = json.loads(answer.read(1 << 16) or "{}") if answer.status == 200 else {}
    except OSError as error:
        return error.strerror or str(error) or "no answer"
    except (http.client.HTTPException, ValueError):
        return "what answers there is no Ray"
    finally:
        connection.close()
    if answer.status in (401, 403):
        return ASKS_FOR_TOKEN
    return "" if "ray_version" in found else f"what answers there is no Ray (http {answer.status})"
