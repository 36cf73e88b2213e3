"""Which hosts say nothing any more. Pure: the clock is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SILENT_SECONDS = 10.0
"""Rank hosts answer every three seconds; Ray itself needs 20 to 62 s to call a host lost."""
_STILL_SECONDS = 2.0
"""Looks are some 0.2 s apart. After a longer break it was this process that stood still and listened to no host."""


@dataclass(slots=True)
class Silence:
    """The hosts of running commands, by node id, and when each was last heard."""

    names: Mapping[str, str]
    """What people call a host: its name and ranks."""
    now: float
    _heard: dict[str, float] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _looked: float = 0.0

    def __post_init__(self) -> None:
        self._heard = dict.fromkeys(self.names, self.now)
        self._looked = self.now

    def heard(self, node: str, now: float) -> str | None:
        """The host has answered; return a sentence if it had been silent."""
        self._heard[node] = now
        if node not in self._told:
            return None
        self._told.discard(node)
        return f"{self.names[node]} answers again"

    def over(self, node: str) -> None:
        """Nothing more is expected from the host."""
        self._heard.pop(node, None)

    def fallen(self, now: float) -> list[str]:
        """Return a sentence for each host that has fallen silent, once. To be called several times a second."""
        if now - self._looked > _STILL_SECONDS:  # a machine that slept, Ctrl-Z, or output that nobody takes
            self._heard = {node: when + now - self._looked for node, when in self._heard.items()}
        self._looked = now
        new = [node for node, when in self._heard.items() if now - when > SILENT_SECONDS and node not in self._told]
        self._told.update(new)
        return [
            f"no word from {self.names[node]} for {SILENT_SECONDS:g} s: is it down, or the network to it? "
            "Ray has not given it up yet"
            for node in new
        ]
