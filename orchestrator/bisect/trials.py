"""The trials of a bisection: each has a folder, and what came of it is kept, so that a bisection that ended goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from aclcmp.labeling.atomic_file import replace_atomically
from aclcmp.orchestrator.bisect.smallest_set import Choice
from aclcmp.orchestrator.errors import UsageError


class _Trial(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: tuple[str, ...]
    folder: str
    mends: bool
    error: float


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: tuple[str, ...]
    """What the bisection is of: its command and options, and all changes."""
    trials: tuple[_Trial, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a trial: whether the end is right, and its error (relative L2)."""

    folder: Path
    mends: bool
    error: float


class Trials:
    """The trials in a folder."""

    def __init__(self, root: Path, asked: Sequence[str]) -> None:
        """Open the folder of a bisection, or make it.

        Raises UsageError where it holds something else, or a bisection of something else than `asked`.
        """
        self.root = root.absolute()
        self._file = self.root / "bisect.json"
        self._kept = _Kept(asked=tuple(asked))
        if self._file.exists():
            self._kept = self._read()
            if self._kept.asked != tuple(asked):
                raise UsageError(f"{root} holds a bisection of another command; choose another --output")
        elif self.root.exists() and next(self.root.iterdir(), None) is not None:
            raise UsageError(f"--output {root} is not empty and holds no bisection; choose another folder")
        self.root.mkdir(parents=True, exist_ok=True)
        self._save()

    def __len__(self) -> int:
        return len(self._kept.trials)

    def known(self, choice: Choice) -> Result | None:
        """Return what came of a trial before; None where it was not finished."""
        for trial in self._kept.trials:
            if trial.choice == choice:
                return Result(self.root / trial.folder, trial.mends, trial.error)
        return None

    def new_folder(self) -> Path:
        """Return the folder of the next trial, which does not exist: one that was cut off keeps its own."""
        number = len(self._kept.trials) + 1
        while (folder := self.root / f"trial-{number:03d}").exists():
            number += 1
        return folder

    def keep(self, choice: Choice, result: Result) -> None:
        """Keep what came of a trial."""
        folder = result.folder.name
        trial = _Trial(choice=choice, folder=folder, mends=result.mends, error=min(result.error, 1e308))
        self._kept = self._kept.model_copy(update={"trials": (*self._kept.trials, trial)})
        self._save()

    def _read(self) -> _Kept:
        try:
            return _Kept.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError) as error:
            raise UsageError(f"{self._file} cannot be read ({type(error).__name__}); choose another --output") from None

    def _save(self) -> None:
        with replace_atomically(self._file) as part:
            part.write_text(json.dumps(self._kept.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
