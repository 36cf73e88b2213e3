"""Checks of one host's machine: memory, disk, locks, limits, devices, CANN. Pure: facts in, findings out."""

from __future__ import annotations

from aclcmp.orchestrator.doctor.ascend import check_pairing
from aclcmp.orchestrator.doctor.disk_folders import Folder
from aclcmp.orchestrator.doctor.findings import Findings, HostReport, bad, ok, warn

MIB, GIB = 1 << 20, 1 << 30
_SHM_NEEDED = 94 * MIB
"""Ray's smallest object store has 75 MiB, and aclcmp gives it at most 80 % of what is free."""
_SHM_GOOD = GIB
"""gloo, HCCL, NCCL and torch's loaders take shared memory too, all ranks of a host together."""
_DISK_NEEDED, _DISK_GOOD = GIB, 10 * GIB
_DISK_SHARE = 0.05
"""Ray spills no more objects to a disk that is fuller than 95 %."""
_FILES_SOFT, _FILES_HARD = 1024, 4096


def check_machine(host: HostReport) -> Findings:
    """Check one host's memory, folders, limits and devices."""
    facts, where = host.facts, host.where
    yield from _shared_memory(host)
    yield from _room(facts.ray_folder, where, "Ray's folder", "RAY_TMPDIR=/big/disk before `ray start`")
    yield from _room(facts.run_folder, where, "the run folder", "an --output on another disk, or --capture fingerprint")
    yield from _locks(facts.run_folder, where)
    yield from _open_files(facts.open_files, where)
    yield from _cluster_file(host)
    yield from _devices(host)
    yield from _cann(host)


def _shared_memory(host: HostReport) -> Findings:
    shm, where, devices = host.facts.shm, host.where, host.facts.devices
    words = f"shared memory: {size(shm.free)} free of {size(shm.total)} in /dev/shm"
    bigger = "docker run --shm-size=16g, or in Kubernetes an emptyDir of medium Memory at /dev/shm"
    if shm.free < _SHM_NEEDED:
        worse = bad if devices.npus or devices.gpus else warn
        yield worse(f"{words}: Ray's object store goes to the disk, and ranks run out of it (bus error)", where, bigger)
    elif shm.total < _SHM_GOOD:
        yield warn(f"{words}; little for several ranks: gloo and HCCL take some too", where, bigger)
    else:
        yield ok(words, where)


def _room(folder: Folder, where: str, name: str, otherwise: str) -> Findings:
    words = f"{name} {folder.path}: {size(folder.free)} free"
    fix = f"make room, or {otherwise}"
    if not folder.writable:
        elsewhere = otherwise.partition(", or ")[0]
        yield bad(f"{name} {folder.path} cannot be written", where, f"chmod or chown it, or {elsewhere}")
    elif folder.free < _DISK_NEEDED or folder.inodes == 0:
        yield bad(f"{words}{' and no file can be made' if folder.inodes == 0 else ''}", where, fix)
    elif folder.free < _DISK_GOOD or folder.free < _DISK_SHARE * folder.total:
        yield warn(f"{words} of {size(folder.total)}; shards hold whole tensors", where, fix)
    else:
        yield ok(words, where)


def _locks(folder: Folder, where: str) -> Findings:
    if folder.locks:
        yield warn(
            f"files in {folder.path} cannot be locked ({folder.locks}); aclcmp does without, h5py of others does not",
            where,
            "export HDF5_USE_FILE_LOCKING=FALSE, or an --output on a local disk",
        )
    elif folder.writable:
        yield ok("file locks work", where)


def _open_files(limits: tuple[int, int], where: str) -> Findings:
    soft, hard = (limit if limit >= 0 else 1 << 62 for limit in limits)
    if soft < _FILES_SOFT or hard < _FILES_HARD:
        yield warn(
            f"a process may open {limits[0]} files, at most {limits[1]}; Ray and many ranks need more",
            where,
            "ulimit -n 65536 before `ray start`; docker run --ulimit nofile=65536",
        )
    else:
        yield ok(f"open files: {_limit(limits[0])}, at most {_limit(limits[1])}", where)


def _cluster_file(host: HostReport) -> Findings:
    facts = host.facts
    if facts.cluster_file_owner not in (-1, facts.user) and not facts.cluster_file_writable:
        yield bad(
            f"{facts.ray_folder.path}/ray_current_cluster belongs to user {facts.cluster_file_owner}: "
            "`ray start` fails here, and --address auto means that user's cluster",
            host.where,
            "RAY_TMPDIR=$HOME/ray before `ray start`, and --address HOST:PORT; or have its owner run `ray stop`",
        )


def _devices(host: HostReport) -> Findings:
    if host.resources is None:
        return
    kinds = (
        ("NPU", "/dev/davinci*", host.facts.devices.npus, "ASCEND_RT_VISIBLE_DEVICES"),
        ("GPU", "/dev/nvidia*", host.facts.devices.gpus, "CUDA_VISIBLE_DEVICES"),
    )
    for name, files, there, variable in kinds:
        offered = int(host.resources.get(name, 0))
        words = f"Ray offers {offered} {name}, the host has {there} of {files}"
        if offered > there:
            fix = f"`ray start` without --resources or --num-gpus; in a container, pass the devices (--device {files})"
            yield bad(words, host.where, fix)
        elif offered < there:
            fix = f"unset {variable} and source the toolkit's set_env.sh before `ray start`, or --resources"
            fix = fix if name == "NPU" else f"unset {variable} before `ray start`, or --num-gpus={there}"
            yield warn(words, host.where, fix)
        elif offered:
            yield ok(words, host.where)
    if not host.facts.devices.npus and not host.facts.devices.gpus and not (set(host.resources) & {"NPU", "GPU"}):
        yield ok("no NPU and no GPU: ranks compute on the CPU", host.where)


def _cann(host: HostReport) -> Findings:
    versions, ascend = host.facts.versions, host.facts.ascend
    if versions.torch_npu:
        fits, words = check_pairing(versions.torch_npu, versions.torch, ascend.cann)
        if fits is False:
            yield bad(words, host.where, f"pip install torch=={'.'.join(versions.torch_npu.split('.')[:3])}")
        else:
            yield ok(words, host.where)
    elif host.facts.devices.npus:
        fix = "pip install torch-npu, of the version for your torch and CANN (COMPATIBILITY.md of Ascend/pytorch)"
        yield warn("the host has NPUs, and torch-npu is not installed", host.where, fix)
    if host.facts.devices.npus and not ascend.cann:
        fix = "install CANN's toolkit, and source its set_env.sh before `ray start`"
        yield bad("the host has NPUs, and no CANN was found", host.where, fix)
    elif host.facts.devices.npus and not ascend.sourced:
        fix = f"source {ascend.home}/set_env.sh before `ray start`"
        yield warn(f"CANN {ascend.cann} is at {ascend.home}, and its environment is not set", host.where, fix)
    elif ascend.cann:
        driver = f", driver {ascend.driver}" if ascend.driver else ""
        yield ok(f"CANN {ascend.cann} at {ascend.home}{driver}", host.where)


def size(number: int) -> str:
    """Return a number of bytes as text, e.g. "1.5 GiB"."""
    if number >= 1000 * MIB:
        return f"{number / GIB:,.3g} GiB" if number < 1000 * GIB else f"{number / GIB:,.0f} GiB"
    return f"{number / MIB:.0f} MiB"


def _limit(number: int) -> str:
    return "unlimited" if number < 0 else f"{number:,}"
