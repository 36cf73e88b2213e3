"""Rules that give an actual label the id of its golden one, where the two were made by programs that name differently.

A pattern is a label id, in which `*` stands for anything within a dotted part and `**` for anything across parts. `{n}`
stands for a number that `{n+4}` on the other side exceeds by four.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from aclcmp.labeling.globs import glob_regex
from aclcmp.orchestrator.errors import UsageError

MOST_STARS = 4
"""Most stars in a pattern: all ways to share an id among them are tried. Of 100 letters six take 18 s, four 30 ms."""

_STAR = re.compile(r"\*\*\.?|\*")
_NUMBER = re.compile(r"\{n(?:\+(\d{1,9}))?\}")
_HOLE = re.compile(f"{_STAR.pattern}|{_NUMBER.pattern}")
_WRONG_NUMBER = re.compile(r"\{n(?!(?:\+\d{1,9})?\})[^A-Za-z_}]*\}")
_NO_STAR = re.compile(r"[?\[]")
_PLAIN = re.compile(r'(?!(?:-|->|task:\d{1,9})$)[^\s#"|]+')
_MOST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class IdRule:
    """`golden` and `actual` are patterns with as many stars each; None on one side drops what the other matches."""

    golden: str | None
    actual: str | None
    line: int = 0
    """Its line in its file, from 1; 0 for none."""


@dataclass(frozen=True, slots=True)
class JoinRule:
    """Several ids of one side that are together one of the other; the patterns have as many stars each."""

    golden: tuple[str, ...]
    actual: tuple[str, ...]
    how: str
    """"|" for tensors side by side along the last dimension, "+" for summands."""
    line: int = 0
    """Its line in its file, from 1; 0 for none."""

    @property
    def id_rules(self) -> tuple[IdRule, ...]:
        """The rules for single ids: all keep their names until they are joined."""
        return tuple(IdRule(each, each, self.line) for each in self.actual)

    def names(self, golden_ids: Collection[str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Yield golden and actual ids that belong together, for each golden id that the first pattern matches."""
        first = self.golden[0]
        of_rule = golden_ids if _HOLE.search(first) else [first] if first in golden_ids else []
        for data_id in of_rule:
            if (values := _match(self.golden[0], data_id)) is not None:
                goldens, actuals = (
                    tuple(_fill_holes(each, values) for each in side) for side in (self.golden, self.actual)
                )
                yield goldens, actuals


@dataclass(frozen=True, slots=True)
class TaskRule:
    """A golden and an actual task that are the same work; None on one side drops the other's."""

    golden: int | None
    actual: int | None
    line: int = 0
    """Its line in its file, from 1; 0 for none."""


