"""How a verdict looks in a cell: its mark, its colour's name and its words, numbered from harmless to grave."""

from __future__ import annotations

from dataclasses import dataclass

from aclcmp.orchestrator.core.verdicts import WRONG, Origin, RankVerdict, Status, worst
from aclcmp.orchestrator.report.text.columns import mark


@dataclass(frozen=True, slots=True)
class Face:
    """What a cell shows. The number of a face is its place in `FACES`: of several verdicts the largest one counts."""

    status: Status
    origin: Origin | None = None
    bitwise: bool = False
    excused: bool = False

    @property
    def mark(self) -> str:
        """The symbol of its status, the one of the terminal."""
        return mark(self.status, plain=False).plain

    @property
    def colour(self) -> str:
        """The name of its colour in page.css."""
        if self.excused:
            return "excused"
        wrong = self.status in WRONG
        return f"{self.status.value} inherited" if wrong and self.origin is Origin.INHERITED else self.status.value

    @property
    def words(self) -> str:
        """Its status, and what is known beyond: "diverged, inherited"."""
        more = [self.origin.value] if self.origin else ["bitwise"] if self.bitwise else []
        return ", ".join([self.status.value, *more, *(["excused"] if self.excused else [])])


def _gravity(face: Face) -> tuple[bool, bool, int, int, bool]:
    steps = sum(worst([face.status, other]) is face.status for other in Status)
    origin = (Origin.INHERITED, None, Origin.OWN).index(face.origin)
    harmless = face.status is Status.MATCH
    return not harmless, not face.excused, steps, origin, not face.bitwise


FACES = tuple(
    sorted(
        (
            Face(status, origin, bitwise, excused)
            for status in Status
            for origin in (None, *Origin)
            for bitwise in (False, True)
            for excused in (False, True)
        ),
        key=_gravity,
    )
)
"""All faces, the least grave first."""
_NUMBER = {(f.status, f.origin, f.bitwise, f.excused): number for number, f in enumerate(FACES, 1)}


def face_number(verdict: RankVerdict) -> int:
    """Return the number of a verdict's face, from 1 on; 0 stands for no verdict."""
    return _NUMBER[verdict.status, verdict.origin, verdict.bitwise, bool(verdict.excused)]
