"""The sentences on what was not compared, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from aclcmp.orchestrator.core.evidence import NOT_REACHED
from aclcmp.orchestrator.core.plan import GapKind
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import RankState, RunRecord
from aclcmp.orchestrator.core.text import count, fold_ranks, of_ranks
from aclcmp.orchestrator.core.verdicts import LabelVerdict, RankVerdict, Status
from aclcmp.orchestrator.report.text.sentences import list_names, short_name

Verdicts = list[tuple[LabelVerdict, RankVerdict]]

_MOST_REASONS = 4
_SIDES = attrgetter("golden"), attrgetter("actual")


def has_compared(report: Report) -> bool:
    """Tell whether values were compared anywhere, if only in part."""
    verdicts = (verdict for label in report.judgement.labels for verdict in label.ranks)
    return report.judgement.coverage.compared > 0 or any(_is_compared(verdict) for verdict in verdicts)


def _is_compared(verdict: RankVerdict) -> bool:
    return verdict.stats is not None and verdict.status is not Status.FAILED


def interruption_lines(report: Report) -> list[str]:
    """Return what an interrupted comparison did not reach: it comes before all else."""
    every = [verdict for label in report.judgement.labels for verdict in label.ranks]
    unreached = sum(verdict.gap_reason == NOT_REACHED for verdict in every)
    if not unreached:
        return []
    if not has_compared(report):
        return ["Interrupted before anything was compared."]
    return [f"Interrupted: of {count(len(every), 'comparison')} of a label on a rank {unreached:,} were not reached."]


def gap_lines(report: Report, folder: str = "") -> list[str]:
    """Return what was not compared, on which ranks, and what to do about it; `folder` begins paths in a run's."""
    verdicts = [(label, verdict) for label in report.judgement.labels for verdict in label.ranks]
    silent = report.judgement.coverage.silent_ranks
    reached = [(label, v) for label, v in verdicts if v.gap_reason != NOT_REACHED]
    if not has_compared(report):
        nothing = reached or not verdicts
        return [_nothing(reached, report, folder)] if nothing else []
    sentences = [
        *_absent(verdicts, "golden", "pta", report),
        *_absent(verdicts, "actual", "acl", report),
        _undumped_labels(verdicts, report.run),
        _unpaired_labels(verdicts),
        _gap([(n, v) for n, v in verdicts if v.status is Status.MISSING and v.stats], "Compared in part only"),
        *_misfits([(label, v) for label, v in verdicts if v.status is Status.MISMATCH]),
        _gap([(label, v) for label, v in reached if v.status is Status.FAILED], "Not recorded or not readable"),
    ]
    if silent:
        sentences.append(_silent_ranks(silent, report.run, folder))
    if unreadable := report.judgement.coverage.unreadable:
        sentences.append(f"{_pieces(unreadable)} could not be read, as noted below: labels may be missing.")
    return [sentence for sentence in sentences if sentence]


def _absent(verdicts: Verdicts, side: str, source: str, report: Report) -> list[str]:
    """Return sentences for the labels of which one side is absent, and what to do about it."""
    run, silent = report.run, report.judgement.coverage.silent_ranks
    of_side = attrgetter(side)
    absent = [(label, v) for label, v in verdicts if v.status is Status.MISSING and not of_side(v)]
    what = f"No {side} side ({source})"
    if run is None:
        elsewhere = {label.key.label for label, v in verdicts if of_side(v)}
        unknown = [(label, v) for label, v in absent if label.key.label not in elsewhere]
        others = [(label, v) for label, v in absent if label.key.label in elsewhere]
        maps = f"the {side} side holds no label of this name"
        if not _is_of_tensors(report):
            maps += "; --suggest-map proposes a map of names"
        return [_gap(unknown, what, maps), _gap(others, what, _where_it_is(verdicts, others, side))]
    gone = _keep_finished(silent, run)  # what they set, if anything, is not there: `_silent_ranks` says so
    absent = [(label, v) for label, v in absent if v.rank not in gone]
    there = {label.key for label, v in verdicts if v.golden and v.actual}
    advice = f'set_label("{side}", ...) was not reached there, or with another data id'
    if inner := [label.key for label, _ in absent if _outer(label.key) in there]:
        # of a watched module that returns several tensors: one side's returns fewer
        ends = dict.fromkeys(".".join(key.label.split(".")[-2:]) for key in inner)
        patterns = [f'"**.{end}"' for end in ends]
        pattern = patterns[0] if len(patterns) == 1 else f"[{', '.join(patterns)}]"
        advice = (
            f"the module there returns no such tensor (as attention kernels return no weights): leave it out with "
            f"watch(..., exclude={pattern})"
        )
    return [_gap(absent, what, advice)]


