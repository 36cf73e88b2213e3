"""A Ray cluster, started for this command or joined, held open as a context manager. Opening one imports Ray."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.errors import LaunchError, UsageError
from aclcmp.orchestrator.head import HeadWatch

SIMULATE = "ACLCMP_SIMULATE"
"""Environment variable, JSON such as `{"NPU": 8}`: the local Ray claims resources that this machine does not have, to
try placement and device visibility without the devices."""

HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
"""Environment of a head node that knows within 20 s that a host is lost; by Ray's own settings it takes 62 s."""

LOCAL_RAY = "local Ray"
"""What stands for an address where a cluster was started for one command."""

MIB = 1 << 20
_MIN_STORE = 75 * MIB  # Ray refuses less
_MAX_STORE = 256 * MIB  # rows of statistics travel, not tensors; Ray's default would be 30 % of the memory
_JOIN_SECONDS = 15.0
_ASK_SECONDS = 60.0
_CLOSE_SECONDS = 15.0
_PROBE_SECONDS = 5.0

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

    def __init__(self, address: str | None, start: Callable[[], object], patience: float | None) -> None:
        self.address_words = address or LOCAL_RAY
        """LOCAL_RAY, or the address that was joined."""
        self.nodes: tuple[Node, ...] = ()
        """The nodes alive when the cluster was opened, or at the last `refresh`, the driver's first."""
        self.driver_node_id = ""
        self.head: HeadWatch
        """Whether the cluster's head still answers."""
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
                raise UsageError(_no_answer(self.address_words))
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

        `simulate` (default: the environment variable ACLCMP_SIMULATE) names resources that a local Ray shall claim.
        Raises UsageError when no Ray answers at the address, LaunchError when the local one does not start.
        """
        if address is None:
            claimed = dict(_simulated() if simulate is None else simulate)
            return cls(None, lambda: _start_local(claimed), patience=None)
        if simulate:
            raise UsageError("resources are simulated on a local Ray only; leave --address out")
        _check_address(address)
        return cls(address, lambda: _join(address), patience=_JOIN_SECONDS)

    def refresh(self) -> tuple[Node, ...]:
        """Look again which nodes are alive, as far as Ray's health checks know; return them."""
        _, self.nodes = _survey()
        return self.nodes

    def resources(self) -> dict[str, float]:
        """All resources of the cluster by name, free or not."""
        import ray

        return dict(ray.cluster_resources())

    def ask(
        self,
        question: Callable[..., Answer],
        *arguments: object,
        nodes: Sequence[Node] | None = None,
        patience: float = _ASK_SECONDS,
    ) -> dict[str, Answer | str]:
        """Call a function of aclcmp on every node at once; return by node id what it gave, or why it gave nothing.

        It must not give a `str`: those are the reasons, one line that names the host. `nodes` None are all nodes,
        `patience` in seconds is for all together. Raises LaunchError when the cluster's head is lost meanwhile.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote = ray.remote(question)
        calls = {}
        for node in self.nodes if nodes is None else nodes:
            there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
            calls[remote.options(**options).remote(*arguments)] = node
        done = self._answered(list(calls), patience)
        answers: dict[str, Answer | str] = {}
        for call, node in calls.items():
            where = f"host {node.host} ({node.ip})"
            if call not in done:
                ray.cancel(call, force=True)
                answers[node.node_id] = f"{where} did not answer within {patience:g} s"
                continue
            try:
                answers[node.node_id] = ray.get(call)
            except Exception as error:  # whatever went wrong there is told here
                answers[node.node_id] = f"{where} {_why_no_answer(error)}"
        return answers

    def _answered(self, calls: list[Any], patience: float) -> list[Any]:
        """Wait for calls; return those that are answered in time."""
        import ray

        end = time.monotonic() + patience
        while True:
            timeout = max(0.0, min(1.0, end - time.monotonic()))
            done, waiting = ray.wait(calls, num_returns=len(calls), timeout=timeout)
            if not waiting or time.monotonic() >= end:
                return list(done)
            if self.head.lost:
                raise LaunchError(self.head.words)

    def close(self) -> None:
        """Stop the local Ray, or leave the one that was joined. A second call does nothing."""
        self._closing.set()
        # a head that cannot be reached is waited for by Ray for a minute, and then Ray ends the process
        self._keeper.join(_CLOSE_SECONDS if self._error is None and self.head.lost else None)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self) -> None:
        """Body of the keeper thread: start, wait for `close`, stop."""
        try:
            self._start()
            self.driver_node_id, self.nodes = _survey()
            self.head = HeadWatch(_head_address())
        except BaseException as error:  # raised again in the thread that opens
            self._error = error
        finally:
            self._opened.set()
        if self._error is None:
            self._closing.wait()
            self.head.close()
        import ray

        ray.shutdown()


def is_this_host(host: str, ip: str) -> bool:
    """Whether a node of a cluster, by its host name and address, is on this machine."""
    import psutil

    addresses = {each.address for found in psutil.net_if_addrs().values() for each in found}
    return host == socket.gethostname() and (ip in addresses or ip.startswith("127."))


def set_by_ray(name: str) -> bool:
    """Whether Ray may put this variable into the driver's or a worker's environment."""
    return name.startswith("RAY_") or name in ("OMP_NUM_THREADS", "PYTHONBREAKPOINT", "SPT_NOENV")


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


def _quiet() -> None:
    """Let Ray not print what happens to nodes into our output, several lines at a time: we say which ranks it hits."""
    from ray._private import worker

    worker.print_to_stdstream = lambda data, ignore_prefix: None


def _start_local(claimed: dict[str, float]) -> None:
    if "NPU" in claimed:  # Ray tries to import CANN for what is only claimed, and logs two tracebacks
        logging.getLogger("ray._private.accelerators.npu").setLevel(logging.CRITICAL)
    counts: dict[str, Any] = {
        option: int(claimed.pop(name)) for option, name in (("num_cpus", "CPU"), ("num_gpus", "GPU")) if name in claimed
    }
    free = shutil.disk_usage("/dev/shm").free
    with _private_environment():
        import ray

        _quiet()
        ray._raylet.Config.initialize("")  # it was read when Ray was imported, which may have been earlier
        try:
            ray.init(
                address="local",  # never join a cluster silently, whatever RAY_ADDRESS says
                include_dashboard=False,
                object_store_memory=max(_MIN_STORE, min(_MAX_STORE, int(free * 0.8))),
                log_to_driver=False,
                logging_level=logging.ERROR,
                resources=claimed or None,
                **counts,
            )
        except Exception as error:
            raise LaunchError(f"the local Ray did not start: {_one_line(error)}") from error


def _join(address: str) -> None:
    with _restored_environment():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        try:
            _quiet()
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            if "Version mismatch" in str(error):
                raise UsageError(f"cannot join {address}: {_one_line(error)}") from error
            raise UsageError(_no_answer(address)) from error


@contextlib.contextmanager
def _restored_environment() -> Iterator[None]:
    """Put Ray's variables back afterwards: what Ray and we set for its start must not reach the ranks."""
    before = {name: value for name, value in os.environ.items() if set_by_ray(name)}
    try:
        yield
    finally:
        for name in filter(set_by_ray, list(os.environ)):
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _private_environment() -> Iterator[None]:
    """The environment in which a local Ray starts: closed to others, and nothing is written into the home folder."""
    with _restored_environment():
        for name in [name for name in os.environ if name.startswith("RAY_EXPERIMENTAL_NOSET_")]:
            del os.environ[name]  # a submitted job's entry point has these; they would hide the devices' ids
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own is 15: ranks would run behind all others' work
        os.environ.update(_authentication())
        yield


