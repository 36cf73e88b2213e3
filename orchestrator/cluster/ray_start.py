"""Start a local Ray or join a cluster, with the settings of its processes. Ray is imported only then."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.cluster.ray_session import SessionFolder, base_folder, remove_leftovers
from aclcmp.orchestrator.errors import LaunchError, UsageError

SIMULATE = "ACLCMP_SIMULATE"
"""Environment variable, JSON such as `{"NPU": 8}`: the local Ray claims resources that this machine does not have, to
try placement and device visibility without the devices."""

LOOPBACK: str | None = "127.0.0.1"
"""The address of a local Ray: nobody else's machine shall reach it."""

HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
"""Environment of a head node that knows within 20 s that a host is lost; by Ray's own settings it takes 62 s."""

STOP_SECONDS = 300
STOP_PATIENCE = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
"""Environment of a submitted job: its time to compare labels after it is told to stop; Ray's default is 3 s."""

_MIN_STORE = 75 << 20  # Ray refuses less
_MAX_STORE = 256 << 20  # rows of statistics travel, not tensors; Ray's default would be 30 % of the memory
_PROBE_SECONDS = 5.0
_NODE_SECONDS = 30.0  # Ray's own patience for its node


def set_by_ray(name: str) -> bool:
    """Tell whether Ray may set this variable in the environment of the driver or of a worker."""
    return name.startswith("RAY_") or name in ("OMP_NUM_THREADS", "PYTHONBREAKPOINT", "SPT_NOENV")


def _quiet() -> None:
    """Keep Ray from printing what happens to nodes, in several lines: we say which ranks it concerns."""
    from ray._private import worker

    worker.print_to_stdstream = lambda data, ignore_prefix: None


def start_local(claimed: dict[str, float]) -> Callable[[], object]:
    """Start a Ray that claims these resources beside its own and listens on loopback only.

    Returns the function to call after it is stopped. Raises LaunchError where it does not start.
    """
    if "NPU" in claimed:  # Ray tries to import CANN even for simulated NPUs, and logs two tracebacks
        logging.getLogger("ray._private.accelerators.npu").setLevel(logging.CRITICAL)
    counts: dict[str, Any] = {
        option: int(claimed.pop(name)) for option, name in (("num_cpus", "CPU"), ("num_gpus", "GPU")) if name in claimed
    }
    free = shutil.disk_usage("/dev/shm").free
    base = base_folder(os.environ)
    remove_leftovers(base)
    try:
        folder = SessionFolder(base)
    except OSError as error:
        raise LaunchError(f"the local Ray did not start: no folder can be made in {base}: {error.strerror}") from error
    with _private_environment(), _few_processes(), _allow_loopback(), _prompt_start():
        import ray

        _quiet()
        ray._raylet.Config.initialize("")  # again: Ray may have read it at an earlier import
        try:
            ray.init(
                address="local",  # never join a cluster silently, whatever RAY_ADDRESS says
                include_dashboard=False,
                _node_ip_address=LOOPBACK,
                _temp_dir=str(folder.for_ray),
                object_store_memory=max(_MIN_STORE, min(_MAX_STORE, int(free * 0.8))),
                log_to_driver=False,
                logging_level=logging.ERROR,
                resources=claimed or None,
                **counts,
            )
        except Exception as error:
            logs = folder.for_ray / "session_latest" / "logs"
            raise LaunchError(f"the local Ray did not start: {_one_line(error)}; its logs are in {logs}") from error
    return folder.remove


@contextlib.contextmanager
def _few_processes() -> Iterator[None]:
    """Keep Ray from starting its autoscaler, log monitor and dashboard, which cost 2.3 s of CPU and 140 MiB.

    No option of Ray does this. In a version of Ray with other names for these methods they are started.
    """
    from ray._private.node import Node

    def no_dashboard(node: Any, **options: object) -> None:
        # A node's agent asks for the dashboard's address, and logs an error each second without one.
        node.get_gcs_client().internal_kv_put(b"dashboard", b"127.0.0.1:9", True, b"dashboard")

    replacements: dict[str, Callable[..., object]] = {
        "start_monitor": lambda node: None,
        "start_log_monitor": lambda node: None,
        "start_api_server": no_dashboard,
    }
    with _patch(Node, replacements):
        yield


