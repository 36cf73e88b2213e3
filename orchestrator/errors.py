"""Errors outside the user's process, as one tree.

AclcmpError                   the user can mend it; one line on the terminal
├── LabelError                (labeling) a label's arguments cannot be recorded
├── ShardError                (labeling) a shard cannot be read or written; also an OSError
│   └── ShardFormatError      not HDF5, truncated, from the future, or unsafe
│       └── ForeignFormatError  (labeling.shard) another tool's file is not what it says it is
├── UsageError                wrong command line, configuration or input: exit code 2
└── LaunchError               the ranks could not be started or followed: exit code 3

Any other exception is a bug in aclcmp: exit code 70 and a traceback.
"""

from collections.abc import Iterable
from enum import Enum, IntEnum

from aclcmp.labeling.errors import AclcmpError


class ExitCode(IntEnum):
    """Meaning of the command's exit code. When several apply: FAILED before DIVERGED before INCOMPLETE."""

    MATCH = 0
    DIVERGED = 1
    USAGE = 2
    FAILED = 3
    INCOMPLETE = 4
    BUG = 70


_SEVERITY = (ExitCode.MATCH, ExitCode.INCOMPLETE, ExitCode.DIVERGED, ExitCode.USAGE, ExitCode.FAILED, ExitCode.BUG)


def worst_code(codes: Iterable[int]) -> ExitCode:
    """Return the exit code that counts of several; one that is not known is a bug, and counts most."""
    known = [ExitCode(code) if code in _SEVERITY else ExitCode.BUG for code in codes]
    return max(known, key=_SEVERITY.index)


class FailOn(str, Enum):
    """Kinds of divergence that make the exit code 1."""

    ANY = "any"
    """Any divergence."""
    OWN = "own"
    """A divergence that is not inherited: for a run that is known to diverge somewhere, and may differ after it."""
    DRIFT = "drift"
    """Any divergence, and also drift: an error above the noise floor and below the limit."""


class UsageError(AclcmpError):
    """Wrong command line, configuration or input; nothing was started or overwritten."""


class LaunchError(AclcmpError):
    """The ranks could not be started or followed."""
