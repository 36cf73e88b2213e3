"""The sending side, on the cluster: write the requested files of a run directory as lines of this job's log."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from aclcmp.labeling.shard.checksum import hash_start
from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.transfer.log_frames import CHUNK, PART, Frame, FrameKind, encode

_LARGE_LOG = 64 << 20
_LINGER = 60.0
"""Seconds after which this job ends by itself."""


@dataclass(frozen=True, slots=True)
class FileRequest:
    """A request for files of a run directory."""

    what: Fetch
    have: dict[str, int]
    """The number of bytes of each file that the receiver has already."""
    limit: int
    """Bytes that this job may send: its log lies on the head's disk until it ends."""

    def to_json(self) -> bytes:
        """Return it as JSON."""
        return json.dumps({"what": self.what.value, "have": self.have, "limit": self.limit}).encode()


def read_request(word: str) -> FileRequest:
    """Read a request that was packed into one word. Raises UsageError."""
    try:
        found = json.loads(zlib.decompress(base64.urlsafe_b64decode(word)))
        return FileRequest(
            Fetch(found["what"]), {str(k): int(v) for k, v in found["have"].items()}, int(found["limit"])
        )
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error):
        raise UsageError("this is no request for files; `aclcmp fetch` makes them") from None


def send(root: Path, request: FileRequest, write: Callable[[str], None]) -> None:
    """Write the files of a run directory as lines; the last line states what is left."""
    left_out: list[str] = []
    sent = 0
    done = {"more": False, "left_out": left_out, "error": ""}
    if not root.is_dir():
        done["error"] = f"there is no run directory {root} on the cluster"
    for number, (path, name) in enumerate(_select_files(RunDir(root, root.name), request.what, left_out)):
        if sent >= request.limit:
            done["more"] = True
            break
        last = FrameKind.FILE
        for frame in _frames(path, name, number, request.have.get(name, 0), request.limit - sent):
            sent += len(frame.payload) if frame.kind is FrameKind.DATA else 0
            last = frame.kind
            write(encode(frame))
        done["more"] = last not in (FrameKind.END, FrameKind.FAILED)
    write(encode(Frame(FrameKind.DONE, 0, 0, json.dumps(done).encode())))


def main(root: Path, word: str) -> None:
    """Send the files, then wait to be stopped: the receiver stops this job once it has the last line.

    At the end the log is emptied: it would double the space of the files on the head's disk.
    """
    request = read_request(word)
    if request.what is not Fetch.REPORT and RunDir(root, root.name).record.exists():
        _fetch_from_hosts(root, request.what)
    signal.signal(signal.SIGTERM, _end_on_signal)  # not before: Ray, used for gathering, sets a handler of its own
    send(root, request, _write)
    time.sleep(_LINGER)
    _empty_log()


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _end_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    _empty_log()
    os._exit(0)


def _empty_log() -> None:
    if stat.S_ISREG(os.fstat(1).st_mode):
        os.ftruncate(1, 0)


def _fetch_from_hosts(root: Path, what: Fetch) -> None:
    """Fetch the files on other hosts to this one; a failure is printed, and the other files are sent."""
    from aclcmp.labeling.errors import AclcmpError
    from aclcmp.orchestrator.transfer.fetch_command import fetch_run

    try:
        fetch_run(root, "auto", what)
    except AclcmpError as error:
        sys.stderr.write(f"{error}\n")


def _select_files(run: RunDir, what: Fetch, left_out: list[str]) -> Iterator[tuple[Path, str]]:
    """Yield the files to send in an order that is the same every time, reports first."""
    first = [run.record, run.report_json, run.report_csv, run.report_xml, run.report_html, run.report_h5]
    folders = {Fetch.REPORT: [run.logs], Fetch.SHARDS: [run.logs, run.shards], Fetch.ALL: [run.root]}[what]
    given = set()
    for path in [*first, *(path for folder in folders for path in sorted(folder.rglob("*")))]:
        if path in given or not path.is_file() or path.is_symlink() or run.fetching in path.parents:
            continue
        if path.name.endswith(PART):  # another program is writing it, or left it behind
            continue
        given.add(path)
        name = path.relative_to(run.root).as_posix()
        if what is Fetch.REPORT and path.parent == run.logs and path.stat().st_size > _LARGE_LOG:
            left_out.append(f"{name} ({path.stat().st_size >> 20} MiB)")
            continue
        yield path, name


def _frames(path: Path, name: str, number: int, have: int, room: int) -> Iterator[Frame]:
    """Yield one file's lines from the offset `have`, at most `room` bytes.

    The file's size is its size at first: bytes that are appended later, as to the log of a running rank, are left out.
    """
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            size = before.st_size
            offset = have if 0 <= have <= size else 0
            yield Frame(FrameKind.FILE, number, offset, json.dumps({"path": name, "size": size}).encode())
            digest = hash_start(file, offset)
            while offset < size:
                if room <= 0:
                    return
                block = file.read(min(CHUNK, size - offset))
                if not block:
                    raise EOFError("it became shorter while it was sent")
                digest.update(block)
                yield Frame(FrameKind.DATA, number, offset, block)
                offset += len(block)
                room -= len(block)
            yield Frame(FrameKind.END, number, size, digest.hexdigest().encode())
    except (OSError, EOFError) as error:
        yield Frame(FrameKind.FAILED, number, 0, f"{name}: {getattr(error, 'strerror', None) or error}".encode())
