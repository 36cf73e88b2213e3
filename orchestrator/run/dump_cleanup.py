"""Delete dumps that are no longer needed, and nothing outside of their folder, wherever links point."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path


def remove_dumps(files: Sequence[Path], within: Path) -> tuple[int, int]:
    """Delete those of `files` that lie within the folder `within`, and folders that this leaves empty (not `within`).

    Returns the number of deleted files and bytes. Skips what lies elsewhere, is a folder, or cannot be deleted. Of a
    link only the link is deleted: `files` must not hold a file that another label's link still needs.
    """
    root = within.resolve()
    count = size = 0
    emptied: set[Path] = set()
    for file in files:
        place = file.parent.resolve() / file.name
        if not place.is_relative_to(root):
            continue
        try:
            facts = place.lstat()
            if not stat.S_ISREG(facts.st_mode) and not stat.S_ISLNK(facts.st_mode):
                continue
            place.unlink()
        except OSError:
            continue
        count += 1
        size += facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        emptied.add(place.parent)
    for folder in emptied:
        _prune(folder, root)
    return count, size


def _prune(folder: Path, root: Path) -> None:
    """Remove a folder and those above it, below `root`, as far as they are empty."""
    while folder != root:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass  # pruned from below another one
        except OSError:
            return
        folder = folder.parent
