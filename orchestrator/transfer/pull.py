"""Fetch the files of one host of a cluster piece by piece, without those parts that are here already."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.transfer.courier import Courier, RemoteFile
from aclcmp.orchestrator.transfer.file_selection import FileSelection
from aclcmp.orchestrator.transfer.safe_open import digest_of, move_file, open_below, size_of

PIECE_BYTES = 4 << 20
_PIECES_AHEAD = 4  # of each host: Ray's store holds them at once
_TICK = 0.5


class _CutError(Exception):
    """The user or a full disk ended the transfer; files that are here stay."""


class _HostLostError(Exception):
    """A host has stopped answering."""


@dataclass(slots=True)
class HostTransferResult:
    """The outcome of fetching one host's files."""

    host: str
    files: int = 0
    nbytes: int = 0
    """Bytes that were transferred."""
    here: int = 0
    """Files that were here before with the same digest."""
    problems: list[str] = field(default_factory=list)
    """One sentence for each thing that is not here."""
    finished: bool = False
    """True once every file was tried."""


class HostTransfer:
    """The transfer of one host's files; run it in a thread of its own."""

    def __init__(
        self,
        run: RunDir,
        node_id: str,
        host: str,
        selection: FileSelection,
        stop: threading.Event,
        expect: Callable[[int], None],
        advance: Callable[[int], None],
    ) -> None:
        """`expect` is called with the bytes of all files once they are known, `advance` with those that came."""
        self.result = HostTransferResult(host)
        self._run = run
        self._node_id = node_id
        self._selection = selection
        self._stop = stop
        self._expect = expect
        self._advance = advance
        self._courier: Any = None
        self._may_retry = True

    def run(self) -> HostTransferResult:
        """Fetch all files; a failure of one is noted and the others go on. Raises OSError when none can be written."""
        from ray.exceptions import RayTaskError

        try:
            files, refused = self._list_files()
            if refused:
                self.result.problems.append(f"{self.result.host}: {refused:,} links or odd names were not brought")
            for file in files:
                self._fetch(file)
            self.result.finished = True
        except _HostLostError as lost:
            self.result.problems.append(f"{self.result.host} stopped answering ({lost})")
        except RayTaskError as error:
            self.result.problems.append(f"{self.result.host}: {_cause(error)}")
        except _CutError:
            pass
        return self.result

    def _list_files(self) -> tuple[list[RemoteFile], int]:
        files, refused = self._ask("files", self._selection)
        allowed = [file for file in files if self._selection.allows(file.name) and file.nbytes >= 0]
        self._expect(sum(file.nbytes for file in allowed))
        return allowed, refused + len(files) - len(allowed)

    def _fetch(self, file: RemoteFile) -> None:
        """Fetch one file, or note why it could not be."""
        from ray.exceptions import RayTaskError

        root = self._run.root
        try:
            if size_of(root, file.name) == file.nbytes and self._ask("digest", file.name) == digest_of(root, file.name):
                self.result.here += 1
                self._advance(file.nbytes)
                return
            if self._copy(file) or self._copy(file):
                move_file(self._run.fetching, file.name, root, file.name)
                self.result.files += 1
                return
            why = "it changed while it was read"
        except RayTaskError as error:
            why = _cause(error)
        self.result.problems.append(f"{self.result.host}: {file.name} was not brought: {why}")

    def _copy(self, file: RemoteFile) -> bool:
        """Copy the missing bytes of a file; return whether its digest is right then, else drop it."""
        self._run.fetching.mkdir(exist_ok=True)
        with open_below(self._run.fetching, file.name, os.O_RDWR | os.O_CREAT) as part:
            at = os.fstat(part).st_size
            if at > file.nbytes:
                os.ftruncate(part, at := 0)
            self._advance(at)
            requests: deque[tuple[Any, Any]] = deque()
            following = at
            while at < file.nbytes:
                while following < file.nbytes and len(requests) < _PIECES_AHEAD:
                    requests.append(self._call("piece", file.name, following, PIECE_BYTES))
                    following += PIECE_BYTES
                piece = self._answer(requests.popleft(), "piece", file.name, at, PIECE_BYTES)
                if len(piece) != min(PIECE_BYTES, file.nbytes - at):
                    break
                _write(part, piece, at)
                at += len(piece)
                self.result.nbytes += len(piece)
                self._advance(len(piece))
            whole = at == file.nbytes and self._ask("digest", file.name) == digest_of(self._run.fetching, file.name)
            if not whole:
                os.ftruncate(part, 0)
                self._advance(-at)
        return whole

    def _ask(self, method: str, *arguments: object) -> Any:
        return self._answer(self._call(method, *arguments), method, *arguments)

    def _call(self, method: str, *arguments: object) -> tuple[Any, Any]:
        """Ask the courier there; return it and the reference to its answer."""
        if self._courier is None:
            self._courier = _courier(self._node_id, self._run)
        return self._courier, getattr(self._courier, method).remote(*arguments)

    def _answer(self, call: tuple[Any, Any], method: str, *arguments: object) -> Any:
        """Wait for an answer; if its courier is lost, ask a second one, the last one.

        Raises _CutError, _HostLostError, RayTaskError.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        courier, answer = call
        try:
            while True:
                if self._stop.is_set():
                    raise _CutError
                if ray.wait([answer], timeout=_TICK)[0]:
                    return ray.get(answer)
        except RayTaskError:
            raise
        except RayError as error:
            if courier is self._courier:
                if not self._may_retry:
                    raise _HostLostError(type(error).__name__) from None
                self._may_retry, self._courier = False, None
            return self._ask(method, *arguments)


def _courier(node_id: str, run: RunDir) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(Courier).options(num_cpus=0, scheduling_strategy=strategy).remote(run.root)


def _cause(error: Any) -> str:
    return " ".join(str(error.cause).split())


def _write(file: int, data: Any, at: int) -> None:
    view = memoryview(data)
    while len(view):
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written
