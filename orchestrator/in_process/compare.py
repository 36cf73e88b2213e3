"""`aclcmp.compare` and `aclcmp.assert_matches`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from aclcmp.orchestrator.in_process.compare_here import compare_folders, compare_values
from aclcmp.orchestrator.in_process.comparison import Comparison
from aclcmp.orchestrator.in_process.options import FilePath, PolicySource, read_options
from aclcmp.orchestrator.in_process.tensors_of import check_kinds, tensors_of


def compare(
    golden: Any,
    actual: Any,
    *,
    policy: PolicySource | None = None,
    map: FilePath | None = None,
    layouts: FilePath | None = None,
) -> Comparison:
    """Compare two tensors, two dicts or lists of tensors (nested ones too, such as state dicts), or two folders.

    Args:
        golden: what is right: a torch tensor or numpy array of any dtype and device, a dict or list of them, or the
            path of a run directory or another tool's dump, as `aclcmp compare GOLDEN ACTUAL` takes them.
        actual: what is compared with it, of the same kind. Tensors of dicts pair by their names, those inside others
            joined by dots (`layers.0.weight`); of which there is only one, it is missing.
        policy: a policy file, or a dict of the same words.
        map: a file that maps golden names to actual ones.
        layouts: a file that corrects the layouts of labels.

    Each tensor of a dict is judged by itself, in golden's order. Tensors are copied into a temporary folder while they
    are compared. Raises UsageError for anything else.
    """
    return _compare(golden, actual, policy, map, layouts)


def assert_matches(
    golden: Any,
    actual: Any,
    *,
    policy: PolicySource | None = None,
    map: FilePath | None = None,
    layouts: FilePath | None = None,
) -> None:
    """Compare as `compare` does, and raise AssertionError with its table unless everything was compared and matches.

    A drift passes: it is below the limit. What is missing, or could not be compared, does not.
    """
    __tracebackhide__ = True
    found = _compare(golden, actual, policy, map, layouts)
    if not found:
        raise AssertionError(f"actual does not match golden: {found.verdict}\n{found}")


def _compare(
    golden: Any, actual: Any, policy: PolicySource | None, map: FilePath | None, layouts: FilePath | None
) -> Comparison:
    """Compare for a public call, whose caller is the call site."""
    frame = sys._getframe(2)
    check_kinds(golden, actual)
    options = read_options(policy, map, layouts)
    first, second = tensors_of(golden, "golden"), tensors_of(actual, "actual")
    if isinstance(first, Path) and isinstance(second, Path):
        return Comparison(compare_folders(first, second, options))
    assert isinstance(first, dict) and isinstance(second, dict)
    return Comparison(compare_values(first, second, f"{frame.f_code.co_filename}:{frame.f_lineno}", options))
