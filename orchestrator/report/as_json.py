"""report.json: the report for programs. `report.schema.json` beside this module describes it.

The file has one label per line, so that it can be searched, compared and streamed line by line at any size. Of more
than 65,536 (label, rank) those that agree are told together, as `groups`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib import resources
from operator import attrgetter
from pathlib import Path
from typing import Any

from aclcmp.orchestrator.core.metrics import Metrics
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.report import SCHEMA, Report
from aclcmp.orchestrator.core.verdicts import FirstDivergence, LabelVerdict, RankVerdict, ReplicaVerdict
from aclcmp.orchestrator.judge.floors import FIGURES
from aclcmp.orchestrator.report.flat import STATS_SCALARS
from aclcmp.orchestrator.report.json_groups import Single, group_object, grouped, single_ones
from aclcmp.orchestrator.report.text.causes import hint_object, key_object, pattern_object

_METRICS = tuple(f.name for f in fields(Metrics))
_SIDE = tuple(f.name for f in fields(SideFacts))


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of report.json."""
    text = resources.files(__package__).joinpath("report.schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def write_json(report: Report, path: Path) -> None:
    """Write report.json. NaN becomes null, infinities become "inf" and "-inf": JSON has no such numbers."""
    with path.open("w", encoding="ascii", newline="\n") as out:
        out.writelines(json_pieces(report))


def json_pieces(report: Report) -> Iterator[str]:
    """Yield the text of report.json piece by piece."""
    judgement = report.judgement
    head = {
        "schema": SCHEMA,
        "verdict": judgement.verdict,
        "exit_code": int(judgement.exit_code),
        "first_divergence": _first(judgement.first_divergence),
    }
    coverage = judgement.coverage
    tail = {
        "coverage": {
            "complete": coverage.complete,
            "compared": coverage.compared,
            "missing_golden": coverage.missing_golden,
            "missing_actual": coverage.missing_actual,
            "mismatch": coverage.mismatch,
            "failed": coverage.failed,
            "uncovered": coverage.uncovered,
            "replicas": coverage.replicas,
            "unreadable": coverage.unreadable,
            "silent_ranks": list(coverage.silent_ranks),
            "ignored": coverage.ignored,
        },
        "run": {"run_id": report.run_id}
        | (report.run.model_dump(mode="json", by_alias=True) if report.run is not None else {}),
        "policy": {name: number(v) if isinstance(v, float) else v for name, v in report.policy.items()},
        "replicas": [_replica(replica) for replica in judgement.replicas],
        "patterns": [pattern_object(pattern) for pattern in report.patterns],
        "hints": [hint_object(hint) for hint in report.hints],
        "first_by_rank": {str(rank): key_object(key) for rank, key in sorted(judgement.first_by_rank.items())},
        "notes": list(report.notes),
        "order": report.order,
    }
    yield "{"
    for name, value in head.items():
        yield f'"{name}": {_dump(value)},\n '
    yield '"labels": ['
    separator = "\n  "
    single = single_ones(judgement)
    for place, label in enumerate(judgement.labels):
        yield separator + _dump(_label(label, place, single))
        separator = ",\n  "
    yield "\n ]"
    if single is not None:
        tail = {"grouped": {"rows": sum(len(label.ranks) for label in judgement.labels), "single": len(single)}} | tail
    for name, value in tail.items():
        yield f',\n "{name}": {_dump(value)}'
    yield "}\n"


def _dump(value: object) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=True)


def number(value: float) -> float | str | None:
    """Return a float as JSON can hold it: nan as None, infinities as "inf" and "-inf"."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return None
    return "inf" if value > 0 else "-inf"


def _scalars(owner: object | None, names: tuple[str, ...]) -> dict[str, Any] | None:
    if owner is None:
        return None
    values = ((name, getattr(owner, name)) for name in names)
    return {name: number(v) if isinstance(v, float) else v for name, v in values}


def _first(first: FirstDivergence | None) -> dict[str, Any] | None:
    if first is None:
        return None
    return {
        "task": first.key.task,
        "label": first.key.label,
        "ranks": list(first.ranks),
        "origin": first.origin.value,
        "occurrence": first.key.occurrence,
        "why": first.why,
        "call_site": first.call_site,
    }


def _replica(replica: ReplicaVerdict) -> dict[str, Any]:
    return key_object(replica.key) | {
        "side": replica.side,
        "told": replica.told,
        "odd": list(replica.odd),
        "agreeing": list(replica.agreeing),
        "unread": list(replica.unread),
        "rel_l2": number(replica.rel_l2),
        "reason": replica.reason,
    }


def _label(label: LabelVerdict, place: int, single: Single | None) -> dict[str, Any]:
    ranks = sorted(label.ranks, key=attrgetter("rank"))
    alone = ranks if single is None else [verdict for verdict in ranks if (place, verdict.rank) in single]
    others = [] if single is None else [verdict for verdict in ranks if (place, verdict.rank) not in single]
    level = label.level
    return (
        key_object(label.key)
        | {
            "status": label.status.value,
            "level": level.words,
            "granularity": level.granularity,
            "layer": level.layer,
            "parent": key_object(level.parent) if level.parent else None,
            "root": key_object(label.root) if label.root else None,
            "ranks": {str(v.rank): _rank(v) for v in alone},
        }
        | ({"groups": {name: _group(group) for name, group in grouped(others).items()}} if others else {})
    )


def _group(verdicts: Sequence[RankVerdict]) -> dict[str, Any]:
    told = group_object(verdicts)
    reaches = {name: reach and [number(each) for each in reach] for name, reach in (told["metrics"] or {}).items()}
    margin = told["margin"] and [number(each) for each in told["margin"]]
    return told | {"metrics": reaches or None, "margin": margin}


def _rank(verdict: RankVerdict) -> dict[str, Any]:
    return {
        "status": verdict.status.value,
        "origin": verdict.origin.value if verdict.origin else None,
        "reason": verdict.reason,
        "bitwise": verdict.bitwise,
        "layout": verdict.layout,
        "metrics": _scalars(verdict.metrics, _METRICS),
        "limits": _scalars(verdict.limits, ("warn", "fail", "source", "rows")),
        "margin": None if verdict.margin is None else number(verdict.margin),
        "excused": verdict.excused,
        "ignored": verdict.ignored,
        "dtypes": list(verdict.dtypes),
        "gap": verdict.gap.value if verdict.gap else None,
        "uncovered": verdict.uncovered,
        "summed": list(verdict.summed),
        "ties": verdict.ties,
        "floors": {floor.source.value: _scalars(floor, FIGURES) for floor in verdict.floors},
        "golden": _side(verdict.golden),
        "actual": _side(verdict.actual),
        "stats": _scalars(verdict.stats, STATS_SCALARS),
    }


def _side(side: SideFacts | None) -> dict[str, Any] | None:
    return _scalars(side, _SIDE)
