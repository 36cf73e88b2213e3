"""On the cluster: a run directory and a request go in, its files go out as lines of this job's log."""

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
from aclcmp.orchestrator.transfer.log_frames import CHUNK, PART, Frame, Kind, encode

_LARGE_LOG = 64 << 20
_LINGER = 60.0
"""Seconds until this job ends by itself when nobody stops it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of a run directory."""

    what: Fetch
    have: dict[str, int]
    """How many bytes of which file are there already."""
    limit: int
    """Bytes after which this job sends no more: its log lies on the head's disk until it ends."""

    def dump(self) -> bytes:
        """Return it as JSON."""
        return json.dumps({"what": self.what.value, "have": self.have, "limit": self.limit}).encode()


def read_request(word: str) -> Request:
    """Read what the other side packed into one word. Raises UsageError."""
    try:
        found = json.loads(zlib.decompress(base64.urlsafe_b64decode(word)))
        return Request(Fetch(found["what"]), {str(k): int(v) for k, v in found["have"].items()}, int(found["limit"]))
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error):
        raise UsageError("this is no request for files; `aclcmp fetch` makes them") from None


def send(root: Path, request: Request, write: Callable[[str], None]) -> None:
    """Write the files of a run directory as lines; the last line says what is left."""
    left_out: list[str] = []
    sent = 0
    done = {"more": False, "left_out": left_out, "error": ""}
    if not root.is_dir():
        done["error"] = f"there is no run directory {root} on the cluster"
    for number, (path, name) in enumerate(_wanted(RunDir(root, root.name), request.what, left_out)):
        if sent >= request.limit:
            done["more"] = True
            break
        last = Kind.FILE
        for frame in _frames(path, name, number, request.have.get(name, 0), request.limit - sent):
            sent += len(frame.payload) if frame.kind is Kind.DATA else 0
            last = frame.kind
            write(encode(frame))
        done["more"] = last not in (Kind.END, Kind.FAILED)
    write(encode(Frame(Kind.DONE, 0, 0, json.dumps(done).encode())))


def main(root: Path, word: str) -> None:
    """Send, then wait to be stopped: who has all of it need not wait until the log is known to have ended.

    However that comes, the log is emptied: it would double what the files take on the head's disk.
    """
    request = read_request(word)
    if request.what is not Fetch.REPORT and RunDir(root, root.name).record.exists():
        _gather(root, request.what)
    signal.signal(signal.SIGTERM, _stopped)  # not before: Ray, which gathers, sets one of its own
    send(root, request, _write)
    time.sleep(_LINGER)
    _empty_log()


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _stopped(number: int, frame: FrameType | None) -> NoReturn:
    _empty_log()
    os._exit(0)


def _empty_log() -> None:
    if stat.S_ISREG(os.fstat(1).st_mode):
        os.ftruncate(1, 0)


def _gather(root: Path, what: Fetch) -> None:
    """Bring here what lies on other hosts; what of it cannot be had is said, and the rest is sent."""
    from aclcmp.labeling.errors import AclcmpError
    from aclcmp.orchestrator.transfer.command import fetch_again

    try:
        fetch_again(root, "auto", what)
    except AclcmpError as error:
        sys.stderr.write(f"{error}\n")


def _wanted(run: RunDir, what: Fetch, left_out: list[str]) -> Iterator[tuple[Path, str]]:
    """The files in an order that is the same every time, small and telling ones first."""
    first = [run.record, run.report_json, run.report_csv, run.report_xml, run.report_html, run.report_h5]
    folders = {Fetch.REPORT: [run.logs], Fetch.SHARDS: [run.logs, run.shards], Fetch.ALL: [run.root]}[what]
    seen = set()
    for path in [*first, *(path for folder in folders for path in sorted(folder.rglob("*")))]:
        if path in seen or not path.is_file() or path.is_symlink() or run.fetching in path.parents:
            continue
        if path.name.endswith(PART):  # of a file that another program is writing, or left
            continue
        seen.add(path)
        name = path.relative_to(run.root).as_posix()
        if what is Fetch.REPORT and path.parent == run.logs and path.stat().st_size > _LARGE_LOG:
            left_out.append(f"{name} ({path.stat().st_size >> 20} MiB)")
            continue
        yield path, name


def _frames(path: Path, name: str, number: int, have: int, room: int) -> Iterator[Frame]:
    """One file's lines from where the other side has it, as much as there is room for.

    The file's size is the one it has at first: what is added later, as to a log of a rank that runs, is left out.
    """
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            size = before.st_size
            offset = have if 0 <= have <= size else 0
            yield Frame(Kind.FILE, number, offset, json.dumps({"path": name, "size": size}).encode())
            digest = hash_start(file, offset)
            while offset < size:
                if room <= 0:
                    return
                block = file.read(min(CHUNK, size - offset))
                if not block:
                    raise EOFError("it became shorter while it was sent")
                digest.update(block)
                yield Frame(Kind.DATA, number, offset, block)
                offset += len(block)
                room -= len(block)
            yield Frame(Kind.END, number, size, digest.hexdigest().encode())
    except (OSError, EOFError) as error:
        yield Frame(Kind.FAILED, number, 0, f"{name}: {getattr(error, 'strerror', None) or error}".encode())
