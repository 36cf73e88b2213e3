"""The facts of one host. This runs on every host, in a Ray worker; it reads, and changes nothing."""

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
from aclcmp.orchestrator.doctor.ascend import Ascend, find_ascend
from aclcmp.orchestrator.doctor.disk_folders import Folder, inspect_folder, owner_of, ray_folder
from aclcmp.orchestrator.doctor.network import HCCL_PORTS, RAY_PORTS, Network, inspect_network
from aclcmp.orchestrator.doctor.torch_loading import Loading, try_loading

HEALTH_DEFAULTS = {"period_ms": 3000, "timeout_ms": 10000, "failure_threshold": 5}
"""Ray 2.60's own settings."""


@dataclass(frozen=True, slots=True)
class FactsRequest:
    """The parameters with which a host gathers its facts."""

    folder: str
    """The folder in which run directories would be made: the working directory of the command."""
    peers: tuple[str, ...] = ()
    """Addresses of all hosts of the cluster."""
    head_port: int = 0
    """Port of the cluster's head; 0 if there is none, and it would be started here."""
    salt: str = ""
    """Salt of the digests by which tokens are compared, new for each examination. Tokens themselves are never sent."""


@dataclass(frozen=True, slots=True)
class Token:
    """Ray's token on one host, without the token itself."""

    mode: str
    """RAY_AUTH_MODE; "" if it is not set."""
    source: str
    """The variable or file that it comes from; "" if none was found."""
    readable: bool = False
    """Whether other users of the host may read that file."""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Devices:
    """Number of device files on one host, whether or not this user may use them."""

    npus: int
    gpus: int
    gpu_driver: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """The settings by which the cluster's head finds out that a host is lost."""

    period_ms: int
    timeout_ms: int
    failure_threshold: int

    @property
    def seconds(self) -> float:
        """The longest time until a lost host is noticed, in seconds."""
        return self.failure_threshold * (self.period_ms + self.timeout_ms) / 1000


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """All facts of one host."""

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
    """User id of the process that gathered the facts."""
    cluster_file_owner: int
    """User id of the owner of Ray's file that names the machine's running cluster; -1: there is none."""
    cluster_file_writable: bool
    open_files: tuple[int, int]
    """Soft and hard limit; -1 means unlimited."""
    health: Health | None
    """On the head, if this user may read its process; elsewhere None."""
    loading: Loading


def gather_facts(request: FactsRequest) -> NodeFacts:
    """Gather the facts of this host. Takes as long as loading torch, and 5 s more where DNS or file locks hang."""
    root, environ = Path("/"), os.environ
    sessions = sessions_folder(_parent(), environ)
    cluster_file = sessions / "ray_current_cluster"
    ports = (*HCCL_PORTS, *(() if request.head_port else RAY_PORTS))
    versions = installed_versions()
    return NodeFacts(
        versions=versions,
        code=code_digest(),
        network=inspect_network(request.peers, ports, environ),
        shm=inspect_folder(root / "dev/shm"),
        ray_folder=inspect_folder(sessions),
        run_folder=inspect_folder(Path(request.folder), try_locks=True),
        devices=count_devices(root),
        ascend=find_ascend(root, environ),
        token=find_token(environ, request.salt),
        user=os.getuid(),
        cluster_file_owner=owner_of(cluster_file),
        cluster_file_writable=os.access(cluster_file, os.W_OK),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        health=_health(request.head_port) if request.head_port else None,
        loading=try_loading(versions, environ),
    )


def sessions_folder(parent: Sequence[str], environ: Mapping[str, str]) -> Path:
    """Return the sessions folder of the Ray that runs this process, from the command of its parent, the raylet.

    Without a raylet: the folder of a Ray that would be started here.
    """
    name = next((word for word in parent if word.startswith("--raylet_socket_name=")), "")
    above = Path(name.partition("=")[2]).parents  # FOLDER/session_.../sockets/raylet
    return above[2] if len(above) > 2 else ray_folder(environ)


def _parent() -> list[str]:
    try:
        return psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return []


def count_devices(root: Path) -> Devices:
    """Count device files below `root`."""
    found = _text(root / "proc/driver/nvidia/version").splitlines()
    return Devices(
        npus=len(list((root / "dev").glob("davinci[0-9]*"))),
        gpus=len(list((root / "dev").glob("nvidia[0-9]*"))),
        gpu_driver=found[0].partition("Module")[2].strip().partition(" ")[0] if found else "",
    )


def find_token(environ: Mapping[str, str], salt: str) -> Token:
    """Return the source of Ray's token, and its digest."""
    mode = environ.get("RAY_AUTH_MODE", "")
    token, source = read_token(environ)
    if not token:
        return Token(mode, "")
    in_file = source.startswith("/") and Path(source).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    return Token(mode, source, bool(in_file), _digest(token, salt))


def read_token(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the token and its source, in Ray's order: variable, file named by a variable, file in the home folder."""
    if token := environ.get("RAY_AUTH_TOKEN"):
        return token, "RAY_AUTH_TOKEN"
    named = environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path(environ.get("HOME") or "/") / ".ray" / "auth_token"
    return _text(path).strip(), str(path.absolute())


def parse_health(command: list[str], environ: Mapping[str, str]) -> Health:
    """Return the settings of a head's process, from its command line and environment."""
    settings: dict[str, int] = dict(HEALTH_DEFAULTS)
    for word in command:
        if word.startswith("--config_list="):
            try:
                config = json.loads(base64.b64decode(word.partition("=")[2]))
                settings |= {
                    name: int(config[f"health_check_{name}"]) for name in settings if f"health_check_{name}" in config
                }
            except (ValueError, TypeError, binascii.Error):
                continue
    for name in settings:
        value = environ.get(f"RAY_health_check_{name}", "")
        if value.isdecimal():
            settings[name] = int(value)
    return Health(**settings)


def _health(port: int) -> Health | None:
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "gcs_server" and f"--gcs_server_port={port}" in (command := process.cmdline()):
                return parse_health(command, process.environ())
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
