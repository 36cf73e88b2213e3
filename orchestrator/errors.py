"""What can go wrong outside the user's process, as one tree.

AclcmpError                   the user can mend it; one line on the terminal
├── LabelError                (labeling) a label's arguments cannot be recorded
├── ShardError                (labeling) a shard cannot be read or written; also an OSError
│   └── ShardFormatError      not HDF5, truncated, from the future, or unsafe
│       └── ForeignFormatError  (labeling.shard) another tool's file is not what it says it is
├── UsageError                wrong command line, configuration or input: exit code 2
└── LaunchError               the ranks could not be started or followed: exit code 3

Any other exception is a bug in aclcmp: exit code 70 and a traceback.
"""

from enum import Enum, IntEnum

from aclcmp.labeling.errors import AclcmpError


class ExitCode(IntEnum):
    """What the command's exit code means. When several apply: FAILED before DIVERGED before INCOMPLETE."""

    MATCH = 0
    DIVERGED = 1
    USAGE = 2
    FAILED = 3
    INCOMPLETE = 4
    BUG = 70


class FailOn(str, Enum):
    """What makes the exit code 1."""

    ANY = "any"
    """Any divergence."""
    OWN = "own"
    """A divergence that is not inherited: for a run that is known to part ways somewhere, and may after it."""
    DRIFT = "drift"
    """Also what is above the noise floor only."""


class UsageError(AclcmpError):
    """Wrong command line, configuration or input; nothing was started or overwritten."""


class LaunchError(AclcmpError):
    """The ranks could not be started or followed."""
