"""Output of an examination: for people, host by host, and for programs, as one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.doctor.examine import Examination
from aclcmp.orchestrator.doctor.findings import Finding, Severity

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1
_MARKS = {Severity.OK: ("✓", "green"), Severity.WARN: ("!", "yellow"), Severity.BAD: ("✗", "bold red")}
_PLAIN = {Severity.OK: "+", Severity.WARN: "!", Severity.BAD: "x"}
_MANY = 4
"""With more hosts than this the fine findings of a host are counted, not listed."""


def print_examination(examination: Examination, console: Console) -> None:
    """Print findings grouped by host, the cluster's own last, and a line that sums up."""
    from rich.text import Text

    def say(*parts: tuple[str, str]) -> None:
        console.print(Text.assemble(*parts), soft_wrap=not console.is_terminal)

    plain = not console.encoding.startswith("utf")
    say((f"aclcmp doctor: {examination.subject}", "bold"))
    hosts = list(dict.fromkeys(finding.where for finding in examination.findings))
    for where in sorted(hosts, key=lambda where: not where):
        say((f"\n{where or 'All hosts together'}", "bold"))
        own = [finding for finding in examination.findings if finding.where == where]
        for finding in _count_fine_ones(own, count_fine=bool(where) and len(hosts) > _MANY + 1):
            mark, style = _MARKS[finding.level]
            say(("  ", ""), (_PLAIN[finding.level] if plain else mark, style), (f" {finding.what}", ""))
            if finding.fix:
                say((f"      fix: {finding.fix}", "dim"))
    say(("\n" + _summary_line(examination.findings), "green" if examination.healthy else "bold red"))


def as_json(examination: Examination) -> str:
    """Return findings and facts as one line of JSON."""
    findings = [{**asdict(finding), "level": finding.level.value} for finding in examination.findings]
    whole = {"schema": SCHEMA, "subject": examination.subject, "healthy": examination.healthy}
    return json.dumps({**whole, "findings": findings, "hosts": examination.facts})


def from_json(text: str) -> Examination | None:
    """Return the examination in the last readable line of `as_json` in a text; None where there is none."""
    for line in reversed(text.splitlines()):
        try:
            found = json.loads(line)
            if not (isinstance(found, dict) and found.get("schema") == SCHEMA):
                continue
            findings = (
                Finding(Severity(each["level"]), *(visible(str(each[part])) for part in ("what", "where", "fix")))
                for each in found["findings"]
            )
            return Examination(visible(str(found["subject"])), tuple(findings), tuple(found["hosts"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def _count_fine_ones(findings: Iterable[Finding], *, count_fine: bool) -> Iterator[Finding]:
    fine = 0
    for finding in findings:
        if count_fine and finding.level is Severity.OK:
            fine += 1
        else:
            yield finding
    if fine:
        yield Finding(Severity.OK, f"{fine} checks are fine")


def _summary_line(findings: Iterable[Finding]) -> str:
    levels = [finding.level for finding in findings]
    bad, warned = levels.count(Severity.BAD), levels.count(Severity.WARN)
    if not bad and not warned:
        return f"All {len(levels)} checks are fine."
    warnings = f"{warned} warning{'s' * (warned != 1)}"
    return f"{bad} {'is' if bad == 1 else 'are'} bad, {warnings}." if bad else f"Nothing is bad, {warnings}."
