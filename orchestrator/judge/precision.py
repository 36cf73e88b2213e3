"""The element type as which a label counts: that of its values and of its inputs, whatever type it is stored as.

Logits, softmax, router weights or the statistics of a norm are often float32 inside a bfloat16 model: their error is
that of what fed them. And a bfloat16 tensor that a script cast to float32 before it labelled it is a bfloat16 one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.orchestrator.core.evidence import LabelEvidence, RankEvidence
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.verdicts import RankVerdict
from aclcmp.orchestrator.judge.dtype_limits import limits_of, narrower
from aclcmp.orchestrator.judge.growth import largest_error

_MANTISSAS = {7: "bfloat16", 10: "float16", 23: "float32"}
"""Types by the bits of their mantissas, fewest first."""
_TELLING = 4
"""Bits of the mantissa below which values are masks, counts or constants, which tell nothing of their type."""
_FEWEST = 256
"""Number of values below which they tell nothing either."""
_SAMPLE = 64
"""Labels by which the usual type of a whole side is found."""
_MOST_OF_A_SIDE = 0.8
_RANKS = 8
_QUIET = 3
"""Labels in a row within the limits of their own type after which no narrower type feeds them."""


class Precision(NamedTuple):
    """The type as which a label counts, and in words why it is not its own; "" if it is."""

    dtype: str
    why: str


@dataclass(slots=True)
class _Path:
    """The narrowest type on the way to a label, and how many labels in a row seem not to be fed by it."""

    dtype: str
    quiet: int = 0


class Precisions:
    """The types as which labels count; labels are passed in golden order."""

    def __init__(self, labels: Sequence[LabelEvidence]) -> None:
        self._actual = _usual_type_of_actual(labels)
        self._paths: dict[int, _Path] = {}
        self._known: dict[tuple[int, str], str] = {}

    def of(self, label: LabelEvidence, evidence: RankEvidence) -> Precision:
        """Return the type as which a label counts that was compared on a rank. Exact types count as themselves."""
        own = narrower(*evidence.dtypes)
        if DTYPES[own].eps is None:
            return Precision(own, "")
        stored = self._type_of_values(evidence, own)
        path = self._fed_by(label, evidence)
        if path and _is_narrower(path, stored) and DTYPES[path].kind is DTYPES[stored].kind:
            return Precision(path, f"fed by {path}")
        return Precision(stored, f"{stored} held as {own}" if stored != own else "")

    def take(self, label: LabelEvidence, ranks: Sequence[RankVerdict]) -> None:
        """Remember a label by the verdicts on its first few ranks."""
        compared = [each for each in ranks if each.limits is not None and each.limits.dtype][:_RANKS]
        floats = [each for each in compared if DTYPES[each.limits.dtype].kind is Kind.FLOAT]  # type: ignore[union-attr]
        if not floats:
            return
        task = label.key.task
        counts = self._known[task, label.key.label] = _narrowest([_counted_type(each) for each in floats])
        path = self._paths.get(task)
        own = _narrowest([self._type_of_values(each, narrower(*each.dtypes)) for each in floats])
        if path is None or not _is_narrower(path.dtype, own):
            self._paths[task] = _Path(counts)
            return
        inexact = [each for each in floats if not each.bitwise]
        if inexact:
            path.quiet = path.quiet + 1 if all(_is_quiet(each, own) for each in inexact) else 0
        if path.quiet >= _QUIET:
            self._paths[task] = _Path(own)

    def _type_of_values(self, evidence: RankEvidence, own: str) -> str:
        """Return the type of the values, which may be stored as a wider one."""
        if evidence.stats is None or DTYPES[own].kind is not Kind.FLOAT:
            return own
        golden, actual = _types_of(evidence.stats, own)
        if golden != own and actual != own:
            return narrower(golden, actual)
        # golden of full width beside narrow values: a silent cast, unless all of the actual side is stored so
        return actual if actual == self._actual else own

    def _fed_by(self, label: LabelEvidence, evidence: RankEvidence) -> str:
        """Return the narrowest type of a label's named inputs, or of the labels before it; "" where there are none."""
        task = label.key.task
        names = {name for side in (evidence.golden, evidence.actual) if side is not None for name in side.inputs}
        named = [self._known[task, name] for name in names if (task, name) in self._known]
        if named:
            return _narrowest(named)
        path = self._paths.get(task)
        return path.dtype if path is not None else ""


def _usual_type_of_actual(labels: Sequence[LabelEvidence]) -> str:
    """Return the narrow type that most of the actual side's values have though stored as a wider one; "" if none."""
    found: Counter[str] = Counter()
    for label in labels[:: max(len(labels) // _SAMPLE, 1)]:
        evidence = next((each for each in label.ranks if each.stats is not None), None)
        if evidence is None or evidence.stats is None or DTYPES[evidence.dtypes[1]].kind is not Kind.FLOAT:
            continue
        own = narrower(*evidence.dtypes)
        if evidence.stats.n_finite >= _FEWEST and evidence.stats.mantissa_y >= _TELLING:
            found[_types_of(evidence.stats, own)[1] if own == evidence.dtypes[1] else own] += 1
    if found.total() < _QUIET:
        return ""
    name, count = found.most_common(1)[0]
    return name if count >= _MOST_OF_A_SIDE * found.total() else ""


def _types_of(stats: PairStats, own: str) -> tuple[str, str]:
    """Return the types of golden's and actual's values."""
    found = []
    for bits in (stats.mantissa_x, stats.mantissa_y):
        telling = bits >= _TELLING and stats.n_finite >= _FEWEST
        name = next((name for most, name in _MANTISSAS.items() if bits <= most), own) if telling else own
        found.append(name if _is_narrower(name, own) else own)
    return found[0], found[1]


def _counted_type(verdict: RankVerdict) -> str:
    return verdict.limits.dtype if verdict.limits is not None else ""


def _narrowest(dtypes: Sequence[str]) -> str:
    return max(dtypes, key=lambda name: DTYPES[name].eps or 0.0)


def _is_narrower(one: str, other: str) -> bool:
    return (DTYPES[one].eps or 0.0) > (DTYPES[other].eps or 0.0)


def _is_quiet(verdict: RankVerdict, dtype: str) -> bool:
    limits = limits_of(dtype, dtype)
    return largest_error(verdict) <= limits.warn * limits.rows
