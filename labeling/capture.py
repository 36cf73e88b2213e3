"""How much of a tensor is kept: what the user asked for, or less when the disk would fill up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from enum import Enum
from pathlib import Path

_LOOK_AGAIN = 16 << 20
"""Bytes written by this process after which it looks again at how much room the disk has."""
_MOST_RESERVE = 1 << 30
_TIGHT_TASKS = 20
"""A disk with room for fewer further tasks than this is told of, once."""


class Capture(str, Enum):
    """What is kept of a tensor."""

    FULL = "full"
    """All of it."""
    FINGERPRINT = "fingerprint"
    """Its moments, norms by row and a random projection."""
    STATS = "stats"
    """Its moments and norms by row."""


class Budget:
    """Decides for each tensor how much of it is kept. Once the disk is short it stays with fingerprints.

    `say` is called with one line when that happens, and `relieve` so that the caller stops what else fills the disk.
    """

    def __init__(
        self,
        folder: Path,
        wanted: Capture,
        ranks: int,
        say: Callable[[str], None],
        relieve: Callable[[], None],
    ) -> None:
        """`folder` is on the disk in question, and so many `ranks` write to it."""
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

    def of(self, nbytes: int) -> Capture:
        """Say how much is kept of a tensor of `nbytes` that is about to be written."""
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
        """Look whether the library may go on dumping."""
        if not self._short and shutil.disk_usage(self._folder).free < self._reserve:
            self._switch_down(f"the disk of {self._folder} is nearly full")

    def task_ended(self, task: int) -> None:
        """Forecast the next task from the one that ended, and make room before it begins.

        It took what all ranks recorded, if they recorded as much as this one, or what the disk lost: dumps are in that.
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
