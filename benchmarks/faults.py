"""How often each rule names the culprit first, and how often it cries wolf: planted faults and clean runs.

    python benchmarks/faults.py [--seeds 1,2,3] [--tune]

A decoder of 16 layers (`faulty_decoder.py`), float32 and bfloat16, on 1 rank and on 4; 16 kinds of faults at layers 2,
8 and 13, with other seeds for tuning than for the table. Golden is the same decoder without a fault on one rank, actual
has other kernels. A fault is visible if at its first wrong label the relative L2 of the whole, or of the worst row, is
at least three times that of the same run without the fault. Each rule sees the same statistics, and only them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from faulty_decoder import FAULTS, Recorded, Setting, run, weights

from aclcmp.orchestrator.compare.decode import CODES
from aclcmp.orchestrator.compare.metrics import Metrics, metrics_of
from aclcmp.orchestrator.compare.pair import Operand, pair_stats, warm_up
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.judge.verdicts import Status
from aclcmp.orchestrator.plan.levels import level_of, with_parents
from aclcmp.orchestrator.plan.model import LabelPlan, Plan, SideFacts, Sides
from aclcmp.orchestrator.plan.regions import LabelKey, Pair, Region, Source

TOKENS, DEPTHS = 48, (2, 8, 13)
TUNING, TABLE = (11, 12, 13), (1, 2, 3)

Stats = dict[tuple[LabelKey, int], PairStats]


@dataclass(frozen=True)
class Case:
    """One run beside golden: its statistics, and which label is wrong first ("" in a clean run)."""

    plan: Plan
    stats: Stats
    dtype: str
    culprit: str = ""
    fault: str = ""


def operand(tensor: torch.Tensor) -> Operand:
    """A tensor as the comparison reads it."""
    name = str(tensor.dtype).removeprefix("torch.")
    assert name in CODES
    bits = tensor.contiguous().reshape(-1)
    array = bits.view(torch.uint16).numpy() if name == "bfloat16" else bits.numpy()
    return Operand(array, name, tuple(tensor.shape), Region.whole(tuple(tensor.shape)))


def slice_of(golden: torch.Tensor, like: torch.Tensor, rank: int) -> torch.Tensor:
    """A rank's slice of the whole golden tensor."""
    width = like.shape[-1]
    return golden if golden.shape == like.shape else golden[..., rank * width : (rank + 1) * width]


def case_of(golden: Recorded, actual: Recorded, culprit: str = "", fault: str = "") -> Case:
    """Compare two runs label by label."""
    stats: Stats = {}
    labels = []
    dtype = ""
    facts = SideFacts("f", "float32", (), "cpu", "m.py:1", 0, 0.0)
    for name, tensors in actual.labels.items():
        key = LabelKey(0, name, 0)
        pairs = []
        for rank, tensor in enumerate(tensors):
            x, y = operand(slice_of(golden.labels[name][0], tensor, rank)), operand(tensor)
            stats[key, rank] = pair_stats(x, y, x.shape, x.region)
            dtype = x.dtype
            source = Source("f", 0, x.dtype, x.shape)
            pairs.append(Pair(key, rank, source, x.region, source, x.region, x.shape, x.region, ""))
        labels.append(LabelPlan(key, dict.fromkeys(range(len(tensors)), Sides(facts, facts)), tuple(pairs)))
    keys = [label.key for label in labels]
    levels = with_parents({key: level_of(key.label, "", "") for key in keys}, keys)
    return Case(Plan(tuple(labels), levels, (), 0, ()), stats, dtype, culprit, fault)


def cases(seeds: tuple[int, ...]) -> tuple[list[Case], list[Case]]:
    """Return the runs with visible faults, and the clean ones."""
    faulty, clean = [], []
    for seed in seeds:
        for outlier in (False, True):
            state = weights(seed, outlier=outlier)
            tokens = torch.randint(0, len(state["embed"]), (TOKENS,), generator=torch.Generator().manual_seed(seed))
            for dtype in (torch.float32, torch.bfloat16):
                golden = run(state, tokens, Setting(dtype))
                for ranks in (1, 4):
                    for other in (False, True):
                        clean.append(case_of(golden, run(state, tokens, Setting(dtype, ranks, other))))
                    sound = clean[-1]
                    for number, (fault, kind) in enumerate(FAULTS.items()):
                        for layer in DEPTHS:
                            rank = (number + layer) % ranks
                            setting = Setting(dtype, ranks, True, fault, layer, rank)
                            found = case_of(golden, run(state, tokens, setting), f"layers.{layer}.{kind}", fault)
                            if visible(found, sound):
                                faulty.append(found)
    return faulty, clean


