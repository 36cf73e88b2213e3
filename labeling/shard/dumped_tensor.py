"""What is known of a tensor that another tool dumped, or of why it is not there."""

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
    """Whether the elements lie in Ascend's FRACTAL_NZ order, in which `shape` is that of the tiles."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotDumped:
    """Why there is no tensor, on one line."""

    reason: str
    unreadable: bool = False
    """True: the file is there but cannot be read. False: it is missing."""


def printable(text: str) -> str:
    """Return a name of any file on one line that any terminal takes."""
    if text.isprintable():  # as nearly all are: a dump may name a million
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def error_text(error: BaseException) -> str:
    """Return an error of any library in words, on one line that is never empty."""
    told = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
    return printable(told)[:400] or type(error).__name__


@contextmanager
def name_file_in_errors(path: str) -> Iterator[None]:
    """Let the system's errors within name the file: they become ForeignFormatErrors. Those of ours pass as they are."""
    try:
        yield
    except ForeignFormatError:  # an OSError too, with its words already
        raise
    except OSError as error:
        raise ForeignFormatError(f"{printable(path)}: {error_text(error)}") from error
