"""What happens when a label is set while the tool is on: count, copy, commit, and never break the model."""

from __future__ import annotations

import atexit
import os
import platform
import socket
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aclcmp.labeling.errors import LabelError, ShardError
from aclcmp.labeling.identity import SHARD_DIR, STRICT, rank_identity
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.writer import ShardWriter
from aclcmp.labeling.tensors import host_tensor

_ALIASES = {"pta": "pta", "golden": "pta", "acl": "acl", "actual": "acl"}
_MAX_ID = 1024


class Recorder:
    """Records the labels of one process into one shard. Thread-safe; a forked child gets a recorder of its own."""

    def __init__(self, folder: Path, header: ShardHeader, strict: bool, task: int = -1) -> None:
        self._folder = folder
        self._header = header
        self._strict = strict
        self._task = task
        self._seq = 0
        self._occurrences: dict[tuple[int, str, str], int] = {}
        self._warned: set[str] = set()
        self._lock = threading.RLock()  # re-entrant: a signal handler may label too
        self._writer: ShardWriter | None = None
        self._closed = False

    @staticmethod
    def from_environment() -> Recorder:
        """Make the recorder of this process from the launcher's environment; it is closed when the process exits."""
        folder = Path(os.environ[SHARD_DIR])
        strict = os.environ.get(STRICT) == "1"
        recorder = Recorder(folder, _header(), strict, _inherited_task())
        recorder._close_at_exit()
        return recorder

    def next_task(self) -> None:
        """Start the next task, and tell libraries that name their dump folder by it."""
        with self._lock:
            self._task += 1
            os.environ["AIT_CMP_TASK_ID"] = f"{os.getpid()}_{self._task}"

    def record(self, data_src: Any, data_id: Any, data_val: Any, tensor_path: Any, layout: Any, call_site: str) -> None:
        """Record one label. Raises only when strict: LabelError for a wrong argument, ShardError for a failing disk."""
        with self._lock:
            seq, self._seq = self._seq, self._seq + 1
            try:
                side = _checked_arguments(data_src, data_id, data_val, tensor_path)
                writer = self._open_writer()
                task = max(self._task, 0)
                occurrence = self._next_occurrence((task, data_id, side))
                if data_val is None:
                    path = os.fspath(tensor_path)
                    writer.note(
                        LabelRecord(task, data_id, occurrence, side, seq, time.time(), call_site, tensor_path=path)
                    )
                    return
                tensor = host_tensor(data_val, layout)
                label = LabelRecord(
                    task=task,
                    data_id=data_id,
                    occurrence=occurrence,
                    side=side,
                    seq=seq,
                    time=time.time(),
                    call_site=call_site,
                    dtype=tensor.dtype,
                    shape=tensor.shape,
                    device=tensor.device,
                    layout=tensor.layout,
                )
                writer.add(label, tensor.bits)
            except Exception as error:  # whatever it is, it must not reach the model
                self._failed(data_src, data_id, seq, call_site, error)

    def close(self) -> None:
        """Seal the shard. What cannot be sealed stays readable through its journal."""
        with self._lock:
            self._closed = True
            if self._writer is None:
                return
            try:
                self._writer.close()
            except Exception as error:
                _say(f"cannot seal {self._writer.files.stem} ({_reason(error)}); its journal keeps every label")
            self._writer = None

    def after_fork(self) -> Recorder:
        """In a forked child: let go of the parent's shard and return this process's own recorder."""
        if self._writer is not None:
            self._writer.detach()
            self._writer = None  # the parent's close, inherited with its atexit list, must find nothing
        child = Recorder(self._folder, _header(), self._strict, self._task)
        child._close_at_exit()
        return child

    def _close_at_exit(self) -> None:
        atexit.register(self.close)
        if "multiprocessing.process" in sys.modules:  # its children leave by os._exit, past atexit
            from multiprocessing.util import Finalize

            Finalize(None, self.close, exitpriority=0)

    def _open_writer(self) -> ShardWriter:
        if self._closed:
            raise ShardError("the process is exiting and its shard is sealed")
        if self._writer is None:
            self._writer = ShardWriter(self._folder, self._header)
        return self._writer

    def _next_occurrence(self, key: tuple[int, str, str]) -> int:
        number = self._occurrences.get(key, 0)
        self._occurrences[key] = number + 1
        return number

    def _failed(self, data_src: Any, data_id: Any, seq: int, call_site: str, error: Exception) -> None:
        reason = _reason(error)
        task, name = max(self._task, 0), _plain_id(data_id)
        side = _ALIASES.get(data_src, "") if isinstance(data_src, str) else ""
        if reason not in self._warned:
            self._warned.add(reason)
            _say(f"label {name!r} ({side or 'no side'}) at {call_site} failed: {reason}")
        # a label that failed after it was counted keeps its occurrence
        occurrence = max(self._occurrences.get((task, name, side), 1) - 1, 0)
        label = LabelRecord(task, name, occurrence, side, seq, time.time(), call_site, error=reason)
        try:
            self._open_writer().note(label)
        except Exception as second:
            if "unwritable" not in self._warned:
                self._warned.add("unwritable")
                _say(f"failed labels cannot even be noted in {self._folder}: {_reason(second)}")
        if self._strict:
            if isinstance(error, (LabelError, ShardError)):
                raise error
            raise ShardError(f"label {name!r} could not be recorded: {reason}") from error


def _checked_arguments(data_src: Any, data_id: Any, data_val: Any, tensor_path: Any) -> str:
    if not isinstance(data_src, str) or data_src not in _ALIASES:
        raise LabelError(f"data_src={data_src!r} is not a side; use 'pta' (golden) or 'acl' (actual)")
    if not isinstance(data_id, str) or not data_id:
        raise LabelError(f"data_id must be a non-empty string, not {data_id!r}")
    if (not data_id.isascii() and data_id != _plain_id(data_id)) or len(data_id) > _MAX_ID or "\0" in data_id:
        raise LabelError(f"data_id must be plain text of at most {_MAX_ID} characters")
    if data_val is None and tensor_path is None:
        raise LabelError("neither data_val nor tensor_path was given")
    if data_val is None and _ALIASES[data_src] == "pta":
        raise LabelError("the golden side needs data_val; tensor_path belongs to the acl side")
    return _ALIASES[data_src]


def _plain_id(data_id: Any) -> str:
    """Return an id that any file can hold, for naming even a label with an impossible one."""
    name = data_id if isinstance(data_id, str) else repr(data_id)
    return name.encode("utf-8", "replace").decode().replace("\0", "?")[:_MAX_ID]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(f"{error}".split()) or type(error).__name__


def _say(text: str) -> None:
    sys.stderr.write(f"aclcmp: {text}\n")


def _inherited_task() -> int:
    """The task of the process that started this one, as `set_task_id` left it; -1 for none."""
    _, _, number = os.environ.get("AIT_CMP_TASK_ID", "").rpartition("_")
    return int(number) if number.isdecimal() else -1


def _header() -> ShardHeader:
    identity = rank_identity()
    versions = {"python": platform.python_version()}
    for package in ("aclcmp", "numpy", "h5py", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return ShardHeader(
        run_id=identity.run_id,
        rank=identity.rank,
        world_size=identity.world_size,
        local_rank=identity.local_rank,
        process=0,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=time.time(),
        versions=versions,
    )
