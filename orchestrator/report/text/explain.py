"""Everything known about one label, in lines for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import groupby
from math import isfinite, isnan

from aclcmp.labeling.globs import glob_regex
from aclcmp.orchestrator.core.diagnosis import nonfinite_places
from aclcmp.orchestrator.core.levels import kind_in_layers
from aclcmp.orchestrator.core.metrics import LATER_METRICS, METRICS
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import figure, fold_ranks, of_ranks, shown_path
from aclcmp.orchestrator.core.verdicts import LabelVerdict, RankVerdict, Status, worst
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.report.flat import shape_text
from aclcmp.orchestrator.terminal.cells import shorten

_MOST_LABELS = 8
_MOST_HISTORY = 12
_MOST_LINES = 16
"""With more than so many lines for ranks they are told by their status."""
_OUT_OF_LINE = "it is below the limit, but out of line with the layers before"


def choose_labels(report: Report, name: str, task: int | None) -> list[LabelVerdict]:
    """Return the labels that are called `name`, or match it as a glob. Raises what `choose_keys` does."""
    keys = set(choose_keys([each.key for each in report.judgement.labels], name, task))
    return [each for each in report.judgement.labels if each.key in keys]


def choose_keys(keys: Sequence[LabelKey], name: str, task: int | None) -> list[LabelKey]:
    """Return those of the labels that are called `name`, or match it as a glob.

    Raises UsageError, with what may have been meant, when there are none or more than eight.
    """
    labels = [key for key in keys if task is None or key.task == task]
    tasks = {key.task for key in keys}
    if tasks and not labels:
        raise UsageError(f"no label has task {task}; there {'are' if len(tasks) > 1 else 'is'} {fold_ranks(tasks)}")
    found = [key for key in labels if key.label == name]
    if not found:
        pattern = glob_regex(name)
        found = [key for key in labels if pattern.fullmatch(key.label)]
    if not found:
        known = list(dict.fromkeys(key.label for key in labels))
        close = get_close_matches(name, known, 3, 0.5) or [each for each in known if name in each][:3]
        meant = f"; did you mean {', '.join(close)}?" if close else f"; there are e.g. {', '.join(known[:3])}"
        where = "" if task is None else f" in task {task}"
        raise UsageError(f"no label is called {name}{where}" + (meant if known else "; the report has no labels"))
    names = {key.label for key in found}
    if len(names) > _MOST_LABELS:
        raise UsageError(f"{name} means {len(names):,} labels; at most {_MOST_LABELS} are explained, e.g. {min(names)}")
    return found


def with_history(keys: Sequence[LabelKey], layers: Sequence[str], wanted: Sequence[LabelKey]) -> list[int]:
    """Return the numbers of the labels that explaining some takes: they, and their kind in all layers."""

    def kind(number: int) -> object:
        key, layer = keys[number], layers[number]
        return (key.task, key.occurrence, kind_in_layers(key.label, layer)) if layer else number

    asked = set(wanted)
    kinds = {kind(number) for number, key in enumerate(keys) if key in asked}
    return [number for number, key in enumerate(keys) if key in asked or kind(number) in kinds]


def explain(report: Report, label: LabelVerdict, rank: int | None) -> Iterator[str]:
    """Yield what is known of a label, its worst rank in full (or the one asked for), the others in a line each.

    Raises UsageError when it has no such rank.
    """
    verdicts = [each for each in label.ranks if rank is None or each.rank == rank]
    if not verdicts:
        raise UsageError(f"{label.key.label} is not on rank {rank}, but on {of_ranks([v.rank for v in label.ranks])}")
    yield _title(label)
    yield from _findings(report, label)
    gravest = worst(each.status for each in verdicts)
    shown = max((each for each in verdicts if each.status is gravest), key=lambda each: each.margin or 0.0)
    yield from _full_lines(report, shown, label)
    yield from _nonfinite_places(report, label, shown)
    yield from _history(report, label, shown)
    others = [each for each in verdicts if each is not shown]
    lines = [(words, list(group)) for words, group in groupby(others, _in_short)]
    if len(lines) > _MOST_LINES:
        lines = [(_fold_verdicts(group), group) for group in _by_status(others)]
    yield from (f"  {of_ranks([each.rank for each in group])}: {words}" for words, group in lines)


def _by_status(verdicts: Sequence[RankVerdict]) -> list[list[RankVerdict]]:
    found: dict[object, list[RankVerdict]] = {}
    for verdict in verdicts:
        found.setdefault((verdict.status, verdict.origin), []).append(verdict)
    return list(found.values())


def _fold_verdicts(verdicts: Sequence[RankVerdict]) -> str:
    """Several ranks of one status: the range of their errors, and the worst of them."""
    first = verdicts[0]
    origin = f" ({first.origin.value})" if first.origin else ""
    worst_one = max(verdicts, key=lambda each: each.margin or 0.0)
    errors = [each.metrics.rel_l2 for each in verdicts if each.metrics is not None and not isnan(each.metrics.rel_l2)]
    reach = f"relative L2 {figure(min(errors))} to {figure(max(errors))}, " if errors else ""
    return f"{first.status.value}{origin}: {reach}rank {worst_one.rank}: {worst_one.reason}"


def _title(label: LabelVerdict) -> str:
    turn = f", occurrence {label.key.occurrence}" if label.key.occurrence else ""
    where = f" ({label.level.words}-level {label.level.granularity})" if label.level.granularity else ""
    return f"{label.key.label}{where}, task {label.key.task}{turn}: {label.status.value}"


def _findings(report: Report, label: LabelVerdict) -> Iterator[str]:
    if label.root is not None:
        yield f"  inherited from {label.root.label}"
    inputs = sorted({name for v in label.ranks for s in (v.golden, v.actual) if s is not None for name in s.inputs})
    if inputs:
        yield f"  computed from {', '.join(inputs)}"
    for hint in report.hints:
        if hint.key == label.key:
            yield f"  looks like: {hint.words} ({hint.explained:.0%} of the error, {of_ranks(hint.ranks)})"
    for pattern in report.patterns:
        if pattern.key == label.key:
            yield from (f"  where: {words}" for words in (pattern.ranks, pattern.rows, pattern.channels) if words)


def _nonfinite_places(report: Report, label: LabelVerdict, shown: RankVerdict) -> Iterator[str]:
    """Yield the places where one side alone is not finite, for labels without a pattern."""
    look = report.looks.get((label.key, shown.rank))
    if look is not None and all(pattern.key != label.key for pattern in report.patterns):
        yield from (f"    where      {words}" for words in nonfinite_places([look]) if words)


def _full_lines(report: Report, verdict: RankVerdict, label: LabelVerdict) -> Iterator[str]:
    origin = f", {verdict.origin.value}" if verdict.origin else ""
    yield f"  rank {verdict.rank}: {verdict.status.value}{origin}{', equal bit by bit' if verdict.bitwise else ''}"
    yield f"    why        {verdict.reason}"
    if verdict.excused:
        yield f"    excused    {verdict.excused}"
    yield from _limits(report, verdict, label)
    if verdict.own is not None:
        own = verdict.own
        error = f"relative L2 {figure(own.rel_l2)}, worst row {figure(own.worst_row)}"
        yield f"    own        from golden's values: {error}"
    for floor in verdict.floors:
        yield (
            f"    floor      {floor.source.value}: relative L2 {figure(floor.rel_l2)}, "
            f"worst row {figure(floor.worst_row)}"
        )
    if verdict.status is Status.MISMATCH and verdict.metrics is not None:
        yield "    figures    of the part in which both sides fit:"
    yield from _figures(verdict)
    if verdict.layout:
        yield f"    layout     {verdict.layout}"
    for name, side in (("golden", verdict.golden), ("actual", verdict.actual)):
        yield f"    {name}     {_side(side)}"


def _limits(report: Report, verdict: RankVerdict, label: LabelVerdict) -> Iterator[str]:
    """The limits, and by how much one would have to move for another verdict."""
    limits, margin = verdict.limits, verdict.margin
    if limits is None or margin is None or verdict.status is Status.NONFINITE:
        return
    if limits.fail == 0.0:
        yield "    limit      none may differ: the type is exact"
        return
    rows = f", {limits.rows:.2g} times these for the worst row" if limits.rows != 1.0 else ""
    yield f"    limit      warn {limits.warn:.3g}, fail {limits.fail:.3g}{rows} ({limits.source})"
    error = margin * limits.fail
    if verdict.excused:
        return
    if verdict.status is Status.DIVERGED:
        beyond = f"its error is {margin:.3g} times its limit" if margin > 1.0 else _OUT_OF_LINE
        yield f"    to pass    {beyond}; in a policy:"
        yield from (f"               {line}" for line in _passing_rule(report, label))
    elif verdict.status is Status.DRIFT:
        yield f"    to match   warn would have to be {_above(error)}; to fail, fail below {_below(error)}"
    elif error > 0.0:
        yield f"    to fail    fail would have to be below {_below(error)}, {margin:.2g} of what it is"


def _passing_rule(report: Report, label: LabelVerdict) -> list[str]:
    """Return the rule that lets a label pass wherever the report has it.

    It is no limit: an error below one may still jump beside the layers before, and that of another rule may count.
    """
    alike = [each for one in report.judgement.labels if one.key.label == label.key.label for each in one.differing]
    errors = [each.metrics.rel_l2 for each in alike if each.metrics is not None and each.status is Status.DIVERGED]
    rule = ["[[allow]]", f"pattern = {_glob(label)}"]
    return [*rule, f"up_to = {_above(max(errors))}"] if all(map(isfinite, errors)) else rule


def _glob(label: LabelVerdict) -> str:
    """The pattern that means this label alone, as TOML."""
    text = json.dumps(re.sub(r"[\[*?]", r"[\g<0>]", label.key.label), ensure_ascii=False)
    return "".join(c if c.isascii() and c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _above(error: float) -> str:
    """The error rounded up to three digits."""
    return f"{error * 1.005:.3g}"


def _below(error: float) -> str:
    return f"{error * 0.995:.3g}"


def _figures(verdict: RankVerdict) -> Iterator[str]:
    metrics, stats = verdict.metrics, verdict.stats
    if metrics is None or stats is None:
        return
    if stats.n_finite or not stats.n:
        of = f" (of the {stats.n_finite:,} finite pairs)" if 0 < stats.n_finite < stats.n else ""
        yield (
            f"    errors     relative L2 {figure(metrics.rel_l2)}, worst row {figure(metrics.worst_row)}, "
            f"median row {figure(metrics.row_p50)}, cosine {metrics.cosine:.6g}, SNR {metrics.snr_db + 0.0:.3g} dB{of}"
        )
    scale = ""
    if metrics.scale == metrics.scale:
        scale = f"actual is {metrics.scale:.6g} x golden, which leaves {figure(metrics.residual)}; "
    differ = f"{metrics.mismatch_share:.2%} of {stats.n:,} values differ" if stats.n_equal >= 0 else ""
    if scale or differ:
        yield f"    scale      {scale}{differ}"
    if LATER_METRICS:
        also = (f"{METRICS[name].words} {figure(getattr(metrics, name))}" for name in LATER_METRICS)
        yield f"    also       {', '.join(also)}"
    if stats.max_abs_d_index >= 0:
        yield (
            f"    largest    |d| {figure(metrics.max_abs)} at flat index {stats.max_abs_d_index:,}: "
            f"golden {stats.max_abs_d_x:.6g}, actual {stats.max_abs_d_y:.6g}"
            + (f"; {metrics.max_ulp:,} ULP at most" if metrics.max_ulp >= 0 else "")
        )
    if stats.min_x <= stats.max_x and stats.min_y <= stats.max_y:
        sides = f"golden {stats.min_x:.4g} to {stats.max_x:.4g}, actual {stats.min_y:.4g} to {stats.max_y:.4g}"
        yield f"    range      {sides}"
    broken = {"NaN": (stats.nan_x, stats.nan_y), "inf": (stats.posinf_x, stats.posinf_y)}
    broken["-inf"] = stats.neginf_x, stats.neginf_y
    counts = [f"{name} {golden:,} / {actual:,}" for name, (golden, actual) in broken.items() if golden or actual]
    if counts:
        yield f"    not finite {', '.join(counts)} (golden / actual)"


def _side(side: SideFacts | None) -> str:
    if side is None:
        return "absent"
    site = f", labelled at {shown_path(side.call_site)}" if side.call_site else ""
    where = side.device if side.device.startswith("dumped") else f"on {side.device or '?'}"
    tensor = f"{side.dtype} {shape_text(side.shape)} {where}" if side.dtype else "not recorded"
    return f"{tensor}, number {side.seq}{site}"


def _history(report: Report, label: LabelVerdict, shown: RankVerdict) -> Iterator[str]:
    """The same kind of label in the layers before, on the same rank."""
    kind, errors = kind_in_layers(label.key.label, label.level.layer), []
    for each in report.judgement.labels:
        same_turn = (each.key.task, each.key.occurrence) == (label.key.task, label.key.occurrence)
        if each.level.layer and same_turn and kind_in_layers(each.key.label, each.level.layer) == kind:
            errors += [v.metrics.rel_l2 for v in each.ranks if v.rank == shown.rank and v.metrics is not None]
        if each.key == label.key:
            break
    if label.level.layer and len(errors) > 1:
        yield f"    layers     {' '.join(map(figure, errors[-_MOST_HISTORY:]))}  ({shorten(kind, 40, '...')})"


def _in_short(verdict: RankVerdict) -> str:
    origin = f" ({verdict.origin.value})" if verdict.origin else ""
    return f"{verdict.status.value}{origin}: {verdict.reason}"