@dataclass(frozen=True, slots=True)
class RankRule:
    """Labels of some ranks have the name that the other side has: pipeline stages that count their layers from 0."""

    name: str | None
    """The pattern of the name that all ranks have; None drops the labels."""
    own: str
    """The pattern of the name on these ranks."""
    side: str
    """"golden" or "actual": whose ranks these are."""
    ranks: tuple[range, ...]
    line: int = 0
    """Its line in its file, from 1; 0 for none."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    place: int
    rule: IdRule
    pattern: str

    def match(self, data_id: str) -> tuple[str, ...] | None:
        """Return what the holes of the pattern stand for in an id, {n} as n; None if it is no such id."""
        return _match(self.pattern, data_id)


@dataclass(slots=True)
class _Matcher:
    """One side of the rules. A pattern also matches itself, so that an id with a star in it can be given exactly."""

    exact: dict[str, _Compiled] = field(default_factory=dict)
    globs: list[_Compiled] = field(default_factory=list)

    def add(self, pattern: str, compiled: _Compiled) -> None:
        self.exact[pattern] = compiled
        if _HOLE.search(pattern):
            self.globs.append(compiled)

    def first(self, data_id: str) -> tuple[IdRule, tuple[str, ...]] | None:
        """Return the first rule that matches and what its stars stand for."""
        exact = self.exact.get(data_id)
        for compiled in self.globs:
            if exact is not None and exact.place < compiled.place:
                break
            if (values := compiled.match(data_id)) is not None:
                return compiled.rule, values
        return None if exact is None else (exact.rule, ())


class IdMap:
    """The golden id of each actual label. The first rule that matches wins; without one a label keeps its name."""

    def __init__(self, rules: Iterable[IdRule | JoinRule | TaskRule | RankRule] = (), where: str = "map") -> None:
        """Take the rules in their order; `where` names their file in messages.

        Raises UsageError, with the line, for a rule that cannot be: nothing on both sides, an empty pattern, stars that
        differ in number or are more than MOST_STARS, {n} that is not on all sides, and a pattern that an earlier rule
        has on the same side.
        """
        self._where = where
        self._golden, self._actual = _Matcher(), _Matcher()
        given = list(rules)
        self.joins = tuple(rule for rule in given if isinstance(rule, JoinRule))
        for join in self.joins:
            self._check_stars(join, (*join.golden, *join.actual))
        self.tasks = tuple(rule for rule in given if isinstance(rule, TaskRule))
        self._check_tasks()
        self.ranks = tuple(rule for rule in given if isinstance(rule, RankRule))
        for of_ranks in self.ranks:
            self._check(IdRule(of_ranks.name, of_ranks.own, of_ranks.line))
        of_ids = (rule for rule in given if not isinstance(rule, (TaskRule, RankRule)))
        single = (each for rule in of_ids for each in (rule.id_rules if isinstance(rule, JoinRule) else (rule,)))
        for place, rule in enumerate(single):
            self._check(rule)
            for pattern, matcher, side in (
                (rule.golden, self._golden, "golden"),
                (rule.actual, self._actual, "actual"),
            ):
                if pattern is None:
                    continue
                if (earlier := matcher.exact.get(pattern)) is not None:
                    raise self._wrong(
                        rule, f"{quote_id(pattern)} is already on the {side} side of {_name(earlier.rule)}; keep one"
                    )
                matcher.add(pattern, _Compiled(place, rule, pattern))

    def _check(self, rule: IdRule) -> None:
        patterns = [pattern for pattern in (rule.golden, rule.actual) if pattern is not None]
        if not patterns:
            raise self._wrong(rule, "nothing on both sides; name the labels that it is about")
        if "" in patterns:
            raise self._wrong(rule, "an empty pattern; write - to drop what the other side matches")
        self._check_stars(rule, patterns)

    def _check_tasks(self) -> None:
        for side in ("golden", "actual"):
            lines: dict[int, int] = {}
            for rule in self.tasks:
                task = getattr(rule, side)
                if task is not None and lines.setdefault(task, rule.line) != rule.line:
                    raise self._wrong(
                        rule, f"task {task} is already on the {side} side of line {lines[task]}; keep one"
                    )

    def _check_stars(self, rule: IdRule | JoinRule, patterns: Sequence[str]) -> None:
        counts = [stars(pattern) for pattern in patterns]
        if max(counts) > MOST_STARS:
            raise self._wrong(rule, f"{max(counts)} stars in one pattern; {MOST_STARS} are the most, use more rules")
        other = next((pattern for pattern in patterns if stars(pattern) != counts[0]), None)
        if other is not None:
            first, second = quote_id(patterns[0]), quote_id(other)
            raise self._wrong(rule, f"{first} and {second} differ in their number of stars; they carry over by place")
        if wrong := next((found[0] for pattern in patterns if (found := _WRONG_NUMBER.search(pattern))), None):
            raise self._wrong(rule, f"{wrong} is no number; write {{n}}, and {{n+4}} on the side that is higher by 4")
        kinds = [[hole[0][0] for hole in _HOLE.finditer(pattern)] for pattern in patterns]
        if any(each.count("{") > 1 or each != kinds[0] for each in kinds):
            raise self._wrong(rule, "{n} stands once in each pattern, at the same place among the stars")

    def _wrong(self, rule: IdRule | JoinRule | TaskRule | RankRule, what: str) -> UsageError:
        return UsageError(f"{self._where}:{rule.line}: {what}" if rule.line else f"{self._where}: {what}")

    def golden_name_of(self, actual_id: str) -> str | None:
        """Return the golden id of an actual label, None for one to leave out."""
        found = self._actual.first(actual_id)
        if found is None:
            return actual_id
        rule, values = found
        if rule.golden is None:
            return None
        return _fill_holes(rule.golden, values) if values else rule.golden

    def of_rank(self, side: str, rank: int) -> tuple[RankRule, ...]:
        """Return the rules for the labels of one rank of a side."""
        return tuple(rule for rule in self.ranks if rule.side == side and any(rank in each for each in rule.ranks))

    def name_on_rank(self, data_id: str, rules: Sequence[RankRule]) -> tuple[str | None, RankRule | None]:
        """Return a label's name for all ranks by the first of a rank's rules that matches, None to drop it; and which.

        Without one it keeps its name.
        """
        for rule in rules:
            values = () if data_id == rule.own else _match(rule.own, data_id)
            if values is not None:
                return (_fill_holes(rule.name, values) if rule.name and values else rule.name), rule
        return data_id, None

    def refuse_same_name(self, rule: RankRule, one: str, other: str, name: str) -> UsageError:
        """Return the error that a rule gives two labels one name; `one` and `other` say which, and of which rank."""
        return self._wrong(
            rule, f"{one} and {other} both become {quote_id(name)}; is the number behind {{n+...}} right?"
        )

    def rule_of(self, actual_id: str) -> IdRule | None:
        """Return the rule that an actual label follows; None for one that keeps its name."""
        found = self._actual.first(actual_id)
        return found[0] if found else None

    def keeps_golden(self, golden_id: str) -> bool:
        """Tell whether a golden label takes part: no rule drops it."""
        found = self._golden.first(golden_id)
        return found is None or found[0].actual is not None

    def check(self, actual_ids: Iterable[str]) -> None:
        """Raise UsageError where two of the ids, which are one run's, get the same golden id."""
        taken: dict[str, str] = {}
        for actual_id in dict.fromkeys(actual_ids):
            golden_id = self.golden_name_of(actual_id)
            if golden_id is None:
                continue
            other = taken.setdefault(golden_id, actual_id)
            if other != actual_id:
                raise UsageError(
                    f"{self._where}: {quote_id(other)} ({self._why(other)}) and {quote_id(actual_id)} "
                    f"({self._why(actual_id)}) both become {quote_id(golden_id)}; drop one with '- -> ID'"
                )

    def find_unused_rules(self, golden_ids: Sequence[str], actual_ids: Sequence[str]) -> list[IdRule]:
        """Return the rules for single ids that no label of either run follows: most likely misspelt."""
        used = {found[0] for name in dict.fromkeys(actual_ids) if (found := self._actual.first(name))}
        used |= {
            found[0]
            for name in dict.fromkeys(golden_ids)
            if (found := self._golden.first(name)) and found[0].actual is None
        }
        both = {c.place: c.rule for side in (self._golden, self._actual) for c in side.exact.values()}
        used |= {rule for join in self.joins for rule in join.id_rules}
        return [rule for _, rule in sorted(both.items()) if rule not in used]

    def _why(self, actual_id: str) -> str:
        rule = self.rule_of(actual_id)
        return _name(rule) if rule else "no rule, own name"


