"""The profile file: an HDF5 table of the errors that each kind of label has in runs that are right.

/profile    table: kind, golden_dtype, actual_dtype, golden_device, actual_device, rel_l2, worst_row, row_p50 (99th
            percentiles), measured (how many). Schema 1 had no row_p50.
"""

from __future__ import annotations

from pathlib import Path

import h5py

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.orchestrator.core.floors import FIGURES, Profile, ProfileKey, Usual
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.report.files import replace_file
from aclcmp.orchestrator.report.h5.primitives import Columns, read_table, write_attributes, write_table
from aclcmp.orchestrator.report.h5.sealed_file import open_sealed_file, write_sealed_file

SCHEMA = 2


def write_profile(profile: Profile, path: Path) -> None:
    """Write a profile file in one step. Raises AclcmpError when it cannot be written."""
    columns: Columns = {
        **{name: (str, [getattr(key, name) for key in profile]) for name in ProfileKey._fields},
        **{name: (float, [getattr(usual, name) for usual in profile.values()]) for name in FIGURES},
        "measured": (int, [usual.measured for usual in profile.values()]),
    }

    def build(file: h5py.File) -> None:
        write_attributes(file, {"schema": SCHEMA, "kind": "aclcmp profile"})
        write_table(file, "profile", columns)

    with replace_file(path) as part:
        write_sealed_file(part, build)


def read_profile(path: Path) -> dict[ProfileKey, Usual]:
    """Read a profile file. Raises UsageError, with the file, for what is none."""
    try:
        with open_sealed_file(path) as file:
            if int(file.attrs["schema"]) > SCHEMA:
                raise UsageError(f"{path} has schema {file.attrs['schema']}; this aclcmp reads up to {SCHEMA}")
            rows = read_table(file, "profile")
        return {
            ProfileKey(*(row[name] for name in ProfileKey._fields)): Usual(
                **{name: row[name] for name in Usual._fields if name in row}
            )
            for row in rows
        }
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist; `aclcmp report RUN --save-floor {path}` writes one") from None
    except ShardFormatError as error:
        raise UsageError(f"{error}; give another profile") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        words = " ".join(str(error).split())
        raise UsageError(f"{path} is no profile of aclcmp: {words}") from None