@contextlib.contextmanager
def _allow_loopback() -> Iterator[None]:
    """Let a node's address be 127.0.0.1: `ray.init` replaces it by a public one, and then Ray listens on all."""
    from ray._private import services

    with _patch(services, {"resolve_ip_for_localhost": lambda host: host}):
        yield


@contextlib.contextmanager
def _prompt_start() -> Iterator[None]:
    """Notice at once that the local node has registered: `ray.init` looks once a second, and wastes 0.5 s on average.

    In a version of Ray with other internals it waits as it does.
    """
    from ray._private import services

    look = getattr(services, "get_node", None)
    if look is None:
        yield
        return

    def get_node(address: str, node_id: str) -> object:
        with contextlib.suppress(ImportError, AttributeError, TypeError, LookupError):
            from ray._private import state

            nodes = state.GlobalState()
            nodes._initialize_global_state(services._get_gcs_client_options(address))
            end = time.monotonic() + _NODE_SECONDS
            while time.monotonic() < end and all(node["NodeID"] != node_id for node in nodes.node_table()):
                time.sleep(0.02)
        return look(address, node_id)

    with _patch(services, {"get_node": get_node}):
        yield


@contextlib.contextmanager
def _patch(owner: Any, replacements: Mapping[str, Callable[..., object]]) -> Iterator[None]:
    """Replace functions of `owner` for a while; those that it does not have are skipped."""
    before = {name: getattr(owner, name) for name in replacements if hasattr(owner, name)}
    try:
        for name in before:
            setattr(owner, name, replacements[name])
        yield
    finally:
        for name, function in before.items():
            setattr(owner, name, function)


def join(address: str) -> None:
    """Join the cluster of a head node. Raises UsageError when it does not answer, or runs another version."""
    with _restored_environment():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        try:
            _quiet()
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            if "Version mismatch" in str(error):
                raise UsageError(f"cannot join {address}: {_one_line(error)}") from error
            raise UsageError(no_answer(address)) from error


@contextlib.contextmanager
def _restored_environment() -> Iterator[None]:
    """Restore Ray's variables afterwards: what is set for Ray's start must not reach the ranks."""
    before = {name: value for name, value in os.environ.items() if set_by_ray(name)}
    try:
        yield
    finally:
        for name in filter(set_by_ray, list(os.environ)):
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _private_environment() -> Iterator[None]:
    """Set the environment for the start of a local Ray: closed to others, nothing written to the home folder."""
    with _restored_environment():
        for name in [name for name in os.environ if name.startswith("RAY_EXPERIMENTAL_NOSET_")]:
            del os.environ[name]  # a submitted job's entry point has these; they would hide the devices' ids
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # with Ray's default 15 all other work would go first
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # else one idle Python for each core
        os.environ.update(authentication())
        yield


@functools.cache
def authentication() -> dict[str, str]:
    """Return mode and token for the local Rays of this process: once connected, Ray can change neither."""
    variables = {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")}
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    return variables


def simulated_resources() -> dict[str, float]:
    """Return the resources that SIMULATE names. Raises UsageError for what is not JSON."""
    text = os.environ.get(SIMULATE, "")
    if not text:
        return {}
    try:
        return {str(name): float(amount) for name, amount in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        raise UsageError(f'{SIMULATE} is not JSON like {{"NPU": 8}}: {text}') from None


def check_address(address: str) -> None:
    """Raise UsageError for an address that `ray.init` would take minutes to refuse, or would misunderstand."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not (host and colon and port.isdecimal()):
        raise UsageError(f'--address {address} is neither "auto" nor HOST:PORT of a Ray head node (usually port 6379)')
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()
    except (OSError, OverflowError):
        raise UsageError(no_answer(address)) from None


def no_answer(address: str) -> str:
    """Return the message for an address where no Ray answers: what the user can do."""
    where = "on this machine" if address == "auto" else f"at {address}"
    return (
        f"no Ray answers {where}; start one with `ray start --head`, or leave --address out. "
        "If it uses tokens, export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here too"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) if not isinstance(error, AclcmpError) else str(error)
