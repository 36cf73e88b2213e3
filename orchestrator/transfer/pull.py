"""Files of one host of a cluster, brought here piece by piece; what is here already, whole or in part, is not again."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.transfer.courier import Courier, FarFile
from aclcmp.orchestrator.transfer.safe_open import digest_of, moved, opened, size_of
from aclcmp.orchestrator.transfer.selection import Wanted

PIECE_BYTES = 4 << 20
_PIECES_AHEAD = 4  # of each host: what Ray's store holds at once
_TICK = 0.5


class _CutError(Exception):
    """The user or a full disk ended the transfer: what is here stays."""


class _HostLostError(Exception):
    """A host does not answer any more."""


@dataclass(slots=True)
class Brought:
    """What came of one host's files. `problems` say in words what is not here."""

    host: str
    files: int = 0
    nbytes: int = 0
    """Bytes that travelled."""
    here: int = 0
    """Files that were here before, and equal."""
    problems: list[str] = field(default_factory=list)
    over: bool = False
    """Whether all files were gone through."""


class Transfer:
    """The files of one host, on their way. It is to be run in a thread of its own."""

    def __init__(
        self,
        run: RunDir,
        node_id: str,
        host: str,
        wanted: Wanted,
        stop: threading.Event,
        expect: Callable[[int], None],
        advance: Callable[[int], None],
    ) -> None:
        """`expect` is told the bytes of all files once they are known, `advance` those that are here."""
        self.brought = Brought(host)
        self._run = run
        self._node_id = node_id
        self._wanted = wanted
        self._stop = stop
        self._expect = expect
        self._advance = advance
        self._courier: Any = None
        self._again = True

    def bring(self) -> Brought:
        """Bring all files; a failure of one is told and the others go on. Raises OSError when none can be written."""
        from ray.exceptions import RayTaskError

        try:
            files, refused = self._listed()
            if refused:
                self.brought.problems.append(f"{self.brought.host}: {refused:,} links or odd names were not brought")
            for file in files:
                self._bring(file)
            self.brought.over = True
        except _HostLostError as lost:
            self.brought.problems.append(f"{self.brought.host} stopped answering ({lost})")
        except RayTaskError as error:
            self.brought.problems.append(f"{self.brought.host}: {_cause(error)}")
        except _CutError:
            pass
        return self.brought

    def _listed(self) -> tuple[list[FarFile], int]:
        files, refused = self._ask("files", self._wanted)
        allowed = [file for file in files if self._wanted.allows(file.name) and file.nbytes >= 0]
        self._expect(sum(file.nbytes for file in allowed))
        return allowed, refused + len(files) - len(allowed)

    def _bring(self, file: FarFile) -> None:
        """Bring one file, or tell why it could not be."""
        from ray.exceptions import RayTaskError

        root = self._run.root
        try:
            if size_of(root, file.name) == file.nbytes and self._ask("digest", file.name) == digest_of(root, file.name):
                self.brought.here += 1
                self._advance(file.nbytes)
                return
            if self._copied(file) or self._copied(file):
                moved(self._run.fetching, file.name, root, file.name)
                self.brought.files += 1
                return
            why = "it changed while it was read"
        except RayTaskError as error:
            why = _cause(error)
        self.brought.problems.append(f"{self.brought.host}: {file.name} was not brought: {why}")

    def _copied(self, file: FarFile) -> bool:
        """Copy what is not here yet of a file; whether it has the hash of its source then. If not, it is gone again."""
        self._run.fetching.mkdir(exist_ok=True)
        with opened(self._run.fetching, file.name, os.O_RDWR | os.O_CREAT) as part:
            at = os.fstat(part).st_size
            if at > file.nbytes:
                os.ftruncate(part, at := 0)
            self._advance(at)
            asked: deque[tuple[Any, Any]] = deque()
            following = at
            while at < file.nbytes:
                while following < file.nbytes and len(asked) < _PIECES_AHEAD:
                    asked.append(self._call("piece", file.name, following, PIECE_BYTES))
                    following += PIECE_BYTES
                piece = self._answer(asked.popleft(), "piece", file.name, at, PIECE_BYTES)
                if len(piece) != min(PIECE_BYTES, file.nbytes - at):
                    break
                _write(part, piece, at)
                at += len(piece)
                self.brought.nbytes += len(piece)
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
        """Wait for an answer; what is lost with its courier is asked of another one, the only other one.

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
                if not self._again:
                    raise _HostLostError(type(error).__name__) from None
                self._again, self._courier = False, None
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