@functools.cache
def _authentication() -> dict[str, str]:
    """Mode and token of this process's local Rays. One for all: once connected, Ray cannot change either."""
    variables = {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")}
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    return variables


def _simulated() -> dict[str, float]:
    text = os.environ.get(SIMULATE, "")
    if not text:
        return {}
    try:
        return {str(name): float(amount) for name, amount in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        raise UsageError(f'{SIMULATE} is not JSON like {{"NPU": 8}}: {text}') from None


def _check_address(address: str) -> None:
    """Refuse what `ray.init` would take minutes to refuse, or would understand as something else."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not (host and colon and port.isdecimal()):
        raise UsageError(f'--address {address} is neither "auto" nor HOST:PORT of a Ray head node (usually port 6379)')
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()
    except (OSError, OverflowError):
        raise UsageError(_no_answer(address)) from None


def _no_answer(address: str) -> str:
    where = "on this machine" if address == "auto" else f"at {address}"
    return (
        f"no Ray answers {where}; start one with `ray start --head`, or leave --address out. "
        "If it uses tokens, export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here too"
    )


def _why_no_answer(error: Exception) -> str:
    words = str(error)
    if "No module named 'aclcmp'" in words:
        return "has no aclcmp: install it there, into the Python that runs Ray"
    if found := re.search(r"No module named 'aclcmp[.\w]*'|cannot import name '\w+' from 'aclcmp[.\w]*'", words):
        return f"has another aclcmp than this one ({found.group()}): install the same version there"
    last = next((line for line in reversed(words.splitlines()) if line.strip()), "")
    return f"did not answer: {type(error).__name__}: {last.strip()}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) if not isinstance(error, AclcmpError) else str(error)
