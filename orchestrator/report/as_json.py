"""report.json: the report for programs. `report.schema.json` beside this module describes it.

The file has one label per line, so that it can be searched, compared and streamed line by line at any size. Of more
than 65,536 (label, rank) those that agree are told together, as `groups`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from importlib import resources
from math import isnan
from operator import attrgetter
from pathlib import Path
from typing import Any

from aclcmp.orchestrator.core.compact import table
from aclcmp.orchestrator.core.evidence import ReplicaVerdict
from aclcmp.orchestrator.core.floors import FIGURES
from aclcmp.orchestrator.core.metrics import METRICS, Metrics
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.report import SCHEMA, Report
from aclcmp.orchestrator.core.text import fold_ranks
from aclcmp.orchestrator.core.verdicts import FirstDivergence, Judgement, LabelVerdict, Origin, RankVerdict, Status
from aclcmp.orchestrator.core.weights import WeightReport
from aclcmp.orchestrator.report.flat import OWN_SCALARS, STATS_SCALARS
from aclcmp.orchestrator.report.text.causes import hint_object, key_object, pattern_object
from aclcmp.orchestrator.report.token_objects import token_objects

_SIDE = tuple(f.name for f in fields(SideFacts))
MOST_ROWS = 65_536
"""Up to so many (label, rank) each has its own place."""
MOST_SINGLE = 8_192
"""Beyond, so many of those that do not match: own divergences first, then in golden order."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of report.json: that of the file, with the statuses and the figures."""
    text = resources.files(__package__).joinpath("report.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    types = {"int": {"type": "integer"}, "float": {"$ref": "#/$defs/float"}}
    figures = {field.name: types[str(field.type)] for field in fields(Metrics)}
    found["$defs"]["status"] = {"enum": [status.value for status in Status]}
    found["$defs"]["metrics"] |= {"required": list(figures), "additionalProperties": False, "properties": figures}
    return found


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
        "paths": dict(report.paths),
    }
    if judgement.weights is not None:
        tail["weights"] = _weights(judgement.weights)
    if report.price is not None:
        tail["price"] = asdict(report.price)
    if judgement.tokens:
        tail["tokens"] = token_objects(report, number)
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
        "of_weight": first.of_weight,
    }


def _weights(weights: WeightReport) -> dict[str, Any]:
    return {
        "parameters": weights.parameters,
        "known": weights.known,
        "ranks": list(weights.ranks),
        "findings": [
            {
                "kind": each.kind.value,
                "parameter": each.parameter,
                "others": list(each.others),
                "ranks": list(each.ranks),
                "words": each.words,
                "labels": list(each.labels),
                "wrong": each.wrong,
            }
            for each in weights.findings
        ],
        "held": [{"parameter": h.parameter, "ranks": list(h.ranks), "words": h.words} for h in weights.held],
    }


def _replica(replica: ReplicaVerdict) -> dict[str, Any]:
    return key_object(replica.key) | {
        "side": replica.side,
        "told": replica.declared,
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
        | ({"groups": {name: _group(group) for name, group in group_verdicts(others).items()}} if others else {})
    )


def _group(verdicts: Sequence[RankVerdict]) -> dict[str, Any]:
    group = group_object(verdicts)
    reaches = {name: reach and [number(each) for each in reach] for name, reach in (group["metrics"] or {}).items()}
    margin = group["margin"] and [number(each) for each in group["margin"]]
    return group | {"metrics": reaches or None, "margin": margin}


def _rank(verdict: RankVerdict) -> dict[str, Any]:
    return {
        "status": verdict.status.value,
        "origin": verdict.origin.value if verdict.origin else None,
        "reason": verdict.reason,
        "bitwise": verdict.bitwise,
        "layout": verdict.layout,
        "metrics": _scalars(verdict.metrics, tuple(METRICS)),
        "limits": _scalars(verdict.limits, ("warn", "fail", "source", "rows")),
        "margin": None if verdict.margin is None else number(verdict.margin),
        "excused": verdict.excused,
        "ignored": verdict.ignored,
        "dtypes": list(verdict.dtypes),
        "gap": verdict.gap.value if verdict.gap else None,
        "uncovered": verdict.uncovered,
        "worst_row_name": verdict.worst_row_name,
        "summed": list(verdict.summed),
        "ties": verdict.ties,
        "own": _scalars(verdict.own, OWN_SCALARS),
        "floors": {floor.source.value: _scalars(floor, FIGURES) for floor in verdict.floors},
        "golden": _side(verdict.golden),
        "actual": _side(verdict.actual),
        "stats": _scalars(verdict.stats, STATS_SCALARS),
    }


def _side(side: SideFacts | None) -> dict[str, Any] | None:
    return _scalars(side, _SIDE)


Single = set[tuple[int, int]]
"""Numbers of labels, and ranks."""


def single_ones(judgement: Judgement) -> Single | None:
    """Return which (label, rank) are told one by one; None where all are."""
    if sum(len(label.ranks) for label in judgement.labels) <= MOST_ROWS:
        return None
    graded: tuple[list[tuple[int, int]], list[tuple[int, int]]] = [], []
    for number, label in enumerate(judgement.labels):
        if label.status is not Status.MATCH:
            for verdict in label.ranks:
                if verdict.status is not Status.MATCH:
                    graded[verdict.origin is not Origin.OWN].append((number, verdict.rank))
    return set([*graded[0], *graded[1]][:MOST_SINGLE])


def group_verdicts(verdicts: Iterable[RankVerdict]) -> dict[str, list[RankVerdict]]:
    """Return verdicts that agree in all that is not a number together, by their ranks: "0-511,513-1023"."""
    found: dict[object, list[RankVerdict]] = {}
    for verdict in verdicts:
        alike = (verdict.status, verdict.origin, verdict.bitwise, verdict.gap, verdict.excused, verdict.ignored)
        found.setdefault(alike, []).append(verdict)
    return {fold_ranks(v.rank for v in group).replace(" ", ""): group for group in found.values()}


def group_object(verdicts: Sequence[RankVerdict]) -> dict[str, Any]:
    """Return what report.json tells of a group: what is common, between what its figures lie, its worst rank."""
    first = verdicts[0]
    worst = max(verdicts, key=lambda verdict: -1.0 if verdict.margin is None else verdict.margin)
    compared = [verdict.metrics for verdict in verdicts if verdict.metrics is not None]
    figures = table(compared, Metrics)
    margins = [verdict.margin for verdict in verdicts if verdict.margin is not None]
    layouts = {verdict.layout for verdict in verdicts}
    return {
        "count": len(verdicts),
        "status": first.status.value,
        "origin": first.origin.value if first.origin else None,
        "worst_rank": worst.rank,
        "reason": worst.reason,
        "bitwise": first.bitwise,
        "layout": layouts.pop() if len(layouts) == 1 else None,
        "metrics": {name: reach(figures[name].tolist()) for name in METRICS} if compared else None,
        "margin": reach(margins) if margins else None,
        "gap": first.gap.value if first.gap else None,
        "excused": first.excused,
        "ignored": first.ignored,
    }


def reach(values: Iterable[float]) -> list[float] | None:
    """Return the smallest and the largest of values; None where none is defined."""
    known = [value for value in values if not isnan(value)]
    return [min(known), max(known)] if known else None
