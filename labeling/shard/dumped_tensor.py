"""The place of a tensor that another tool dumped, or the reason why there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aclcmp.labeling.errors import ShardFormatError


class ForeignFormatError(ShardFormatError):
    """A file of another tool cannot be read: absent, truncated, unsafe, or not of the format."""


@dataclass(frozen=True, slots=True)
class DumpedTensor:
    """A tensor within a file, dense in C order, little-endian."""

    path: str
    """The file that holds the bytes, without links."""
    offset: int
    """The byte of the first element."""
    dtype: str
    """torch's name, a key of `DTYPES`."""
    shape: tuple[int, ...]
    """As stored."""
    fractal_nz: bool = False
    """True: the elements lie in Ascend's FRACTAL_NZ order, and `shape` is the shape of the tiles."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotDumped:
    """The reason why there is no tensor, on one line."""

    reason: str
    unreadable: bool = False
    """True: the file is there but cannot be read. False: it is missing."""


def printable(text: str) -> str:
    """Return a file's name on one line, without characters that steer a terminal."""
    if text.isprintable():  # nearly all names are, and a dump may name a million
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def error_text(error: BaseException) -> str:
    """Return the text of any library's error, on one line that is never empty."""
    text = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
    return printable(text)[:400] or type(error).__name__


@contextmanager
def name_file_in_errors(path: str) -> Iterator[None]:
    """Turn OSErrors within into ForeignFormatErrors that name the file; those that are one already pass unchanged."""
    try:
        yield
    except ForeignFormatError:  # it is an OSError too, and names its file already
        raise
    except OSError as error:
        raise ForeignFormatError(f"{printable(path)}: {error_text(error)}") from error