@cache
def _id_regex(pattern: str) -> re.Pattern[str]:
    texts = _NUMBER.split(_NO_STAR.sub(r"[\g<0>]", pattern))[::2]
    return re.compile("(?<![0-9])(0|[1-9][0-9]{0,8})(?![0-9])".join(glob_regex(text).pattern for text in texts))


def _match(pattern: str, data_id: str) -> tuple[str, ...] | None:
    """Return what the holes of a pattern stand for in an id, {n} as n; None if the pattern does not match."""
    found = _id_regex(pattern).fullmatch(data_id)
    if found is None:
        return None
    values = []
    for hole, value in zip(_HOLE.finditer(pattern), found.groups(), strict=True):
        if hole[0][0] == "{":
            number = int(value) - int(hole[1] or 0)
            if number < 0:
                return None
            value = str(number)
        values.append(value or "")
    return tuple(values)


def stars(pattern: str) -> int:
    """Return how many stars a pattern has."""
    return len(_STAR.findall(pattern))


def needs_quotes(pattern: str) -> bool:
    """Tell whether a file of rules would read a pattern otherwise that stands there as it is."""
    return not (_PLAIN.fullmatch(pattern) and pattern.isprintable())


def quote_id(text: str) -> str:
    """Return an id as it stands in a message: quoted, and not longer than a line."""
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")


def _name(rule: IdRule) -> str:
    return (
        f"line {rule.line}"
        if rule.line
        else f"the rule {quote_id(rule.golden or '-')} -> {quote_id(rule.actual or '-')}"
    )


def _fill_holes(pattern: str, values: tuple[str, ...]) -> str:
    """Put the values in the place of stars and {n}; where `**` stands for nothing its dot goes, too."""
    left = iter(values)

    def value(hole: re.Match[str]) -> str:
        text = next(left)
        if hole[0][0] == "{":
            return str(int(text) + int(hole[1] or 0))
        return f"{text}." if text and hole[0] == "**." else text

    text = _HOLE.sub(value, pattern)
    return text[:-1] if pattern.endswith(".**") and not values[-1] else text
