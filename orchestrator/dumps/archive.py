"""Zip archives as numpy and torch write them: places of their members, within bounds that real files never exceed."""

from __future__ import annotations

import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, BinaryIO

from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError, error_text, name_file_in_errors, printable

LONGEST_READ = 16 << 20
"""Bytes of an archive's index, which zipfile reads in one piece: 100,000 members with names of 100 letters."""
_MOST_MEMBERS = 100_000
_WINDOW = 4 << 20
_UTF8 = 0x800  # the flag of a member whose name is UTF-8
_LOCAL = 30  # bytes of a member's own header, without its name
_KNOWN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
DAMAGED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,  # of bz2
    EOFError,
    NotImplementedError,  # a compression that zipfile cannot unpack
    RuntimeError,  # encrypted
    struct.error,
    ValueError,
    IndexError,
    OverflowError,
)
"""Errors that reading a damaged archive raises."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An open archive."""

    path: str
    file: BinaryIO
    members: tuple[zipfile.ZipInfo, ...]
    """Files, in the archive's order."""
    _zip: zipfile.ZipFile

    def begin(self, member: zipfile.ZipInfo) -> int:
        """Return the offset of the bytes of a stored member. Raises ForeignFormatError when they cannot be there."""
        self._check(member)
        self.file.seek(member.header_offset)
        local = self.file.read(_LOCAL)
        if len(local) < _LOCAL or local[:4] != b"PK\3\4":
            raise self._error(member, "does not begin where the archive says")
        name, extra = struct.unpack("<HH", local[26:])
        if self.file.read(name) != member.orig_filename.encode("utf-8" if member.flag_bits & _UTF8 else "cp437"):
            raise self._error(member, "has another name where it begins")
        begin: int = member.header_offset + _LOCAL + name + extra
        size = os.fstat(self.file.fileno()).st_size
        if member.file_size != member.compress_size or begin + member.file_size > size:
            raise self._error(member, "is truncated or not as the archive says")
        return begin

    def check_sum(self, member: zipfile.ZipInfo, begin: int) -> None:
        """Raise ForeignFormatError when a stored member's bytes do not have its checksum (1.5 GB/s)."""
        self.file.seek(begin)
        left, checksum = member.file_size, 0
        while piece := self.file.read(min(left, _WINDOW)):
            left -= len(piece)
            checksum = zlib.crc32(piece, checksum)
        if checksum != member.CRC:
            raise self._error(member, "is damaged: its checksum is not the one in the archive")

    def unpack(self, member: zipfile.ZipInfo) -> IO[bytes]:
        """Return a stream of a member's bytes. Raises ForeignFormatError when numpy knows no such compression."""
        self._check(member)
        if member.compress_type not in _KNOWN:
            raise self._error(member, "is compressed as numpy does not read it; save it with numpy.savez_compressed")
        return self._zip.open(member)

    def _check(self, member: zipfile.ZipInfo) -> None:
        if member.flag_bits & 1:
            raise self._error(member, "is encrypted")

    def _error(self, member: zipfile.ZipInfo, what: str) -> ForeignFormatError:
        return ForeignFormatError(f"{printable(self.path)} ({printable(member.filename)}): {what}")


class _BoundedReader(io.BufferedReader):
    """A file that refuses to read far too much at once, as a damaged archive may ask for."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        if (left if size is None or size < 0 else min(size, left)) > LONGEST_READ:
            raise ForeignFormatError(
                f"{printable(str(self.name))}: its index is longer than that of any file of tensors"
            )
        return super().read(size)


@contextmanager
def open_archive(path: str) -> Iterator[Archive]:
    """Open an archive. Raises ForeignFormatError when opening it, or the body of the `with`, finds it damaged."""
    with name_file_in_errors(path):
        try:
            with _BoundedReader(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
                members = tuple(member for member in archive.infolist() if not member.is_dir())
                if len(members) > _MOST_MEMBERS:
                    raise ForeignFormatError(
                        f"{printable(path)}: holds more than {_MOST_MEMBERS} files; save fewer in one"
                    )
                yield Archive(path, file, members, archive)
        except ForeignFormatError:
            raise
        except DAMAGED as error:
            raise ForeignFormatError(
                f"{printable(path)}: is truncated or damaged, or no archive ({error_text(error)})"
            ) from error