def visible(case: Case, sound: Case) -> bool:
    """Whether the culprit's error is at least three times what it is without the fault, on some rank."""
    for (key, rank), stats in case.stats.items():
        if key.label == case.culprit:
            with_fault, without = metrics_of(stats), metrics_of(sound.stats[key, rank])
            if with_fault.rel_l2 > 3 * without.rel_l2 or with_fault.worst_row > 3 * without.worst_row:
                return True
    return False


Rule = Callable[[Case], list[str]]
"""The labels that a rule finds wrong, in order."""


def ours(case: Case) -> list[str]:
    """This project's judge: the labels that are wrong by themselves."""
    judgement = judge(case.plan, case.stats, run_failed=False)
    return [
        label.key.label
        for label in judgement.labels
        if any(verdict.status in (Status.DIVERGED, Status.NONFINITE) for verdict in label.ranks)
    ]


def by_metric(test: Callable[[Metrics, PairStats, str], bool]) -> Rule:
    """A rule that looks at each label alone."""

    def rule(case: Case) -> list[str]:
        wrong: dict[str, None] = {}
        for (key, _), stats in case.stats.items():
            if test(metrics_of(stats), stats, case.dtype):
                wrong[key.label] = None
        return list(wrong)

    return rule


RULES: dict[str, Rule] = {
    "aclcmp": ours,
    "torch.testing.assert_close": by_metric(lambda m, s, d: s.n_over_tolerance > 0),
    "cosine < 0.99": by_metric(lambda m, s, d: m.cosine < 0.99),
    "PCC < 0.9999": by_metric(lambda m, s, d: m.pcc < 0.9999),
    "msprobe (cosine 0.99 and max_abs 1e-3, cosine 0.9, max_abs 1)": by_metric(
        lambda m, s, d: m.cosine < 0.9 or m.max_abs > 1 or (m.cosine < 0.99 and m.max_abs > 1e-3)
    ),
    "SGLang (1 - similarity > 1e-3)": by_metric(lambda m, s, d: m.sg_rel > 1e-3),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="")
    parser.add_argument("--tune", action="store_true", help="the seeds for tuning, and what is missed")
    options = parser.parse_args()
    seeds = TUNING if options.tune else TABLE
    if options.seeds:
        seeds = tuple(int(seed) for seed in options.seeds.split(","))
    torch.set_num_threads(1)
    warm_up()
    start = time.perf_counter()
    faulty, clean = cases(seeds)
    labels = sum(len(case.plan.labels) for case in clean)
    print(
        f"{len(faulty)} runs with visible faults, {len(clean)} clean runs of {labels:,} labels "
        f"({time.perf_counter() - start:.0f} s)"
    )
    print(f"{'rule':64} {'first':>6} {'other':>6} {'none':>6}  false alarms per 1,000 clean labels")
    for name, rule in RULES.items():
        outcome: Counter[str] = Counter()
        missed: dict[str, Counter[str]] = defaultdict(Counter)
        for case in faulty:
            wrong = rule(case)
            what = "none" if not wrong else "first" if wrong[0] == case.culprit else "other"
            outcome[what] += 1
            if what != "first":
                missed[case.fault][f"{case.dtype} {case.culprit} {what} {wrong[:1]}"] += 1
        alarms = [label for case in clean for label in rule(case)]
        shares = [f"{outcome[what] / len(faulty):6.1%}" for what in ("first", "other", "none")]
        print(f"{name:64} {' '.join(shares)}  {1000 * len(alarms) / labels:.1f}", flush=True)
        if options.tune and rule is ours:
            for fault, each in missed.items():
                print(f"    {fault}: {sum(each.values())}", *[f"\n        {n} x {w}" for w, n in each.most_common(8)])
            print("    alarms:", Counter(alarms).most_common(12))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
