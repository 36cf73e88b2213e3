"""The policy of a user: limits, and what may differ. Defaults need no file (`inputs/policy_file.py` reads one)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from aclcmp.labeling.globs import glob_regex
from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.errors import FailOn
from aclcmp.orchestrator.judge.dtype_limits import RELATIVE

MULTIPLIERS: dict[FloorSource, tuple[float, float]] = {
    FloorSource.REFERENCE: (1.5, 3.0),
    FloorSource.QUANTISED: (1.5, 3.0),
    FloorSource.PERTURBED: (3.0, 5.0),
    FloorSource.REPEAT: (3.0, 5.0),
    FloorSource.PROFILE: (1.5, 2.0),
}
"""From the papers on each source, and a decoder of 32 layers: golden on another kernel stayed below 1.13 and 2.9."""
_regex = functools.cache(glob_regex)
JUMP_FACTORS = ("factor", "record", "factor_of_rows", "record_of_rows")


@dataclass(frozen=True, slots=True)
class Scope:
    """The labels of a rule: a glob of their ids ("layers.*.mlp"), and dtype and level where those are given."""

    pattern: str = "**"
    dtype: str = ""
    level: str = ""
    """ "op", "layer", "model", "high" or "low"."""

    def holds(self, key: LabelKey, level: Level, dtype: str) -> bool:
        """Tell whether the scope contains a label of this level, compared as this dtype (the narrower of its sides)."""
        if self.dtype and self.dtype != dtype:
            return False
        if self.level and self.level not in (level.granularity, level.words):
            return False
        return _regex(self.pattern).fullmatch(key.label) is not None


@dataclass(frozen=True, slots=True)
class LimitRule:
    """Limits on relative L2 for some labels, instead of the floor's or the table's."""

    scope: Scope
    warn: float
    fail: float


@dataclass(frozen=True, slots=True)
class Excuse:
    """Labels that may diverge (`up_to` an error, if it is given), or, in `Policy.ignore`, do not count."""

    scope: Scope
    reason: str
    up_to: float | None = None
    ranks: frozenset[int] | None = None
    """None: on all ranks."""


@dataclass(frozen=True, slots=True)
class JumpRule:
    """Factors from which an error is out of line with its kind of label in the layers before; see `judge.growth`."""

    on: bool = True
    factor: float = 2.5
    """Factor by which the median row's error must exceed the usual one of its kind in the layers before."""
    record: float = 1.5
    """Factor by which it must also exceed the largest of any label before."""
    factor_of_rows: float = 4.0
    """The same for the worst row, an extreme that varies more."""
    record_of_rows: float = 2.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules by which evidence is judged."""

    name: str = "default"
    fail_on: FailOn = FailOn.ANY
    limits: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(RELATIVE))
    """(warn, fail) on relative L2 by dtype, of labels without a floor."""
    rules: tuple[LimitRule, ...] = ()
    """The first whose scope contains a label counts."""
    allow: tuple[Excuse, ...] = ()
    ignore: tuple[Excuse, ...] = ()
    floors: Mapping[FloorSource, tuple[float, float]] = field(default_factory=lambda: dict(MULTIPLIERS))
    """(warn, fail) as multiples of the floor by its source."""
    jump: JumpRule = JumpRule()
    own_factor: float = 3.0
    """Factor by which a label's error must exceed that of its inputs to be own although they are wrong."""

    def table(self) -> dict[str, str | float]:
        """Return it as a flat table, as reports keep it."""
        found: dict[str, str | float] = {"name": self.name, "fail_on": self.fail_on.value}
        for dtype, (warn, fail) in self.limits.items():
            found |= {f"{dtype}.warn": warn, f"{dtype}.fail": fail}
        for source, (warn, fail) in self.floors.items():
            found |= {f"floor.{source.value}.warn": warn, f"floor.{source.value}.fail": fail}
        jump = self.jump
        found |= {"jump.on": str(jump.on).lower(), "own_factor": self.own_factor}
        found |= {f"jump.{name}": getattr(jump, name) for name in JUMP_FACTORS}
        for kind, rules in (("allow", self.allow), ("ignore", self.ignore)):
            found |= {f"{kind}.{rule.scope.pattern}": rule.reason for rule in rules}
        return found | {f"limit.{rule.scope.pattern}": rule.fail for rule in self.rules}