def _silent_ranks(silent: Sequence[int], run: RunRecord | None, folder: str) -> str:
    """Return what may be the reason why ranks have no label."""
    sentence = f"No label at all from {of_ranks(silent)}: see {folder}logs/rank{silent[0]:05d}.log."
    gone = _keep_finished(silent, run)
    return f"{sentence} {_no_shard(gone, folder)}" if gone else sentence


def _keep_finished(ranks: Iterable[int], run: RunRecord | None) -> list[int]:
    """Return those of the ranks that finished."""
    well = {rank.rank for rank in run.ranks if rank.state is RankState.FINISHED} if run is not None else set()
    return [rank for rank in ranks if rank in well]


def _no_shard(ranks: Sequence[int], folder: str) -> str:
    """Say of ranks that ended well and have no label that their shards, if they made any, are not there."""
    several = len(ranks) > 1
    shards = f"{folder}shards/rank{ranks[0]:05d}.h5" + (" and others were" if several else " was")
    return (
        f"{of_ranks(ranks).capitalize()} finished, but no label of {'them' if several else 'it'} is there: {shards} "
        "removed since, or the script set none."
    )


def _pieces(unreadable: int) -> str:
    return f"{count(unreadable, 'shard')} or journal line{'s' * (unreadable > 1)}"


def _where_it_is(verdicts: Verdicts, absent: Verdicts, side: str) -> str:
    """Say why a side lacks labels here that it has elsewhere: another number of tasks, or another place in one."""
    golden, actual = ({label.key.task for label, v in verdicts if of_side(v)} for of_side in _SIDES)
    here = {label.key.task for label, _ in absent}
    if len(golden) == len(actual) or here & (golden if side == "golden" else actual):
        return f"the {side} side has this name, but not as often, or on other ranks"
    rule = "- -> task:0" if side == "golden" else "task:0 -> -"
    return (
        f"golden has {count(len(golden), 'task')}, actual {len(actual):,}: `{rule}` in the file of --map leaves one out"
    )


def _outer(key: LabelKey) -> LabelKey:
    """The label of the module of whose output a label is a further tensor: "self_attn" of "self_attn.1"."""
    return key._replace(label=key.label.rpartition(".")[0])


def _gap(verdicts: Verdicts, what: str, advice: str = "") -> str:
    """Return one sentence for the labels in `verdicts`; without `advice` it gives the first one's reason."""
    if not verdicts:
        return ""
    names = list(dict.fromkeys(short_name(label) for label, _ in verdicts))
    ranks = {verdict.rank for _, verdict in verdicts}
    where = "" if len(verdicts) == 1 else f"{names[0]}, rank {verdicts[0][1].rank}: "
    reason = advice or where + verdicts[0][1].reason.rstrip(".")
    return f"{what} for {list_names(names)} on {of_ranks(ranks)}: {reason}."


def _misfits(verdicts: Verdicts) -> list[str]:
    """Return a sentence for each reason why sides do not fit, and what to do about layouts behind their last one."""
    by_kind: dict[tuple[str, bool], Verdicts] = {}
    for label, verdict in verdicts:  # by how much common parts differ is another number for each
        differs = verdict.stats is not None and verdict.reason.startswith(f"{verdict.gap_reason} differ: ")
        by_kind.setdefault((verdict.gap_reason if differs else verdict.reason, differs), []).append((label, verdict))
    by_reason = [(reason, found) for (reason, _), found in by_kind.items()]
    shown = by_reason[:_MOST_REASONS]
    # first what a layout may mend, so that the advice stands beside it
    shown.sort(key=lambda each: _is_layout_open(each[0]), reverse=True)
    advice = "Tell it by layout= in set_label, or correct it now: aclcmp compare ... --layouts FILE."
    last = max((at for at, (reason, _) in enumerate(shown) if _is_layout_open(reason)), default=-1)
    lines = [_gap(found, "The sides do not fit") + f" {advice}" * (at == last) for at, (_, found) in enumerate(shown)]
    if more := len(by_reason) - len(shown):
        lines.append(f"{count(more, 'more reason')} why sides do not fit: see report.csv.")
    return lines


def _is_layout_open(reason: str) -> bool:
    """Tell whether it is by its layout that a label does not fit."""
    return "layout" in reason


def _undumped_labels(verdicts: Verdicts, run: RunRecord | None) -> str:
    """Return one sentence for the low-level labels whose file is not there."""
    undumped = [(n, v) for n, v in _without_partner(verdicts) if v.gap is not GapKind.MISSING_GOLDEN]
    sentence = _gap(undumped, "Not dumped by the library")
    unprepared = bool(sentence) and run is not None and not run.low_level
    return f"{sentence} With --low-level the library is told to dump." if unprepared else sentence


