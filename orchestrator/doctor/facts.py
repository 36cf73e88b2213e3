"""What one host tells of itself. Runs on every host, in a Ray worker; looks, and changes nothing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import resource
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from aclcmp.orchestrator.cluster.versions import Versions, code_digest, installed_versions
from aclcmp.orchestrator.doctor.ascend import Ascend, look_for_ascend
from aclcmp.orchestrator.doctor.disk_folders import Folder, look_at_folder, owner_of, ray_folder
from aclcmp.orchestrator.doctor.network import HCCL_PORTS, RAY_PORTS, Network, look_at_network
from aclcmp.orchestrator.doctor.torch_loading import Loading, try_loading

HEALTH_DEFAULTS = {"period_ms": 3000, "timeout_ms": 10000, "failure_threshold": 5}
"""Ray 2.60's own settings."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a host is asked for."""

    folder: str
    """Where run directories would be made: the working directory of the command."""
    peers: tuple[str, ...] = ()
    """Addresses of all hosts of the cluster."""
    head_port: int = 0
    """Port of the cluster's head; 0: there is none yet, one would be started here."""
    salt: str = ""
    """Tokens are compared by a salted digest, made anew for each examination, and never sent."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a host knows of Ray's token. The token itself is not in it."""

    mode: str
    """RAY_AUTH_MODE; "" is not set."""
    source: str
    """Variable or file that it comes from; "" is none found."""
    readable: bool = False
    """Whether other users of the host may read that file."""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Devices:
    """Device files on one host, whoever may use them."""

    npus: int
    gpus: int
    gpu_driver: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """By which settings the cluster's head finds out that a host is lost."""

    period_ms: int
    timeout_ms: int
    failure_threshold: int

    @property
    def seconds(self) -> float:
        """The longest that a lost host stays unknown."""
        return self.failure_threshold * (self.period_ms + self.timeout_ms) / 1000


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What one host told."""

    versions: Versions
    code: str
    network: Network
    shm: Folder
    ray_folder: Folder
    run_folder: Folder
    devices: Devices
    ascend: Ascend
    token: Token
    user: int
    """User id of the process that looked."""
    cluster_file_owner: int
    """User id of the owner of Ray's file that names the machine's running cluster; -1: there is none."""
    cluster_file_writable: bool
    open_files: tuple[int, int]
    """Soft and hard limit; -1 is unlimited."""
    health: Health | None
    """On the head, where its process may be looked at."""
    loading: Loading


def gather_facts(question: Question) -> NodeFacts:
    """Look at this host. Takes as long as loading torch, and 5 s more where a name server or file lock is silent."""
    root, environ = Path("/"), os.environ
    sessions = sessions_of(_parent(), environ)
    cluster_file = sessions / "ray_current_cluster"
    ports = (*HCCL_PORTS, *(() if question.head_port else RAY_PORTS))
    versions = installed_versions()
    return NodeFacts(
        versions=versions,
        code=code_digest(),
        network=look_at_network(question.peers, ports, environ),
        shm=look_at_folder(root / "dev/shm"),
        ray_folder=look_at_folder(sessions),
        run_folder=look_at_folder(Path(question.folder), try_locks=True),
        devices=look_at_devices(root),
        ascend=look_for_ascend(root, environ),
        token=look_for_token(environ, question.salt),
        user=os.getuid(),
        cluster_file_owner=owner_of(cluster_file),
        cluster_file_writable=os.access(cluster_file, os.W_OK),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        health=_health(question.head_port) if question.head_port else None,
        loading=try_loading(versions, environ),
    )


def sessions_of(parent: Sequence[str], environ: Mapping[str, str]) -> Path:
    """Where the Ray that runs this process keeps its sessions, by the command of its parent, the raylet.

    Without one: where a Ray that is started from here would.
    """
    name = next((word for word in parent if word.startswith("--raylet_socket_name=")), "")
    above = Path(name.partition("=")[2]).parents  # FOLDER/session_.../sockets/raylet
    return above[2] if len(above) > 2 else ray_folder(environ)


def _parent() -> list[str]:
    try:
        return psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return []


def look_at_devices(root: Path) -> Devices:
    """Count device files below `root`."""
    found = _text(root / "proc/driver/nvidia/version").splitlines()
    return Devices(
        npus=len(list((root / "dev").glob("davinci[0-9]*"))),
        gpus=len(list((root / "dev").glob("nvidia[0-9]*"))),
        gpu_driver=found[0].partition("Module")[2].strip().partition(" ")[0] if found else "",
    )


def look_for_token(environ: Mapping[str, str], salt: str) -> Token:
    """Say where Ray's token comes from, and give its digest."""
    mode = environ.get("RAY_AUTH_MODE", "")
    token, source = own_token(environ)
    if not token:
        return Token(mode, "")
    in_file = source.startswith("/") and Path(source).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    return Token(mode, source, bool(in_file), _digest(token, salt))


def own_token(environ: Mapping[str, str]) -> tuple[str, str]:
    """Find the token in Ray's order: variable, file that a variable names, file in the home folder; and its source."""
    if token := environ.get("RAY_AUTH_TOKEN"):
        return token, "RAY_AUTH_TOKEN"
    named = environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path(environ.get("HOME") or "/") / ".ray" / "auth_token"
    return _text(path).strip(), str(path.absolute())


def health_of(command: list[str], environ: Mapping[str, str]) -> Health:
    """Read the settings of a head's process from its command line and environment."""
    told: dict[str, int] = dict(HEALTH_DEFAULTS)
    for word in command:
        if word.startswith("--config_list="):
            try:
                config = json.loads(base64.b64decode(word.partition("=")[2]))
                told |= {name: int(config[f"health_check_{name}"]) for name in told if f"health_check_{name}" in config}
            except (ValueError, TypeError, binascii.Error):
                continue
    for name in told:
        value = environ.get(f"RAY_health_check_{name}", "")
        if value.isdecimal():
            told[name] = int(value)
    return Health(**told)


def _health(port: int) -> Health | None:
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "gcs_server" and f"--gcs_server_port={port}" in (command := process.cmdline()):
                return health_of(command, process.environ())
        except psutil.Error:
            continue
    return None


def _digest(token: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}\0{token}".encode()).hexdigest()[:16]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
