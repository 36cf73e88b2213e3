"""Errors that a user can mend. The whole tree is drawn in `aclcmp.orchestrator.errors`."""


class AclcmpError(Exception):
    """Something the user can mend; the message says what happened, where, and what to do next."""


class LabelError(AclcmpError, ValueError):
    """A label's arguments cannot be recorded."""


class ShardError(AclcmpError, OSError):
    """A shard cannot be read or written as asked."""


class ShardFormatError(ShardError):
    """A shard's content is not what this version reads: not HDF5, truncated, from the future, or unsafe."""
