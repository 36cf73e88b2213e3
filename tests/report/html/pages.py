"""Reports to show as pages: a decoder that goes wrong on one rank, a huge one, one with names that attack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np

from aclcmp.orchestrator.core.diagnosis import (
    HISTOGRAM_BINS,
    HISTOGRAM_LOWEST,
    ChannelSums,
    Fit,
    Hint,
    Look,
    Pattern,
    WorstRow,
)
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.metrics import metrics_of
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Limits, Origin, RankVerdict, Status
from tests.report.made_up import judgement_of, label, layer_names, record_of, side, stats_of, verdict

ROWS, CHANNELS = 64, 48
LIMITS = Limits(warn=4e-3, fail=2e-2, source="bfloat16 table")
NASTY = (
    "<script>document.title='owned'</script>",
    "</script><img src=x onerror=alert(1)>",
    "</textarea>&amp;<!--",
    "\u2028line\u2029separators",
    "half \ud800 surrogate",
    "nul \x00 byte",
    "\u202egnp.exe",
    "{{ 7 * 7 }} {% raw %}",
    "]]>",
    "javascript:alert(1)",
    "",
)


@cache
def _pair(size: float, row: int, seed: int) -> tuple[PairStats, Look]:
    """Return the statistics of an error of relative L2 `size`, in all rows or in one (`row` from 0 on)."""
    rng = np.random.default_rng(seed)
    golden = rng.standard_normal((ROWS, CHANNELS))
    noise = rng.standard_normal((ROWS, CHANNELS)) * rng.lognormal(0, 0.6, (ROWS, 1))
    if row >= 0:
        noise *= 1e-3 + 0.3 * (np.arange(ROWS) >= row)[:, None] + 4.0 * (np.arange(ROWS) == row)[:, None]
    noise *= size * np.linalg.norm(golden) / np.linalg.norm(noise)
    powers = np.floor(np.log2(np.abs(noise) / np.sqrt(np.mean(golden**2)))).astype(int) - HISTOGRAM_LOWEST
    histogram = np.bincount(np.clip(powers, 0, HISTOGRAM_BINS - 1).ravel(), minlength=HISTOGRAM_BINS)
    channels = ChannelSums(1, np.arange(CHANNELS), (golden**2).sum(0), (noise**2).sum(0))
    fits = (Fit("scale", "every value is 0.5 times golden's: a reduction over half the ranks?", 0.46),)
    at = int(np.argmax((noise**2).sum(1) / (golden**2).sum(1)))
    worst_row = WorstRow.of((ROWS, CHANNELS), (at,), 0, golden[at], (golden + noise)[at])
    return stats_of(golden, golden + noise), Look(channels, histogram, fits, worst_row=worst_row)


def _verdict(rank: int, seq: int, size: float, origin: Origin | None, row: int = -1) -> tuple[RankVerdict, Look]:
    stats, look = _pair(size, row, rank % 4)
    metrics = metrics_of(stats)
    error = max(metrics.rel_l2, metrics.worst_row)
    status = Status.DIVERGED if origin else Status.DRIFT if error > LIMITS.warn else Status.MATCH
    what = {Status.DIVERGED: f"limit {LIMITS.fail:g}", Status.DRIFT: f"warned from {LIMITS.warn:g} on"}
    words = f"relative L2 {metrics.rel_l2:.2g}, worst row {metrics.worst_row:.2g} (row {metrics.worst_row_index})"
    facts = replace(side("tensor", seq, (ROWS, CHANNELS)), dtype="bfloat16", device=f"npu:{rank % 8}")
    return (
        RankVerdict(
            rank=rank,
            status=status,
            origin=origin,
            reason=f"{words}; {what.get(status, what[Status.DIVERGED])} ({LIMITS.source})",
            bitwise=False,
            layout="Shard(-1) over ranks 0-15",
            golden=replace(facts, device="cpu", path=f"/shards/rank{rank:05d}.h5"),
            actual=replace(facts, call_site="fused_mlp.py:88", path=f"/shards/rank{rank:05d}.h5"),
            stats=stats,
            metrics=metrics,
            limits=LIMITS,
            margin=error / LIMITS.fail,
        ),
        look,
    )


def decoder_report(
    layers: int = 24, ranks: int = 16, culprit: str = "layers.9.mlp.down.local", rank: int = 5
) -> Report:
    """Return a report of a decoder whose culprit is wrong on one rank; what follows is wrong on all by inheritance."""
    labels: list[LabelVerdict] = []
    looks: dict[tuple[LabelKey, int], Look] = {}
    broken = False
    names = layer_names(layers)
    jitter = np.exp(np.random.default_rng(3).normal(0, 0.15, (len(names), 4)))
    for seq, name in enumerate(names):
        verdicts = []
        for other in range(ranks):
            own = name == culprit and other == rank
            size = 10 ** (-3.6 + 1.0 * seq / len(names)) if not broken else 0.5 * 0.97 ** (seq // 6)
            size = 0.42 if own else size * jitter[seq, other % 4]
            origin = Origin.OWN if own else Origin.INHERITED if broken else None
            one, look = _verdict(other, seq, size, origin, row=23 if origin else -1)
            if one.status is not Status.MATCH:
                looks[LabelKey(0, name, 0), other] = look
            verdicts.append(one)
        if name == "layers.12.attn.core":
            verdicts[3:5] = [verdict(3, Status.MISSING), verdict(4, Status.MISSING)]
        if name == "lm_head":
            verdicts = [replace(one, excused="policy: lm_head is not compared") for one in verdicts]
        labels.append(replace(label(name, verdicts), level=level_of(name, "", "")))
        broken = broken or name == culprit
    key = LabelKey(0, culprit, 0)
    run = record_of(ranks)
    run = run.model_copy(update={"command": ("python", "run_decoder.py", "--prompt", "a b")})
    words = "without the part of rank 6: a summand missing from the all-reduce"
    judgement = judgement_of(labels)
    if judgement.first_divergence is not None:
        why = next(label.ranks[rank].reason for label in labels if label.key == key)
        judgement = replace(judgement, first_divergence=replace(judgement.first_divergence, why=why))
    return Report(
        run,
        run.run_id,
        judgement,
        {"name": "default", "bfloat16.warn": LIMITS.warn, "bfloat16.fail": LIMITS.fail},
        notes=("layouts of 24 labels were inferred from their shapes",),
        patterns=(
            Pattern(
                key,
                {rank: 1.0},
                f"rank {rank} alone: its weights, its slice or its device",
                "row 23 holds 61 % of it",
                "",
            ),
        ),
        hints=(Hint(key, (rank,), "missing reduction", words, 0.972),),
        looks=looks,
    )


def nasty_report() -> Report:
    """Return a report in which every text is one of `NASTY`."""
    labels = [label(name, _nasty_verdicts(name)) for name in NASTY]
    run = record_of(2)
    record = run.ranks[0].model_copy(update={"host": NASTY[0], "devices": NASTY[1:2]})
    run = run.model_copy(
        update={"command": NASTY[:4], "environment": {NASTY[0]: NASTY[1]}, "ranks": (record, run.ranks[1])}
    )
    hints = tuple(Hint(LabelKey(0, name, 0), (0,), "scale", name, 0.95) for name in NASTY)
    return Report(run, NASTY[0], judgement_of(labels), {NASTY[0]: NASTY[1]}, notes=NASTY, hints=hints)


def _nasty_verdicts(name: str) -> Iterator[RankVerdict]:
    for rank, status, origin in ((0, Status.DIVERGED, Origin.OWN), (1, Status.FAILED, None)):
        facts = replace(side(name), device=name, call_site=name)
        yield replace(
            verdict(rank, status, origin), reason=name, layout=name, golden=facts, excused=name if rank else ""
        )


def large_report(labels: int = 10_000, ranks: int = 64, variants: int = 400) -> Report:
    """Return a report of so many labels of a decoder, half of them wrong by inheritance.

    A label's figures come again after `variants` others; 400 are further apart than gzip's window.
    """
    random = np.random.default_rng(1)
    good = [_variant(seed, ranks, None, random) for seed in range(variants)]
    bad = [_variant(seed, ranks, Origin.INHERITED, random) for seed in range(variants)]
    made = []
    looks: dict[tuple[LabelKey, int], Look] = {}
    for seq in range(labels):
        name = f"model.layers.{seq * 80 // labels}.block.{seq % (labels // 80 or 1)}.out"
        key = LabelKey(0, name, 0)
        first, wrong = labels // 2, seq >= labels // 2
        look, verdicts = (bad if wrong else good)[seq % variants]
        if seq == first:
            verdicts = [replace(v, origin=Origin.OWN) if v.rank == 5 else good[0][1][v.rank] for v in verdicts]
        if wrong:
            looks |= {(key, v.rank): look for v in verdicts if v.origin}
        status = Status.DIVERGED if wrong else Status.MATCH
        made.append(LabelVerdict(key, status, tuple(verdicts), level_of(name, "", "")))
    run = record_of(ranks)
    return Report(run, run.run_id, judgement_of(made), {"name": "default"}, looks=looks)


def _variant(
    seed: int, ranks: int, origin: Origin | None, random: np.random.Generator
) -> tuple[Look, list[RankVerdict]]:
    golden = random.standard_normal((256, 32))
    noise = random.standard_normal((256, 32)) * random.lognormal(0, 1, (256, 1)) * (0.3 if origin else 3e-4)
    stats = stats_of(golden, golden + noise)
    channels = ChannelSums(1, np.arange(32), (golden**2).sum(0), (noise**2).sum(0))
    look = Look(channels, random.integers(0, 2000, HISTOGRAM_BINS), ())
    metrics = metrics_of(stats)
    one, _ = _verdict(0, seed, 0.3 if origin else 1e-4, origin)
    verdicts = []
    for rank in range(ranks):
        factor, *others = np.exp(random.normal(0, 0.5, 5)).tolist()
        figures = {name: getattr(metrics, name) * factor for name in ("rel_l2", "worst_row", "max_abs", "mean_rel")}
        own = replace(metrics, rms=others[0], cosine=others[1] / 9, row_p50=others[2], row_p99=others[3], **figures)
        margin = figures["worst_row"] / LIMITS.fail
        reason = f"{one.reason} {margin:.3g}"
        verdicts.append(replace(one, rank=rank, stats=stats, metrics=own, margin=margin, reason=reason))
    return look, verdicts
