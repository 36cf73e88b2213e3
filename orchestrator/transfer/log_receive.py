"""Here: lines of a sending job's log go in, the files of a run directory come out, whole or to be continued."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from aclcmp.labeling.shard.checksum import hash_start
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.transfer.log_frames import LONGEST, PART, Frame, FrameError, Kind, decode, safe_name

_NOT_SUCH = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""What JSON that is another than was meant raises when it is read."""


@dataclass(slots=True)
class Received:
    """What came of one sending job."""

    files: list[str] = field(default_factory=list)
    """Whole files, by their path in the run directory."""
    wrong: list[str] = field(default_factory=list)
    """What went wrong, each with the file."""
    left_out: list[str] = field(default_factory=list)
    bytes: int = 0
    error: str = ""
    done: bool = False
    """Whether the sender said that it is through."""
    more: bool = False
    """Whether the sender has more, for another job."""


class Receiver:
    """Takes a log in pieces and writes files below `target`."""

    def __init__(self, target: Path, progress: Callable[[str, int, int], None]) -> None:
        """`progress` is called with a file's name, the bytes there and its size."""
        self.result = Received()
        self._target = target
        self._progress = progress
        self._rest = ""
        self._name = ""
        self._number = -1
        self._size = 0
        self._at = 0
        self._file: FileIO | None = None
        self._here = target

    def feed(self, piece: str) -> bool:
        """Take a piece of the log, which may end within a line; return whether the sender is through.

        A damaged or missing line ends the file that it belongs to, which is continued by another job.
        """
        *lines, self._rest = (self._rest + piece).split("\n")
        if len(self._rest) > LONGEST:
            self._rest = "?"  # an endless line is none of ours, and its end shall not look like one
        for line in lines:
            try:
                frame = decode(line)
                if frame is not None:
                    self._take(frame)
            except FrameError as error:
                self._give_up(str(error))
            except OSError as error:
                raise UsageError(f"cannot write {error.filename or self._name}: {error.strerror}") from None
            if self.result.done:
                return True
        return False

    def close(self) -> None:
        """Keep what is there of a file that is not whole."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.DONE:
            self._finish(frame)
        elif frame.kind is Kind.FILE:
            self._begin(frame)
        elif frame.kind is Kind.FAILED:
            self.result.wrong.append(frame.payload.decode(errors="replace"))
            self.close()
        elif self._file is None or frame.file != self._number:
            return  # of a file that was given up
        elif frame.kind is Kind.DATA:
            if frame.offset != self._at or self._at + len(frame.payload) > self._size:
                raise FrameError("a line is missing")
            _write(self._file, frame.payload)
            self._at += len(frame.payload)
            self.result.bytes += len(frame.payload)
            self._progress(self._name, self._at, self._size)
        else:
            self._end(frame)

    def _begin(self, frame: Frame) -> None:
        self.close()
        try:
            facts = json.loads(frame.payload)
            self._name, self._size = safe_name(facts["path"]), int(facts["size"])
        except _NOT_SUCH as error:
            self.result.wrong.append(f"refused: {error}")
            return
        if refused := _refusal(self._target, self._name):
            self.result.wrong.append(refused)
            return
        self._number, self._at = frame.file, frame.offset
        part = self._part()
        part.parent.mkdir(parents=True, exist_ok=True)
        whole = self._target / self._name
        if whole.exists() and not part.exists():
            if self._at == self._size == whole.stat().st_size:
                self._file, self._here = FileIO(whole), whole  # nothing is sent of it but its checksum
                return
            whole.replace(part)  # it is told whether these are still its bytes
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        self._file, self._here = FileIO(descriptor, "r+"), part  # no buffer: a full disk is known at the line
        if os.fstat(descriptor).st_size < self._at:
            self._give_up("it is shorter here than it was")
            return
        self._file.truncate(self._at)
        self._file.seek(self._at)

    def _end(self, frame: Frame) -> None:
        assert self._file is not None
        here, whole = self._here, self._target / self._name
        right = self._at == self._size and _digest(self._file, self._size) == frame.payload.decode(errors="replace")
        self.close()
        if not right:
            here.unlink()
            self.result.wrong.append(f"{self._name}: its bytes are not those on the cluster; it is fetched anew")
            return
        if here != whole:
            here.replace(whole)
        self.result.files.append(self._name)

    def _finish(self, frame: Frame) -> None:
        self.close()
        try:
            found = json.loads(frame.payload)
            more, error, left_out = bool(found["more"]), str(found["error"]), [str(each) for each in found["left_out"]]
        except _NOT_SUCH:
            raise FrameError("the last line was damaged") from None
        self.result.more, self.result.error, self.result.done = more, error, True
        self.result.left_out += left_out

    def _give_up(self, why: str) -> None:
        if self._file is not None:
            self.result.wrong.append(f"{self._name}: {why}; it is continued at byte {self._at:,}")
            self.close()

    def _part(self) -> Path:
        return self._target / (self._name + PART)


def held(target: Path) -> dict[str, int]:
    """How many bytes of which file are in a folder already, whole or partial."""
    found: dict[str, int] = {}
    for path in sorted(target.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(target).as_posix()
            found[name.removesuffix(PART)] = path.stat().st_size  # a partial one comes later, and counts
    return found


def _write(file: FileIO, payload: bytes) -> None:
    while payload:
        payload = payload[file.write(payload) :]


def _digest(file: FileIO, size: int) -> str:
    try:
        return hash_start(file, size).hexdigest()
    except EOFError:
        return ""


def _refusal(target: Path, name: str) -> str:
    """Say why a file must not be written: a link within the folder leads out of it, or it would replace another."""
    path = target / name
    if not path.parent.resolve().is_relative_to(target.resolve()) or path.is_symlink():
        return f"refused: {name} would be written outside of {target}"
    return f"refused: {name} is a folder here" if path.is_dir() else ""
