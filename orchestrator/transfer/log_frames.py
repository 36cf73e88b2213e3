"""Files as lines of a log: encode bytes as lines `@aclcmp kind file offset crc payload`, and decode them.

A job's log is text that is followed line by line, and other output may stand between these lines.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass
from enum import Enum

from aclcmp.orchestrator.transfer.safe_open import split_path

CHUNK = 48 * 1024
"""Bytes per line. The log is served by lines, each in one message of at most 4 MiB."""

LONGEST = 1 << 20
"""Characters; no line of a frame is longer."""

MARK = "@aclcmp"

PART = ".part"
"""Suffix of a file that is not whole."""


class FrameKind(str, Enum):
    """The kind of a line."""

    FILE = "file"
    """Names the file that follows: JSON with `path`, `size`; `offset` is where its bytes begin."""
    DATA = "data"
    PACKED = "packed"
    """Bytes, compressed by zlib."""
    END = "end"
    """The end of a file: its digest; `offset` is its size."""
    FAILED = "failed"
    """The reason why a file could not be read, or that it changed meanwhile."""
    DONE = "done"
    """The end of all files: JSON with `more`, `left_out`, `error`."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a log."""

    kind: FrameKind
    file: int
    """Number of the file within the job, from 0."""
    offset: int
    """Of the payload within the file, in bytes."""
    payload: bytes


class FrameError(ValueError):
    """A line was damaged on its way."""


def encode(frame: Frame) -> str:
    """Return the line, without its end. Data is compressed where that helps."""
    kind, payload = frame.kind, frame.payload
    if kind is FrameKind.DATA and len(packed := zlib.compress(payload, 1)) < 0.9 * len(payload):
        kind, payload = FrameKind.PACKED, packed
    text = base64.b64encode(payload).decode() or "="
    return f"{MARK} {kind.value} {frame.file} {frame.offset} {zlib.crc32(frame.payload):08x} {text}"


def decode(line: str) -> Frame | None:
    """Return the frame in a line, None for a line of other output. Raises FrameError."""
    if not line.startswith(MARK + " "):
        return None
    try:
        _, word, file, offset, crc, text = line.split(" ")
        kind = FrameKind(word)
        payload = b"" if text == "=" else base64.b64decode(text, validate=True)
        if kind is FrameKind.PACKED:
            kind, payload = FrameKind.DATA, _decompress(payload)
        frame = Frame(kind, int(file), int(offset), payload)
    except (ValueError, binascii.Error, zlib.error) as error:
        raise FrameError(f"a line was damaged: {error}") from None
    if f"{zlib.crc32(frame.payload):08x}" != crc or min(frame.file, frame.offset) < 0:
        raise FrameError("a line was damaged: its checksum is wrong")
    return frame


def safe_name(name: object) -> str:
    """Return a file's path relative to the run directory. Raises ValueError for one that could lead out of it."""
    path = "/".join(split_path(name))
    if path.endswith(PART):
        raise ValueError(f"{path!r} is that of a file that is not whole")
    return path


def _decompress(payload: bytes) -> bytes:
    """Decompress, but never more than a line may hold."""
    inflate = zlib.decompressobj()
    content = inflate.decompress(payload, CHUNK)
    if inflate.unconsumed_tail or not inflate.eof:
        raise ValueError("it holds more than it may")
    return content
