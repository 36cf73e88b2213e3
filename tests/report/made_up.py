"""Made-up judgements with real statistics of small arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from aclcmp.orchestrator.compare.pair import Operand, pair_stats
from aclcmp.orchestrator.core.metrics import Metrics, metrics_of
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.regions import LabelKey, Region
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import Failure, RankRecord, RankState, RunRecord
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.verdicts import (
    Coverage,
    FirstDivergence,
    Judgement,
    LabelVerdict,
    Limits,
    Origin,
    RankVerdict,
    Status,
)
from aclcmp.orchestrator.errors import ExitCode

LIMITS = Limits(warn=1e-5, fail=1e-3, source="float32 table")
ORDER = [Status.MATCH, Status.DRIFT, Status.MISSING, Status.MISMATCH, Status.FAILED, Status.NONFINITE, Status.DIVERGED]


def stats_of(x: np.ndarray, y: np.ndarray) -> PairStats:
    """Return the statistics of two float64 arrays of one shape."""
    region = Region.whole(x.shape)
    golden, actual = (Operand(np.ascontiguousarray(side).ravel(), "float64", x.shape, region) for side in (x, y))
    return pair_stats(golden, actual, x.shape, region)


def side(name: str, seq: int = 0, shape: tuple[int, ...] = (6, 4)) -> SideFacts:
    return SideFacts(f"/tasks/0/{name}", "float32", shape, "cpu", "modeling.py:212", seq, 1_700_000_000.0 + seq)


def _errors() -> dict[float, tuple[PairStats, Metrics]]:
    """Return one pair for each relative L2 error, made once because the judgements of the tests are large."""
    golden = np.random.default_rng(7).standard_normal((6, 4))
    noise = np.random.default_rng(8).standard_normal((6, 4))
    noise *= np.linalg.norm(golden) / np.linalg.norm(noise)
    pairs = {}
    for error in (0.0, 4e-7, 3e-4, 0.42):
        stats = stats_of(golden, golden + error * noise)
        pairs[error] = stats, metrics_of(stats)
    return pairs


ERRORS = _errors()


def verdict(
    rank: int, status: Status = Status.MATCH, origin: Origin | None = None, *, seq: int = 0, bitwise: bool = False
) -> RankVerdict:
    """Return the verdict of one rank, with figures that suit its status."""
    error = 0.0 if bitwise else {Status.MATCH: 4e-7, Status.DRIFT: 3e-4}.get(status, 0.42)
    stats, metrics = ERRORS[error]
    compared = status not in (Status.MISSING, Status.FAILED, Status.MISMATCH)
    margin = metrics.rel_l2 / LIMITS.fail if compared else None
    return RankVerdict(
        rank=rank,
        status=status,
        origin=origin,
        reason=f"made up as {status.value}",
        bitwise=bitwise,
        layout="same",
        golden=side("pta", seq),
        actual=None if status is Status.MISSING else side("acl", seq, (3, 4) if status is Status.MISMATCH else (6, 4)),
        stats=stats if compared else None,
        metrics=metrics if compared else None,
        limits=LIMITS if compared else None,
        margin=margin,
    )


def label(name: str, ranks: Iterable[RankVerdict], task: int = 0, occurrence: int = 0) -> LabelVerdict:
    verdicts = tuple(ranks)
    return LabelVerdict(LabelKey(task, name, occurrence), max((v.status for v in verdicts), key=ORDER.index), verdicts)


def judgement_of(labels: Sequence[LabelVerdict], *, silent: tuple[int, ...] = ()) -> Judgement:
    """Combine labels into a judgement, as a simple judge would."""
    verdicts = [(one, v) for one in labels for v in one.ranks]

    def number(test: Callable[[RankVerdict], bool]) -> int:
        return sum(test(v) for _, v in verdicts)

    coverage = Coverage(
        compared=number(lambda v: v.stats is not None),
        missing_golden=number(lambda v: v.golden is None),
        missing_actual=number(lambda v: v.actual is None),
        mismatch=number(lambda v: v.status is Status.MISMATCH),
        failed=number(lambda v: v.status is Status.FAILED),
        uncovered=0,
        replicas=0,
        unreadable=0,
        silent_ranks=silent,
    )
    own = [one for one in labels if any(v.origin is Origin.OWN for v in one.ranks)]
    first = None
    if own:
        ranks = tuple(v.rank for v in own[0].ranks if v.origin is Origin.OWN)
        why = "relative L2 0.42, limit 1e-3 (float32 table)"
        first = FirstDivergence(own[0].key, ranks, Origin.OWN, why, "modeling.py:212")
    by_rank: dict[int, LabelKey] = {}
    for one, v in verdicts:
        if v.origin is not None:
            by_rank.setdefault(v.rank, one.key)
    exit_code = ExitCode.DIVERGED if own else ExitCode.MATCH if coverage.complete else ExitCode.INCOMPLETE
    return Judgement(exit_code.name.lower(), exit_code, first, by_rank, tuple(labels), coverage)


def layer_names(layers: int) -> list[str]:
    """Return the labels of a decoder, in order."""
    inner = ("attn.q", "attn.k", "attn.v", "attn.core", "attn.out", "mlp.gate", "mlp.up", "mlp.down.local", "mlp.out")
    return ["embed", *(f"layers.{i}.{name}" for i in range(layers) for name in inner), "norm", "lm_head"]


def decoder_labels(
    layers: int, ranks: int, culprit: tuple[str, int] | None = None, task: int = 0
) -> list[LabelVerdict]:
    """Return a decoder's labels; after the culprit (label, rank) every label is wrong on all ranks, by inheritance."""
    labels, broken = [], False
    for seq, name in enumerate(layer_names(layers)):
        if broken:
            verdicts = [verdict(rank, Status.DIVERGED, Origin.INHERITED, seq=seq) for rank in range(ranks)]
        elif culprit is not None and name == culprit[0]:
            broken = True
            verdicts = [verdict(rank, seq=seq) for rank in range(ranks)]
            verdicts[culprit[1]] = verdict(culprit[1], Status.DIVERGED, Origin.OWN, seq=seq)
        else:
            verdicts = [verdict(rank, seq=seq) for rank in range(ranks)]
        labels.append(label(name, verdicts, task))
    return labels


def record_of(ranks: int, failure: Failure | None = None) -> RunRecord:
    return RunRecord(
        run_id="20261122-101500",
        command=("python", "run.py", "--prompt", "hello"),
        cwd="/home/user/model",
        launcher="ray",
        device="npu",
        visibility="node",
        cluster="local Ray",
        started=1_700_000_000.0,
        finished=1_700_000_060.5,
        versions={"aclcmp": "0.1.0"},
        environment={"OMP_NUM_THREADS": "1"},
        ranks=tuple(
            RankRecord(
                rank=rank,
                local_rank=rank % 8,
                host="ab"[rank // 8 % 2],
                ip="10.0.0.1",
                node_id="n0",
                devices=(str(rank % 8),),
                state=RankState.FINISHED,
                exit_code=0,
                started=1_700_000_000.0,
                finished=1_700_000_060.0,
            )
            for rank in range(ranks)
        ),
        failure=failure,
    )


def report_of(
    labels: Sequence[LabelVerdict],
    *,
    run: RunRecord | None = None,
    notes: tuple[str, ...] = (),
    silent: tuple[int, ...] = (),
) -> Report:
    policy: dict[str, str | float] = {"name": "default", "float32.warn": 1e-5, "float32.fail": 1e-3}
    return Report(run, "20261122-101500", judgement_of(labels, silent=silent), policy, notes)
