"""Copies of tensors that cannot be read where they lie: in Fortran order, big-endian, or compressed."""

from __future__ import annotations

import math
import mmap
import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError, name_file_in_errors, printable

_RESERVE = 256 << 20  # bytes that are left free for what else the machine does
_MOST = "ACLCMP_MOST_UNPACKED"
_ALWAYS = 512 << 20  # bytes that any file may unpack to
_RATIO = 64  # floats of a model pack to a half; a file of zeros, as a bomb is one, to a thousandth
_LARGE = 64 << 30  # bytes that only a file of a quarter of them may unpack to
_CHUNK = 1 << 20
_WINDOW = 16 << 20  # bytes that are copied before memory is given back


class Scratch:
    """A folder of copies below another one, made with the first copy."""

    def __init__(self, above: Path) -> None:
        """Make copies in a new folder below `above`."""
        self._above = above
        self._folder: Path | None = None
        self._copies = 0
        self._unpacked: dict[str, int] = defaultdict(int)

    def copy(
        self, source: npt.NDArray[Any], dtype: str, warning: str, of: str, release: Callable[[], object] = bool
    ) -> DumpedTensor:
        """Copy an array of `dtype`'s bits in any order into a .npy file, dense and little-endian.

        `of` is the file that holds the array; `release` is called now and then to free the memory of a mapped `source`.
        Raises ForeignFormatError when the disk has no room, or `of` would unpack to more than any file should.
        """
        memory = DTYPES[dtype].memory
        shape = tuple(source.shape)
        nbytes = math.prod(shape) * memory.itemsize
        path = self._new(nbytes, of)
        with name_file_in_errors(str(path)), path.open("w+b") as file:
            np.lib.format.write_array_header_2_0(file, _header(memory, shape))
            offset = file.tell()
            if nbytes:
                os.posix_fallocate(
                    file.fileno(), offset, nbytes
                )  # writing into a mapped file on a full disk kills the process
                pages = mmap.mmap(file.fileno(), offset + nbytes)
        if nbytes:
            target = np.ndarray(shape or (1,), memory, pages, offset)
            rows = math.ceil(len(target) * _WINDOW / nbytes)
            for first in range(0, len(target), rows):
                target[first : first + rows] = source[first : first + rows] if shape else source
                pages.madvise(mmap.MADV_DONTNEED)
                release()
        return DumpedTensor(str(path), offset, dtype, shape, warnings=(warning,))

    def copy_from_file(
        self, file: BinaryIO, view: Callable[[mmap.mmap], npt.NDArray[Any]], dtype: str, warning: str, of: str
    ) -> DumpedTensor:
        """Copy, as `copy` does, what `view` makes of the pages of a file that is not empty."""
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self.copy(view(pages), dtype, warning, of, lambda: pages.madvise(mmap.MADV_DONTNEED))

    def extract(self, stream: IO[bytes], size: int, of: str) -> Path:
        """Write the next `size` bytes of `stream`, which unpacks a part of the file `of`, into a file and return it.

        Raises ForeignFormatError when the stream is shorter or longer, and for the reasons of `copy`.
        """
        path = self._new(size, of)
        left = size
        with name_file_in_errors(str(path)), path.open("wb") as file:
            while chunk := stream.read(min(_CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    break
                file.write(chunk)
        if left:
            path.unlink()
            raise ForeignFormatError(f"does not have the {size} bytes that it states")
        return path

    def _new(self, size: int, of: str) -> Path:
        self._check_size(size, of)
        with name_file_in_errors(str(self._above)):
            if self._folder is None:
                self._above.mkdir(parents=True, exist_ok=True)
                self._folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="copies-", dir=self._above)))
            free = shutil.disk_usage(self._folder).free
        if size > free - _RESERVE:
            raise ForeignFormatError(f"{self._folder} has no room for a copy of {size} bytes; free some, or convert it")
        self._copies += 1
        self._unpacked[of] += size
        return self._folder / f"{self._copies:06d}.npy"

    def _check_size(self, size: int, of: str) -> None:
        """Raise ForeignFormatError when the copies from the file `of` would take too many bytes."""
        with name_file_in_errors(of):
            own = Path(of).stat().st_size
        setting = os.environ.get(_MOST, "")
        most = (
            int(setting) if re.fullmatch(r"[0-9]{1,18}", setting) else max(_ALWAYS, min(_RATIO * own, _LARGE), 4 * own)
        )
        total = self._unpacked[of] + size
        if total > most:
            raise ForeignFormatError(
                f"{printable(of)} has {own} bytes, but would unpack to {total} and more; more than {most} are refused. "
                f"If the file is right, set {_MOST} to the bytes that it may take"
            )


def _header(memory: np.dtype[Any], shape: tuple[int, ...]) -> dict[str, Any]:
    return {"descr": np.lib.format.dtype_to_descr(memory), "fortran_order": False, "shape": shape}