def _unpaired_labels(verdicts: Verdicts) -> str:
    """Return one sentence for the labels of which golden holds other rows, or another part."""
    unpaired = [(n, v) for n, v in _without_partner(verdicts) if v.gap is GapKind.MISSING_GOLDEN]
    return _gap(unpaired, "Nothing of golden to compare with")


def _is_of_tensors(report: Report) -> bool:
    """Tell whether tensors of a process were compared, that no folder holds and no command reads."""
    return report.run is None and report.order == "none"


def _without_partner(verdicts: Verdicts) -> Verdicts:
    """Return the labels that both sides set, and of which nothing could be compared."""
    return [(n, v) for n, v in verdicts if v.status is Status.MISSING and v.golden and v.actual and not v.stats]


_BOTH = 'set_label("golden", data_id, golden_tensor) and set_label("actual", data_id, tensor)'


def _nothing(verdicts: Verdicts, report: Report, folder: str) -> str:
    """Say why nothing was compared, and what to do about it."""
    run = report.run
    if not verdicts:
        return _no_label(run, report.judgement.coverage.unreadable, folder)
    golden = [label for label, verdict in verdicts if verdict.golden is not None]
    actual = [label for label, verdict in verdicts if verdict.actual is not None]
    misfits = _misfits([(label, v) for label, v in verdicts if v.status is Status.MISMATCH])
    failed = _gap(
        [each for each in verdicts if each[1].status is Status.FAILED], "Labels were not recorded, or are not readable"
    )
    if misfits or failed:
        return " ".join(["Nothing was compared.", *misfits, *[failed] * bool(failed)])
    if without := [each for each in (_undumped_labels(verdicts, run), _unpaired_labels(verdicts)) if each]:
        return f"Nothing was compared. {' '.join(without)}"
    if not actual:
        return (
            f"Nothing was compared: only the golden side (pta) was labelled, e.g. {golden[0].key.label}. "
            'Label the accelerated tensor too: set_label("actual", data_id, tensor) with the same data_id, or compare '
            "with the run that has it: aclcmp compare GOLDEN ACTUAL."
        )
    if not golden:
        return (
            f"Nothing was compared: only the actual side (acl) was labelled, e.g. {actual[0].key.label}. "
            'Label the golden tensor too: set_label("golden", data_id, tensor) with the same data_id, or compare '
            "with the run that has it: aclcmp compare GOLDEN ACTUAL."
        )
    if common := {label.key.label for label in golden} & {label.key.label for label in actual}:
        tasks = [sorted({label.key.task for label in side}) for side in (golden, actual)]
        words = [f"task{'s' * (len(each) > 1)} {fold_ranks(each)}" for each in tasks]
        if tasks[0] != tasks[1]:
            return (
                f"Nothing was compared: golden's labels are those of {words[0]}, actual's of {words[1]}, under the "
                "same data ids. Call set_task_id() as often before the labels of either side."
            )
        name = next(label.key.label for label in golden if label.key.label in common)
        ranks = [[v.rank for label, v in verdicts if label.key.label == name and side(v)] for side in _SIDES]
        return (
            f"Nothing was compared: both sides have the same data ids, but on other ranks or in another number; e.g. "
            f"{name} is golden on {of_ranks(ranks[0])}, actual on {of_ranks(ranks[1])}."
        )
    advice = f"Call {_BOTH} with the same data_id on the same rank"
    if _is_of_tensors(report):
        advice = "Give them the same names, or map= a file that maps them"
    elif run is None:
        advice = "aclcmp compare GOLDEN ACTUAL --suggest-map proposes a map of names"
    return (
        f"Nothing was compared: no data id has both sides; golden (pta) has e.g. {golden[0].key.label}, "
        f"actual (acl) e.g. {actual[0].key.label}. {advice}."
    )


def _no_label(run: RunRecord | None, unreadable: int, folder: str) -> str:
    if run is not None and run.failure is not None:
        return "Nothing was compared: the run ended before any label was made."
    if unreadable:
        return f"Nothing was compared: {_pieces(unreadable)} could not be read, as noted below."
    if run is not None and (run.labels or run.tasks):
        asked = [f"--{name} {value}" for name, value in (("labels", run.labels), ("tasks", run.tasks)) if value]
        return f"Nothing was compared: no label was recorded; {' and '.join(asked)} may have left none."
    if run is not None and run.launcher == "none":
        return f"Nothing was compared: the recording holds no label. Call {_BOTH} in its block, with the same data_id."
    if run is not None and (gone := _keep_finished([rank.rank for rank in run.ranks], run)):
        return f"Nothing was compared. {_no_shard(gone, folder)} If so, call {_BOTH} in it, with the same data_id."
    if run is None:
        return "Nothing was compared: neither side holds a label."
    return f"Nothing was compared: the script made no label. Call {_BOTH} in it, with the same data_id."
