"""Annotations beside the lines of a pull request on GitHub: the report as workflow commands for the job's output."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from os.path import normpath
from pathlib import PurePath

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import count, of_ranks, visible
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, RankVerdict, StatusGroup
from aclcmp.orchestrator.terminal.cells import shorten

_MOST = 10
"""GitHub shows so many errors and so many warnings of one step."""
_LONGEST_NAME = 80
_LONGEST_LINE = 500


def annotations(report: Report, environ: Mapping[str, str]) -> list[str]:
    """Return workflow commands, one a line; none outside of GitHub Actions.

    An error for each label that is wrong by itself, at its call site; a warning for the first label that drifts, and
    for each that could not be compared. At most ten of each, errors first.
    """
    if environ.get("GITHUB_ACTIONS") != "true":
        return []
    places = _Places(report.run.cwd if report.run is not None else "", environ.get("GITHUB_WORKSPACE", ""))
    return [
        *islice(_errors(report.judgement.labels, places), _MOST),
        *islice(_warnings(report.judgement.labels, places), _MOST),
    ]


@dataclass(frozen=True, slots=True)
class _Places:
    """Call sites as GitHub names files: from the root of the checkout on."""

    cwd: str
    workspace: str

    def of(self, verdict: RankVerdict) -> dict[str, str]:
        """Return `file` and `line` of the call site; nothing where it is not known."""
        side = verdict.actual or verdict.golden
        if side is None or not side.call_site:
            return {}
        file, _, line = side.call_site.rpartition(":")
        if not line.isdecimal():
            file, line = side.call_site, ""
        whole = PurePath(normpath(PurePath(self.cwd, file)))
        if self.workspace and whole.is_relative_to(normpath(self.workspace)):
            file = whole.relative_to(normpath(self.workspace)).as_posix()
        return {"file": file, "line": line} if line else {"file": file}


def _errors(labels: Sequence[LabelVerdict], places: _Places) -> Iterator[str]:
    for label in labels:
        own = [verdict for verdict in _verdicts_in(label, StatusGroup.WRONG) if verdict.origin is not Origin.INHERITED]
        if own:
            yield _command("error", places, label, own)


def _warnings(labels: Sequence[LabelVerdict], places: _Places) -> Iterator[str]:
    drifting = [label for label in labels if _verdicts_in(label, StatusGroup.WARNING)]
    for label in drifting[:1]:
        others = count(len(drifting) - 1, "other label")
        more = [f"{others} above the noise floor"] if len(drifting) > 1 else []
        yield _command("warning", places, label, _verdicts_in(label, StatusGroup.WARNING), more)
    for label in labels:
        if absent := _verdicts_in(label, StatusGroup.GAP):
            yield _command("warning", places, label, absent)


def _verdicts_in(label: LabelVerdict, group: StatusGroup) -> list[RankVerdict]:
    return [verdict for verdict in label.ranks if verdict.status.group is group and not verdict.excused]


def _command(
    kind: str, places: _Places, label: LabelVerdict, verdicts: Sequence[RankVerdict], more: Sequence[str] = ()
) -> str:
    first = verdicts[0]
    name = shorten(visible(label.key.label), _LONGEST_NAME, "...")
    turn = f" #{label.key.occurrence}" if label.key.occurrence else ""
    where = f"task {label.key.task}, {of_ranks(verdict.rank for verdict in verdicts)}"
    properties = places.of(first) | {"title": f"{name}{turn}: {first.status.value}"}
    lines = [f"{where}: {shorten(visible(first.reason), _LONGEST_LINE, '...')}", *more]
    fields = ",".join(f"{key}={_escape(visible(value), ':,')}" for key, value in properties.items())
    return f"::{kind} {fields}::" + _escape("\n".join(map(visible, lines)))


def _escape(text: str, also: str = "") -> str:
    """Escape as GitHub's own toolkit does; `also` are further characters, which properties need."""
    for character in f"%\r\n{also}":  # % first: what follows adds some
        text = text.replace(character, f"%{ord(character):02X}")
    return text
