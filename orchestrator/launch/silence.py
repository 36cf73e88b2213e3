"""Detect hosts that no longer answer. Pure: callers pass the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SILENT_SECONDS = 10.0
"""Rank hosts answer every three seconds; Ray itself needs 20 to 62 s to declare a host lost."""
_STILL_SECONDS = 2.0
"""Checks are some 0.2 s apart. After a longer break it was this process that stood still and heard no host."""


@dataclass(slots=True)
class Silence:
    """Time of the last answer of each host that runs commands, by node id."""

    names: Mapping[str, str]
    """Names for people, by node id: the host and its ranks."""
    now: float
    _last_heard: dict[str, float] = field(default_factory=dict)
    _reported: set[str] = field(default_factory=set)
    _last_check: float = 0.0

    def __post_init__(self) -> None:
        self._last_heard = dict.fromkeys(self.names, self.now)
        self._last_check = self.now

    def heard(self, node: str, now: float) -> str | None:
        """Note that a host has answered; return a sentence if it had been silent."""
        self._last_heard[node] = now
        if node not in self._reported:
            return None
        self._reported.discard(node)
        return f"{self.names[node]} answers again"

    def over(self, node: str) -> None:
        """Expect no more answers from a host."""
        self._last_heard.pop(node, None)

    def new_sentences(self, now: float) -> list[str]:
        """Return a sentence for each host that became silent since the last call. Call it several times a second."""
        if (
            now - self._last_check > _STILL_SECONDS
        ):  # this process slept, was stopped (Ctrl-Z), or blocked on its output
            self._last_heard = {node: when + now - self._last_check for node, when in self._last_heard.items()}
        self._last_check = now
        new = [
            node
            for node, when in self._last_heard.items()
            if now - when > SILENT_SECONDS and node not in self._reported
        ]
        self._reported.update(new)
        return [
            f"no word from {self.names[node]} for {SILENT_SECONDS:g} s: is it down, or the network to it? "
            "Ray has not given it up yet"
            for node in new
        ]
