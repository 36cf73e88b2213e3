"""The selection of labels to record, by their id and their task."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.identity import LABELS, TASKS


@dataclass(frozen=True, slots=True)
class LabelFilter:
    """Ids that contain a match of `labels` (None: all), and tasks within one of the ranges (None: all)."""

    labels: re.Pattern[str] | None = None
    tasks: tuple[range, ...] | None = None

    @staticmethod
    def from_environment(environ: Mapping[str, str] = os.environ) -> LabelFilter:
        """Read the variables that the launcher sets. Raises LabelError."""
        labels, tasks = environ.get(LABELS, ""), environ.get(TASKS, "")
        return LabelFilter(parse_labels(labels) if labels else None, parse_tasks(tasks) if tasks else None)

    def wants(self, task: int, data_id: object) -> bool:
        """Tell whether a label is recorded. An id that is no text is accepted, so that the mistake is reported."""
        if self.tasks is not None and not any(task in numbers for numbers in self.tasks):
            return False
        return not isinstance(data_id, str) or self.selects(data_id)

    def selects(self, data_id: str) -> bool:
        """Tell whether labels of an id are recorded, in the tasks that are."""
        return self.labels is None or self.labels.search(data_id) is not None


def parse_labels(text: str) -> re.Pattern[str]:
    """Compile a regular expression that selects the labels whose id contains a match. Raises LabelError."""
    try:
        return re.compile(text)
    except re.error as error:
        raise LabelError(f"--labels {text!r} is not a regular expression: {error}") from None


def parse_tasks(text: str) -> tuple[range, ...]:
    """Read numbers and inclusive ranges such as "0-3,7". Raises LabelError."""
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?", part)
        if match is None:
            raise LabelError(f"--tasks {text!r}: {part.strip()!r} is not a task or a range; write it like 0-3,7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise LabelError(f"--tasks {text!r}: {part.strip()} is an empty range")
        ranges.append(range(first, last + 1))
    return tuple(ranges)
