"""The part of a tensor that is kept: as the user asked, or less when the disk would fill up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from enum import Enum
from pathlib import Path

_LOOK_AGAIN = 16 << 20
"""Bytes written by this process after which it reads the free space of the disk again."""
_MOST_RESERVE = 1 << 30
_TIGHT_TASKS = 20
"""A disk with room for fewer further tasks than this is reported, once."""


class Capture(str, Enum):
    """The part of a tensor that is kept."""

    FULL = "full"
    """All of it."""
    FINGERPRINT = "fingerprint"
    """Its moments, norms by row and a random projection."""
    STATS = "stats"
    """Its moments and norms by row."""


class Budget:
    """The decision how much of each tensor is kept. From the moment the disk is short only fingerprints are kept.

    At that moment `say` is called with one line, and `relieve`, in which the caller stops other writers to the disk.
    """

    def __init__(
        self,
        folder: Path,
        wanted: Capture,
        ranks: int,
        say: Callable[[str], None],
        relieve: Callable[[], None],
    ) -> None:
        """Watch the disk of `folder`, to which `ranks` ranks of this host write."""
        self._folder = folder
        self.capture = wanted
        self._ranks = ranks
        self._say = say
        self._relieve = relieve
        self._reserve = min(_MOST_RESERVE, shutil.disk_usage(folder).total // 20)
        self._unseen = _LOOK_AGAIN
        self._free = 0
        self._task_bytes = 0
        self._free_before_task = shutil.disk_usage(folder).free
        self._forecast = False
        self._short = False

    def capture_for(self, nbytes: int) -> Capture:
        """Return how much is kept of a tensor of `nbytes` that is about to be written."""
        if self.capture is not Capture.FULL:
            return self.capture
        self._unseen += nbytes
        if self._unseen >= _LOOK_AGAIN:
            self._free, self._unseen = shutil.disk_usage(self._folder).free, nbytes
        if self._free - self._unseen < self._reserve:
            self._switch_down(f"the disk of {self._folder} has {_size(self._free)} left")
            return self.capture
        self._task_bytes += nbytes
        return Capture.FULL

    def before_a_dump(self) -> None:
        """Check that the disk has room for the dumps of the library."""
        if not self._short and shutil.disk_usage(self._folder).free < self._reserve:
            self._switch_down(f"the disk of {self._folder} is nearly full")

    def end_task(self, task: int) -> None:
        """Forecast the space of the next task from the one that ended, and keep less where that is too much.

        A task took what this rank recorded times the number of ranks, or the loss of free space, if that is more: the
        loss includes dumps.
        """
        free = shutil.disk_usage(self._folder).free
        per_task = max(self._task_bytes * self._ranks, self._free_before_task - free)
        self._task_bytes, self._free_before_task = 0, free
        free -= self._reserve
        if self._short or per_task <= 0 or free >= per_task * _TIGHT_TASKS:
            return
        took = f"task {task} took {_size(per_task)} on {self._ranks} rank{'s' * (self._ranks > 1)} of this host"
        if free < per_task:
            self._switch_down(f"{took}, the disk of {self._folder} has room for {_size(max(free, 0))} more")
        elif not self._forecast:
            self._forecast = True
            less = "--labels, --tasks or --capture fingerprint make it less"
            self._say(f"{took}, the disk of {self._folder} has room for {free // per_task} more like it; {less}")

    def _switch_down(self, why: str) -> None:
        self._short = True
        if self.capture is Capture.FULL:
            self.capture = Capture.FINGERPRINT
        self._say(f"{why}: from here on only fingerprints of tensors are kept, and nothing is dumped")
        self._relieve()


def _size(nbytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"
