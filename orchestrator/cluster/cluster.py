"""A Ray cluster that this command starts or joins, as a context manager. Opening one imports Ray."""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from aclcmp.orchestrator.cluster.head_watch import HERE_GONE, HeadWatch
from aclcmp.orchestrator.cluster.ray_start import check_address, join, no_answer, simulated_resources, start_local
from aclcmp.orchestrator.errors import LaunchError, UsageError

LOCAL_RAY = "local Ray"
"""Text in place of an address for a cluster that was started for one command."""

_JOIN_SECONDS = 15.0
_ASK_SECONDS = 60.0
_CLOSE_SECONDS = 15.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Node:
    """One host of the cluster, in Ray's sense."""

    node_id: str
    ip: str
    host: str
    cpus: int
    resources: Mapping[str, float]


class Cluster:
    """An open Ray cluster: `with Cluster.open(address) as cluster: ...`, then plain `ray` calls.

    `ray.init` runs in a thread of its own that lives as long as the cluster. Two reasons: a Ctrl-C in the main thread
    cannot leave a half-started Ray behind; and Ray binds its processes by PR_SET_PDEATHSIG to the *thread* that started
    them, so they die with that thread however it ends. For the same reason `open` may be called in any thread, also in
    one that ends soon after, while the caller does other work.
    """

    def __init__(
        self, address: str | None, start: Callable[[], Callable[[], object] | None], patience: float | None
    ) -> None:
        self.address_words = address or LOCAL_RAY
        """LOCAL_RAY, or the address that was joined."""
        self.nodes: tuple[Node, ...] = ()
        """Nodes that were alive when the cluster was opened, or at the last `refresh`; the driver's first."""
        self.driver_node_id = ""
        self.head: HeadWatch
        """Watch on the cluster's head and on Ray's process on this host."""
        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            raise RuntimeError("this process has an open Ray already; one process can have one")
        self._start = start
        self._error: BaseException | None = None
        self._opened = threading.Event()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="ray-keeper", daemon=True)
        self._keeper.start()
        try:
            if not self._opened.wait(patience):
                raise UsageError(no_answer(self.address_words))
        except BaseException:
            self._closing.set()
            if patience is None:
                self._keeper.join()
            raise
        if self._error is not None:
            raise self._error

    @classmethod
    def open(cls, address: str | None = None, simulate: Mapping[str, float] | None = None) -> Cluster:
        """Start a local Ray (`address` None) or join one (`"auto"` or `"host:port"`).

        `simulate` (default: the environment variable ACLCMP_SIMULATE) names resources that a local Ray claims to have.
        Raises UsageError when no Ray answers at the address, LaunchError when the local one does not start.
        """
        if address is None:
            claimed = dict(simulated_resources() if simulate is None else simulate)
            return cls(None, lambda: start_local(claimed), patience=None)
        if simulate:
            raise UsageError("resources are simulated on a local Ray only; leave --address out")
        check_address(address)
        return cls(address, lambda: join(address), patience=_JOIN_SECONDS)

    def refresh(self) -> tuple[Node, ...]:
        """Update `nodes` to those that are alive by Ray's health checks, the driver's first, and return them.

        Raises LaunchError when the driver's own node is not alive; then `head` is lost too.
        """
        _, self.nodes = _survey()
        if not self.nodes or self.nodes[0].node_id != self.driver_node_id:
            self.head.lose(HERE_GONE)
            raise LaunchError(HERE_GONE)
        return self.nodes

    def resources(self) -> dict[str, float]:
        """Return all resources of the cluster by name, free or not."""
        import ray

        return dict(ray.cluster_resources())

    def ask(
        self,
        question: Callable[..., Answer],
        *arguments: object,
        nodes: Sequence[Node] | None = None,
        patience: float = _ASK_SECONDS,
    ) -> dict[str, Answer | str]:
        """Call a function of aclcmp on every node at once; return by node id its results, or why there is none.

        The function must not return a `str`: strings are the reasons, one line that names the host. `nodes` None means
        all nodes; `patience` in seconds is for all together. Raises LaunchError when the cluster's head is lost
        meanwhile.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote = ray.remote(question)
        calls = {}
        for node in self.nodes if nodes is None else nodes:
            strategy = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": strategy}
            calls[remote.options(**options).remote(*arguments)] = node
        done = self._wait(list(calls), patience)
        answers: dict[str, Answer | str] = {}
        for call, node in calls.items():
            where = f"host {node.host} ({node.ip})"
            if call not in done:
                ray.cancel(call, force=True)
                answers[node.node_id] = f"{where} did not answer within {patience:g} s"
                continue
            try:
                answers[node.node_id] = ray.get(call)
            except Exception as error:  # whatever went wrong there becomes the reason
                answers[node.node_id] = f"{where} {_why_no_answer(error)}"
        return answers

    def _wait(self, calls: list[Any], patience: float) -> list[Any]:
        """Wait for calls; return those that end in time."""
        import ray

        end = time.monotonic() + patience
        while True:
            timeout = max(0.0, min(1.0, end - time.monotonic()))
            done, waiting = ray.wait(calls, num_returns=len(calls), timeout=timeout)
            if not waiting or time.monotonic() >= end:
                return list(done)
            if self.head.lost:
                raise LaunchError(self.head.words)

    def begin_close(self) -> None:
        """Let Ray stop while the caller goes on without it; `close` waits for the end."""
        self._closing.set()

    def close(self) -> None:
        """Stop the local Ray, or leave the one that was joined. A second call does nothing."""
        self.begin_close()
        # Ray waits a minute for a head that cannot be reached, and then ends the process
        self._keeper.join(_CLOSE_SECONDS if self._error is None and self.head.lost else None)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self) -> None:
        """Body of the keeper thread: start, wait for `close`, stop."""
        clean_up: Callable[[], object] | None = None
        try:
            clean_up = self._start()
            self.driver_node_id, self.nodes = _survey()
            self.head = HeadWatch(_head_address(), _raylet_address(self.driver_node_id))
        except BaseException as error:  # raised again in the thread that opens the cluster
            self._error = error
        finally:
            self._opened.set()
        if self._error is None:
            self._closing.wait()
            self.head.close()
        import ray

        ray.shutdown()
        if clean_up is not None:
            clean_up()


def is_this_host(host: str, ip: str) -> bool:
    """Tell whether a node of a cluster, given by its host name and address, is on this machine."""
    import psutil

    addresses = {each.address for found in psutil.net_if_addrs().values() for each in found}
    return host == socket.gethostname() and (ip in addresses or ip.startswith("127."))


def _survey() -> tuple[str, tuple[Node, ...]]:
    import ray

    driver = ray.get_runtime_context().get_node_id()
    nodes = [
        Node(
            node_id=facts["NodeID"],
            ip=facts["NodeManagerAddress"],
            host=facts["NodeManagerHostname"],
            cpus=int(facts["Resources"].get("CPU", 0)),
            resources=dict(facts["Resources"]),
        )
        for facts in ray.nodes()
        if facts["Alive"]
    ]
    return driver, tuple(sorted(nodes, key=lambda node: (node.node_id != driver, node.ip, node.node_id)))


def _head_address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


def _raylet_address(node_id: str) -> str:
    import ray

    (node,) = [facts for facts in ray.nodes() if facts["NodeID"] == node_id]
    return f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"


def _why_no_answer(error: Exception) -> str:
    words = str(error)
    if "No module named 'aclcmp'" in words:
        return "has no aclcmp: install it there, into the Python that runs Ray"
    if found := re.search(r"No module named 'aclcmp[.\w]*'|cannot import name '\w+' from 'aclcmp[.\w]*'", words):
        return f"has another aclcmp than this one ({found.group()}): install the same version there"
    last = next((line for line in reversed(words.splitlines()) if line.strip()), "")
    return f"did not answer: {type(error).__name__}: {last.strip()}"
