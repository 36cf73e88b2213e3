"""The receiving side: lines of a sending job's log become files of a run directory, whole or to be continued."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from aclcmp.labeling.shard.checksum import hash_start
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.transfer.log_frames import LONGEST, PART, Frame, FrameError, FrameKind, decode, safe_name

_BAD_JSON = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""Errors that JSON of another form raises when its fields are read."""


@dataclass(slots=True)
class ReceivedFiles:
    """The outcome of one sending job."""

    files: list[str] = field(default_factory=list)
    """Paths of whole files in the run directory."""
    wrong: list[str] = field(default_factory=list)
    """Problems, each with its file."""
    left_out: list[str] = field(default_factory=list)
    bytes: int = 0
    error: str = ""
    done: bool = False
    """True once the sender has said that it has finished."""
    more: bool = False
    """True where the sender has more files, for another job."""


class LogReceiver:
    """Takes a log in pieces, and writes files below `target`."""

    def __init__(self, target: Path, progress: Callable[[str, int, int], None]) -> None:
        """`progress` is called with a file's name, the bytes there and its size."""
        self.result = ReceivedFiles()
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
        """Take a piece of the log, which may end within a line; return whether the sender has finished.

        A damaged or missing line ends the file that it belongs to, which is continued by another job.
        """
        *lines, self._rest = (self._rest + piece).split("\n")
        if len(self._rest) > LONGEST:
            self._rest = "?"  # an endless line is no frame, and its end must not look like one
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
        """Close the current file; if it is not whole, its part is kept."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, frame: Frame) -> None:
        if frame.kind is FrameKind.DONE:
            self._finish(frame)
        elif frame.kind is FrameKind.FILE:
            self._begin(frame)
        elif frame.kind is FrameKind.FAILED:
            self.result.wrong.append(frame.payload.decode(errors="replace"))
            self.close()
        elif self._file is None or frame.file != self._number:
            return  # belongs to a file that was given up
        elif frame.kind is FrameKind.DATA:
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
        except _BAD_JSON as error:
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
                self._file, self._here = FileIO(whole), whole  # only its digest is sent
                return
            whole.replace(part)  # the digest will tell whether these are still its bytes
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        self._file, self._here = FileIO(descriptor, "r+"), part  # no buffer: a full disk is noticed at this line
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
        except _BAD_JSON:
            raise FrameError("the last line was damaged") from None
        self.result.more, self.result.error, self.result.done = more, error, True
        self.result.left_out += left_out

    def _give_up(self, why: str) -> None:
        if self._file is not None:
            self.result.wrong.append(f"{self._name}: {why}; it is continued at byte {self._at:,}")
            self.close()

    def _part(self) -> Path:
        return self._target / (self._name + PART)


def present_sizes(target: Path) -> dict[str, int]:
    """Return the number of bytes of each file that is in a folder already, whole or in part."""
    sizes: dict[str, int] = {}
    for path in sorted(target.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(target).as_posix()
            sizes[name.removesuffix(PART)] = path.stat().st_size  # a partial file sorts later, and counts
    return sizes


def _write(file: FileIO, payload: bytes) -> None:
    while payload:
        payload = payload[file.write(payload) :]


def _digest(file: FileIO, size: int) -> str:
    try:
        return hash_start(file, size).hexdigest()
    except EOFError:
        return ""


def _refusal(target: Path, name: str) -> str:
    """Return why a file must not be written, "" if it may: it would lie elsewhere by a link, or replace a folder."""
    path = target / name
    if not path.parent.resolve().is_relative_to(target.resolve()) or path.is_symlink():
        return f"refused: {name} would be written outside of {target}"
    return f"refused: {name} is a folder here" if path.is_dir() else ""
